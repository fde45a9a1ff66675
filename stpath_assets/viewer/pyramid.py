"""A scan as deep zoom: square picture tiles on levels that halve, cut from the scan when they are asked for.

The last level is the scan at level 0, each level before it half as large, down to one pixel. Pixels of the picture are square: a
scan whose pixels are not is stretched along y. Nothing is stored; the scan's own pyramid makes this fast.
"""

import io
import math
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import numpy.typing as npt
from PIL import Image

from stpath_assets.slides import Slide

TILE_PX = 512
_QUALITY = 85
_MOST_FOLD = 8
"""A level that the scan has only so many times finer is cut from an overview: reading it for every tile takes seconds."""

_OVERVIEW_PX = 4096


@dataclass
class Pyramid:
    """Deep zoom of an open scan. `width`, `height`: the picture's size at its last level, px."""

    slide: Slide
    _overview: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def width(self) -> int:
        """Width of the picture, px; that of the scan."""
        return self.slide.width_px

    @property
    def height(self) -> int:
        """Height of the picture, px."""
        return max(1, round(self.slide.height_px * self.stretch_y))

    @property
    def stretch_y(self) -> float:
        """Pixels of the picture in a pixel of the scan along y; 1 if the scan's pixels are square."""
        x, y = self.slide.mpp_xy
        return y / x

    @property
    def levels(self) -> int:
        """Number of levels; the first is one pixel."""
        return math.ceil(math.log2(max(self.width, self.height))) + 1

    def size_of(self, level: int) -> tuple[int, int]:
        """Return width and height of a level, px."""
        shrunk = 2 ** (self.levels - 1 - level)
        return math.ceil(self.width / shrunk), math.ceil(self.height / shrunk)

    def tile(self, level: int, column: int, row: int) -> bytes:
        """Return a tile of a level as JPEG.

        Raises `KeyError` if there is no such tile, `SlideError` if the scan cannot be read there.
        """
        if not 0 <= level < self.levels:
            raise KeyError(f"level {level} of {self.levels}")
        width, height = self.size_of(level)
        left, top = column * TILE_PX, row * TILE_PX
        if not (0 <= left < width and 0 <= top < height):
            raise KeyError(f"tile {column}, {row} of level {level}")
        shrunk = 2 ** (self.levels - 1 - level)
        right, bottom = min(left + TILE_PX, width), min(top + TILE_PX, height)
        box = (left * shrunk, top * shrunk, min(right * shrunk, self.width), min(bottom * shrunk, self.height))
        return encode(self._read(box, (right - left, bottom - top)))

    def region(self, left: float, top: float, width: float, height: float, size: tuple[int, int]) -> bytes:
        """Return a box of the scan, level-0 pixels, as JPEG of `size` (width, height). What lies beyond the scan is left out."""
        box = (max(left, 0), max(top, 0), min(left + width, self.width), min(top + height, self.slide.height_px))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise KeyError("the box is beyond the scan")
        stretched = (box[0], box[1] * self.stretch_y, box[2], box[3] * self.stretch_y)
        return encode(self._read(stretched, size))

    def _read(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Return a box of the picture (left, top, right, bottom; last level's px) at a size."""
        fold = (box[2] - box[0]) / size[0]
        level = self.slide.level_for(self.slide.mpp_xy[0] * fold)
        if fold / self.slide.level_downsamples[level] > _MOST_FOLD:
            source = self._whole()
            read = (source.shape[1], source.shape[0])
        else:
            source, read = None, self.slide.level_dimensions[level]
        x, y = read[0] / self.width, read[1] / self.height
        wanted = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
        left, top = math.floor(wanted[0]), math.floor(wanted[1])
        right, bottom = min(math.ceil(wanted[2]), read[0]), min(math.ceil(wanted[3]), read[1])
        if source is None:
            pixels = self.slide.read_level(level, left, top, right - left, bottom - top)
        else:
            pixels = np.ascontiguousarray(source[top:bottom, left:right])
        inner = (wanted[0] - left, wanted[1] - top, min(wanted[2], right) - left, min(wanted[3], bottom) - top)
        resample = Image.Resampling.BOX if fold * x >= 1 else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(pixels).resize(size, resample, inner))

    def _whole(self) -> npt.NDArray[np.uint8]:
        """Return the whole scan, small, read once: for scans without small levels."""
        with self._lock:
            if self._overview is None:
                longest_um = max(self.width, self.height) * self.slide.mpp_xy[0]
                self._overview = self.slide.read_scaled(longest_um / min(_OVERVIEW_PX, max(self.width, self.height)))
            return self._overview


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return pixels (H, W, 3) as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
