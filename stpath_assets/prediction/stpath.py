"""The STPath network: exact, in memory that grows with the number of tiles and not with its square.

Huang et al., "STPath: a generative foundation model for integrating spatial transcriptomics and whole-slide
images", npj Digital Medicine 2025. Written from the description of what the published weights compute.
Attention carries a bias w_h · |xy_i - xy_j|, so it is computed for a chunk of rows at a time; gene columns
are touched only where they are asked for. Units: coordinates any, expression log1p.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stpath_assets.errors import FeatureError, WeightsError
from stpath_assets.fingerprint import sha256_of_file
from stpath_assets.prediction.context import Context
from stpath_assets.prediction.vocabulary import MASK_COLUMN, Unknown, Vocabulary
from stpath_assets.slides import tokens
from stpath_assets.weights import read_state_dict

CHUNK_BYTES = 32 * 2**20
"""Memory for the distances of a chunk of rows to all tiles, and as much again for one head's bias."""

MIN_CHUNK = 32  # fewer rows than this leave the matrix product starved, whatever the memory

GENE_BLOCK = 512
"""Genes whose columns `predict_blocks` computes at once."""


@dataclass(frozen=True)
class Sizes:
    """What a state dict says of its network."""

    features: int
    d_model: int
    layers: int
    heads: int
    mlp: int
    genes: int

    @classmethod
    def of(cls, state: dict[str, Tensor], name: str) -> "Sizes":
        """Reads every size off the tensors; raises `WeightsError` where those that tell it are missing."""
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
        except (KeyError, ValueError) as e:
            raise WeightsError(f"{name}: is no STPath checkpoint, {e} is missing; fetch stfm.pth again") from e

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the published layout and its shape."""
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


class STPath:
    """The network with its vocabulary. Everything it needs is in `state`, under the published names."""

    def __init__(
        self, state: dict[str, Tensor], vocabulary: Vocabulary, name: str = "state", sha256: str = "none"
    ) -> None:
        self.sizes = Sizes.of(state, name)
        _check(state, self.sizes, vocabulary, name)
        self.state, self.vocabulary, self.sha256 = state, vocabulary, sha256
        self.device = state["gene_exp_head.1.bias"].device

    @classmethod
    def load(cls, weights: str | Path, vocabulary: str | Path, device: str = "cpu") -> "STPath":
        """Loads a checkpoint in the published layout and its vocabulary, whatever its sizes.

        Raises `WeightsError` for files that are missing, damaged, incomplete, or do not fit each other.
        """
        path = Path(weights).expanduser()
        state = {k: v.to(torch.float32) for k, v in read_state_dict(path, device).items()}
        return cls(state, Vocabulary.load(vocabulary), path.name, sha256_of_file(path))

    def predict(
        self,
        features: npt.ArrayLike,
        coords: npt.ArrayLike,
        organ: str | None = None,
        tech: str | None = None,
        genes: Sequence[str] | None = None,
        context: Context | None = None,
        *,
        unknown: Unknown = "error",
        tile_ids: Sequence[str] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Predicted log1p expression, (N, genes) float32, columns in the order asked for.

        `features` (N, 1536); `coords` (N, 2) centres in any unit; `genes` None for every gene by column;
        `context` measured counts of some of the N spots; `tile_ids` names tiles in errors. Inputs are never
        changed. Raises `FeatureError` for wrong shapes and numbers that are not finite, `VocabularyError` for
        unknown organs, technologies and genes.
        """
        names, _ = self.vocabulary.select(genes, unknown)
        out: npt.NDArray[np.float32] | None = None
        done = 0
        for block, values in self.predict_blocks(features, coords, organ, tech, names, context, tile_ids=tile_ids):
            if len(block) == len(names):
                return values
            out = np.empty((len(values), len(names)), np.float32) if out is None else out
            out[:, done : done + len(block)] = values
            done += len(block)
        assert out is not None
        return out

    def predict_blocks(
        self,
        features: npt.ArrayLike,
        coords: npt.ArrayLike,
        organ: str | None = None,
        tech: str | None = None,
        genes: Sequence[str] | None = None,
        context: Context | None = None,
        *,
        unknown: Unknown = "error",
        tile_ids: Sequence[str] | None = None,
        block: int = GENE_BLOCK,
    ) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
        """As `predict`, but yields (genes, (N, len(genes))) for `block` genes at a time: all genes in little
        memory.
        """
        names, columns = self.vocabulary.select(genes, unknown)
        organ_row, tech_row = tokens.organ_id(organ), tokens.tech_id(tech)
        f, xy = _inputs(features, coords, self.sizes.features, tile_ids)
        with torch.inference_mode():
            x = self._encode_inputs(f, organ_row, tech_row, context)
            x = self._transform(x, scaled_coordinates(xy).to(self.device))
            x = F.layer_norm(x, x.shape[1:], *self._pair("gene_exp_head.0"))
            weight, bias = self._pair("gene_exp_head.1")
            for first in range(0, len(columns), block):
                rows = torch.from_numpy(columns[first : first + block]).to(self.device)
                values = F.linear(x, weight[rows], bias[rows])  # (N, d) x (d, block) -> (N, block)
                yield names[first : first + block], values.cpu().numpy()

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def _encode_inputs(self, features: Tensor, organ: int, tech: int, context: Context | None) -> Tensor:
        """Sum of the image, gene, technology and organ embeddings, (N, 1536) -> (N, d)."""
        s = self.state
        gene_embed = s["input_encoder.gene_embed.weight"]  # (d, genes)
        x = F.linear(features.to(self.device), *self._pair("input_encoder.image_embed"))
        x += s["input_encoder.tech_embed.weight"][tech] + s["input_encoder.organ_embed.weight"][organ]
        measured = None if context is None else context.columns(self.vocabulary, len(x))
        mask = gene_embed[:, MASK_COLUMN]
        if measured is None:
            return x.add_(mask)
        indices, columns, log_counts = measured
        table = gene_embed[:, torch.from_numpy(columns).to(self.device)].T.cpu().numpy()  # (K, d)
        spots = torch.from_numpy(indices).to(self.device)
        is_measured = torch.zeros(len(x), dtype=torch.bool, device=self.device)
        is_measured[spots] = True
        x[~is_measured] += mask
        x[spots] += torch.from_numpy(np.asarray(log_counts @ table, np.float32)).to(self.device)
        return x

    def _transform(self, x: Tensor, xy: Tensor) -> Tensor:
        """The blocks, (N, d) -> (N, d); overwrites x.

        Keys and values of all tiles stand in memory; queries, distances and the MLP only for a chunk of rows.
        """
        n, d = x.shape
        heads, chunk = self.sizes.heads, chunk_rows(n)
        for i in range(self.sizes.layers):
            norm = self._pair(f"model.blks.{i}.attn.layernorm_qkv.0")
            weight, bias = self._pair(f"model.blks.{i}.attn.layernorm_qkv.1")
            distance_weight = self.state[f"model.blks.{i}.attn.edge_bias.0.weight"][:, 2].tolist()
            k, v = (x.new_empty(heads, n, d // heads) for _ in range(2))
            for rows in _chunks(n, chunk):
                kv = F.linear(F.layer_norm(x[rows], (d,), *norm), weight[d:], bias[d:])  # (c, 2d)
                kv = kv.view(-1, 2, heads, d // heads).permute(1, 2, 0, 3)  # (2, heads, c, d/heads)
                k[:, rows], v[:, rows] = kv[0], kv[1]
            for rows in _chunks(n, chunk):
                q = F.linear(F.layer_norm(x[rows], (d,), *norm), weight[:d], bias[:d])
                q = q.view(-1, heads, d // heads).transpose(0, 1)  # (c, d) -> (heads, c, d/heads)
                a = _attention(q, k, v, distances(xy[rows], xy), distance_weight)  # (heads, c, d/heads)
                a = a.transpose(0, 1).reshape(-1, d)  # (c, d)
                y = x[rows].add_(F.linear(a, *self._pair(f"model.blks.{i}.attn.W_output.0")))
                y.add_(self._mlp(i, y))
        return x

    def _mlp(self, i: int, x: Tensor) -> Tensor:
        """fc2(LayerNorm(GELU(fc1(x)))): the norm is inside, none before."""
        h = F.gelu(F.linear(x, *self._pair(f"model.blks.{i}.mlp.fc1")))
        h = F.layer_norm(h, h.shape[1:], *self._pair(f"model.blks.{i}.mlp.norm"))
        return F.linear(h, *self._pair(f"model.blks.{i}.mlp.fc2"))


def chunk_rows(n: int, budget: int = CHUNK_BYTES) -> int:
    """Rows whose float32 distances to n tiles fit the budget."""
    return max(MIN_CHUNK, budget // (4 * max(n, 1)))


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances, (c, 2) and (N, 2) -> (c, N).

    By differences, not by the expanded square: that loses the digits of close pairs.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def scaled_coordinates(xy: npt.NDArray[np.float64]) -> Tensor:
    """Each axis by itself from 0 to 100, (N, 2) float32; an axis without extent is 0."""
    if len(xy) == 0:
        return torch.zeros(0, 2)
    offset = xy - xy.min(axis=0)
    extent = offset.max(axis=0)
    return torch.from_numpy((offset / np.where(extent > 0, extent, 1) * 100).astype(np.float32))


def _attention(q: Tensor, k: Tensor, v: Tensor, distance: Tensor, weights: list[float]) -> Tensor:
    """softmax(q·k / sqrt(d) + w_h · distance) v for each head; the bias of one head at a time stands in
    memory.
    """
    out, bias = torch.empty_like(q), torch.empty_like(distance)
    for h, w in enumerate(weights):
        torch.mul(distance, w, out=bias)
        out[h] = F.scaled_dot_product_attention(q[None, None, h], k[None, None, h], v[None, None, h], bias[None, None])[
            0, 0
        ]
    return out


def _chunks(n: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def _inputs(
    features: npt.ArrayLike, coords: npt.ArrayLike, width: int, tile_ids: Sequence[str] | None
) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """The inputs as float32 and float64 of right shapes, copies where they must change."""
    f = np.ascontiguousarray(features, dtype=np.float32)
    xy = np.asarray(coords, dtype=np.float64)
    if f.ndim != 2 or f.shape[1] != width:
        raise FeatureError(
            f"features have shape {f.shape}; these weights take (tiles, {width}): embed with the encoder they were trained on"
        )
    if xy.shape != (len(f), 2):
        raise FeatureError(
            f"coords have shape {xy.shape}, not ({len(f)}, 2): give one x, y for each of the {len(f)} tiles"
        )
    if tile_ids is not None and len(tile_ids) != len(f):
        raise FeatureError(f"{len(tile_ids)} tile_ids for {len(f)} tiles: give one each")
    for what, values in (("features", f), ("coords", xy)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            some = ", ".join(str(i if tile_ids is None else tile_ids[i]) for i in bad[:5])
            raise FeatureError(
                f"{what} of {len(bad)} tiles are not finite (NaN or infinite): {some}{', …' if len(bad) > 5 else ''}"
            )
    if not f.flags.writeable:
        f = f.copy()
    return torch.from_numpy(f), xy


def _check(state: dict[str, Tensor], sizes: Sizes, vocabulary: Vocabulary, name: str) -> None:
    expected = sizes.shapes()
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unknown:
        raise WeightsError(
            f"{name}: is no STPath checkpoint: {len(missing)} tensors missing, {len(unknown)} unknown, first {(missing + unknown)[0]}"
        )
    for key, shape in expected.items():
        if tuple(state[key].shape) != shape:
            raise WeightsError(
                f"{name}: {key} has shape {tuple(state[key].shape)} where its other tensors need {shape}; fetch it again"
            )
    if sizes.d_model % sizes.heads:
        raise WeightsError(f"{name}: {sizes.d_model} dimensions do not divide into {sizes.heads} heads; fetch it again")
    if vocabulary.width != sizes.genes:
        raise WeightsError(
            f"{name}: has {sizes.genes} gene columns, its vocabulary makes {vocabulary.width} "
            f"({len(vocabulary)} Ensembl ids and 2); use the symbol2ensembl.json that these weights were trained with"
        )
