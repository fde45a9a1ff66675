"""Predictors that are fitted to measured slides, beside STPath: they predict what they were shown, from features of tiles.

`reference` holds a fitted predictor with what it was fitted to, and keeps it in a file. Each kind is a file: `linear` (ridge
regression, the depth alone, the mean) and `neighbours`. They are fitted by `evaluation.fitting`, which pairs spots with tiles.
"""

from collections.abc import Callable

from stpath_assets.prediction.predictors.base import Predictor, Training
from stpath_assets.prediction.predictors.linear import fit_depth, fit_mean, fit_ridge
from stpath_assets.prediction.predictors.neighbours import fit_neighbours
from stpath_assets.prediction.predictors.reference import About, Reference, Space

KINDS: dict[str, Callable[[Training], Predictor]] = {
    "ridge": fit_ridge,
    "knn": fit_neighbours,
    "depth_only": fit_depth,
    "mean": fit_mean,
}
"""How each kind of predictor is fitted."""

__all__ = ["KINDS", "About", "Predictor", "Reference", "Space", "Training", "fit_ridge"]
