"""Prediction of a slide with some of its own measured spots known, for the protocol `in_context`.

    choice = ContextChoice.of("0.2 random 0")
    store_context(store, row, choice, model)

A share of the tiles that have a spot is the context. The rest is predicted by STPath that is given the context, by STPath or a
fitted predictor plus its smoothed error at the context (`residual_smoothed`), by a new head on STPath's last state (`adapted`),
and from the context alone, without any image (`interpolation_only`). A score in context says something only beside the latter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SettingsError, SpotsError
from stpath_assets.evaluation.intervals import pitch_of
from stpath_assets.evaluation.pairing import pair
from stpath_assets.features import Features, read_features
from stpath_assets.prediction import Context, ModelChoice
from stpath_assets.prediction.predictors import Training, fit_ridge
from stpath_assets.prediction.stored import (
    BASELINES,
    INTERPOLATION,
    models_of,
    predicted_genes,
    read_predicted,
    require_predictions,
)
from stpath_assets.slides import Registered
from stpath_assets.spots import Spots, read_stored
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import CONTEXT_PREDICTIONS, GIGAPATH_FEATURES, SPOT_EXPRESSION
from stpath_assets.tiles import TILE_PX
from stpath_assets.vocabulary.matching import match_genes

CODE_VERSION = "2"
"""Raised when the same predictions and counts give other rows of `context_predictions`."""

BLOCK = 5.0
"""Side of a block of the layout `blocks`, in distances between neighbouring tiles."""

FEWEST = 5
"""Context and held-out tiles that a slide needs each."""

_BANDWIDTHS = (0.7, 1.0, 1.5, 2.5, 4.0, 8.0)  # of the smoother, in distances between neighbours
_NEIGHBOURS = 30
_GENES = 512

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ContextChoice:
    """Which of a slide's tiles are context: a share of those with a spot, `random` or in `blocks`, drawn with a seed."""

    fraction: float
    layout: str = "random"
    seed: int = 0

    @classmethod
    def of(cls, text: str) -> "ContextChoice | None":
        """Return the choice of the setting `context`, such as `0.2` or `0.2 blocks 1`; None for an empty one.

        Raises `SettingsError` for any other text.
        """
        if not (words := text.split()):
            return None
        try:
            fraction, layout, seed = (*words, *("random", "0")[len(words) - 1 :])
            choice = cls(float(fraction), layout, int(seed))
        except ValueError:
            choice = None
        if (
            choice is None
            or not 0 < choice.fraction < 1
            or choice.layout not in ("random", "blocks")
            or choice.seed < 0
        ):
            raise SettingsError(
                f"context {text!r}: give a share between 0 and 1, then random or blocks, then a seed, as in '0.2 random 0'"
            )
        return choice

    @property
    def protocol(self) -> str:
        """The first part of its protocols' names."""
        return f"in_context({self.fraction:g},{self.layout},{self.seed})"

    def draw(self, xy: Matrix) -> npt.NDArray[np.intp]:
        """Return which of the tiles at xy (T, 2) are context, ascending: about the share, at least one. Blocks are whole."""
        rng, size = np.random.default_rng(self.seed), max(1, round(self.fraction * len(xy)))
        if self.layout == "random":
            return np.sort(rng.choice(len(xy), size, replace=False))
        side = BLOCK * (pitch_of(xy) or 1.0)
        _, block = np.unique(np.floor((xy - xy.min(axis=0)) / side), axis=0, return_inverse=True)
        order = rng.permutation(int(block.max()) + 1)
        sizes = np.cumsum(np.bincount(block.ravel())[order])
        taken = order[: int(np.argmin(np.abs(sizes - size))) + 1]
        return np.flatnonzero(np.isin(block.ravel(), taken))


def context_from(predicted: Sequence[Fingerprint], measured: Fingerprint, choice: ContextChoice) -> Fingerprint:
    """Return the fingerprint of a slide's `context_predictions` from those of its predictions, at least one, and its spots."""
    first, *others = predicted
    facts = {k: v for p in [*others, measured] for k, v in p.facts.items() if k not in first.facts}
    return first.extend(CONTEXT_PREDICTIONS.name, CODE_VERSION, context=choice.protocol, **facts)


