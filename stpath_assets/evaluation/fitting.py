"""Fits predictors to slides with measured spots.

    reference = sa.fit([(features_c2, "C2_counts.tsv.gz")], name="her2st", genes=50)
    pred = reference.predict(features_c3)

Features of tiles that are centred on spots (`sa.tile(slide, spots=…)`) fit best: they show what was measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from stpath_assets.errors import FeatureError, SettingsError, SpotsError
from stpath_assets.evaluation.notebook import read_measured
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import PROTOCOLS
from stpath_assets.prediction.predictors import KINDS, About, Reference, Space, Training
from stpath_assets.spots import Spots
from stpath_assets.storage import SLIDE_ID
from stpath_assets.tiles import TILE_PX

if TYPE_CHECKING:
    from stpath_assets.features import Features

FEWEST = 20
"""Paired spots that a fit needs."""

Kind = Literal["ridge", "knn", "depth_only", "mean"]
ScaleName = Literal["raw_log1p", "cp10k_log1p"]
_SCALES = {protocol.name.rpartition(":")[2]: protocol.scale for protocol in PROTOCOLS}


def fit(
    slides: "Sequence[tuple[Features, str | Path | Spots]]",
    *,
    name: str,
    model: Kind = "ridge",
    genes: Sequence[str] | int = 50,
    scale: ScaleName = "raw_log1p",
    patients: Sequence[str] = (),
) -> Reference:
    """Fit a predictor to slides: features of each, and its measured spots, which are paired with the nearest tile.

    `genes` is a list of symbols, or a number: so many of the most variable genes of these slides. `scale` is that of a protocol.
    `patients` names each slide's. Raises `FeatureError` if slides have features of different encoders, `SpotsError` if a gene was
    not measured on all of them or if too few spots lie on tiles, `SettingsError` for an unknown `model` or `scale`.
    """
    if model not in KINDS or scale not in _SCALES or not SLIDE_ID.fullmatch(name):
        known = f"models are {', '.join(KINDS)}; scales are {', '.join(_SCALES)}; a name has letters, digits and _.-"
        raise SettingsError(f"fit {name!r}, model {model!r}, scale {scale!r}: {known}")
    encoders = sorted({features.encoder for features, _ in slides})
    if len(encoders) != 1:
        raise FeatureError(
            f"slides to fit to have features of {len(encoders)} encoders ({', '.join(encoders)}); use one"
        )
    measured = [read_measured(spots) for _, spots in slides]
    shared = sorted(set.intersection(*(set(m.genes) for m in measured)))
    if not isinstance(genes, int) and (missing := [gene for gene in genes if gene not in set(shared)]):
        raise SpotsError(f"not measured on all slides to fit to: {', '.join(missing[:10])}; leave them out")
    chosen = shared if isinstance(genes, int) else list(genes)
    parts = [_paired(features, spots, chosen, scale) for (features, _), spots in zip(slides, measured, strict=True)]
    features, values, log_depth = (np.concatenate(some) for some in zip(*parts, strict=True))
    if len(values) < FEWEST:
        raise SpotsError(f"only {len(values)} spots lie on tiles of the slides to fit to, and {FEWEST} are needed")
    if isinstance(genes, int):
        best = np.sort(np.argsort(-values.var(axis=0), kind="stable")[:genes])
        chosen, values = [chosen[i] for i in best], values[:, best]
    training = Training(features, values, log_depth, chosen)
    names = [features.slide_id for features, _ in slides]
    about = About(model, name, chosen, scale, encoders[0], names, list(patients), len(values))
    return Reference(about, KINDS[model](training), Space.of(features))


def _paired(
    features: "Features", measured: Spots, genes: list[str], scale: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, values of genes on a scale, and log depth of the spots of a slide that have a tile."""
    side_px = TILE_PX * features.tile_mpp / features.slide_mpp
    spot, tile = pair(measured.xy_px, features.centers_px, side_px)
    columns = {gene: i for i, gene in enumerate(measured.genes)}
    depth = np.asarray(measured.counts.sum(axis=1), np.float64).ravel()[spot]
    counts = measured.counts[:, [columns[gene] for gene in genes]].tocsr()[spot].toarray().astype(np.float64)
    return features.matrix[tile], _SCALES[scale](counts, depth), np.log1p(depth)
