"""What the engine is measured against, written for that purpose from the published description; none of the authors' code.

`plain_reading` is the method as one would write it down at first; `without_bias` the same network with attention that knows
no place, through PyTorch's own kernel: what attention costs at least where nothing else is asked of it.
"""

from collections.abc import Callable
from typing import Literal

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stpath_assets.vocabulary.genes import MASK_COLUMN

State = dict[str, Tensor]
Pairs = Literal["once", "each block", "distances"]


@torch.inference_mode()
def plain_reading(
    state: State, features: npt.NDArray, coords: npt.NDArray, organ: int, tech: int, pairs: Pairs = "once"
) -> Tensor:
    """Log1p expression of all columns, (N, genes), from features (N, 1536) float32 and coords (N, 2).

    The spatial features of every pair of tiles and the bias of every head stand in memory; gene expression enters as one
    row of the vocabulary's width a tile; every gene's column is computed. The features are made `once` for all blocks, or
    in `each block`; `distances` knows that the offsets average to zero and makes distances alone, once.
    """
    xy = torch.from_numpy(coords - coords.min(0))
    xy = (xy / xy.max(0).values * 100).float()
    genes = state["gene_exp_head.1.bias"].shape[0]
    expression = F.one_hot(torch.full((len(xy),), MASK_COLUMN), genes).float()  # (N, genes): no spot is measured
    x = (
        _linear(state, torch.from_numpy(features), "input_encoder.image_embed")
        + F.linear(expression, state["input_encoder.gene_embed.weight"])
        + state["input_encoder.tech_embed.weight"][tech]
        + state["input_encoder.organ_embed.weight"][organ]
    )
    make = (lambda: torch.cdist(xy, xy)[..., None]) if pairs == "distances" else (lambda: _pair_features(xy))
    kept = None if pairs == "each block" else make()

    def attend(q: Tensor, k: Tensor, v: Tensor, edge: Tensor) -> Tensor:
        spatial = make() if kept is None else kept  # (N, N, 3 or 1)
        bias = F.linear(spatial, edge[:, -spatial.shape[-1] :]).permute(2, 0, 1)  # (heads, N, N)
        return (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias).softmax(-1) @ v

    return _linear(state, _blocks(state, x, attend), "gene_exp_head.1")


@torch.inference_mode()
def without_bias(state: State, features: npt.NDArray, organ: int, tech: int, columns: list[int]) -> Tensor:
    """Some columns, (N, len(columns)), of the network with w_h = 0."""
    given = torch.from_numpy(features).to(state["gene_exp_head.1.bias"].device)
    x = _linear(state, given, "input_encoder.image_embed").float()
    x += state["input_encoder.gene_embed.weight"][:, MASK_COLUMN]
    x += state["input_encoder.tech_embed.weight"][tech] + state["input_encoder.organ_embed.weight"][organ]
    x = _blocks(state, x, lambda q, k, v, _: F.scaled_dot_product_attention(q[None], k[None], v[None])[0])
    return F.linear(x, state["gene_exp_head.1.weight"][columns], state["gene_exp_head.1.bias"][columns])


def _blocks(state: State, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The blocks and the head's norm, (N, d) -> (N, d)."""
    n = len(x)
    for i in range(sum(k.endswith("edge_bias.0.weight") for k in state)):
        attn, mlp = f"model.blks.{i}.attn", f"model.blks.{i}.mlp"
        edge = state[f"{attn}.edge_bias.0.weight"]  # (heads, 3)
        qkv = _linear(state, _norm(state, x, f"{attn}.layernorm_qkv.0"), f"{attn}.layernorm_qkv.1")  # (N, 3d)
        q, k, v = qkv.view(n, 3, len(edge), -1).permute(1, 2, 0, 3)  # (3, heads, N, d/heads)
        a = attend(q, k, v, edge).transpose(0, 1).reshape(n, -1)  # (N, d)
        x = x + _linear(state, a, f"{attn}.W_output.0")
        hidden = _norm(state, F.gelu(_linear(state, x, f"{mlp}.fc1")), f"{mlp}.norm")
        x = x + _linear(state, hidden, f"{mlp}.fc2")
    return _norm(state, x, "gene_exp_head.0")


def _pair_features(xy: Tensor) -> Tensor:
    """Spatial features of each pair of tiles, (N, 2) -> (N, N, 3): offsets averaged over the frames, and the distance.

    The frames are the principal axes of the layout in their four combinations of signs.
    """
    offset = xy[:, None] - xy[None]  # (N, N, 2)
    _, axes = torch.linalg.eigh(torch.cov(xy.T))
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    frames = torch.stack([offset @ (axes * s) for s in signs])  # (4, N, N, 2)
    return torch.cat([frames.mean(0), offset.norm(dim=-1, keepdim=True)], -1)


def _linear(state: State, x: Tensor, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: State, x: Tensor, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])
