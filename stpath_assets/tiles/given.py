"""Tiles that were laid elsewhere and come with their features: every one is kept, where it was.

Which files they are read from is a matter of `features`; what is measured of them, of `survey`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stpath_assets.tiles.grid import Grid


@dataclass(frozen=True)
class GivenTiles:
    """Tiles as their maker's encoder saw them: `tile_px` pixels at `mpp` µm per pixel.

    `x_px`, `y_px` (N,) float64 are top-left corners, `side_px` and `side_y_px` the sides along x and y, level-0 pixels.
    `notes` is what a user should know of them.
    """

    tile_ids: Sequence[str]
    x_px: npt.NDArray[np.float64]
    y_px: npt.NDArray[np.float64]
    side_px: float
    side_y_px: float
    tile_px: int
    mpp: float
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tile_ids)

    @property
    def grid(self) -> Grid:
        """Their geometry."""
        return Grid.of_tile_ids(self.tile_ids, self.x_px, self.y_px, self.side_px, self.side_y_px)

    @property
    def sha256(self) -> str:
        """SHA-256 over ids, corners and sides, hexadecimal."""
        digest = hashlib.sha256("\n".join(self.tile_ids).encode())
        digest.update(np.stack([self.x_px, self.y_px], axis=1).astype("<f8").tobytes())
        digest.update(np.float64(self.side_px).tobytes())
        if self.side_y_px != self.side_px:
            digest.update(np.float64(self.side_y_px).tobytes())
        return digest.hexdigest()
