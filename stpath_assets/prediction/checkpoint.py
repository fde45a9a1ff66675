"""STPath checkpoints: the published layout of tensors, and the check that a file matches it.

Every size is read from the tensors, so small checkpoints load through the same code. The network is in `stpath`; finding files
is in `stpath_assets.weights`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stpath_assets.errors import WeightsError
from stpath_assets.vocabulary import tokens
from stpath_assets.vocabulary.genes import Vocabulary
from stpath_assets.weights import read_state_dict


@dataclass(frozen=True)
class Sizes:
    """The sizes of a network, from its state dict."""

    features: int
    d_model: int
    layers: int
    heads: int
    mlp: int
    genes: int

    @classmethod
    def of(cls, state: dict[str, Tensor], name: str) -> "Sizes":
        """Read every size from the tensors. Raises `WeightsError` if a tensor that is needed for this is missing."""
        try:
            d_model, features = state["input_encoder.image_embed.weight"].shape
            return cls(
                features,
                d_model,
                layers=sum(k.endswith(".attn.edge_bias.0.weight") for k in state),
                heads=state["model.blks.0.attn.edge_bias.0.weight"].shape[0],
                mlp=state["model.blks.0.mlp.fc1.weight"].shape[0],
                genes=state["input_encoder.gene_embed.weight"].shape[1],
            )
        except (KeyError, ValueError, IndexError) as e:
            raise WeightsError(
                f"{name}: is not an STPath checkpoint ({e}: missing or misshapen); fetch stfm.pth again"
            ) from e

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the published layout."""
        d, f = self.d_model, self.mlp
        shapes: dict[str, tuple[int, ...]] = {
            "input_encoder.image_embed.weight": (d, self.features),
            "input_encoder.image_embed.bias": (d,),
            "input_encoder.gene_embed.weight": (d, self.genes),
            "input_encoder.tech_embed.weight": (len(tokens.TECHS), d),
            "input_encoder.organ_embed.weight": (len(tokens.ORGANS), d),
        }
        for i in range(self.layers):
            attn, mlp = f"model.blks.{i}.attn", f"model.blks.{i}.mlp"
            shapes |= {f"{attn}.layernorm_qkv.0.{p}": (d,) for p in ("weight", "bias")}
            shapes |= {f"{attn}.layernorm_qkv.1.weight": (3 * d, d), f"{attn}.layernorm_qkv.1.bias": (3 * d,)}
            shapes |= {f"{attn}.W_output.0.weight": (d, d), f"{attn}.W_output.0.bias": (d,)}
            shapes |= {f"{attn}.edge_bias.0.weight": (self.heads, 3)}
            shapes |= {f"{mlp}.fc1.weight": (f, d), f"{mlp}.fc1.bias": (f,)}
            shapes |= {f"{mlp}.norm.weight": (f,), f"{mlp}.norm.bias": (f,)}
            shapes |= {f"{mlp}.fc2.weight": (d, f), f"{mlp}.fc2.bias": (d,)}
        shapes |= {f"gene_exp_head.0.{p}": (d,) for p in ("weight", "bias")}
        return shapes | {"gene_exp_head.1.weight": (self.genes, d), "gene_exp_head.1.bias": (self.genes,)}


def read(path: Path, device: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint in float32 on a device. See `stpath_assets.weights.read_state_dict`."""
    return {k: v.to(torch.float32) for k, v in read_state_dict(path, device).items()}


def check(state: dict[str, Tensor], vocabulary: Vocabulary, name: str) -> Sizes:
    """Check that a state dict matches the published layout in every tensor and fits its vocabulary, and return its sizes.

    Raises `WeightsError` for tensors that are missing, unknown, misshapen or not finite, and for a vocabulary of another size.
    `name` is the checkpoint's name in the error.
    """
    sizes = Sizes.of(state, name)
    expected = sizes.shapes()
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unknown:
        raise WeightsError(
            f"{name}: is not an STPath checkpoint: {len(missing)} tensors missing, {len(unknown)} unknown, "
            f"first {(missing + unknown)[0]}; fetch stfm.pth again"
        )
    for key, shape in expected.items():
        if tuple(state[key].shape) != shape:
            raise WeightsError(
                f"{name}: {key} has shape {tuple(state[key].shape)} where its other tensors need {shape}; fetch it again"
            )
        if not state[key].isfinite().all():
            raise WeightsError(f"{name}: {key} holds numbers that are not finite; it is damaged, fetch it again")
    if sizes.d_model % sizes.heads:
        raise WeightsError(f"{name}: {sizes.d_model} dimensions do not divide into {sizes.heads} heads; fetch it again")
    if vocabulary.width != sizes.genes:
        raise WeightsError(
            f"{name}: has {sizes.genes} gene columns, its vocabulary makes {vocabulary.width} "
            f"({len(vocabulary)} Ensembl ids and 2); use the symbol2ensembl.json that these weights were trained with"
        )
    return sizes
