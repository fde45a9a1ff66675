"""Pairs spots with tiles."""

import math

import numpy as np
import numpy.typing as npt
import scipy

_TIE = 1 + 1e-9  # distances that differ by less are the same: rounding must not choose the tile


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
