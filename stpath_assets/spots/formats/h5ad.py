"""Reads AnnData with positions in obsm['spatial']: an .h5ad, or the table of a SpatialData store (.zarr)."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from stpath_assets.errors import SpotsError
from stpath_assets.spots.formats.base import Measured, check_sparse, first_no_count, left_out, reading, refuse_links
from stpath_assets.vocabulary.matching import ENSEMBL_ID

_SYMBOL_COLUMNS = ("feature_name", "gene_name", "gene_names", "gene_symbols", "gene_symbol", "symbol", "SYMBOL")
"""Columns of `var` in which files that are indexed by Ensembl id have symbols."""

_YES, _NO = {"1", "true", "yes", "in"}, {"0", "false", "no", "out"}


def read_h5ad(files: dict[str, Path]) -> Measured:
    """Read counts from layers['counts'], else the first of raw.X and X with raw counts; only spots in tissue."""
    import anndata  # takes longer to import than the other forms to read

    path = files["h5ad"]
    refuse_links(path)
    with reading(path, "h5ad"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that occur twice are dealt with in `spots`
        data = anndata.read_h5ad(path)
    return _measured(data, path)


def read_spatialdata(files: dict[str, Path]) -> Measured:
    """Read the table of a SpatialData store, as an .h5ad. Its shapes are not read, so the table must have positions itself."""
    import anndata

    path = next(iter(files.values())).parent
    with reading(path, "a table of SpatialData"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr, about forms of earlier versions
        data = anndata.read_zarr(path)
    return _measured(data, path)


def _measured(data: Any, path: Path) -> Measured:
    if "spatial" not in data.obsm:
        raise SpotsError(f"{path}: has no positions; put the spots' level-0 pixels into obsm['spatial']")
    with reading(path, "h5ad"):
        xy_px = np.asarray(data.obsm["spatial"], np.float64)[:, :2]
        held_in, counts, genes = _h5ad_counts(data, path)
        kept = np.ones(data.n_obs, bool)
        if "in_tissue" in data.obs:
            kept = np.array([_is_yes(value, path) for value in data.obs["in_tissue"]], bool)
    if xy_px.shape[1] != 2:
        raise SpotsError(f"{path}: obsm['spatial'] has one column; x and y in level-0 pixels are needed")
    spot_ids = [str(name) for name in data.obs_names[kept]]
    notes = left_out(int((~kept).sum()), "not in tissue")
    counts = counts if kept.all() else counts[kept]  # a copy would be as large as all the rest
    return Measured(spot_ids, xy_px[kept], genes, counts, notes, held_in=held_in)


def _is_yes(value: Any, path: Path) -> bool:
    """Return whether a value of `in_tissue` means yes, also as text. Raises `SpotsError` for one that means neither."""
    said = str(value).strip().casefold().removesuffix(".0")
    if said in _YES or said in _NO:
        return said in _YES
    raise SpotsError(f"{path}: obs['in_tissue'] has {value!r}; use 1 and 0, or True and False")


def _symbols(var: Any) -> list[str]:
    """Return the genes' symbols: their index, or a column with symbols where an entry of the index is an Ensembl id."""
    index = [str(name) for name in var.index]
    column = next((name for name in _SYMBOL_COLUMNS if name in var.columns), None)
    if column is None or not any(ENSEMBL_ID.fullmatch(name) for name in index):
        return index
    named = ["" if value is None or value != value else str(value).strip() for value in var[column]]
    return [
        symbol if ENSEMBL_ID.fullmatch(name) and symbol else name for name, symbol in zip(index, named, strict=True)
    ]


def _h5ad_counts(data: Any, path: Path) -> tuple[str, "scipy.sparse.csr_matrix", list[str]]:
    """Return where the counts are, the counts, and their genes; the first candidate if none holds counts."""
    if "counts" in data.layers:
        candidates = [("layers['counts']", data.layers["counts"], _symbols(data.var))]
    else:
        raw = [("raw.X", data.raw.X, _symbols(data.raw.var))] if data.raw is not None else []
        candidates = [*raw, *([("X", data.X, _symbols(data.var))] if data.X is not None else [])]
    if not candidates:
        raise SpotsError(f"{path}: holds no counts; put raw counts into layers['counts']")
    matrices = [
        (where, scipy.sparse.csr_matrix(check_sparse(matrix)), list(names)) for where, matrix, names in candidates
    ]
    return next((m for m in matrices if first_no_count(m[1].data) is None), matrices[0])
