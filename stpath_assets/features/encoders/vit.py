"""Runs a vision transformer on one device: precision, batch size, and recovery when memory runs out.

Architectures and transforms belong in `gigapath` and `timm_models`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stpath_assets.errors import FeatureError
from stpath_assets.weights import Precision

MOST_TILES = 256
"""Largest batch that is tried. Beyond it a GPU gains nothing, and the memory is better left to others."""

CPU_TILES = 16

_SHARE = 0.8  # of a GPU's memory that a batch may fill

Prepare = Callable[[npt.NDArray[np.uint8], str], torch.Tensor]


class TorchEncoder:
    """A model that takes (B, 3, H, W) float32 and returns (B, dim). `prepare` makes its input from tiles.

    In `bfloat16` and `float16`, autocast computes matrix products; norms, softmax and sums stay in float32. `float32` is the
    reference.
    """

    def __init__(
        self, name: str, model: torch.nn.Module, prepare: Prepare, device: str, precision: Precision, sha256: str = ""
    ) -> None:
        self.name, self.precision, self.weights_sha256 = name, precision, sha256
        self._device, self._prepare = torch.device(device), prepare
        self._dtype = getattr(torch, precision)
        self.model = model.eval().requires_grad_(False).to(self._device)
        if precision != "float32":
            _halve_products(self.model, self._dtype)
        self._most: int | None = None
        self._batch_size: int | None = None

    @property
    def device(self) -> str:
        """The device's name, as its manufacturer gives it, with its number if that was chosen."""
        if self._device.type != "cuda":
            return self._device.type
        name = torch.cuda.get_device_name(self._device)
        return name if self._device.index is None else f"{name} ({self._device})"

    @property
    def batch_size(self) -> int:
        """The batch size that suits the device.

        On a GPU, the largest power of two up to `MOST_TILES` whose memory, estimated from small batches, stays below a share of
        the device's memory. It is the same on every device of a kind.
        """
        if self._batch_size is None:
            self._batch_size = self._fitting() if self._device.type == "cuda" else CPU_TILES
        return self._batch_size

    @property
    def gpu_memory_bytes(self) -> int | None:
        """Peak memory allocated on the GPU, None without a GPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return embeddings of (B, H, W, 3) uint8 RGB tiles, (B, dim) float32.

        If memory runs out, this batch and later ones are halved. Raises `FeatureError` if a single tile does not fit, or if the
        model does not take tiles of this size.
        """
        n = max(len(batch), 1)
        while True:
            most = min(self._most or n, n)
            try:
                # Preparing takes the device's memory too.
                return np.concatenate([self._forward(batch[i : i + most]) for i in range(0, n, most)])
            except RuntimeError as e:
                if not _out_of_memory(e):
                    raise
                if most == 1:
                    raise FeatureError(
                        f"{self.name}: {self.device} has too little memory for one tile; free some, or set STPATH_DEVICE to cpu"
                    ) from e
                self._most = most // 2
            # Outside the handler, because its traceback keeps the allocated memory alive.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _forward(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        x = self._prepare(batch, str(self._device))
        reduced = self._dtype != torch.float32
        with (
            torch.inference_mode(),
            _exact_convolutions(),
            torch.autocast(self._device.type, self._dtype, enabled=reduced),
        ):
            # Pinned memory is copied while the GPU computes. On a CPU it would be an extra copy.
            if self._device.type == "cuda" and x.device.type == "cpu":
                x = x.pin_memory().to(self._device, non_blocking=True)
            out: npt.NDArray[np.float32] = self.model(x).float().cpu().numpy()
            return out

    def _fitting(self) -> int:
        """Return the largest batch that fits, estimated from the memory of batches of 4 and 8 tiles."""
        total = torch.cuda.get_device_properties(self._device).total_memory
        before = torch.cuda.memory_allocated(self._device)
        peaks = []
        for n in (4, 8):
            torch.cuda.reset_peak_memory_stats(self._device)
            self.encode(np.full((n, 224, 224, 3), 255, np.uint8))
            peaks.append(torch.cuda.max_memory_allocated(self._device))
        return fitting(total, before, *peaks)


def fitting(total: int, resident: int, peak_4: int, peak_8: int) -> int:
    """Return the largest power of two, from 1 to `MOST_TILES`, of tiles that fit a device of `total` bytes.

    `resident` bytes are already in use. Batches of 4 and 8 tiles have peaks of `peak_4` and `peak_8` bytes in all.
    """
    a_tile = max(peak_8 - peak_4, 1) / 4
    fixed = max(peak_4 - 4 * a_tile, resident)
    n = MOST_TILES
    while n > 1 and fixed + n * a_tile > _SHARE * total:
        n //= 2
    return n


def _halve_products(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of matrix products in their compute precision; autocast would convert them each time."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.to(dtype)


def _exact_convolutions() -> AbstractContextManager[None]:
    """cuDNN rounds the inputs of float32 convolutions to 10 bits (TF32) unless told otherwise; matrix products do not."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags


def _out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator has no exception class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def checked_state(model: torch.nn.Module, state: dict[str, Any]) -> tuple[list[str], int]:
    """Return the tensors that are missing, unknown or of another shape in `state`, and the number of the model's tensors."""
    expected = model.state_dict()
    wrong = sorted(set(expected) ^ set(state)) or [k for k, v in expected.items() if v.shape != state[k].shape]
    return wrong, len(expected)