def store_context(store: Store, row: Registered, choice: ContextChoice | None, model: ModelChoice) -> Outcome:
    """Bring a slide's `context_predictions` up to date with its stored features, spots and predictions.

    `model` is STPath, which takes part if it has predicted the slide. A slide without spots, or without a choice, has none.
    Raises `SpotsError` for a slide with too few tiles that have a spot.
    """
    predicted_from, measured_from = (
        require_predictions(store, row.slide_id),
        store.fingerprint(SPOT_EXPRESSION.name, row.slide_id),
    )
    if choice is None or measured_from is None or not predicted_from:
        store.remove([CONTEXT_PREDICTIONS.name], row.slide_id)
        return Outcome(store.require(GIGAPATH_FEATURES.name, row.slide_id), False)
    fingerprint = context_from(predicted_from, measured_from, choice)
    if store.is_current(CONTEXT_PREDICTIONS.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False)
    features, spots = read_features(store, row.slide_id), read_stored(store, row.slide_id)
    spot, tile = nearest_spots(spots, features)
    drawn = choice.draw(features.centers_px[tile]) if len(tile) else np.empty(0, np.intp)
    if min(len(drawn), len(tile) - len(drawn)) < FEWEST:
        raise SpotsError(
            f"{row.slide_id}: {len(tile)} of its tiles have a spot, too few for context {choice.fraction:g}: at least {FEWEST} "
            f"known and {FEWEST} other ones are needed; run it with --context-fraction 0"
        )
    work = _Work(store, row, features, spots, spot[drawn], tile[drawn])
    flags = np.zeros(len(features.tile_ids), np.int32)
    flags[work.tile] = 1
    keys = {"tile_id": np.array(features.tile_ids, object), "is_context": flags}
    sections = {name: (keys, blocks) for name, blocks in work.sections(model)}
    summary = {"models": list(sections), "protocol": choice.protocol, "context_tiles": len(drawn)}
    store.write_sections(CONTEXT_PREDICTIONS.name, row.slide_id, sections, fingerprint, summary)
    return Outcome(fingerprint, True)


def nearest_spots(spots: Spots, features: Features) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return for each tile that has spots the one nearest to its centre: indices of T spots and of their tiles, ascending."""
    side_px = TILE_PX * features.tile_mpp / features.slide_mpp
    spot, tile = pair(spots.xy_px, features.centers_px, side_px)
    distance = np.linalg.norm(spots.xy_px[spot] - features.centers_px[tile], axis=1)
    order = np.lexsort((distance, tile))
    first = np.unique(tile[order], return_index=True)[1]
    return spot[order][first], tile[order][first]


def context_of(features: Features, spots: Spots) -> Context:
    """Return all spots that lie on a slide's tiles as context. Raises `SpotsError` if none does."""
    spot, tile = nearest_spots(spots, features)
    if not len(tile):
        raise SpotsError(
            f"{features.slide_id}: none of the {len(spots.spot_ids)} spots lies on a tile; are they of this scan?"
        )
    return Context(tile, spots.counts.tocsr()[spot], spots.genes)


