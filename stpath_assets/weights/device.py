"""Chooses the device and the precision, from the settings or to suit this machine."""

import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from filelock import FileLock, Timeout

from stpath_assets.errors import WeightsError

Precision = Literal["float32", "bfloat16", "float16"]
"""Precision of a model's matrix products."""


@dataclass
class _Slot:
    """The GPU that this process has taken for itself, and the lock that holds it. Without a lock, it is shared."""

    device: str | None = None
    held: ExitStack = field(default_factory=ExitStack)


_slot: _Slot | None = None


def choose_device(name: str) -> str:
    """Return the device to compute on; `auto` is CUDA if there is a GPU. See `own_gpu` for hosts with several.

    Raises `WeightsError` for a device that this machine lacks.
    """
    if _slot is not None and _slot.device is not None and name in ("auto", "cuda"):
        return _slot.device
    if name == "cpu" or (name == "auto" and not _has_cuda_driver()):
        return "cpu"  # without torch, which takes seconds to load
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    else:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as e:
            raise WeightsError(
                f"device {name!r} is not available on this machine; set STPATH_DEVICE to auto or cpu"
            ) from e
    if name == "cuda" and _slot is not None and torch.cuda.device_count() > 1:
        _slot.device = name = _take_gpu(_slot.held)
    return name


@contextmanager
def own_gpu() -> Iterator[None]:
    """Within the block, `choose_device` takes a GPU that no other process of this host has taken, such as `cuda:1`.

    It does so at its first choice, if the host has several GPUs and the settings name none. If all are taken, the one with the
    most free memory is shared. A killed process holds none.
    """
    global _slot
    _slot = _Slot()
    try:
        with _slot.held:
            yield
    finally:
        _slot = None


def _take_gpu(held: ExitStack) -> str:
    import torch

    gpus = range(torch.cuda.device_count())
    for i in gpus:
        # By the GPU's own name: CUDA_VISIBLE_DEVICES gives it other numbers in other processes. The mode is for other users.
        lock = Path(tempfile.gettempdir()) / f"stpath-assets-gpu-{torch.cuda.get_device_properties(i).uuid}.lock"
        try:
            held.enter_context(FileLock(lock, timeout=0, mode=0o666))
        except (Timeout, PermissionError):  # of another user, whose file this one may not open
            continue
        return f"cuda:{i}"
    return f"cuda:{max(gpus, key=lambda i: torch.cuda.mem_get_info(i)[0])}"


def choose_precision(name: str, device: str) -> Precision:
    """Return the precision of an encoder's matrix products on a device.

    `auto` is float16 on a GPU with units for it, as GigaPath was published with, else float32. Raises `WeightsError` for a
    precision that the device lacks.
    """
    on_gpu = device.startswith("cuda")
    if not on_gpu:
        return cast(Precision, "float32" if name == "auto" else name)
    import torch

    if name == "auto":
        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
    if name == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise WeightsError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16; set STPATH_ENCODER_PRECISION to float16"
        )
    return cast(Precision, name)


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
