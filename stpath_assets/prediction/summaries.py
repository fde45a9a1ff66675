"""Summarizes a slide's predictions by gene, once they are stored: `expression_by_slide`.

The catalog compares slides by these rows, and never reads the tiles of a cohort for it.

Moran's I is a measure of smoothness, not of quality: predictions are smoother than what is measured.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy

from stpath_assets.prediction.stored import models_of, require_predictions, table_of
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import EXPRESSION_BY_SLIDE, GIGAPATH_FEATURES, TILE_GRIDS
from stpath_assets.tiles import centers_of

CODE_VERSION = "2"
"""Raised when the same predictions give other rows of `expression_by_slide`."""

NEAR = 1.5
"""Tiles up to this many distances between neighbours apart count as neighbours: the eight around a tile of a grid."""

STEPS = 40
"""Number of equal steps between the stored quantiles, from the minimum to the maximum."""

NAMED = {"p05": 2, "median": 20, "p95": 38}
"""Quantiles that have a column of their own: the number of steps up to each."""


def summary_from(predicted: list[Fingerprint]) -> Fingerprint:
    """Return the fingerprint of a slide's `expression_by_slide` from those of its predictions, at least one."""
    first, *others = predicted
    facts = {k: v for p in others for k, v in p.facts.items() if k not in first.facts}
    return first.extend(EXPRESSION_BY_SLIDE.name, CODE_VERSION, **facts)


def store_summary(store: Store, slide_id: str) -> Outcome:
    """Bring a slide's `expression_by_slide` up to date with its stored predictions. Some genes are in memory at a time."""
    predicted_from = require_predictions(store, slide_id)
    if not predicted_from:
        store.remove([EXPRESSION_BY_SLIDE.name], slide_id)
        return Outcome(store.require(GIGAPATH_FEATURES.name, slide_id), False)
    fingerprint = summary_from(predicted_from)
    if store.is_current(EXPRESSION_BY_SLIDE.name, slide_id, fingerprint):
        return Outcome(fingerprint, False)
    near, tables = (
        neighbours(centers_of(store.read(TILE_GRIDS.name, slide_id))),
        [EXPRESSION_BY_SLIDE.schema.empty_table()],
    )
    for model in models_of(store, slide_id):
        table, section = table_of(model)
        for block in store.read_blocks(table, slide_id, section):
            if block.genes:
                tables.append(summary_rows(slide_id, model, block.genes, block.values, near))
    store.write(EXPRESSION_BY_SLIDE.name, slide_id, pa.concat_tables(tables).combine_chunks(), fingerprint)
    return Outcome(fingerprint, True)


def summary_rows(
    slide_id: str, model: str, genes: list[str], values: npt.NDArray, near: "scipy.sparse.csr_matrix"
) -> pa.Table:
    """Return rows of `expression_by_slide` for predictions (N tiles, genes) and the tiles' `neighbours`."""
    n, exact = values.shape[0], values.astype(np.float64)
    ascending = np.sort(np.ascontiguousarray(values.T), axis=1)  # (genes, N)
    quantiles, moran, gini = _quantiles(ascending), morans_i(exact, near), gini_of(ascending)
    columns = {
        "slide_id": [slide_id] * len(genes), "gene": genes, "model": [model] * len(genes), "tiles": [n] * len(genes),
        "mean": exact.mean(axis=0), "sd": exact.std(axis=0, ddof=1) if n > 1 else np.zeros(len(genes)),
        **{name: quantiles[:, i] for name, i in NAMED.items()},
        "smoothness": pa.array(moran, mask=np.isnan(moran)), "gini": pa.array(gini, mask=np.isnan(gini)),
        "quantiles": pa.FixedSizeListArray.from_arrays(quantiles.astype(np.float32).ravel(), STEPS + 1).cast(
            EXPRESSION_BY_SLIDE.schema.field("quantiles").type
        ),
    }  # fmt: skip
    return pa.Table.from_pydict(columns, EXPRESSION_BY_SLIDE.schema)


def _quantiles(ascending: npt.NDArray) -> npt.NDArray[np.float64]:
    """Return the quantiles (G, STEPS + 1) of sorted rows (G, N), linear between two values as in numpy."""
    at = np.arange(STEPS + 1) * ((ascending.shape[1] - 1) / STEPS)
    low = np.floor(at + 1e-9).astype(int)
    high = np.minimum(low + 1, ascending.shape[1] - 1)
    below, above = (ascending[:, i].astype(np.float64) for i in (low, high))
    return below + (above - below) * np.clip(at - low, 0, 1)


def gini_of(ascending: npt.NDArray) -> npt.NDArray[np.float64]:
    """Return the Gini coefficient (Gini 1912) of each sorted row of log1p expression, (G, N) -> (G,), on the scale of counts.

    0 is even; near 1, few tiles have it all. Negative predictions count as 0. NaN if all are 0.
    """
    counts, n = np.expm1(np.maximum(ascending, 0).astype(np.float64)), ascending.shape[1]
    total = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(counts @ (2 * np.arange(1, n + 1) - n - 1) / (n * total))


def neighbours(xy: npt.NDArray[np.float64]) -> "scipy.sparse.csr_matrix":
    """Return which places xy (N, 2) are neighbours, (N, N), 1 or 0."""
    tree = scipy.spatial.cKDTree(xy)
    if len(xy) < 2:
        return scipy.sparse.csr_matrix((len(xy), len(xy)))
    pitch = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    pairs = tree.query_pairs(NEAR * pitch, output_type="ndarray")
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return scipy.sparse.csr_matrix((np.ones(len(both)), both.T), shape=(len(xy), len(xy)))


def morans_i(values: npt.NDArray[np.float64], near: "scipy.sparse.csr_matrix") -> npt.NDArray[np.float64]:
    """Return Moran's I (Biometrika 37, 1950) of each column, (N, G) -> (G,): N / sum(w) * z'wz / z'z. NaN if a column is constant
    or no two places are neighbours.
    """
    z, total = values - values.mean(axis=0), float(near.sum())
    square = np.einsum("ng,ng->g", z, z)
    flat = (np.ptp(values, axis=0) == 0) | (total == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (
            len(values) / total * np.einsum("ng,ng->g", z, near @ z) / square if total else np.full(len(square), np.nan)
        )
    return np.where(flat, np.nan, found)
