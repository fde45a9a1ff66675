"""In-context spots: measured counts of some of a slide's spots, given to the network in addition to all images.

Counts may be a sparse matrix of the whole transcriptome. Nothing as wide as the vocabulary is made dense.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy

from stpath_assets.errors import SpotsError

if TYPE_CHECKING:
    from stpath_assets.vocabulary.genes import Vocabulary


@dataclass(frozen=True)
class Context:
    """Raw counts (M, K), dense or sparse, of K `genes` for the spots at M `indices` among all the tiles.

    Genes are symbols or Ensembl ids. The inputs are never changed.
    """

    indices: npt.ArrayLike
    counts: Any
    genes: Sequence[str]

    @classmethod
    def from_mask(cls, mask: npt.ArrayLike, counts: Any, genes: Sequence[str]) -> "Context":
        """Return the spots where `mask` (N,) is True, from the counts (N, K) of all N tiles.

        Other counts are ignored. Raises `SpotsError` if the mask is not boolean, or not of length N.
        """
        chosen, tiles = np.asarray(mask), np.shape(counts)[0]
        if chosen.dtype != bool or chosen.shape != (tiles,):
            raise SpotsError(
                f"context: the mask has shape {chosen.shape} and type {chosen.dtype}; give True or False for each of the "
                f"{tiles} rows of counts"
            )
        indices = np.flatnonzero(chosen)
        return cls(indices, _rows(counts, indices), genes)

    def sample(self, fraction: float, seed: int) -> "Context":
        """Return a random part of these spots, without repeats: a share `fraction` of them, rounded, at least one.

        The same seed gives the same spots. Raises `SpotsError` for a fraction outside (0, 1].
        """
        if not 0 < fraction <= 1:
            raise SpotsError(f"context: cannot sample a fraction of {fraction:g}; give one above 0, at most 1")
        indices = np.asarray(self.indices)
        size = min(len(indices), max(1, round(fraction * len(indices))))
        chosen = np.sort(np.random.default_rng(seed).choice(len(indices), size, replace=False))
        return Context(indices[chosen], _rows(self.counts, chosen), self.genes)

    def columns(
        self, vocabulary: "Vocabulary", n: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], "scipy.sparse.csc_array"] | None:
        """Return indices (M,), the known gene columns (U,), and their float32 log1p counts (M, U), or None if no gene is known.

        Unknown genes are dropped. If several symbols have one Ensembl id, each spot uses the largest count. Raises `SpotsError`
        for indices outside the n tiles or given twice, and for counts that are negative or not finite.
        """
        indices, counts = self._checked(n)
        found = [vocabulary.find(str(g)) for g in self.genes]
        known = np.array([i for i, c in enumerate(found) if c is not None], np.int64)
        if len(known) == 0:
            warnings.warn(
                "no gene of the context is known to these weights: its spots count as unmeasured",
                UserWarning,
                stacklevel=2,
            )
            return None
        columns, place = np.unique(np.array([found[i] for i in known], np.int64), return_inverse=True)
        coo = counts[:, known].tocoo()
        logs = np.log1p(coo.data).astype(np.float32)
        return indices, columns, _largest(coo.row, place[coo.col], logs, (len(indices), len(columns)))

    def _checked(self, n: int) -> tuple[npt.NDArray[np.int64], "scipy.sparse.csc_array"]:
        indices = np.asarray(self.indices)
        try:
            counts = scipy.sparse.csc_array(self.counts, dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise SpotsError(
                f"context: counts are not a matrix of numbers ({e}); give raw counts, spots by genes"
            ) from e
        if not counts.has_canonical_format:  # duplicate entries mean their sum
            counts = counts.copy()
            counts.sum_duplicates()
        if counts.shape != (len(indices), len(self.genes)):
            raise SpotsError(
                f"context: counts have shape {counts.shape}, not ({len(indices)} spots, {len(self.genes)} genes)"
            )
        if indices.ndim != 1 or (len(indices) and indices.dtype.kind not in "iu"):
            raise SpotsError(
                "context: indices must be a list of whole numbers; turn a mask into them with numpy.flatnonzero"
            )
        if len(indices) and (indices.min() < 0 or indices.max() >= n):
            raise SpotsError(
                f"context: indices {indices.min()} to {indices.max()} are outside the {n} tiles, which count from 0"
            )
        if len(np.unique(indices)) != len(indices):
            raise SpotsError("context: a spot is given twice; give each index once")
        if not np.isfinite(counts.data).all() or (counts.data < 0).any():
            raise SpotsError("context: counts are negative or not finite; give raw counts")
        return indices.astype(np.int64), counts


def _rows(counts: Any, indices: npt.NDArray) -> Any:
    """Return some rows of counts, dense or sparse in any format."""
    return counts.tocsr()[indices] if scipy.sparse.issparse(counts) else np.asarray(counts)[indices]


def _largest(
    row: npt.NDArray, column: npt.NDArray, values: npt.NDArray, shape: tuple[int, int]
) -> "scipy.sparse.csc_array":
    """Make a sparse matrix from triplets, keeping the largest of several values at one place."""
    order = np.lexsort((values, row, column))
    row, column, values = row[order], column[order], values[order]
    last = np.ones(len(row), bool)
    last[:-1] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    return scipy.sparse.csc_array((values[last], (row[last], column[last])), shape=shape)
