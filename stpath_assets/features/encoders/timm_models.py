"""Any timm model as an additional encoder, `timm:NAME`, with its own transform.

STPath accepts none of their features, because it was trained on GigaPath's. They are for comparisons and for other tools.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from stpath_assets import weights
from stpath_assets.errors import WeightsError, describe
from stpath_assets.features.encoders.base import TIMM
from stpath_assets.features.encoders.vit import TorchEncoder, checked_state
from stpath_assets.weights import Precision


def load(name: str, path: Path | None, device: str = "cpu", precision: Precision = "float32") -> TorchEncoder:
    """Load the timm model `name` (`hf-hub:…` too) without its classifier, with its own transform.

    Weights come from a local file, else timm's pretrained ones from the hub or its cache. Raises `WeightsError` if the model is
    unknown, or its weights are not available or do not match the model.
    """
    import timm

    try:
        model = timm.create_model(name, pretrained=path is None, num_classes=0)
    except Exception as e:  # timm raises RuntimeError for names and the hub client's own types for the rest
        raise WeightsError(
            f"{TIMM}{name}: cannot be made ({describe(e)}); check the name (timm.list_models), the network, "
            "HF_TOKEN, or give a weights file"
        ) from e
    if path is not None:
        state = weights.read_state_dict(path)
        wrong, n = checked_state(model, state)
        if wrong:
            raise WeightsError(
                f"{path.name}: is not {name}: {len(wrong)} of {n} tensors missing, unknown or of another shape, first {wrong[0]}"
            )
        model.load_state_dict(state, strict=True)
    return TorchEncoder(f"{TIMM}{name}", model, _transform_of(model), device, precision, sha256_of_tensors(model))


def sha256_of_tensors(model: torch.nn.Module) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of a model's tensors, in order of their names, hexadecimal."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _transform_of(model: torch.nn.Module) -> Any:
    import timm.data

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)

    def prepare(batch: npt.NDArray[np.uint8], _device: str) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(tile)) for tile in batch])  # (B, 3, H, W) float32

    return prepare
