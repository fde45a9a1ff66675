"""Scores predicted against measured expression: pairs spots with their nearest tiles, and scores each gene.

Pure functions over arrays, and the rows of `evaluation_metrics`. Reading measurements belongs in `spots`.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy

from stpath_assets.tables import EVALUATION_METRICS

CODE_VERSION = "1"
"""Raised when the same predictions and counts give other rows of `evaluation_metrics`."""

PROTOCOL = "zero_shot:nearest_tile"
"""The model saw no counts of the slide. Spots are paired by `pair` and scored on log1p of raw counts."""

_TIE = 1 + 1e-9  # distances that differ by less are the same: rounding must not choose the tile
_BLOCK = 512  # genes scored at a time, so that memory does not grow with the panel
_SCORES = ("pearson_r", "pearson_low", "pearson_high", "r2", "mse")
_Z_95 = NormalDist().inv_cdf(0.975)

Counts: TypeAlias = "npt.NDArray | scipy.sparse.csr_matrix | scipy.sparse.csc_matrix"


def pair(
    spot_xy_px: npt.NDArray, tile_xy_px: npt.NDArray, side_px: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pair each spot with the nearest tile centre. Returns the indices of K spots, ascending, and of their K tiles.

    `spot_xy_px` (N, 2) and `tile_xy_px` (M, 2) are centres, `side_px` is a tile's side, all in level-0 pixels. A spot is left
    out if every centre is further away than side_px / sqrt(2), half a tile's diagonal. So every spot inside a tile is paired,
    and a spot outside is paired if it is no further from the centre than the tile's corners. Of tiles at equal distance, the
    one with the lowest index is taken.
    """
    spot_xy_px, tile_xy_px = (np.asarray(xy, np.float64).reshape(-1, 2) for xy in (spot_xy_px, tile_xy_px))
    if not len(spot_xy_px) or not len(tile_xy_px):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    tree = scipy.spatial.cKDTree(tile_xy_px)
    distance, nearest = map(np.asarray, tree.query(spot_xy_px))
    spots = np.flatnonzero(distance <= side_px / math.sqrt(2) * _TIE)
    ties = tree.query_ball_point(spot_xy_px[spots], distance[spots] * _TIE)
    tiles = [min(tied, default=nearest[spot]) for spot, tied in zip(spots, ties, strict=True)]
    return spots, np.array(tiles, np.intp)


def score(predicted: npt.NDArray, measured: npt.NDArray) -> dict[str, npt.NDArray[np.float64]]:
    """Score G genes over K spots. Returns float64 (G,) by column name of `evaluation_metrics`, NaN if undefined.

    `predicted` (K, G) is log1p expression, `measured` (K, G) raw counts, whose log1p is taken here.

    - `pearson_r`: Pearson's correlation; undefined if either side is constant or K < 3.
    - `pearson_low`, `pearson_high`: its 95 % interval, tanh(atanh r ± 1.96 / sqrt(K - 3)) (Fisher, Metron 1, 1921);
      undefined for K <= 3. It assumes independent spots. Neighbours are not independent, so the true interval is wider.
    - `r2`: 1 - SS_res / SS_tot of the prediction itself, not of a line fitted through it; undefined if the measurement is
      constant. Below 0, the measured mean would have been a better prediction.
    - `mse`: mean squared error, log1p counts squared; undefined for K = 0.

    Raises `ValueError` for different shapes and values that are not finite, which earlier stages refuse.
    """
    x, y = np.asarray(predicted, np.float64), np.log1p(np.asarray(measured, np.float64))
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"predictions {x.shape} and counts {y.shape} must have one shape and be finite, counts >= 0")
    k, g = x.shape
    if k == 0:
        return {name: np.full(g, np.nan) for name in _SCORES}
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    ss_x, ss_y, ss_res = (np.einsum("kg,kg->g", d, d) for d in (dx, dy, x - y))
    # Rounding moves the mean of equal values off them, so a sum of squares above 0 does not mean "not constant".
    flat_x, flat_y = (np.ptp(values, axis=0) == 0 for values in (x, y))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.einsum("kg,kg->g", dx, dy) / (np.sqrt(ss_x) * np.sqrt(ss_y))
        r = np.where(flat_x | flat_y | (k < 3) | ~np.isfinite(r), np.nan, np.clip(r, -1, 1))
        reach = _Z_95 / math.sqrt(k - 3) if k > 3 else math.nan
        z = np.arctanh(r)
        r2 = np.where(flat_y, np.nan, 1 - ss_res / ss_y)
    return dict(zip(_SCORES, (r, np.tanh(z - reach), np.tanh(z + reach), r2, ss_res / k), strict=True))


def metrics_table(
    slide_id: str,
    model: str,
    genes: Sequence[str],
    predicted: npt.NDArray,
    measured_genes: Sequence[str],
    measured_counts: Counts,
    protocol: str = PROTOCOL,
) -> tuple[pa.Table, list[str]]:
    """Return a slide's rows of `evaluation_metrics`, in the order of `genes`, and the genes that were not measured.

    `predicted` (K, G) is log1p expression of `genes`, `measured_counts` (K, H) raw counts of `measured_genes`, dense or sparse.
    Row k of both is the k-th pair of `pair`. Without pairs (K = 0) the table is empty.
    """
    if predicted.shape[0] != measured_counts.shape[0]:
        raise ValueError(f"{predicted.shape[0]} predictions are paired with {measured_counts.shape[0]} spots")
    columns = {gene: i for i, gene in enumerate(measured_genes)}
    shared = [(i, columns[gene]) for i, gene in enumerate(genes) if gene in columns]
    missing = [gene for gene in genes if gene not in columns]
    counts: Any = (
        scipy.sparse.csc_matrix(measured_counts) if scipy.sparse.issparse(measured_counts) else measured_counts
    )
    blocks = [empty_metrics()]
    for start in range(0, len(shared) if predicted.shape[0] else 0, _BLOCK):
        of_predicted, of_measured = map(list, zip(*shared[start : start + _BLOCK], strict=True))
        block = counts[:, of_measured]
        scores = score(predicted[:, of_predicted], block.toarray() if scipy.sparse.issparse(block) else block)
        n = len(of_predicted)
        rows = {
            "slide_id": [slide_id] * n,
            "gene": [genes[i] for i in of_predicted],
            "model": [model] * n,
            "protocol": [protocol] * n,
            "n_spots": [predicted.shape[0]] * n,
            **{name: pa.array(values, mask=np.isnan(values)) for name, values in scores.items()},
        }
        blocks.append(pa.Table.from_pydict(rows, EVALUATION_METRICS.schema))
    return pa.concat_tables(blocks).combine_chunks(), missing


def empty_metrics() -> pa.Table:
    """Return `evaluation_metrics` without rows, for a slide without measured expression."""
    return EVALUATION_METRICS.schema.empty_table()
