"""The demo encoder: a deterministic colour and texture descriptor, without download or training.

It replaces GigaPath with `encoder=demo`, with the same width, so that all later stages run unchanged. It is not a foundation
model, and predictions from it have no biological meaning.
"""

import numpy as np
import numpy.typing as npt

from stpath_assets.tables import FEATURE_DIM as DIM

VERSION = "1"
_BINS = 8  # a channel of the colour histogram: 8³ = 512 numbers
_SCALES = (1, 2, 4, 8)  # box-averaging before the local binary pattern: 4 · 256 = 1024 numbers
_CONTRAST = 4.0  # grey values: noise of a JPEG on empty glass stays below, nuclei are far above

# The eight neighbours of a pixel, clockwise from the top left.
_NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


class DemoEncoder:
    """1536 numbers per tile: the square roots of a colour histogram and of local binary patterns at four scales.

    With square roots, Euclidean distance is Hellinger distance, so rare colours count. Local binary patterns: Ojala et al.,
    IEEE TPAMI 24 (2002), here with a minimum contrast.
    """

    name = "demo"
    device = "cpu"
    batch_size = 16

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Describe (B, H, W, 3) uint8 RGB tiles as (B, 1536) float32. Each descriptor depends only on its tile."""
        return np.stack([describe(tile) for tile in batch]) if len(batch) else np.empty((0, DIM), np.float32)


def describe(tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the descriptor of one (H, W, 3) uint8 tile, (1536,) float32."""
    level = (tile >> 5).astype(np.int64)
    colour = np.bincount(((level[..., 0] * _BINS + level[..., 1]) * _BINS + level[..., 2]).ravel(), minlength=_BINS**3)
    grey = tile.mean(axis=2, dtype=np.float32)
    parts = [colour / colour.sum()]
    for scale in _SCALES:
        codes = _patterns(_shrunk(grey, scale))
        parts.append(np.bincount(codes.ravel(), minlength=256) / max(codes.size, 1))
    return np.sqrt(np.concatenate(parts)).astype(np.float32)


def _shrunk(grey: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    height, width = grey.shape[0] // scale * scale, grey.shape[1] // scale * scale
    return grey[:height, :width].reshape(height // scale, scale, width // scale, scale).mean(axis=(1, 3))


def _patterns(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return, for each inner pixel, one bit per neighbour: set if it is brighter by the minimum contrast."""
    height, width = grey.shape[0] - 2, grey.shape[1] - 2
    codes = np.zeros((max(height, 0), max(width, 0)), np.uint8)
    centre = grey[1:-1, 1:-1] + _CONTRAST
    for bit, (i, j) in enumerate(_NEIGHBOURS):
        codes |= (grey[i : i + height, j : j + width] > centre).astype(np.uint8) << np.uint8(bit)
    return codes