Blocks = Iterator[tuple[list[str], npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class _Work:
    """A slide, and the spots and tiles of its context, (M,) each."""

    store: Store
    row: Registered
    features: Features
    spots: Spots
    spot: npt.NDArray[np.intp]
    tile: npt.NDArray[np.intp]

    def sections(self, model: ModelChoice) -> Iterator[tuple[str, Blocks]]:
        """Yield the models of a part in ascending order, each with its blocks of genes."""
        plain = models_of(self.store, self.row.slide_id)
        genes_of = {m: predicted_genes(self.store, self.row.slide_id, m) for m in plain}
        matches = match_genes(sorted({g for genes in genes_of.values() for g in genes}), self.spots.genes)
        names = {m.gene: m.measured for m in matches if m.measured is not None}
        smoother = Smoother.fit(self.features.centers_px[self.tile], self._logs(list(names.values())))
        todo: dict[str, Blocks] = {INTERPOLATION: self._smoothed(smoother, sorted(names), names, None)}
        for m, genes in genes_of.items():
            shared = sorted(gene for gene in genes if gene in names)
            if m.partition(":")[0] not in BASELINES and shared:
                todo[f"residual_smoothed({m})"] = self._smoothed(smoother, shared, names, m)
            if m == model.name and shared:
                todo[f"in_context({m})"] = self._in_context(model, shared)
                todo[f"adapted({m})"] = self._adapted(model, smoother, shared, names)
        yield from sorted(todo.items())

    def _in_context(self, model: ModelChoice, genes: list[str]) -> Blocks:
        context = Context(self.tile, self.spots.counts.tocsr()[self.spot], self.spots.genes)
        f, row = self.features, self.row
        yield from model.load().predict_blocks(
            f.matrix, f.centers_px, row.organ, row.tech, genes, context, tile_ids=f.tile_ids
        )

    def _adapted(self, model: ModelChoice, smoother: "Smoother", genes: list[str], names: dict[str, str]) -> Blocks:
        """Yield what a new head predicts, ridge regression from the network's last state at the known spots, plus its smoothed
        error there.
        """
        f, row = self.features, self.row
        hidden = model.load().hidden(f.matrix, f.centers_px, row.organ, row.tech, tile_ids=f.tile_ids)
        depth = np.log1p(self.spots.depth[self.spot])
        for start in range(0, len(genes), _GENES):
            some = genes[start : start + _GENES]
            known = self._logs([names[gene] for gene in some])
            predicted = fit_ridge(Training(hidden[self.tile], known, depth, some)).predict(hidden).astype(np.float64)
            rest = smoother.at(f.centers_px, known - predicted[self.tile])
            yield some, (predicted + rest).astype(np.float32)

    def _smoothed(self, smoother: "Smoother", genes: list[str], names: dict[str, str], model: str | None) -> Blocks:
        """Yield measured values, or a model's errors, smoothed over all tiles; errors are added to what the model predicts."""
        for start in range(0, len(genes), _GENES):
            some = genes[start : start + _GENES]
            known = self._logs([names[gene] for gene in some])
            base: Any = 0.0
            if model is not None:
                base = read_predicted(self.store, self.row.slide_id, model, some).values.astype(np.float64)
                known = known - base[self.tile]
            yield some, (base + smoother.at(self.features.centers_px, known)).astype(np.float32)

    def _logs(self, measured: list[str]) -> Matrix:
        place = {gene: i for i, gene in enumerate(self.spots.genes)}
        counts = self.spots.counts[:, [place[name] for name in measured]].tocsr()[self.spot]
        return np.log1p(counts.toarray().astype(np.float64))


@dataclass(frozen=True)
class Smoother:
    """A mean of neighbours with Gaussian weights of their distance. The width is the same for all genes."""

    xy: Matrix
    width: float

    @classmethod
    def fit(cls, xy: Matrix, values: Matrix) -> "Smoother":
        """Choose the width for places xy (M, 2) by leave-one-out over values (M, G), each gene with equal weight."""
        pitch = pitch_of(xy) or 1.0
        spread = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), np.inf)

        def error(width: float) -> float:
            one_out = cls(xy, width)._mean(xy, values, leave_out=True)
            return float(np.square((one_out - values) / spread).mean())

        return cls(xy, min((b * pitch for b in _BANDWIDTHS), key=error))

    def at(self, xy: Matrix, values: Matrix) -> Matrix:
        """Return values (M, G) smoothed at places xy (N, 2), (N, G)."""
        return self._mean(xy, values, leave_out=False)

    def _mean(self, xy: Matrix, values: Matrix, leave_out: bool) -> Matrix:
        from sklearn.neighbors import NearestNeighbors

        found = NearestNeighbors(n_neighbors=min(_NEIGHBOURS + leave_out, len(self.xy))).fit(self.xy)
        distance, index = found.kneighbors(xy)
        if leave_out:
            distance, index = distance[:, 1:], index[:, 1:]
        # Relative to the nearest, so that far from all of them the weights are not all 0.
        weights = np.exp((distance[:, :1] ** 2 - distance**2) / (2 * self.width**2))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("nk,nkg->ng", weights, values[index]))
