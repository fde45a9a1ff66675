"""What an encoder is, and the words that encoders share."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

TIMM = "timm:"
"""What the names of encoders of timm's begin with."""


class Encoder(Protocol):
    """Turns tiles into features. `batch_size` is how many tiles at once suit its device, `device` that device's name."""

    name: str

    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB to (B, dim) float32; the same batch gives the same bits."""
        ...
