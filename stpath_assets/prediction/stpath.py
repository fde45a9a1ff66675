"""The STPath network: exact, with memory that grows with the number of tiles, not its square.

Huang et al., "STPath: a generative foundation model for integrating spatial transcriptomics and whole-slide images", npj
Digital Medicine 2025. Written from the description of what the published weights compute. Attention has a bias w_h · |xy_i -
xy_j|, computed for a chunk of rows at a time, or for very many tiles on a GPU by a fused kernel where it is added. Only the
gene columns that are asked for are read. Units: coordinates any, expression log1p.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from stpath_assets.errors import FeatureError, SettingsError
from stpath_assets.prediction import checkpoint
from stpath_assets.prediction.context import Context
from stpath_assets.prediction.inputs import ROWS, check_inputs, chunks, scaled_coordinates
from stpath_assets.prediction.products import linear
from stpath_assets.storage.fingerprint import sha256_of_file
from stpath_assets.vocabulary import tokens
from stpath_assets.vocabulary.genes import MASK_COLUMN, Unknown, Vocabulary

Dtype = Literal["float32", "bfloat16", "float16"]

CHUNK_BYTES = 24 * 2**20
"""Memory of attention for a chunk of rows against all tiles: distances, the scores of one head, and their softmax."""

GPU_CHUNK_BYTES = 2**30
"""The same on a GPU, whose thousands of units starve on less."""

MIN_CHUNK = 128  # with fewer rows, matrix products would starve, whatever the memory

FUSED_FROM = 100_000
"""Tiles from which on a GPU fuses attention in half precision. Compiling the kernel takes a process 9 to 16 s, which fewer tiles
do not win back: on an H200, 50,000 take 0.4 s fused and 1.1 s in chunks. In float32 the kernel is slower than chunks."""

FUSED_ROWS = 16384  # rows of the MLP at a time with fused attention, to keep a GPU busy

BLOCK_BYTES = 8 * 2**20
"""Memory for the values of a block of genes in `predict_blocks`."""

GENES_A_BLOCK = (64, 512)  # at least, at most; 64 are a row group of the stored table


class STPath:
    """The network with its vocabulary. `state` holds all tensors under their published names.

    `dtype` is the type of the matrix products inside the blocks, and of fused attention. Sums, norms, softmax,
    distances, embeddings and the head are always float32. Largest errors on the golden outputs (log1p values up to 2.0,
    measured on CPU): float32 1.2e-6, float16 0.0014, bfloat16 0.013.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        vocabulary: Vocabulary,
        name: str = "state",
        sha256: str = "none",
        dtype: Dtype = "float32",
    ) -> None:
        if dtype not in get_args(Dtype):
            raise SettingsError(f"unknown dtype {dtype!r}; known: {', '.join(get_args(Dtype))}")
        self.sizes = checkpoint.check(state, vocabulary, name)
        self.vocabulary, self.sha256, self.dtype = vocabulary, sha256, dtype
        self.device = state["gene_exp_head.1.bias"].device
        self.fused: bool | None = None  # whether attention is fused; None chooses by device and number of tiles
        products = ("layernorm_qkv.1.", "W_output.0.", "fc1.", "fc2.")
        self.state = {
            k: v.to(getattr(torch, dtype)) if k.startswith("model.") and any(p in k for p in products) else v
            for k, v in state.items()
        }

    @classmethod
    def load(
        cls, weights: str | Path, vocabulary: str | Path, device: str = "cpu", dtype: Dtype = "float32"
    ) -> "STPath":
        """Load a checkpoint of any size in the published layout (`torch.save` or safetensors), and its vocabulary.

        Raises `WeightsError` for files that are missing, damaged, incomplete, or do not fit each other.
        """
        path = Path(weights).expanduser()
        state = checkpoint.read(path, device)
        return cls(state, Vocabulary.load(vocabulary), path.name, sha256_of_file(path), dtype)

    def provenance(self, organ: str | None, tech: str | None, genes: Sequence[str] | None) -> dict[str, Any]:
        """Return what a prediction depends on besides its features. All but `device` can change its numbers visibly.

        Devices differ only in the order of sums, by about 1e-6. `genes` is None for all, else in ascending order.
        """
        return {
            "stpath_weights_sha256": self.sha256,
            "vocabulary_sha256": self.vocabulary.sha256,
            "organ": tokens.organ(organ),
            "tech": tokens.tech(tech),
            "genes": None if genes is None else sorted(genes),
            "dtype": self.dtype,
            "device": str(self.device),
        }

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
        """Predict log1p expression, (N, genes) float32, columns in the order of `genes`.

        `features` (N, 1536). `coords` (N, 2) centres in any unit. `genes` None is every gene, by column. `context` holds measured
        counts of some of the N spots. `tile_ids` names tiles in errors. Inputs are never changed. Raises `FeatureError` for wrong
        shapes and values that are not finite, `VocabularyError` for unknown organs, technologies and genes, `SpotsError` for a
        context that does not fit.
        """
        names, _ = self.vocabulary.select(genes, unknown)
        out, done = np.empty((0, len(names)), np.float32), 0
        for block, values in self.predict_blocks(features, coords, organ, tech, names, context, tile_ids=tile_ids):
            if done == 0:
                out = np.empty((len(values), len(names)), np.float32)
            out[:, done : done + len(block)] = values
            done += len(block)
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
    ) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
        """Predict as `predict` does, but yield (genes, values (N, len(genes))) for some genes at a time, to save memory."""
        names, columns = self.vocabulary.select(genes, unknown)
        x = self._hidden(*check_inputs(features, coords, self.sizes.features, tile_ids), organ, tech, context)
        for part in chunks(len(columns), block_genes(len(x))):
            yield names[part], self._head(x, columns[part])

    def hidden(
        self,
        features: npt.ArrayLike,
        coords: npt.ArrayLike,
        organ: str | None = None,
        tech: str | None = None,
        context: Context | None = None,
        *,
        tile_ids: Sequence[str] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the state of the last layer, (N, d) float32, from which the head reads each gene. Inputs as for `predict`."""
        x = self._hidden(*check_inputs(features, coords, self.sizes.features, tile_ids), organ, tech, context)
        return x.float().cpu().numpy()

    @torch.inference_mode()
    def _hidden(
        self,
        features: npt.NDArray,
        xy: npt.NDArray[np.float64],
        organ: str | None,
        tech: str | None,
        context: Context | None,
    ) -> Tensor:
        """Return the hidden state of the last layer, (N, d), from which the head reads each gene."""
        s = self.state
        x = torch.empty(len(features), self.sizes.d_model, device=self.device)
        for rows in chunks(len(x), ROWS):
            f = torch.from_numpy(np.array(features[rows], np.float32)).to(self.device)
            x[rows] = self._linear(f, "input_encoder.image_embed")  # (c, 1536) -> (c, d)
        x += s["input_encoder.tech_embed.weight"][tokens.tech_id(tech)]
        x += s["input_encoder.organ_embed.weight"][tokens.organ_id(organ)]
        self._add_expression(x, context)
        self._transform(x, scaled_coordinates(xy).T.contiguous().to(self.device))
        x = self._norm(x, "gene_exp_head.0")
        if not x.isfinite().all():
            raise FeatureError(f"numbers overflow in {self.dtype}: check the features' scale, or use float32")
        return x

    @torch.inference_mode()
    def _head(self, x: Tensor, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Compute the genes of some columns, (N, d) -> (N, G), with each gene's values contiguous, as they are stored."""
        weight, bias = self._pair("gene_exp_head.1")
        rows = torch.from_numpy(columns).to(self.device)
        values = linear(weight[rows], x).add_(bias[rows, None])  # (G, d) x (N, d)ᵀ -> (G, N)
        return values.cpu().numpy().T

    def _add_expression(self, x: Tensor, context: Context | None) -> None:
        """Add the gene embedding to x (N, d): of the measured counts, or of the mask token without any."""
        embed = self.state["input_encoder.gene_embed.weight"]  # (d, genes)
        measured = None if context is None else context.columns(self.vocabulary, len(x))
        unmeasured = torch.ones(len(x), 1, device=self.device)
        if measured is not None:
            indices, columns, log_counts = measured
            spots = torch.from_numpy(indices).to(self.device)
            unmeasured[spots] = 0
            for part in chunks(len(columns), ROWS):
                table = embed[:, torch.from_numpy(columns[part]).to(self.device)].T  # (d, K) -> (K, d)
                added = log_counts[:, part] @ table.contiguous().cpu().numpy()  # sparse (M, K) x (K, d)
                x[spots] += torch.from_numpy(added).to(self.device)
        x.addcmul_(unmeasured, embed[:, MASK_COLUMN])

    def _transform(self, x: Tensor, xy: Tensor) -> None:
        """Apply the blocks, (N, d) -> (N, d), in place; xy (2, N).

        Queries, keys and values of all tiles are in memory; distances, scores and the MLP only for a chunk of rows.
        """
        n, d = x.shape
        heads = self.sizes.heads
        attend = _fused if self._is_fused(n) else _chunked
        qkv = x.new_empty(3, heads, n, d // heads, dtype=getattr(torch, self.dtype))
        for i in range(self.sizes.layers):
            attn = f"model.blks.{i}.attn"
            for rows in chunks(n, ROWS):
                y = self._linear(self._norm(x[rows], f"{attn}.layernorm_qkv.0"), f"{attn}.layernorm_qkv.1")  # (c, 3d)
                qkv[:, :, rows] = y.view(-1, 3, heads, d // heads).permute(1, 2, 0, 3)  # (3, heads, c, d/heads)
            weights = self.state[f"{attn}.edge_bias.0.weight"][:, 2]
            q, k, v = qkv
            for rows, a in attend(q, k, v, xy, weights):  # (c, d)
                y = x[rows].add_(self._linear(a, f"{attn}.W_output.0"))
                y.add_(self._mlp(y, f"model.blks.{i}.mlp"))

    def _is_fused(self, n: int) -> bool:
        if self.fused is not None:
            return self.fused
        return self.device.type == "cuda" and self.dtype != "float32" and n >= FUSED_FROM

    def _mlp(self, x: Tensor, name: str) -> Tensor:
        """Return fc2(LayerNorm(GELU(fc1(x)))). The norm is inside; there is none before."""
        h = F.gelu(self._linear(x, f"{name}.fc1"))
        return self._linear(self._norm(h, f"{name}.norm"), f"{name}.fc2")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._pair(name)
        return linear(x.to(weight.dtype), weight, bias)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x.float(), x.shape[1:], *self._pair(name))

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]


def chunk_rows(n: int, budget: int) -> int:
    """Return how many rows fit the budget, with three float32 numbers per row for each of n tiles."""
    return max(MIN_CHUNK, budget // (3 * 4 * max(n, 1)))


def block_genes(n: int, budget: int = BLOCK_BYTES) -> int:
    """Return how many genes of n tiles fit the budget as float32, in whole row groups of the stored table."""
    least, most = GENES_A_BLOCK
    return min(most, max(least, budget // (4 * max(n, 1)) // least * least))


def _chunked(q: Tensor, k: Tensor, v: Tensor, xy: Tensor, weights: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Compute softmax(q·k / sqrt(d) + w_h · distance) v in float32, for a chunk of c rows at a time, on any device.

    q, k, v (heads, N, d), xy (2, N), weights w (heads,) -> rows and their (c, heads · d).
    """
    heads, n, width = q.shape
    size = chunk_rows(n, GPU_CHUNK_BYTES if q.is_cuda else CHUNK_BYTES)
    k, v = k.float(), v.float()
    buffers = xy.new_empty(2, min(size, n), n)  # fresh memory for each chunk would cost a tenth of the time
    for rows in chunks(n, size):
        distance, spare = buffers[:, : rows.stop - rows.start]
        distances(xy[:, rows], xy, distance, spare)
        out = xy.new_empty(len(distance), heads, width)
        for h, w in enumerate(weights.tolist()):
            scores = linear(q[h, rows].float() * width**-0.5, k[h]).add_(distance, alpha=w)  # (c, N)
            out[:, h] = linear(torch.softmax(scores, -1, out=spare), v[h].T)  # (c, N) x (N, d) -> (c, d)
        yield rows, out.view(-1, heads * width)


def distances(xy: Tensor, all_xy: Tensor, out: Tensor, spare: Tensor) -> Tensor:
    """Compute Euclidean distances, (2, c) and (2, N) -> (c, N), into `out`; `spare` has the same size.

    Uses differences, because the expanded square loses the digits of close pairs. Computed again in each layer: keeping them
    would take N² floats and save at most 4 % of the time (4,000 tiles).
    """
    torch.sub(xy[0, :, None], all_xy[0], out=out)
    torch.sub(xy[1, :, None], all_xy[1], out=spare)
    return out.mul_(out).addcmul_(spare, spare).sqrt_()


def _fused(q: Tensor, k: Tensor, v: Tensor, xy: Tensor, weights: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Compute the same as `_chunked`, in the dtype of q, with the distance added inside the kernel and no scores in memory.

    Compiled on a GPU. Elsewhere, for tests only, it runs as plain operations with all N x N scores in memory.
    """
    heads, n, width = q.shape
    # The kernels need head sizes that are powers of two from 16. Padding q and k with zeros changes no product.
    wide = max(16, 1 << (width - 1).bit_length())
    if wide != width:
        q, k, v = (F.pad(t, (0, wide - width)) for t in (q, k, v))
    if n == 0:
        return
    attend = _compiled() if q.is_cuda else _flex
    a = attend(q[None], k[None], v[None], xy[0], xy[1], weights, width**-0.5)[0, ..., :width]  # (heads, N, d)
    for rows in chunks(n, FUSED_ROWS):
        yield rows, a[:, rows].transpose(0, 1).reshape(-1, heads * width)  # (c, heads · d)


def _flex(q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor, weights: Tensor, scale: float) -> Tensor:
    def biased(score: Tensor, _batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        dx, dy = x[i] - x[j], y[i] - y[j]
        return score + weights[head] * torch.sqrt(dx * dx + dy * dy)

    return flex_attention(q, k, v, score_mod=biased, scale=scale)


@cache
def _compiled() -> Any:
    # Dynamic shapes: slides differ in their number of tiles, and compiling for each would take longer than the slide.
    return torch.compile(_flex, dynamic=True)
