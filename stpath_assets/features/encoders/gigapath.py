"""GigaPath's tile encoder (Xu et al., Nature 2024), built with timm, as STPath was trained on it.

Tiles of 224 px at 0.5 µm per pixel are normalized with ImageNet's mean and standard deviation. They are not resized or cropped.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stpath_assets import weights
from stpath_assets.errors import FeatureError, WeightsError
from stpath_assets.features.encoders.vit import TorchEncoder, checked_state
from stpath_assets.tables import FEATURE_DIM as DIM
from stpath_assets.weights import Precision

TILE_PX = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

ARCHITECTURE: dict[str, Any] = {
    "model_name": "vit_giant_patch14_dinov2",
    "img_size": TILE_PX,
    "patch_size": 16,
    "embed_dim": DIM,
    "depth": 40,
    "num_heads": 24,
    "init_values": 1e-5,
    "mlp_ratio": 5.33334,
    "num_classes": 0,
}
"""GigaPath in timm's terms: 1.135 B parameters, 566 tensors."""


def load(path: Path, device: str = "cpu", precision: Precision = "float32", **architecture: Any) -> TorchEncoder:
    """Build the architecture and load a checkpoint strictly.

    `architecture` overrides `ARCHITECTURE`, for tests with small models. Raises `WeightsError` with the first tensor that does
    not fit.
    """
    state = weights.read_state_dict(path)
    import timm

    # On the meta device first, to avoid drawing 4.5 GB of random numbers.
    with torch.device("meta"):
        model = timm.create_model(pretrained=False, **{**ARCHITECTURE, **architecture})
    wrong, _ = checked_state(model, state)
    if wrong:
        raise WeightsError(
            f"{path.name}: is not GigaPath's tile encoder: {len(wrong)} tensors missing, "
            f"unknown or of another shape, first {wrong[0]}; fetch pytorch_model.bin again"
        )
    model.load_state_dict({k: v.float() for k, v in state.items()}, strict=True, assign=True)
    return TorchEncoder("gigapath", model, normalize, device, precision)


def normalize(batch: npt.NDArray[np.uint8], device: str) -> torch.Tensor:
    """Convert (B, 224, 224, 3) uint8 RGB to the network's input, (B, 3, 224, 224) float32, on a device.

    Raises `FeatureError` for tiles of another size: the model was not trained with resized tiles.
    """
    if batch.shape[1:] != (TILE_PX, TILE_PX, 3):
        raise FeatureError(f"GigaPath takes tiles of {TILE_PX} px, not {batch.shape[1:]}; tile with tile_px={TILE_PX}")
    pixels = torch.from_numpy(np.ascontiguousarray(batch))
    if device.startswith("cuda"):  # as bytes, a quarter of the copy, from memory that the GPU reads by itself
        pixels = pixels.pin_memory().to(device, non_blocking=True)
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
