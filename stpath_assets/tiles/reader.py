"""The pixels of tiles: uint8 batches in table order, each tile at its exact physical size.

A row of neighbouring tiles is read as one band, so that a compressed block is decoded about twice at most,
and resampled tile by tile: by area where the scan is finer than the tile, bicubic where it is coarser.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from stpath_assets.slides import Slide
from stpath_assets.tiles.grid import Grid

MAX_BAND_PX = 8192
"""Widest band that is held in memory at once, pixels of the level that is read."""

# A tenth of a percent of a tile is less than a quarter of its pixel: then pixels are taken as they are.
_SAME_SCALE = 1e-3


@dataclass(frozen=True)
class _Band:
    """Consecutive tiles of one row that are read together."""

    first: int
    last: int


def read_tiles(slide: Slide, grid: Grid, tile_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the tiles of `grid` in order, each (tile_px, tile_px, 3) uint8 RGB.

    Raises `SlideError` where pixels cannot be decoded.
    """
    level = slide.level_for(grid.side_px * slide.mpp / tile_px)
    level_width, level_height = slide.level_dimensions[level]
    fx, fy = level_width / slide.width_px, level_height / slide.height_px
    for band in _bands(grid, MAX_BAND_PX / fx):
        x = grid.x_px[band.first : band.last] * fx
        top, bottom = _pixels(grid.y_px[band.first] * fy, grid.side_px * fy, level_height)
        left, _ = _pixels(float(x.min()), grid.side_px * fx, level_width)
        _, right = _pixels(float(x.max()), grid.side_px * fx, level_width)
        pixels = slide.read_level(level, left, top, right - left, bottom - top)
        for tile_x, tile_y in zip(x, grid.y_px[band.first : band.last] * fy, strict=True):
            yield resample(pixels, tile_x - left, tile_y - top, grid.side_px * fx, grid.side_px * fy, tile_px)


def resample(
    pixels: npt.NDArray[np.uint8], x: float, y: float, width: float, height: float, out_px: int
) -> npt.NDArray[np.uint8]:
    """The box (x, y, width, height) of an image, edges between pixels allowed, as (out_px, out_px, 3) uint8.

    Shrinking averages by area; enlarging is bicubic (Keys, a = -0.5); at the same scale and on whole pixels,
    nothing changes.
    """
    scale = max(width, height) / out_px
    if abs(scale - 1) < _SAME_SCALE and _whole(x) and _whole(y):
        i, j = round(y), round(x)
        if i + out_px <= pixels.shape[0] and j + out_px <= pixels.shape[1]:
            return pixels[i : i + out_px, j : j + out_px]
    if scale < 1:
        box = (max(x, 0.0), max(y, 0.0), min(x + width, pixels.shape[1]), min(y + height, pixels.shape[0]))
        return np.asarray(Image.fromarray(pixels).resize((out_px, out_px), Image.Resampling.BICUBIC, box=box))
    rows, top = area_weights(round(y % 1, 9), height, out_px), math.floor(y)
    columns, left = area_weights(round(x % 1, 9), width, out_px), math.floor(x)
    part = _padded(pixels, top, left, rows.shape[1], columns.shape[1])
    out = np.einsum("or,rcs->ocs", rows, part, optimize=True)
    return np.rint(np.einsum("pc,ocs->ops", columns, out, optimize=True)).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=1024)
def area_weights(offset: float, length: float, out_px: int) -> npt.NDArray[np.float32]:
    """The matrix (out_px, n) that averages n pixels over out_px equal parts of [offset, offset + length).

    Each row sums to 1; n = ceil(offset + length). Output o weighs pixel i by the length of their overlap.
    """
    n = math.ceil(offset + length - 1e-9)
    edges = offset + np.arange(out_px + 1) * (length / out_px)
    low, high = edges[:-1, None], edges[1:, None]
    i = np.arange(n)
    overlap = np.clip(np.minimum(high, i + 1) - np.maximum(low, i), 0, None)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def _padded(pixels: npt.NDArray[np.uint8], top: int, left: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """A window that may exceed the image by the one pixel that rounding at its last edge costs; that one is
    repeated.
    """
    rows = np.minimum(np.arange(top, top + height), pixels.shape[0] - 1)
    columns = np.minimum(np.arange(left, left + width), pixels.shape[1] - 1)
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][rows - rows[0]][:, columns - columns[0]].astype(
        np.float32
    )


def _bands(grid: Grid, max_px: float) -> Iterator[_Band]:
    """Splits table order into runs of one row no wider than `max_px` level-0 pixels and without wide gaps."""
    first = 0
    for i in range(1, len(grid) + 1):
        if i < len(grid):
            gap = grid.x_px[i] - grid.x_px[i - 1]
            near = 0 < gap <= 2 * grid.side_px and grid.x_px[i] + grid.side_px - grid.x_px[first] <= max_px
            if near and grid.y_px[i] == grid.y_px[first]:
                continue
        yield _Band(first, i)
        first = i


def _pixels(start: float, length: float, limit: int) -> tuple[int, int]:
    """Whole pixels that cover [start, start + length), with two more for the bicubic kernel, inside the
    level.
    """
    return max(math.floor(start) - 2, 0), min(math.ceil(start + length) + 2, limit)


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6
