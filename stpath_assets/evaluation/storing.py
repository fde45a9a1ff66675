"""Scores a slide's stored prediction against its measured spots, and stores `evaluation_metrics`.

    store_metrics(store, slide_id)

Some genes are in memory at a time. Reading measurements is in `spots`, pairing in `pairing`, what is compared in `protocols`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stpath_assets.evaluation import protocols
from stpath_assets.evaluation.differences import differences_of
from stpath_assets.evaluation.intervals import Spacing, fisher
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import PROTOCOLS, RAW, Protocol, noise_ceiling, protocols_of
from stpath_assets.evaluation.scores import Values, correlate, partial_r, score
from stpath_assets.prediction.references import relations_of
from stpath_assets.prediction.stored import BASELINES, models_of, predicted_genes, read_predicted, require_predictions
from stpath_assets.spots import read_depth
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import (
    CONTEXT_PREDICTIONS,
    EVALUATION_METRICS,
    GENE_MATCHES,
    MODEL_COMPARISON,
    PREDICTION_ERRORS,
    SPOT_EXPRESSION,
    TILE_GRIDS,
)
from stpath_assets.tiles import centers_of, require_current_grid, sides_of
from stpath_assets.vocabulary.genes import Vocabulary
from stpath_assets.vocabulary.matching import match_genes

SHARES = 40
"""Equal shares of a slide's spots, the middles of whose errors are stored."""

CONSTANT = "mean:"
"""Models of which no r is defined, so that there is nothing to compare."""

_TABLES = (EVALUATION_METRICS, MODEL_COMPARISON, GENE_MATCHES, PREDICTION_ERRORS)
_GENES = 512  # scored at a time, so that memory does not grow with the panel


@dataclass(frozen=True)
class Paired:
    """The K spots of a slide that have a tile, for one gene: measured and predicted log1p expression, each (K,)."""

    measured_log1p: npt.NDArray[np.float64]
    predicted_log1p: npt.NDArray[np.float32]


def metrics_from(predicted: Sequence[Fingerprint], measured: Fingerprint) -> Fingerprint:
    """Return the fingerprint of a slide's `evaluation_metrics` from those of its predictions, at least one, and its spots."""
    first, *others = predicted
    facts = {k: v for p in [*others, measured] for k, v in p.facts.items() if k not in first.facts}
    names = [protocol.name for protocol in PROTOCOLS]
    return first.extend(EVALUATION_METRICS.name, protocols.CODE_VERSION, protocols=names, **facts)


def store_metrics(store: Store, slide_id: str, vocabulary: Callable[[], Vocabulary] | None = None) -> Outcome:
    """Bring a slide's `evaluation_metrics` up to date with its stored predictions and spots, a row for each gene, model and
    protocol; with `model_comparison` and `gene_matches`.

    `vocabulary` is called if genes were measured by Ensembl id. A slide without measured spots has no metrics. If no spot lies on
    a tile, the table is empty. A note says so.
    """
    predicted_from = require_predictions(store, slide_id)
    if store.part(CONTEXT_PREDICTIONS.name, slide_id) is not None:
        predicted_from.append(require_current_grid(store, slide_id, CONTEXT_PREDICTIONS.name))
    measured_from = store.fingerprint(SPOT_EXPRESSION.name, slide_id)
    if measured_from is None or not predicted_from:
        store.remove([table.name for table in _TABLES], slide_id)
        why = (
            "has no measured spots (--spots)" if measured_from is None else "has no prediction by the models asked for"
        )
        made_from = predicted_from[0] if predicted_from else store.require(TILE_GRIDS.name, slide_id)
        return Outcome(made_from, False, (f"{slide_id}: {why}, so it is not scored",))
    fingerprint = metrics_from(predicted_from, measured_from)
    if all(store.is_current(table.name, slide_id, fingerprint) for table in _TABLES):
        return Outcome(fingerprint, False)
    measured = read_depth(store, slide_id)
    pairs = _pairs(store, slide_id, measured.xy_px)
    notes, tables, relations = [], [EVALUATION_METRICS.schema.empty_table()], relations_of(store, slide_id)
    if len(pairs.spot) == 0:
        notes.append(f"{slide_id}: none of its {len(measured.depth)} spots lies on a tile, so its metrics are empty")
    in_context = read_context(store, slide_id)
    genes_of = {m: predicted_genes(store, slide_id, m) for m in (*models_of(store, slide_id), *in_context.models)}
    matches = match_genes(
        list(dict.fromkeys(g for genes in genes_of.values() for g in genes)), measured.genes, vocabulary
    )
    known = {m.gene: m.measured for m in matches if m.measured is not None}
    if (missing := [m.gene for m in matches if m.measured is None]) and len(pairs.spot):
        notes.append(
            f"{slide_id}: {len(missing)} predicted genes were not measured and are not scored: {_some(missing)}"
        )
    if other := [f"{m.gene} as {m.measured}" for m in matches if m.measured not in (None, m.gene)]:
        notes.append(f"{slide_id}: {len(other)} genes were measured under another name: {_some(other)}")
    genes_of = {model: [gene for gene in genes if gene in known] for model, genes in genes_of.items()}
    plain = {model: genes for model, genes in genes_of.items() if model not in in_context.models}
    designs = [(pairs, plain, PROTOCOLS)]
    if in_context.models:
        designs.append((pairs.without(in_context.tiles), genes_of, protocols_of(in_context.protocol)))
    different, errors = [MODEL_COMPARISON.schema.empty_table()], [PREDICTION_ERRORS.schema.empty_table()]
    for some, of_models, these in designs if len(pairs.spot) else ():
        read, depth = partial(_values, store, slide_id, some, known), measured.depth[some.spot]
        for model, genes in of_models.items():
            of_model, relation = partial(read, model), relations.get(model)
            tables += metrics_of(slide_id, model, depth, some.xy_um, of_model, genes, relation, these)
            if these is PROTOCOLS and model.partition(":")[0] not in BASELINES:
                errors += errors_of(slide_id, model, of_model, genes)
        compared = {m: genes for m, genes in of_models.items() if not m.startswith(CONSTANT)}
        different += differences_of(slide_id, compared, depth, some.xy_um, read, these)
    with store.stage(slide_id, fingerprint) as stage:
        stage.write(EVALUATION_METRICS.name, pa.concat_tables(tables).combine_chunks())
        stage.write(MODEL_COMPARISON.name, pa.concat_tables(different).combine_chunks())
        found = [{"slide_id": slide_id, **m.__dict__} for m in sorted(matches, key=lambda m: m.gene)]
        stage.write(PREDICTION_ERRORS.name, pa.concat_tables(errors).combine_chunks())
        stage.write(GENE_MATCHES.name, pa.Table.from_pylist(found, GENE_MATCHES.schema))
    return Outcome(fingerprint, True, tuple(dict.fromkeys(notes)))


