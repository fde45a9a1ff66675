"""Reads the feature matrices of 10x Genomics: HDF5, or a folder of Matrix Market and lists of barcodes and features."""

import gzip
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import scipy

from stpath_assets.errors import SpotsError
from stpath_assets.spots.formats.base import check_sparse, reading, refuse_links


def feature_matrix(files: dict[str, Path]) -> tuple[list[str], list[str], "scipy.sparse.csr_matrix"]:
    """Return barcodes, genes and counts (barcodes, genes) of a 10x feature matrix, without other features."""
    hdf5 = next((path for name, path in files.items() if name.endswith(".h5")), None)
    path = hdf5 or next(path for name, path in files.items() if name.endswith(".mtx.gz"))
    if hdf5:
        refuse_links(path)
    with reading(path, "a feature matrix of Space Ranger"):
        barcodes, symbols, kinds, counts = _matrix_hdf5(path) if hdf5 else _matrix_folder(path.parent)
        if counts.shape != (len(barcodes), len(symbols)):
            raise ValueError(f"{counts.shape} counts, {len(barcodes)} barcodes, {len(symbols)} features")
        genes = [i for i, kind in enumerate(kinds) if kind == "Gene Expression"]
    if not genes:
        raise SpotsError(f"{path}: has no feature of type Gene Expression; give a gene expression run")
    return barcodes, [symbols[i] for i in genes], counts[:, genes]


def _matrix_hdf5(path: Path) -> tuple[list[str], list[str], list[str], "scipy.sparse.csr_matrix"]:
    import h5py

    with h5py.File(path, "r") as f:
        matrix = f["matrix"]
        barcodes, symbols, kinds = (
            [item.decode() for item in matrix[name][:]]
            for name in ("barcodes", "features/name", "features/feature_type")
        )
        n_features, n_barcodes = matrix["shape"][:]
        parts = (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:])
    # The stored matrix has barcodes as columns; read by rows, it is transposed.
    return barcodes, symbols, kinds, check_sparse(scipy.sparse.csr_matrix(parts, shape=(n_barcodes, n_features)))


def _matrix_folder(folder: Path) -> tuple[list[str], list[str], list[str], "scipy.sparse.csr_matrix"]:
    barcodes, features = (
        gzip.decompress((folder / f"{name}.tsv.gz").read_bytes()).decode().splitlines()
        for name in ("barcodes", "features")
    )
    cells = [line.split("\t") for line in features]
    return barcodes, [c[1] for c in cells], [c[2] for c in cells], _matrix_market(folder / "matrix.mtx.gz")


def _matrix_market(path: Path) -> "scipy.sparse.csr_matrix":
    """Return counts (barcodes, features) of a Matrix Market file. scipy's reader crashes on some damaged files."""
    with gzip.open(path) as f:
        if not re.match(rb"%%MatrixMarket matrix coordinate (integer|real) general\s", f.readline()):
            raise ValueError("not a Matrix Market file of counts")
        n_features, n_barcodes, n_entries = map(int, next(line for line in f if line[:1] != b"%").split())
        names = pacsv.ReadOptions(column_names=["feature", "barcode", "count"])
        entries = pacsv.read_csv(f, read_options=names, parse_options=pacsv.ParseOptions(delimiter=" "))
    if len(entries) != n_entries:
        raise ValueError(f"{len(entries)} entries where its header says {n_entries}")
    feature, barcode = (entries[name].cast(pa.int64()).to_numpy() - 1 for name in ("feature", "barcode"))
    counts = entries["count"].cast(pa.float64()).to_numpy()
    return scipy.sparse.csr_matrix((counts, (barcode, feature)), shape=(n_barcodes, n_features))
