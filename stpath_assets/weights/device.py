"""Chooses the device and the precision, from the settings or to suit this machine."""

import ctypes
from typing import Literal, cast

from stpath_assets.errors import WeightsError

Precision = Literal["float32", "bfloat16", "float16"]
"""Precision of a model's matrix products."""


def choose_device(name: str) -> str:
    """Return the device to compute on; `auto` is CUDA if there is a GPU.

    Raises `WeightsError` for a device that this machine lacks.
    """
    if name == "cpu" or (name == "auto" and not _has_cuda_driver()):
        return "cpu"  # without torch, which takes seconds to load
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise WeightsError(f"device {name!r} is not available on this machine; set STPATH_DEVICE to auto or cpu") from e
    return name


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
