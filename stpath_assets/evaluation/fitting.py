"""Fits predictors to slides with measured spots.

    reference = sa.fit([(features_c2, "C2_counts.tsv.gz")], name="her2st", genes=50)
    pred = reference.predict(features_c3)

Features of tiles that are centred on spots (`sa.tile(slide, spots=…)`) fit best: they show what was measured.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy

from stpath_assets.errors import FeatureError, SettingsError, SpotsError
from stpath_assets.evaluation.notebook import read_measured
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import PROTOCOLS
from stpath_assets.evaluation.results import is_suspect
from stpath_assets.features import Features, read_features
from stpath_assets.prediction.panels import ranked, read_panel
from stpath_assets.prediction.predictors import KINDS, About, Reference, Space, Training
from stpath_assets.slides import Registered
from stpath_assets.spots import Spots
from stpath_assets.storage import SLIDE_ID, Store
from stpath_assets.tiles import TILE_PX
from stpath_assets.vocabulary.genes import Vocabulary

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
    that were measured on each. `scale` is that of a protocol. `patients` names each slide's. Raises `FeatureError` if slides
    have features of different encoders, `SpotsError` if a gene was not measured on all of them or if too few spots lie on tiles,
    `SettingsError` for an unknown `model` or `scale`.
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
    about = About(model, name, chosen, scale, encoders[0], names, list(patients), len(values))
    return Reference(about, KINDS[model](training), Space.of(features))


def fit_registered(
    store: Store, rows: Sequence[Registered], *, name: str, model: str, genes: str, scale: str
) -> Reference:
    """Fit a predictor to registered slides: their stored features, and the spots that were added with them.

    `genes` is a panel (`panels.read_panel`) or a number, as text. Raises `SpotsError` for a slide without spots, or whose spots
    do not fit its scan; else as `fit`.
    """
    slides = list[tuple[Features, Path]]()
    for row in rows:
        if row.spots_uri is None:
            raise SpotsError(f"{row.slide_id}: has no measured spots to fit to; add it with --spots")
        if is_suspect(store, row.slide_id):
            raise SpotsError(f"{row.slide_id}: its spots may not belong to the scan (spot_registration); leave it out")
        slides.append((read_features(store, row.slide_id), Path(row.spots_uri)))
    chosen = int(genes) if genes.isdecimal() else read_panel(genes, _no_vocabulary)
    known: Any = {"model": model, "scale": scale}
    patients = [row.patient_id for row in rows if row.patient_id is not None]
    return fit(slides, name=name, genes=chosen, patients=patients, **known)


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
