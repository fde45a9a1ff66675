"""Reads the pixels of tiles: uint8 in table order, each tile at its exact physical size.

Neighbouring tiles of a row are read as one band. Several threads read bands a few ahead of the consumer, and write each tile
once, into its batch. The slide caches the blocks that bands share, so that each block is decoded about once. A tile that
cannot be read is an error, never a white tile.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SlideError
from stpath_assets.slides import Slide
from stpath_assets.slides.resampling import resample_row
from stpath_assets.threads import map_ahead
from stpath_assets.tiles.grid import Grid

CODE_VERSION = "5"
"""Version of the pixels: raised when the same scan and grid give other pixels, because features are made from them."""

MAX_BAND_PX = 2048
"""Width limit of a band in pixels of the level that is read. It bounds the memory of a thread, besides the slide's blocks."""

Tile = npt.NDArray[np.uint8]
OnUnreadable = Literal["fail", "drop"]

_TILES_AT_ONCE = 16


def read_batches(
    slide: Slide, grid: Grid, tile_px: int, size: int, *, workers: int | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the tiles of `grid` in order in batches of `size`, (size, tile_px, tile_px, 3) uint8 RGB; the last may be smaller.

    `workers` threads decode and resample (default: one per core, at most four). Memory: two bands of tiles per worker, plus
    their batches. Raises `SlideError` if pixels cannot be decoded, after yielding the batches before them.
    """
    source, n = _Source.of(slide, grid, tile_px), len(grid)
    batches: dict[int, npt.NDArray[np.uint8]] = {}

    def place(i: int) -> Tile:
        if i % size == 0:
            batches[i // size] = np.empty((min(size, n - i), tile_px, tile_px, 3), np.uint8)
        tile: Tile = batches[i // size][i % size]
        return tile

    for band in map_ahead(source.fill, ((band, [place(i) for i in band]) for band in source.bands()), workers):
        for i in band:
            if (i + 1) % size == 0 or i + 1 == n:
                yield batches.pop(i // size)


def read_tiles(slide: Slide, grid: Grid, tile_px: int, *, workers: int | None = None) -> Iterator[Tile]:
    """Yield the tiles of `grid` one by one, each (tile_px, tile_px, 3) uint8 RGB, as `read_batches` does."""
    for batch in read_batches(slide, grid, tile_px, _TILES_AT_ONCE, workers=workers):
        yield from batch


def find_readable(slide: Slide, grid: Grid, tile_px: int, *, workers: int | None = None) -> npt.NDArray[np.bool_]:
    """Return which tiles of `grid` can be read at the scale of `tile_px`: (N,) bool. Decodes without resampling."""
    source = _Source.of(slide, grid, tile_px)
    parts = list(map_ahead(source.readable_of, source.bands(), workers))
    return np.concatenate(parts) if parts else np.zeros(0, bool)


@dataclass(frozen=True)
class _Source:
    """Tiles on the level from which they are read: corners (N,) and sides in its pixels, not rounded."""

    slide: Slide
    level: int
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    width: float
    height: float
    tile_px: int

    @classmethod
    def of(cls, slide: Slide, grid: Grid, tile_px: int) -> "_Source":
        level = slide.level_for(grid.side_px * slide.mpp_xy[0] / tile_px)
        level_width, level_height = slide.level_dimensions[level]
        fx, fy = level_width / slide.width_px, level_height / slide.height_px
        return cls(slide, level, grid.x_px * fx, grid.y_px * fy, grid.side_px * fx, grid.side_y_px * fy, tile_px)

    def bands(self) -> Iterator[range]:
        """Yield runs of neighbours in table order that share a row, up to `MAX_BAND_PX` wide, without wide gaps."""
        first = 0
        for i in range(1, len(self.x) + 1):
            if i < len(self.x):
                near = 0 < self.x[i] - self.x[i - 1] <= 2 * self.width
                if near and self.y[i] == self.y[first] and self.x[i] + self.width - self.x[first] <= MAX_BAND_PX:
                    continue
            yield range(first, i)
            first = i

    def fill(self, work: tuple[range, Sequence[Tile]]) -> range:
        """Read a band of tiles into their places, and return the band."""
        band, places = work
        try:
            pixels, left, top = self._read(band)
        except SlideError:
            if len(band) == 1:
                raise
            for i, place in zip(band, places, strict=True):  # to name the tile
                self.fill((range(i, i + 1), [place]))
            return band
        xs = (self.x[band.start : band.stop] - left).tolist()
        resample_row(pixels, xs, float(self.y[band.start]) - top, self.width, self.height, places)
        return band

    def readable_of(self, band: range) -> npt.NDArray[np.bool_]:
        """Return whether each tile of a band can be read."""
        try:
            self._read(band)
        except SlideError:
            if len(band) == 1:
                return np.array([False])
            return np.concatenate([self.readable_of(range(i, i + 1)) for i in band])
        return np.ones(len(band), bool)

    def _read(self, band: range) -> tuple[Tile, int, int]:
        """Return the pixels under a band and the position of their top-left corner on the level."""
        level_width, level_height = self.slide.level_dimensions[self.level]
        top, bottom = _pixels(self.y[band[0]], self.height, level_height)
        left, right = _pixels(self.x[band[0]], self.x[band[-1]] - self.x[band[0]] + self.width, level_width)
        return self.slide.read_level(self.level, left, top, right - left, bottom - top), left, top


def _pixels(start: float, length: float, limit: int) -> tuple[int, int]:
    """Return the whole pixels that cover [start, start + length), plus two for the bicubic kernel, within the level."""
    return max(math.floor(start) - 2, 0), min(math.ceil(start + length) + 2, limit)
