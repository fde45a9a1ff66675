"""The interface of an encoder, and names that encoders share."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

TIMM = "timm:"
"""Prefix of the names of timm models."""


class Encoder(Protocol):
    """Turns tiles into features. `batch_size` is the batch size that suits its device, `device` the device's name."""

    name: str

    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode (B, H, W, 3) uint8 RGB as (B, dim) float32. The same batch gives the same bits."""
        ...
