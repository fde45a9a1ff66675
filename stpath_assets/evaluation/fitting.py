"""Fits predictors to slides with measured spots.

    reference = sa.fit([(features_c2, "C2_counts.tsv.gz")], name="her2st", genes=50)
    pred = reference.predict(features_c3)

Features of tiles that are centred on spots (`sa.tile(slide, spots=…)`) fit best: they show what was measured.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy

from stpath_assets.errors import FeatureError, SettingsError, SpotsError, StpathError
from stpath_assets.evaluation.notebook import read_measured
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import PROTOCOLS
from stpath_assets.evaluation.results import is_suspect
from stpath_assets.features import Features, read_features
from stpath_assets.prediction.panels import ranked, read_panel
from stpath_assets.prediction.predictors import KINDS, About, Reference, Space, Training
from stpath_assets.prediction.references import Stored, is_whole, keep_references, read_references, write_reference
from stpath_assets.prediction.stored import BASELINES
from stpath_assets.progress import track
from stpath_assets.slides import Registered, Registry
from stpath_assets.spots import Spots, read_stored
from stpath_assets.storage import SLIDE_ID, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import GIGAPATH_FEATURES, SPOT_EXPRESSION
from stpath_assets.tiles import TILE_PX
from stpath_assets.vocabulary.genes import Vocabulary

CODE_VERSION = "1"
"""Raised when the same features and spots give another predictor."""

COHORT = "cohort"
"""Instead of slides: all that have features and measured spots which fit their scan."""

FEWEST = 20
"""Paired spots that a fit needs."""

Kind = Literal["ridge", "knn", "depth_only", "mean"]
ScaleName = Literal["raw_log1p", "cp10k_log1p"]
_SCALES = {protocol.name.rpartition(":")[2]: protocol.scale for protocol in PROTOCOLS}


def fit(
    slides: Sequence[tuple[Features, str | Path | Spots]],
    *,
    name: str,
    model: Kind = "ridge",
    genes: Sequence[str] | int | None = 50,
    scale: ScaleName = "raw_log1p",
    patients: Sequence[str] = (),
) -> Reference:
    """Fit a predictor to slides: features of each, and its measured spots, which are paired with the nearest tile.

    `genes` is a list of symbols, a number (so many of the most variable genes of these slides, `panels.ranked`), or None for all
    that were measured on each. `scale` is that of a protocol. `patients` names each slide's, "" for an unknown one.
    Raises `FeatureError` if slides have features of different encoders, `SpotsError` if a gene was not measured on all of them
    or if too few spots lie on tiles, `SettingsError` for an unknown `model` or `scale`. The result has the simplest predictors,
    mean and depth alone, as its `baselines`.
    """
    asks_for_none = isinstance(genes, int) and genes < 1
    if model not in KINDS or scale not in _SCALES or not SLIDE_ID.fullmatch(name) or asks_for_none:
        known = (
            f"models are {', '.join(KINDS)}; scales are {', '.join(_SCALES)}; a name has letters, digits and _.-; "
            "a number of genes is at least 1"
        )
        raise SettingsError(f"fit {name!r}, model {model!r}, scale {scale!r}: {known}")
    encoders = sorted({features.encoder for features, _ in slides})
    if len(encoders) != 1:
        raise FeatureError(
            f"slides to fit to have features of {len(encoders)} encoders ({', '.join(encoders)}); use one"
        )
    measured = [read_measured(spots) for _, spots in slides]
    shared = sorted(set.intersection(*(set(m.genes) for m in measured)))
    listed = [] if genes is None or isinstance(genes, int) else list(dict.fromkeys(genes))
    if missing := sorted(set(listed) - set(shared)):
        raise SpotsError(f"not measured on all slides to fit to: {', '.join(missing[:10])}; leave them out")
    chosen = _most_variable(measured, shared, genes) if isinstance(genes, int) else listed or shared
    parts = [_paired(features, spots, chosen, scale) for (features, _), spots in zip(slides, measured, strict=True)]
    features, values, log_depth = (np.concatenate(some) for some in zip(*parts, strict=True))
    if len(values) < FEWEST:
        raise SpotsError(f"only {len(values)} spots lie on tiles of the slides to fit to, and {FEWEST} are needed")
    training = Training(features, values, log_depth, chosen)
    names = [features.slide_id for features, _ in slides]
    about = About(model, name, chosen, scale, encoders[0], names, list(patients) or [""] * len(names), len(values))
    simpler = {kind: KINDS[kind](training) for kind in BASELINES if kind != model}
    return Reference(about, KINDS[model](training), Space.of(features), simpler)


@dataclass(frozen=True)
class Asked:
    """What a stored predictor is fitted to: a kind, the slides or `cohort`, genes (a panel or a number, as text), the scale,
    and whether copies are made that leave out a patient each.
    """

    name: str
    kind: str
    slides: list[str]
    genes: str
    scale: str
    copies: bool = True

    @property
    def model(self) -> str:
        """Its name in tables."""
        return f"{self.kind}:{self.name}"

    def to_json(self) -> str:
        """Return it as JSON, for the column `asked`."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


