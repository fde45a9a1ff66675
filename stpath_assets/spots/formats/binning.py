"""Sums measurements that are finer than a tile, such as cells or bins of 8 µm, over squares of a tile's size."""

import math

import numpy as np
import numpy.typing as npt
import scipy

SIDE_UM = 112.0
"""Side of a square: that of a tile of 224 px at 0.5 µm/px, so that a tile centred on a square shows what was counted in it."""


def sum_squares(
    xy_px: npt.NDArray[np.float64], counts: "scipy.sparse.csr_matrix", side_px: float, fewest: int
) -> tuple[list[str], npt.NDArray[np.float64], "scipy.sparse.csr_matrix", int]:
    """Sum N rows of counts (N, G) at xy_px (N, 2) over squares of side_px that hold at least `fewest` of them.

    Returns the squares' ids, `r` and `c` with their numbers from the image's top-left corner, their centres (M, 2), their counts
    (M, G), and how many rows lie in squares with fewer.
    """
    columns, rows = np.floor(xy_px / side_px).astype(np.int64).T
    squares, of_row, sizes = np.unique(np.stack([rows, columns]), axis=1, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(sizes >= fewest)
    place = np.full(squares.shape[1], -1)
    place[kept] = np.arange(len(kept))
    mine = np.flatnonzero(place[of_row] >= 0)
    gather = scipy.sparse.csr_matrix(
        (np.ones(len(mine), counts.dtype), (place[of_row[mine]], mine)), shape=(len(kept), len(xy_px))
    )
    ids = [f"r{row:05d}c{column:05d}" for row, column in squares[:, kept].T]
    centres = (squares[::-1, kept].T + 0.5) * side_px
    return ids, centres, (gather @ counts).tocsr(), len(xy_px) - len(mine)


def side_px(um_per_px: float) -> float:
    """Return a square's side in pixels. Raises `ValueError` for a scale that can be none."""
    if not (math.isfinite(um_per_px) and um_per_px > 0):
        raise ValueError(f"{um_per_px} µm per pixel")
    return SIDE_UM / um_per_px
