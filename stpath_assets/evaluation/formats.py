"""The file forms of measured expression: her2st tables, h5ad files and Visium folders.

A reader takes the files that `spots` found for its form and returns what they hold, each spot with its position. What
any measurement must fulfil (raw counts, one column a gene, finite positions) is checked in `spots`. Whatever is wrong
with a file leaves here as one line of `SpotsError`.
"""

import gzip
import json
import re
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import scipy

from stpath_assets.errors import SpotsError

_POSITION_COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]


@dataclass(frozen=True)
class Measured:
    """What a measurement's files hold, not yet checked: N spots, their centres (N, 2) and counts (N, G).

    Centres are x, y in level-0 pixels; `held_in` says where in the file the counts stand, if that can vary.
    """

    spot_ids: list[str]
    xy_px: npt.NDArray[np.float64]
    genes: list[str]
    counts: "scipy.sparse.csr_matrix"
    notes: list[str] = field(default_factory=list)
    spot_diameter_px: float | None = None
    held_in: str = ""


def are_counts(values: npt.NDArray) -> npt.NDArray[np.bool_]:
    """For each value whether it can be a raw count: a whole number from 0 to the largest int32."""
    with np.errstate(invalid="ignore"):
        return (values >= 0) & (values <= np.iinfo(np.int32).max) & (values == np.floor(values))


def read_her2st(files: dict[str, Path]) -> Measured:
    """Counts in rows named `XxY`, matched to the array positions x and y of the selection beside them."""
    selection = files["selection.tsv"]
    counts_file = next(path for name, path in files.items() if name.startswith("counts"))
    spot_ids, genes, counts = _counts_table(counts_file)
    refuse_twice(genes, counts_file, "gene")
    keys = [_array_position(spot_id, counts_file) for spot_id in spot_ids]
    refuse_twice(keys, counts_file, "array position")

    with _reading(selection, "a table of spots"):
        table = pacsv.read_csv(selection, parse_options=pacsv.ParseOptions(delimiter="\t"))
    x, y, pixel_x, pixel_y = (_numbers(table, name, selection) for name in ("x", "y", "pixel_x", "pixel_y"))
    placed = list(zip(x.tolist(), y.tolist(), strict=True))
    refuse_twice(placed, selection, "array position")
    selected = np.ones(len(x), bool)
    if "selected" in table.column_names:
        selected = _numbers(table, "selected", selection) == 1
    rows, at, notes = _match(keys, placed, selected, "of the selection")
    xy_px = np.column_stack([pixel_x, pixel_y])[at]
    return Measured([spot_ids[i] for i in rows], xy_px, genes, counts[rows], notes)