def store_reference(store: Store, asked: Asked) -> tuple[Stored, bool]:
    """Bring a stored predictor up to date with its slides' stored features and spots, and with its copies that were each fitted
    without one patient (or one slide, where its patient is not known).

    Returns the predictor, and whether it was fitted now. Raises `SpotsError` for a slide without spots or whose spots do not fit
    its scan, `SettingsError` if other kinds of its name were asked for something else; else as `fit`.
    """
    _check_kin(store, asked)
    rows = _slides_of(store, asked)
    made_from = _made_from(store, asked, rows)
    known = [r for r in read_references(store) if r.model == asked.model]
    if known and known[0].digest == made_from.digest and all(is_whole(store, r) for r in known):
        return known[0], False
    genes = int(asked.genes) if asked.genes.isdecimal() else read_panel(asked.genes, _no_vocabulary)
    measured = {row.slide_id: (read_features(store, row.slide_id), read_stored(store, row.slide_id)) for row in rows}
    groups = {group_of(row): [r for r in rows if group_of(r) != group_of(row)] for row in rows}
    without = {left_out: kept for left_out, kept in groups.items() if kept} if asked.copies else {}
    stored = []
    for left_out, kept in track({"": rows, **without}.items(), asked.model, 1 + len(without), lambda _: 1):
        given: Any = {"model": asked.kind, "scale": asked.scale}
        patients = [row.patient_id or "" for row in kept]
        fitted = fit([measured[r.slide_id] for r in kept], name=asked.name, genes=genes, patients=patients, **given)
        stored.append(_row_of(store, asked, fitted, made_from, left_out, kept))
    keep_references(store, stored)
    return next(r for r in read_references(store) if r.model == asked.model), True


def refresh_references(store: Store) -> dict[str, bool]:
    """Bring all stored predictors up to date with their slides. Returns which were fitted now, by model.

    One that cannot be fitted, because a slide was retired for example, costs the others nothing. Raises `SpotsError` with its
    reason when they are done.
    """
    fitted, reasons = dict[str, bool](), list[str]()
    for asked in [Asked(**json.loads(r.asked)) for r in read_references(store) if not r.left_out]:
        try:
            fitted[asked.model] = store_reference(store, asked)[1]
        except StpathError as e:
            reasons.append(f"{asked.model}: {e}")
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise SpotsError(f"{reasons[0]}{more}")
    return fitted


def group_of(row: Registered) -> str:
    """Return what is left out together with a slide: its patient, or the slide if its patient is not known."""
    return f"slide {row.slide_id}" if row.patient_id is None else f"patient {row.patient_id}"


def _slides_of(store: Store, asked: Asked) -> list[Registered]:
    """Return the slides to fit to. Raises `SpotsError` for one that was named and cannot be used; a cohort leaves it out."""
    if asked.slides != [COHORT]:
        rows = Registry(store).choose(asked.slides)
        for row in rows:
            if why := _unfit(store, row):
                raise SpotsError(f"{row.slide_id}: {why}")
        return rows
    rows = [row for row in Registry(store).live() if not _unfit(store, row)]
    if not rows:
        raise SpotsError("no slide has features and measured spots to fit to; run some first: stpath-assets run")
    return rows


