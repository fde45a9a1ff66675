"""Scores of G genes over K spots: pure functions over arrays (K, G), float64. NaN where a score is undefined."""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def score(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> dict[str, Values]:
    """Score predictions against measurements, both (K, G) on one scale. Returns float64 (G,) by column of `evaluation_metrics`.

    - `pearson_r`: Pearson's correlation; undefined if either side is constant or K < 3.
    - `r2`: 1 - SS_res / SS_tot of the prediction itself, not of a line fitted through it; undefined if the measurement is
      constant. Below 0, the measured mean would have been a better prediction.
    - `mse`: mean squared error, in the scale's unit squared; undefined for K = 0.

    Raises `ValueError` for different shapes and values that are not finite, which earlier stages refuse.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"predictions {x.shape} and measurements {y.shape} must have one shape and be finite")
    k, g = x.shape
    if k == 0:
        return {name: np.full(g, np.nan) for name in ("pearson_r", "r2", "mse")}
    ss_res, dy = np.einsum("kg,kg->g", x - y, x - y), y - y.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(np.ptp(y, axis=0) == 0, np.nan, 1 - ss_res / np.einsum("kg,kg->g", dy, dy))
    return {"pearson_r": correlate(x, y), "r2": r2, "mse": ss_res / k}


def correlate(x: npt.ArrayLike, y: npt.ArrayLike) -> Values:
    """Return Pearson's correlation of each column, (K, G) and (K, G) or (K, 1) -> (G,). NaN if either is constant or K < 3."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 3:
        return np.full(np.broadcast_shapes(x.shape, y.shape)[1], np.nan)
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    # Rounding moves the mean of equal values off them, so a sum of squares above 0 does not mean "not constant".
    flat = (np.ptp(x, axis=0) == 0) | (np.ptp(y, axis=0) == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (dx * dy).sum(axis=0) / (np.sqrt((dx * dx).sum(axis=0)) * np.sqrt((dy * dy).sum(axis=0)))
    return np.where(flat | ~np.isfinite(r), np.nan, np.clip(r, -1, 1))


def partial_r(r_xy: Values, r_xd: Values, r_yd: Values) -> Values:
    """Return the partial correlation of x and y given d, from the three correlations, each (G,). NaN if d explains all of one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (r_xy - r_xd * r_yd) / (np.sqrt(1 - r_xd**2) * np.sqrt(1 - r_yd**2))
    left = np.minimum(1 - r_xd**2, 1 - r_yd**2)
    return np.where((left > 1e-12) & np.isfinite(r), np.clip(r, -1, 1), np.nan)
