"""Finds and reads model weights: local files first, then the Hugging Face hub at a pinned revision.

With local files nothing touches the network; the hub's client is in `hub`. Files are read as safetensors or with
`weights_only`: a checkpoint never runs code.
"""

import ctypes
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from stpath_assets import hashes, hub
from stpath_assets.errors import WeightsError
from stpath_assets.hub import HubFile, fetch

if TYPE_CHECKING:
    import torch


GIGAPATH = HubFile(
    "prov-gigapath/prov-gigapath",
    "pytorch_model.bin",
    "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19",
    "STPATH_GIGAPATH_WEIGHTS",
    gated=True,
)
STPATH = HubFile("tlhuang/STPath", "stfm.pth", "main", "STPATH_WEIGHTS")


def locate(local: Path | None, hub: HubFile) -> Path:
    """The local file if one is given, else the hub's, downloaded or from its cache.

    Raises `WeightsError` with the steps to take where there is neither.
    """
    if local is not None:
        path = Path(local).expanduser()
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file; check {hub.setting}")
        return path
    return fetch(hub)


def present(local: Path | None, published: HubFile) -> Path:
    """The local file, or that in the hub's cache. Raises `WeightsError` where neither is there; fetches nothing."""
    if local is not None:
        return locate(local, published)
    path = hub.cached(published)
    if path is None:
        ask = "ask for access on its page and set HF_TOKEN, then " if published.gated else ""
        raise WeightsError(
            f"{published.filename} of {published.repository} is not on this machine; {ask}the next run fetches it, "
            f"or put it here and set {published.setting} to its path"
        )
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a weights file, hexadecimal; computed once a file (`hashes`)."""
    return hashes.sha256_of(path)


def read_state_dict(path: Path, device: str = "cpu") -> "dict[str, torch.Tensor]":
    """The tensors of a checkpoint, safetensors by its suffix, else a `torch.save` of a plain state dict.

    Raises `WeightsError` for what is damaged or holds anything but tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path, device=device)
        else:
            # Only torch's zip form can be mapped into memory; checkpoints from before 2020 are bare pickles.
            mmap = device == "cpu" and zipfile.is_zipfile(path)
            state = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except FileNotFoundError as e:
        raise WeightsError(f"{path}: no such weights file; check the path") from e
    except Exception as e:  # unpicklers and parsers of damaged files raise anything
        raise WeightsError(
            f"{path.name}: cannot be read as weights ({type(e).__name__}); it is damaged or no plain checkpoint, fetch it again"
        ) from e
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path.name}: is not a plain state dict of tensors; save `model.state_dict()`")
    return state


def device(name: str) -> str:
    """The device to compute on: `auto` is CUDA where there is one.

    Raises `WeightsError` where a device is asked for that this machine lacks.
    """
    if name == "cpu" or (name == "auto" and not _has_cuda_driver()):
        return "cpu"  # without torch, which takes seconds to load
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise WeightsError(f"device {name!r} is not to be had here; set STPATH_DEVICE to auto or cpu") from e
    return name


def precision(name: str, device: str) -> Literal["float32", "bfloat16", "float16"]:
    """The precision of an encoder's matrix products on a device: `auto` is float16, as GigaPath was published with, on a
    GPU that has units for it, else float32.

    Raises `WeightsError` for one that the device lacks.
    """
    on_gpu = device.startswith("cuda")
    if not on_gpu:
        return cast(Literal["float32", "bfloat16", "float16"], "float32" if name == "auto" else name)
    import torch

    if name == "auto":
        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
    if name == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise WeightsError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16; set STPATH_ENCODER_PRECISION to float16"
        )
    return cast(Literal["float32", "bfloat16", "float16"], name)


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
