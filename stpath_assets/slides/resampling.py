"""Resampling of images at exact positions between pixels: pure functions.

Each axis is a weighted sum of a few pixels, in float32, rounded once. The result depends only on where the box lies, not on what
was read together with it. The loop itself is compiled, in `separable`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

# Below 0.0004 of a tile (a tenth of a pixel of 224), pixels are taken as they are.
_SAME_SCALE = 4e-4

# Positions are rounded to a billionth of a pixel, so that equal positions share their weights.
_DIGITS = 9

# A tile's weights take five kilobytes per axis. A scan of 100,000 pixels has some hundred tile positions on each axis.
_KEPT = 1024


def resample(pixels: Image, x: float, y: float, width: float, height: float, out_px: int) -> Image:
    """Resample the box (x, y, width, height) of an image to (out_px, out_px, 3) uint8. Edges may lie between pixels.

    Shrinking averages by area. Enlarging is bicubic (Keys, 1981, a = -0.5), with the kernel cut at the image's edges. Each
    axis is resampled by itself, because pixels need not be square. At the same scale and on whole pixels, nothing changes.
    """
    out = np.empty((out_px, out_px, 3), np.uint8)
    resample_row(pixels, [x], y, width, height, [out])
    return out


def resample_row(
    pixels: Image, xs: Sequence[float], y: float, width: float, height: float, outs: Sequence[Image]
) -> None:
    """Resample, as `resample` does, several boxes that differ only in x, each into its own (out_px, out_px, 3) uint8 of
    `outs`.
    """
    from stpath_assets.slides.separable import apply  # imported late: numba is slow to import

    out_px, image_width = len(outs[0]), pixels.shape[1]
    is_same = _same(y, height, out_px, pixels.shape[0])
    # The weights reach at most two pixels beyond each side.
    top, bottom = max(math.floor(y) - 2, 0), min(math.ceil(y + height) + 2, pixels.shape[0])
    rows = _tile_weights(round(y - top, _DIGITS), height, out_px, bottom - top)
    flat = _flat(pixels[top:bottom])
    for x, out in zip(xs, outs, strict=True):
        if is_same and _same(x, width, out_px, image_width):
            i, j = round(y), round(x)
            out[...] = pixels[i : i + out_px, j : j + out_px]
            continue
        left, right = max(math.floor(x) - 2, 0), min(math.ceil(x + width) + 2, image_width)
        columns = _tile_weights(round(x - left, _DIGITS), width, out_px, right - left)
        apply(flat, left, right - left, rows.first, rows.taps, columns.first, columns.taps, out)


def _same(start: float, length: float, out_px: int, n: int) -> bool:
    """Return whether out_px of n pixels can be taken as they are."""
    return abs(length / out_px - 1) < _SAME_SCALE and abs(start - round(start)) < 1e-6 and round(start) + out_px <= n


def _flat(pixels: Image) -> Image:
    return np.ascontiguousarray(pixels).reshape(len(pixels), -1)


def shrink(pixels: Image, x: float, y: float, width: float, height: float, out_width: int, out_height: int) -> Image:
    """Shrink the box (x, y, width, height) of an image by area to (out_height, out_width, 3) uint8."""
    from stpath_assets.slides.separable import apply

    rows = area_weights(round(y, _DIGITS), height, out_height, pixels.shape[0])
    columns = area_weights(round(x, _DIGITS), width, out_width, pixels.shape[1])
    out = np.empty((out_height, out_width, 3), np.uint8)
    apply(_flat(pixels), 0, pixels.shape[1], rows.first, rows.taps, columns.first, columns.taps, out)
    return out


def _tile_weights(start: float, length: float, out_px: int, n: int) -> "Weights":
    return (area_weights if length >= out_px else cubic_weights)(start, length, out_px, n)


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one axis: output o is the sum over t of `taps[o, t]` times pixel `first[o] + t`. The taps of an output
    sum to 1.

    `first` (out,) int64 and `taps` (out, T) float32 with T a multiple of four; taps beyond the last pixel are 0.
    """

    first: npt.NDArray[np.int64]
    taps: npt.NDArray[np.float32]


@lru_cache(maxsize=_KEPT)
def area_weights(start: float, length: float, out_px: int, n: int) -> Weights:
    """Return weights that average n pixels over out_px equal parts of [start, start + length).

    Output o weighs pixel i by the length of their overlap. Positions beyond the last pixel count as the last pixel.
    """
    edges = start + np.arange(out_px + 1) * (length / out_px)
    low, high = edges[:-1, None], edges[1:, None]
    taps = np.floor(low).astype(np.int64) + np.arange(math.ceil(length / out_px) + 1)
    overlap = np.clip(np.minimum(high, taps + 1) - np.maximum(low, taps), 0, None)
    return _weights(overlap, taps, n)


@lru_cache(maxsize=_KEPT)
def cubic_weights(start: float, length: float, out_px: int, n: int) -> Weights:
    """Return weights that interpolate n pixels at the centres of out_px equal parts of [start, start + length).

    Cubic convolution with a = -0.5 (Keys, 1981); taps outside the image are left out.
    """
    centres = start + (np.arange(out_px) + 0.5) * (length / out_px)
    taps = np.floor(centres - 0.5).astype(np.int64)[:, None] + np.arange(-1, 3)
    t = np.abs(centres[:, None] - (taps + 0.5))
    kernel = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
    return _weights(np.where((taps >= 0) & (taps < n), kernel, 0), taps, n)


def _weights(weights: npt.NDArray, taps: npt.NDArray[np.int64], n: int) -> Weights:
    weights = weights / weights.sum(1, keepdims=True)
    # A pixel that enters only by rounding would make equal images differ in the last grey value.
    held = np.abs(weights) > 1e-7
    pixel = taps.clip(0, n - 1)
    first = np.where(held, pixel, n).min(1)
    place = (pixel - first[:, None])[held]
    dense = np.zeros((len(weights), -4 * (-(place.max() + 1) // 4)), np.float32)
    np.add.at(dense, (np.nonzero(held)[0], place), weights[held].astype(np.float32))
    return Weights(first, dense)
