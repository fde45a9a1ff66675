"""Reads an AnnData file with positions in obsm['spatial']."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from stpath_assets.errors import SpotsError
from stpath_assets.spots.formats.base import Measured, check_sparse, first_no_count, left_out, reading


def read_h5ad(files: dict[str, Path]) -> Measured:
    """Read counts from layers['counts'], else the first of raw.X and X with raw counts; only spots in tissue."""
    import anndata  # takes longer to import than the other forms to read

    path = files["h5ad"]
    with reading(path, "h5ad"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that occur twice are dealt with in `spots`
        data = anndata.read_h5ad(path)
    if "spatial" not in data.obsm:
        raise SpotsError(f"{path}: has no positions; put the spots' level-0 pixels into obsm['spatial']")
    with reading(path, "h5ad"):
        xy_px = np.asarray(data.obsm["spatial"], np.float64)[:, :2]
        held_in, counts, genes = _h5ad_counts(data, path)
        kept = np.ones(data.n_obs, bool)
        if "in_tissue" in data.obs:
            kept = np.asarray(data.obs["in_tissue"]).astype(np.float64) == 1
    if xy_px.shape[1] != 2:
        raise SpotsError(f"{path}: obsm['spatial'] has one column; x and y in level-0 pixels are needed")
    spot_ids = [str(name) for name in data.obs_names[kept]]
    notes = left_out(int((~kept).sum()), "not in tissue")
    counts = counts if kept.all() else counts[kept]  # a copy would be as large as all the rest
    return Measured(spot_ids, xy_px[kept], genes, counts, notes, held_in=held_in)


def _h5ad_counts(data: Any, path: Path) -> tuple[str, "scipy.sparse.csr_matrix", list[str]]:
    """Return where the counts are, the counts, and their genes; the first candidate if none holds counts."""
    if "counts" in data.layers:
        candidates = [("layers['counts']", data.layers["counts"], data.var_names)]
    else:
        raw = [("raw.X", data.raw.X, data.raw.var_names)] if data.raw is not None else []
        candidates = [*raw, *([("X", data.X, data.var_names)] if data.X is not None else [])]
    if not candidates:
        raise SpotsError(f"{path}: holds no counts; put raw counts into layers['counts']")
    matrices = [
        (where, scipy.sparse.csr_matrix(check_sparse(matrix)), list(map(str, names)))
        for where, matrix, names in candidates
    ]
    return next((m for m in matrices if first_no_count(m[1].data) is None), matrices[0])
