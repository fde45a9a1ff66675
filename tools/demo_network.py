"""The STPath network for training: small, in the published layout, and differentiable.

Attention is dense, because a sample has only some hundred spots. The network for prediction, with limited memory on any slide, is
`stpath_assets.prediction.stpath`. A test compares the two.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stpath_assets.vocabulary import tokens
from stpath_assets.vocabulary.genes import FIRST_GENE_COLUMN as GENES_FROM
from stpath_assets.vocabulary.genes import MASK_COLUMN as MASK


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    d_model: int = 48
    layers: int = 2
    heads: int = 2
    mlp_ratio: int = 2


def initial_state(features: Tensor, log_counts: Tensor, shape: Shape, seed: int) -> dict[str, Tensor]:
    """Return the initial tensors in the published layout, from features (N, 1536) and log1p counts (M, G) by column.

    The image embedding starts as the first principal components of the features, at about unit variance. Centring and scaling
    are part of its weight and bias, so the checkpoint takes unscaled features. There are fewer spots than features, and most
    directions are noise.
    """
    d, f, genes = shape.d_model, shape.d_model * shape.mlp_ratio, log_counts.shape[1] + GENES_FROM
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=draw) * std

    centre = features.mean(0)
    _, s, components = torch.linalg.svd(features - centre, full_matrices=False)
    spread = s[:d] / len(features) ** 0.5
    image = components[:d] / (spread + 0.1 * spread[0])[:, None]
    state = {
        "input_encoder.image_embed.weight": image,
        "input_encoder.image_embed.bias": -image @ centre,
        "input_encoder.gene_embed.weight": normal(d, genes, std=0.01),
        "input_encoder.tech_embed.weight": torch.zeros(len(tokens.TECHS), d),
        "input_encoder.organ_embed.weight": torch.zeros(len(tokens.ORGANS), d),
        "gene_exp_head.0.weight": torch.ones(d),
        "gene_exp_head.0.bias": torch.zeros(d),
        "gene_exp_head.1.weight": normal(genes, d, std=0.02),
        "gene_exp_head.1.bias": F.pad(log_counts.mean(0), (GENES_FROM, 0)),
    }
    for i in range(shape.layers):
        attn, mlp = f"model.blks.{i}.attn", f"model.blks.{i}.mlp"
        for name, rows, columns, std in (
            (f"{attn}.layernorm_qkv.1", 3 * d, d, 0.1),
            (f"{attn}.W_output.0", d, d, 0.02),
            (f"{mlp}.fc1", f, d, d**-0.5),
            (f"{mlp}.fc2", d, f, 0.02),
        ):
            state |= {f"{name}.weight": normal(rows, columns, std=std), f"{name}.bias": torch.zeros(rows)}
        for name, width in ((f"{attn}.layernorm_qkv.0", d), (f"{mlp}.norm", f)):
            state |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
        # Start with a bias that falls with distance, so that near tiles count more. Only the third column has an effect.
        state[f"{attn}.edge_bias.0.weight"] = torch.tensor([0.0, 0.0, -0.05]).repeat(shape.heads, 1)
    return state


def forward(
    state: dict[str, Tensor],
    features: Tensor,
    xy: npt.NDArray[np.float64],
    organ: int,
    tech: int,
    context: Tensor | None = None,
) -> Tensor:
    """Return log1p expression of all gene columns, (N, genes), differentiable in `state`.

    `context` (N, genes - 2) holds log1p counts in the rows of measured spots, NaN in the others.
    """

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    offset = xy - xy.min(0)
    place = torch.from_numpy(offset / np.maximum(offset.max(0), 1e-9) * 100).float()
    distance = torch.cdist(place, place)
    x = linear(features, "input_encoder.image_embed")
    x = x + state["input_encoder.tech_embed.weight"][tech] + state["input_encoder.organ_embed.weight"][organ]
    embed = state["input_encoder.gene_embed.weight"]  # (d, genes)
    gene = embed[:, MASK].expand_as(x)
    if context is not None:
        measured = context.isfinite().all(1, keepdim=True)
        gene = torch.where(measured, context.nan_to_num() @ embed[:, GENES_FROM:].T, gene)
    x = x + gene
    for i in range(sum(k.endswith("edge_bias.0.weight") for k in state)):
        attn, mlp = f"model.blks.{i}.attn", f"model.blks.{i}.mlp"
        weight = state[f"{attn}.edge_bias.0.weight"][:, 2]
        qkv = linear(norm(x, f"{attn}.layernorm_qkv.0"), f"{attn}.layernorm_qkv.1")  # (N, 3d)
        q, k, v = qkv.view(len(x), 3, len(weight), -1).permute(1, 2, 0, 3)  # (3, heads, N, d/heads)
        bias = weight[:, None, None] * distance  # (heads, N, N)
        a = F.scaled_dot_product_attention(q, k, v, bias).transpose(0, 1).reshape(len(x), -1)
        x = x + linear(a, f"{attn}.W_output.0")
        x = x + linear(norm(F.gelu(linear(x, f"{mlp}.fc1")), f"{mlp}.norm"), f"{mlp}.fc2")
    return linear(norm(x, "gene_exp_head.0"), "gene_exp_head.1")