def metrics_of(
    slide_id: str,
    model: str,
    depth: Values,
    xy_um: Values,
    read: Callable[[Sequence[str]], tuple[Values, Values]],
    genes: Sequence[str],
    relation: str | None = None,
    protocols: Sequence[Protocol] = PROTOCOLS,
) -> Iterator[pa.Table]:
    """Yield a slide's rows of `evaluation_metrics`, some genes at a time.

    `depth` (K,) is the sum of each paired spot's counts over all measured genes, `xy_um` (K, 2) its place. `read(genes)` returns
    predicted log1p expression and raw counts of some genes, each (K, G). `relation` is the column of that name.
    """
    if not genes:
        return
    spacing = Spacing.of(xy_um)
    for start in range(0, len(genes), _GENES):
        part = genes[start : start + _GENES]
        predicted, counts = read(part)
        for protocol in protocols:
            scores = _scores(protocol, predicted, counts, depth, spacing)
            columns = {name: pa.array(values, mask=np.isnan(values)) for name, values in scores.items()}
            named = {"slide_id": slide_id, "model": model, "protocol": protocol.name, "relation": relation}
            repeated = {name: [value] * len(part) for name, value in named.items()}
            rows = {**repeated, "gene": list(part), "n_spots": [len(depth)] * len(part), **columns}
            yield pa.Table.from_pydict(rows, EVALUATION_METRICS.schema)