def read_h5ad(files: dict[str, Path]) -> Measured:
    """Counts from layers['counts'], else the first of raw.X and X with raw counts; only spots in tissue."""
    import anndata  # takes longer to import than the other forms to read

    path = files["h5ad"]
    with _reading(path, "h5ad"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that occur twice are dealt with in `spots`
        data = anndata.read_h5ad(path)
    if "spatial" not in data.obsm:
        raise SpotsError(f"{path}: has no positions; put the spots' level-0 pixels into obsm['spatial']")
    with _reading(path, "h5ad"):
        xy_px = np.asarray(data.obsm["spatial"], np.float64)[:, :2]
        held_in, counts, genes = _h5ad_counts(data, path)
        kept = np.ones(data.n_obs, bool)
        if "in_tissue" in data.obs:
            kept = np.asarray(data.obs["in_tissue"]).astype(np.float64) == 1
    if xy_px.shape[1] != 2:
        raise SpotsError(f"{path}: obsm['spatial'] has one column; x and y in level-0 pixels are needed")
    spot_ids = [str(name) for name in data.obs_names[kept]]
    notes = _left_out(int((~kept).sum()), "not in tissue")
    return Measured(spot_ids, xy_px[kept], genes, counts[kept], notes, held_in=held_in)


def read_visium(files: dict[str, Path]) -> Measured:
    """Counts of a Space Ranger run, only spots in tissue; its full-resolution image is the scan's level 0."""
    barcodes, genes, counts = _feature_matrix(files)
    path = next(path for name, path in files.items() if "tissue_positions" in name)
    with _reading(path, "a table of spots"):
        table = _visium_positions(path)
        placed = _column(table, "barcode", path).to_pylist()
    y_px, x_px = (_numbers(table, f"pxl_{axis}_in_fullres", path) for axis in ("row", "col"))
    refuse_twice(placed, path, "barcode")
    rows, at, notes = _match(barcodes, placed, _numbers(table, "in_tissue", path) == 1, "in tissue")
    diameter = None
    for scale in (path for name, path in files.items() if name.endswith(".json")):
        with _reading(scale, "JSON"):
            if (said := json.loads(scale.read_text("utf-8")).get("spot_diameter_fullres")) is not None:
                diameter = float(said)
    xy_px = np.column_stack([x_px, y_px])[at]
    return Measured([barcodes[i] for i in rows], xy_px, genes, counts[rows], notes, diameter)


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turns what parsers raise on a bad file into `SpotsError`: they have no common base error."""
    try:
        yield
    except SpotsError:
        raise
    except Exception as e:
        cause = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise SpotsError(
            f"{path}: cannot be read as {what} ({cause}); check that it is complete, or export it again"
        ) from e


def refuse_twice(items: Sequence[Hashable], path: Path, what: str) -> None:
    """Raises `SpotsError` naming the first of `items` that stands in `path` twice."""
    seen: set[Hashable] = set()
    for item in items:
        if item in seen:
            name = "x".join(f"{i:g}" for i in item) if isinstance(item, tuple) else item
            raise SpotsError(f"{path}: {what} {name} stands there twice; each may stand once: remove one or rename it")
        seen.add(item)


def _match(
    keys: Sequence[Hashable], placed: Sequence[Hashable], wanted: npt.NDArray[np.bool_], which: str
) -> tuple[list[int], list[int], list[str]]:
    """Rows of `keys` with a wanted place, the index of that place for each, and notes on what is left out."""
    places = {key: i for i, key in enumerate(placed)}
    found = [(row, places[key]) for row, key in enumerate(keys) if key in places]
    kept = [(row, at) for row, at in found if wanted[at]]
    notes = [
        *_left_out(len(keys) - len(found), "with counts but without a position"),
        *_left_out(len(found) - len(kept), f"with counts but not {which}"),
        *_left_out(int(wanted.sum()) - len(kept), f"{which} but without counts"),
    ]
    return [row for row, _ in kept], [at for _, at in kept], notes


def _left_out(n: int, why: str) -> list[str]:
    return [f"left out: {n} spot{'s' * (n > 1)} {why}"] if n else []


def _numbers(table: pa.Table, name: str, path: Path) -> npt.NDArray[np.float64]:
    """A column as float64, NaN where it is empty."""
    with _reading(path, f"numbers in column {name}"):
        return _column(table, name, path).cast(pa.float64()).to_numpy()


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise SpotsError(f"{path}: has no column {name}; it has {', '.join(table.column_names)}")
    return table[name]


def _counts_table(path: Path) -> tuple[list[str], list[str], "scipy.sparse.csr_matrix"]:
    """Row names, genes and counts of a tab-separated table, made sparse by row: dense, it may not fit."""
    spot_ids: list[str] = []
    columns: list[npt.NDArray] = []
    values: list[npt.NDArray] = []
    width = 0
    with (
        _reading(path, "a table of counts"),
        (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as f,
    ):
        header = [cell.strip('"') for cell in f.readline().rstrip("\n").split("\t")]
        for line in filter(str.strip, f):
            spot_id, _, cells = line.rstrip("\n").partition("\t")
            row = _row(cells, path, spot_id)
            width = width or len(row)
            if len(row) != width:
                raise SpotsError(f"{path}: row {spot_id} has {len(row)} counts, not {width}; export it again")
            spot_ids.append(spot_id.strip('"'))
            columns.append(row.nonzero()[0])
            values.append(row[columns[-1]])
    if not spot_ids:
        raise SpotsError(f"{path}: is empty; it needs a header of gene symbols and a row of counts a spot")
    if len(header) != width + 1:
        raise SpotsError(
            f"{path}: has {len(header)} cells in its header and {width + 1} in a row; the first names rows"
        )
    ends = np.cumsum([0, *map(len, columns)])
    counts = (np.concatenate(values), np.concatenate(columns), ends)
    return spot_ids, header[1:], scipy.sparse.csr_matrix(counts, (len(spot_ids), width))


def _row(cells: str, path: Path, spot_id: str) -> npt.NDArray[np.float64]:
    try:
        if not cells:
            raise ValueError("no counts")
        return np.loadtxt([cells], delimiter="\t", comments=None, ndmin=1)
    except ValueError as e:
        cause = str(e).splitlines()[0].replace(" at row 0,", " in")
        raise SpotsError(f"{path}: row {spot_id[:40]!r}: {cause}; each cell must be a whole number") from e


def _array_position(spot_id: str, path: Path) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", spot_id)
    if match is None:
        raise SpotsError(f"{path}: row {spot_id[:40]!r} is no array position, such as 10x21; rename it")
    return int(match[1]), int(match[2])


def _h5ad_counts(data: Any, path: Path) -> tuple[str, "scipy.sparse.csr_matrix", list[str]]:
    """Where the counts stand, the counts, and their genes; the first candidate if none holds counts."""
    if "counts" in data.layers:
        candidates = [("layers['counts']", data.layers["counts"], data.var_names)]
    else:
        raw = [("raw.X", data.raw.X, data.raw.var_names)] if data.raw is not None else []
        candidates = [*raw, *([("X", data.X, data.var_names)] if data.X is not None else [])]
    if not candidates:
        raise SpotsError(f"{path}: holds no counts; put raw counts into layers['counts']")
    matrices = [
        (where, scipy.sparse.csr_matrix(_sound(matrix)), list(map(str, names))) for where, matrix, names in candidates
    ]
    return next((m for m in matrices if are_counts(m[1].data).all()), matrices[0])


def _sound(matrix: Any) -> Any:
    """The matrix, if the arrays of a sparse one fit each other: scipy would read beyond them and end the process."""
    if scipy.sparse.issparse(matrix):
        if (np.diff(matrix.indptr) < 0).any():  # not looked at by scipy's own check where the last pointer is 0
            raise ValueError("pointers of the sparse matrix do not ascend")
        matrix.check_format(full_check=True)
    return matrix


def _feature_matrix(files: dict[str, Path]) -> tuple[list[str], list[str], "scipy.sparse.csr_matrix"]:
    """Barcodes, genes and counts (barcodes, genes) of a 10x feature matrix, other features left out."""
    hdf5 = next((path for name, path in files.items() if name.endswith(".h5")), None)
    path = hdf5 or next(path for name, path in files.items() if name.endswith(".mtx.gz"))
    with _reading(path, "a feature matrix of Space Ranger"):
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
    # Columns of the stored matrix are barcodes: read as rows, it is its transpose.
    return barcodes, symbols, kinds, _sound(scipy.sparse.csr_matrix(parts, shape=(n_barcodes, n_features)))


def _matrix_folder(folder: Path) -> tuple[list[str], list[str], list[str], "scipy.sparse.csr_matrix"]:
    barcodes, features = (
        gzip.decompress((folder / f"{name}.tsv.gz").read_bytes()).decode().splitlines()
        for name in ("barcodes", "features")
    )
    cells = [line.split("\t") for line in features]
    return barcodes, [c[1] for c in cells], [c[2] for c in cells], _matrix_market(folder / "matrix.mtx.gz")


def _matrix_market(path: Path) -> "scipy.sparse.csr_matrix":
    """Counts (barcodes, features) of a Matrix Market file; scipy's reader ends the process on some damaged ones."""
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


def _visium_positions(path: Path) -> pa.Table:
    """The table of spots; Space Ranger before 2.0 writes it without a header."""
    if path.suffix == ".parquet":
        return pq.read_table(path, partitioning=None)
    with path.open("rb") as f:
        names = None if f.readline().startswith(b"barcode") else _POSITION_COLUMNS
    return pacsv.read_csv(path, read_options=pacsv.ReadOptions(column_names=names))
