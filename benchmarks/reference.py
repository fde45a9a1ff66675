"""A plain reading of the published method, to measure the engine against.

Written from the paper's description and shapes, as one would write it down at first: every pair of tiles gets its
spatial features, the bias of all heads stands in memory, gene expression enters as one row of the vocabulary's
width a tile, and every gene's column is computed. Holds no code of the authors. Results equal the engine's.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stpath_assets.prediction.vocabulary import MASK_COLUMN


@torch.inference_mode()
def forward(
    state: dict[str, Tensor], features: npt.NDArray[np.float32], coords: npt.NDArray, organ: int, tech: int
) -> Tensor:
    """Log1p expression of all columns, (N, genes), from features (N, 1536) and coords (N, 2)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    xy = torch.from_numpy(coords - coords.min(0))
    xy = (xy / xy.max(0).values * 100).float()
    n, genes = len(features), state["gene_exp_head.1.bias"].shape[0]
    expression = F.one_hot(torch.full((n,), MASK_COLUMN), genes).float()  # (N, genes): no spot is measured
    x = (
        linear(torch.from_numpy(features), "input_encoder.image_embed")
        + F.linear(expression, state["input_encoder.gene_embed.weight"])
        + state["input_encoder.tech_embed.weight"][tech]
        + state["input_encoder.organ_embed.weight"][organ]
    )
    pairs = pair_features(xy)  # (N, N, 3)
    for i in range(sum(k.endswith("edge_bias.0.weight") for k in state)):
        attn, mlp = f"model.blks.{i}.attn", f"model.blks.{i}.mlp"
        edge = state[f"{attn}.edge_bias.0.weight"]
        heads = len(edge)
        qkv = linear(norm(x, f"{attn}.layernorm_qkv.0"), f"{attn}.layernorm_qkv.1")  # (N, 3d)
        q, k, v = qkv.view(n, 3, heads, -1).permute(1, 2, 0, 3)  # (3, heads, N, d/heads)
        bias = F.linear(pairs, edge).permute(2, 0, 1)  # (heads, N, N)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias
        a = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1)  # (N, d)
        x = x + linear(a, f"{attn}.W_output.0")
        x = x + linear(norm(F.gelu(linear(x, f"{mlp}.fc1")), f"{mlp}.norm"), f"{mlp}.fc2")
    return linear(norm(x, "gene_exp_head.0"), "gene_exp_head.1")


def pair_features(xy: Tensor) -> Tensor:
    """Spatial features of each pair of tiles, (N, 2) -> (N, N, 3): offsets averaged over the frames, and the distance.

    The frames are the principal axes of the layout in their four combinations of signs.
    """
    offset = xy[:, None] - xy[None]  # (N, N, 2)
    _, axes = torch.linalg.eigh(torch.cov(xy.T))
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    frames = torch.stack([offset @ (axes * s) for s in signs])  # (4, N, N, 2)
    return torch.cat([frames.mean(0), offset.norm(dim=-1, keepdim=True)], -1)