def errors_of(
    slide_id: str, model: str, read: Callable[[Sequence[str]], tuple[Values, Values]], genes: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield a slide's rows of `prediction_errors`, some genes at a time; `read` as for `metrics_of`."""
    middles = (np.arange(SHARES) + 0.5) / SHARES
    for start in range(0, len(genes), _GENES):
        part = genes[start : start + _GENES]
        predicted, counts = read(part)
        found = np.quantile(np.abs(predicted - np.log1p(counts)), middles, axis=0).T.astype(np.float32)
        repeated = {"slide_id": slide_id, "model": model, "protocol": RAW.name}
        columns = {name: [value] * len(part) for name, value in repeated.items()}
        yield pa.Table.from_pydict({**columns, "gene": part, "quantiles": list(found)}, PREDICTION_ERRORS.schema)


def _scores(
    protocol: Protocol, predicted: Values, counts: Values, depth: Values, spacing: Spacing
) -> dict[str, Values]:
    measured, log_depth = protocol.scale(counts, depth), np.log1p(depth)[:, None]
    scores, n = score(predicted, measured), spacing.effective_n(predicted, measured)
    low, high = fisher(scores["pearson_r"], n)
    of_depth = correlate(measured, log_depth)
    return {
        **scores,
        **{f"mean_{name}": values.mean(axis=0) for name, values in (("predicted", predicted), ("measured", measured))},
        **{f"sd_{name}": values.std(axis=0) for name, values in (("predicted", predicted), ("measured", measured))},
        "pearson_low": low,
        "pearson_high": high,
        "n_effective": n,
        "r_depth": of_depth,
        "r_beyond_depth": partial_r(scores["pearson_r"], correlate(predicted, log_depth), of_depth),
        "noise_ceiling": noise_ceiling(counts, depth, protocol.scale),
    }


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (", …" if len(items) > 5 else "")


@dataclass(frozen=True)
class InContext:
    """A slide's stored predictions in context: their models, the first part of their protocols' names, and the context's tiles,
    as indices.
    """

    models: list[str]
    protocol: str
    tiles: npt.NDArray[np.intp]


def read_context(store: Store, slide_id: str) -> InContext:
    """Return a slide's predictions in context; without models if there are none."""
    if store.part(CONTEXT_PREDICTIONS.name, slide_id) is None:
        return InContext([], "", np.empty(0, np.intp))
    about = store.summary(CONTEXT_PREDICTIONS.name, slide_id)
    keys = store.read_by_gene(CONTEXT_PREDICTIONS.name, slide_id, [], about["models"][0]).keys
    return InContext(about["models"], about["protocol"], np.flatnonzero(keys["is_context"]))


def read_matches(store: Store, slide_id: str) -> dict[str, str]:
    """Return the measured name of each scored gene of a slide."""
    rows = store.read(GENE_MATCHES.name, slide_id, ["gene", "measured"]).to_pylist()
    return {row["gene"]: row["measured"] for row in rows if row["measured"] is not None}


def read_scores(store: Store, slide_id: str, protocol: str, model: str) -> dict[str, dict[str, float | None]]:
    """Return the stored scores of a model for a slide's genes on one protocol's scale, by gene and column."""
    wanted = (pc.field("protocol") == protocol) & (pc.field("model") == model)
    return {row["gene"]: row for row in store.read(EVALUATION_METRICS.name, slide_id).filter(wanted).to_pylist()}


def read_pairs(store: Store, slide_id: str, model: str, genes: list[str]) -> dict[str, Paired]:
    """Return the paired values of those `genes` that are both predicted by a model and measured, on the scale of
    `protocols.RAW`.
    """
    require_predictions(store, slide_id)
    names = read_matches(store, slide_id)
    measured = store.read_by_gene(SPOT_EXPRESSION.name, slide_id, [names[g] for g in genes if g in names])
    predicted = read_predicted(store, slide_id, model, genes)
    pairs = _pairs(store, slide_id, np.stack([measured.keys["x_px"], measured.keys["y_px"]], axis=1))
    columns = {g: i for i, g in enumerate(measured.genes)}
    return {
        g: Paired(
            np.log1p(measured.values[pairs.spot, columns[names[g]]].astype(float)), predicted.values[pairs.tile, i]
        )
        for i, g in enumerate(predicted.genes)
        if g in names and len(pairs.spot)
    }


@dataclass(frozen=True)
class _Pairs:
    """Indices of K spots and of their tiles, and the places of these spots, (K, 2) µm."""

    spot: npt.NDArray[np.intp]
    tile: npt.NDArray[np.intp]
    xy_um: Values

    def without(self, tiles: npt.NDArray[np.intp]) -> "_Pairs":
        """Return the pairs of other tiles than these."""
        kept = ~np.isin(self.tile, tiles)
        return _Pairs(self.spot[kept], self.tile[kept], self.xy_um[kept])


def _pairs(store: Store, slide_id: str, xy_px: Values) -> _Pairs:
    tiles = store.read(TILE_GRIDS.name, slide_id)
    side_px, side_y_px = sides_of(tiles)
    # Distances are physical: scaled to pixels of x, in which a tile is square even if the scan's pixels are not.
    xy = xy_px.astype(np.float64) * (1.0, side_px / side_y_px)
    spot, tile = pair(xy, centers_of(tiles) * (1.0, side_px / side_y_px), side_px)
    um_per_px = tiles["tile_px"][0].as_py() * tiles["mpp"][0].as_py() / side_px
    return _Pairs(spot, tile, xy[spot] * um_per_px)


def _values(
    store: Store, slide_id: str, pairs: _Pairs, names: Mapping[str, str], model: str, genes: Sequence[str]
) -> tuple[Values, Values]:
    """Return predicted values and counts of pairs, each (K, G), in the order of `genes`; `names` has their measured names."""
    predicted = read_predicted(store, slide_id, model, genes)
    measured = store.read_by_gene(SPOT_EXPRESSION.name, slide_id, [names[gene] for gene in genes])
    column = {name: i for i, name in enumerate(measured.genes)}
    counts = measured.values[:, [column[names[gene]] for gene in genes]]
    assert predicted.genes == list(genes)
    return predicted.values[pairs.tile].astype(np.float64), counts[pairs.spot].astype(np.float64)