def _unfit(store: Store, row: Registered) -> str | None:
    """Return why a slide cannot be fitted to, or None."""
    if row.spots_uri is None:
        return "has no measured spots to fit to; add it with --spots"
    if is_suspect(store, row.slide_id):
        return "its spots may not belong to the scan (spot_registration); leave it out"
    if any(store.part(table, row.slide_id) is None for table in (GIGAPATH_FEATURES.name, SPOT_EXPRESSION.name)):
        return f"has no features or spots yet; run: stpath-assets run {row.slide_id}"
    return None


def _made_from(store: Store, asked: Asked, rows: Sequence[Registered]) -> Fingerprint:
    """Return the fingerprint of a predictor: what was asked for, and the parts of its slides."""
    parts = {
        row.slide_id: [
            store.require(GIGAPATH_FEATURES.name, row.slide_id).digest,
            store.require(SPOT_EXPRESSION.name, row.slide_id).digest,
            row.patient_id,
        ]
        for row in rows
    }
    panel = None if asked.genes.isdecimal() else read_panel(asked.genes, _no_vocabulary)
    return Fingerprint({**asdict(asked), "fitted_code": CODE_VERSION, "slides": parts, "panel": panel})


def _check_kin(store: Store, asked: Asked) -> None:
    """Raise `SettingsError` if another kind of the name was asked for something else: they share their baselines."""
    for other in read_references(store):
        theirs = Asked(**json.loads(other.asked))
        if other.left_out or theirs.name != asked.name or theirs.kind == asked.kind:
            continue
        if replace(theirs, kind=asked.kind) != asked:
            raise SettingsError(
                f"{theirs.model} was fitted to other slides, genes or another scale than {asked.model} is to be; "
                "choose another name"
            )


def _row_of(
    store: Store, asked: Asked, fitted: Reference, made_from: Fingerprint, left_out: str, rows: Sequence[Registered]
) -> dict[str, Any]:
    """Write a fitted predictor, and return its row of `reference_models`."""
    about = fitted.about
    digest = made_from.digest if not left_out else Fingerprint({**made_from.facts, "left_out": left_out}).digest
    file, sha256 = write_reference(store, fitted, digest)
    return {
        "model": about.model, "left_out": left_out, "asked": asked.to_json(), "slides": about.slides,
        "patients": about.patients, "scans": [row.sha256 for row in rows], "n_spots": about.spots,
        "n_genes": len(about.genes), "encoder": about.encoder, "digest": digest, "file": file, "sha256": sha256,
        "fitted_at": datetime.now(UTC),
    }  # fmt: skip


def _no_vocabulary() -> Vocabulary:
    raise SettingsError(
        "give a number of genes, such as --genes 50, for the most variable ones of the slides to fit to"
    )


def _most_variable(measured: Sequence[Spots], shared: list[str], k: int) -> list[str]:
    """Return the most variable genes over all spots, at most k, of those that all slides have."""
    columns = [{gene: i for i, gene in enumerate(spots.genes)} for spots in measured]
    counts = [spots.counts[:, [of[gene] for gene in shared]] for spots, of in zip(measured, columns, strict=True)]
    return list(islice(ranked(scipy.sparse.vstack(counts, format="csc"), shared), k))


def _paired(
    features: Features, measured: Spots, genes: list[str], scale: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, values of genes on a scale, and log depth of the spots of a slide that have a tile."""
    side_px = TILE_PX * features.tile_mpp / features.slide_mpp
    spot, tile = pair(measured.xy_px, features.centers_px, side_px)
    columns = {gene: i for i, gene in enumerate(measured.genes)}
    depth = measured.depth[spot]
    counts = measured.counts[:, [columns[gene] for gene in genes]].tocsr()[spot].toarray().astype(np.float64)
    return features.matrix[tile], _SCALES[scale](counts, depth), np.log1p(depth)
