"""Finds and reads model weights: local files first, then the Hugging Face hub at a pinned revision.

With local files, nothing uses the network. The hub's client is in `hub`. Files are read as safetensors or with `weights_only`, so
a checkpoint never runs code.
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from stpath_assets.errors import WeightsError, one_line
from stpath_assets.weights import bounds, hashes, hub
from stpath_assets.weights.hub import HubFile

if TYPE_CHECKING:
    import torch


GIGAPATH = HubFile(
    "prov-gigapath/prov-gigapath",
    "pytorch_model.bin",
    "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19",
    "STPATH_GIGAPATH_WEIGHTS",
    gated=True,
)
STPATH = HubFile("tlhuang/STPath", "stfm.pth", None, "STPATH_WEIGHTS", revision_setting="STPATH_STPATH_REVISION")


def locate(local: Path | None, published: HubFile) -> Path:
    """Return the local file if one is given, else the hub's, from its cache or downloaded.

    Raises `WeightsError` with the steps to take if neither is available, or if the file has another SHA-256 than `published`.
    """
    if local is None:
        return _checked(hub.fetch(published), published)
    path = Path(local).expanduser()
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; check {published.setting}")
    return _checked(path, published)


def _checked(path: Path, published: HubFile) -> Path:
    if published.sha256 is not None and (found := hashes.sha256_of(path)) != published.sha256:
        raise WeightsError(
            f"{path}: its SHA-256 is {found[:12]}…, not the {published.sha256[:12]}… that is asked for; it is another file or "
            "damaged, fetch it again"
        )
    return path


def find_present(local: Path | None, published: HubFile) -> Path:
    """Return the local file, or the hub's from its cache. Raises `WeightsError` if neither exists. Downloads nothing."""
    if local is not None:
        return locate(local, published)
    path = hub.find_cached(published)
    if path is None:
        ask = "ask for access on its page and set HF_TOKEN, then " if published.gated else ""
        raise WeightsError(
            f"{published.filename} of {published.repository} is not on this machine; {ask}the next run fetches it, "
            f"or put it here and set {published.setting} to its path"
        )
    return _checked(path, published)


def read_state_dict(path: Path, device: str = "cpu") -> "dict[str, torch.Tensor]":
    """Return the tensors of a checkpoint: safetensors by its suffix, else a `torch.save` of a plain state dict.

    Raises `WeightsError` if the file is damaged or holds anything but tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix != ".safetensors":
            bounds.check(path)
        if path.suffix == ".safetensors":
            state = load_file(path, device=device)
        else:
            # Only torch's zip format can be memory-mapped; checkpoints from before 2020 are bare pickles.
            mmap = device == "cpu" and zipfile.is_zipfile(path)
            state = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except FileNotFoundError as e:
        raise WeightsError(f"{path}: no such weights file; check the path") from e
    except WeightsError:
        raise
    except Exception as e:  # unpicklers and parsers of damaged files raise anything
        raise WeightsError(
            f"{path.name}: cannot be read as weights ({type(e).__name__}); it is damaged or no plain checkpoint, fetch it again"
        ) from e
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path.name}: is not a plain state dict of tensors; save `model.state_dict()`")
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path.name}: {one_line(str(name))[:80]} has more numbers than the file; fetch it again"
            )
    return state
