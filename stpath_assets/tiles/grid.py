"""Geometry of tiles, on a regular grid or on spots: pure functions over arrays, no pixels, no files.

Coordinates are level-0 pixels, x to the right and y down, and not rounded. A tile has the exact physical size at any scale of
the scan, and neighbours share their edges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TILE_PX, TILE_MPP = 224, 0.5
"""Size of the tiles that GigaPath and STPath were trained on: pixels, and µm per pixel."""


@dataclass(frozen=True)
class Grid:
    """Tiles in row-major order.

    `x_px`, `y_px` (N,) float64 are top-left corners. `row`, `column` (N,) int64 count from 0. `side_px` and `side_y_px` are a
    tile's sides along x and y, equal if pixels are square. For tiles on spots, `row` numbers the tiles and `column` is -1.
    """

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    x_px: npt.NDArray[np.float64]
    y_px: npt.NDArray[np.float64]
    side_px: float
    side_y_px: float

    def __len__(self) -> int:
        return len(self.row)

    def take(self, keep: npt.NDArray) -> "Grid":
        """Return the tiles selected by a boolean mask or an index, in its order."""
        return Grid(self.row[keep], self.column[keep], self.x_px[keep], self.y_px[keep], self.side_px, self.side_y_px)

    @classmethod
    def of_tile_ids(
        cls, tile_ids: Sequence[str], x_px: npt.NDArray, y_px: npt.NDArray, side_px: float, side_y_px: float
    ) -> "Grid":
        """Return a grid from tile_ids, corners and sides."""
        row = np.array([int(i[1:6]) for i in tile_ids], np.int64)
        column = np.array([int(i[7:12] or -1) for i in tile_ids], np.int64)
        return cls(row, column, x_px, y_px, side_px, side_y_px)

    def tile_ids(self) -> list[str]:
        """Return ids such as `r00012c00034`, or `s00012` on spots. They sort in table order."""
        pairs = zip(self.row.tolist(), self.column.tolist(), strict=True)
        return [f"r{r:05d}c{c:05d}" if c >= 0 else f"s{r:05d}" for r, c in pairs]


def side_in_level0(tile_px: int, tile_mpp: float, slide_mpp: float) -> float:
    """Return the side of a tile on the scan in level-0 pixels: exactly tile_px · tile_mpp µm."""
    return tile_px * tile_mpp / slide_mpp


def regular_grid(
    width_px: int, height_px: int, side_px: float, stride: float = 1.0, side_y_px: float | None = None
) -> Grid:
    """Return all tiles of a grid from the scan's top-left corner that lie completely inside the scan.

    `stride` is the distance between tiles in tile sides: 1 leaves no gap, 0.5 overlaps by half, 2 skips every other place.
    `side_y_px` None is `side_px`. Invariants: row-major; tile (r, c) begins at (c, r) · stride · side; no tile leaves the scan;
    no further row or column would fit. A scan smaller than a tile gives an empty grid.
    """
    side_y_px = side_px if side_y_px is None else side_y_px
    if not (side_px > 0 and side_y_px > 0 and stride > 0):
        raise ValueError(f"sides and stride must be positive, not {side_px}, {side_y_px} and {stride}")
    columns, rows = _count(width_px, side_px, stride), _count(height_px, side_y_px, stride)
    row, column = (a.reshape(-1) for a in np.mgrid[0:rows, 0:columns])
    # Rounding of the product may put the last edge outside the scan.
    x = np.minimum(column * (stride * side_px), max(width_px - side_px, 0.0))
    y = np.minimum(row * (stride * side_y_px), max(height_px - side_y_px, 0.0))
    return Grid(row, column, x, y, side_px, side_y_px)


def _count(length_px: int, side_px: float, stride: float) -> int:
    # Tolerate a billionth of a tile: a scan of exactly ten tiles must give ten, whatever the last bit is.
    return max(0, math.floor((length_px - side_px) / (stride * side_px) + 1e-9) + 1)


def spot_grid(
    centers_px: npt.NDArray[np.float64], width_px: int, height_px: int, side_px: float, side_y_px: float | None = None
) -> tuple[Grid, npt.NDArray[np.intp]]:
    """Return tiles centred on spots (N, 2), ordered by y, then x, and the index of each tile's spot.

    A spot closer to the scan's edge than half a tile has no tile, because part of it would lie outside the scan.
    """
    side_y_px = side_px if side_y_px is None else side_y_px
    x, y = centers_px[:, 0] - side_px / 2, centers_px[:, 1] - side_y_px / 2
    inside = (x >= 0) & (y >= 0) & (x + side_px <= width_px) & (y + side_y_px <= height_px)
    order = np.lexsort((x, y))
    spot = order[inside[order]]
    return Grid(np.arange(len(spot)), np.full(len(spot), -1), x[spot], y[spot], side_px, side_y_px), spot


def union_share(grid: Grid, width_px: int, height_px: int) -> float:
    """Return the share of a scan's area under any tile, 0 to 1, at a resolution of 1/1024 of the scan's longer side."""
    scale = 1024 / max(width_px, height_px)
    shape = (max(1, round(height_px * scale)), max(1, round(width_px * scale)))
    x0, x1, y0, y1 = (
        np.clip(np.rint(a * scale), 0, n).astype(int)
        for a, n in (
            (grid.x_px, shape[1]), (grid.x_px + grid.side_px, shape[1]),
            (grid.y_px, shape[0]), (grid.y_px + grid.side_y_px, shape[0]),
        )
    )  # fmt: skip
    edges = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(edges, (y, x), sign)
    return float((edges.cumsum(0).cumsum(1)[:-1, :-1] > 0).mean())


def boxes_on(
    shape: tuple[int, ...], grid: Grid, width_px: int, height_px: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, float]:
    """Return corners x and y (N,), width and height of a grid's tiles in pixels of an image (H, W) of the whole scan."""
    fx, fy = shape[1] / width_px, shape[0] / height_px
    return grid.x_px * fx, grid.y_px * fy, grid.side_px * fx, grid.side_y_px * fy


def box_means(
    values: npt.NDArray, x: npt.NDArray, y: npt.NDArray, box_width: float, box_height: float
) -> npt.NDArray[np.float64]:
    """Return the mean of an image (H, W) over boxes of one size with corners x, y (N,), in the image's pixels.

    Exact for fractional corners if pixels are constant squares (bilinear summed-area table). Boxes are clipped to the image.
    """
    height, width = values.shape
    table = np.zeros((height + 1, width + 1))
    table[1:, 1:] = values.astype(np.float64).cumsum(0).cumsum(1)
    x0, x1 = np.clip(x, 0, width), np.clip(x + box_width, 0, width)
    y0, y1 = np.clip(y, 0, height), np.clip(y + box_height, 0, height)
    total = _at(table, y1, x1) - _at(table, y0, x1) - _at(table, y1, x0) + _at(table, y0, x0)
    area = (x1 - x0) * (y1 - y0)
    return np.clip(np.divide(total, area, out=np.zeros_like(total), where=area > 0), 0.0, values.max(initial=0))


def _at(table: npt.NDArray, y: npt.NDArray, x: npt.NDArray) -> npt.NDArray[np.float64]:
    """Interpolate the summed-area table between its nodes; bilinear is exact for constant pixels."""
    i, j = np.minimum(y.astype(int), table.shape[0] - 2), np.minimum(x.astype(int), table.shape[1] - 2)
    v, u = y - i, x - j
    top = table[i, j] * (1 - u) + table[i, j + 1] * u
    bottom = table[i + 1, j] * (1 - u) + table[i + 1, j + 1] * u
    return top * (1 - v) + bottom * v
