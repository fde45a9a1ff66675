"""Reads a Visium folder, the output of Space Ranger."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import scipy

from stpath_assets.spots.formats.base import Measured, match_places, read_column, read_numbers, reading, refuse_twice
from stpath_assets.spots.formats.tenx import feature_matrix

_POSITION_COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]


def read_visium(files: dict[str, Path]) -> Measured:
    """Read the counts of a Space Ranger run, only spots in tissue. Its full-resolution image is the scan's level 0."""
    ids, xy_px, genes, counts, notes = read_placed(files)
    return Measured(ids, xy_px, genes, counts, notes, read_diameter(files))


def read_placed(
    files: dict[str, Path],
) -> tuple[list[str], npt.NDArray[np.float64], list[str], "scipy.sparse.csr_matrix", list[str]]:
    """Return the barcodes in tissue that have counts and a position: their names, centres (N, 2), genes, counts (N, G), and notes
    on those left out.
    """
    barcodes, genes, counts = feature_matrix(files)
    path = next(path for name, path in files.items() if "tissue_positions" in name)
    with reading(path, "a table of spots"):
        table = read_positions(path)
        placed = read_column(table, "barcode", path).to_pylist()
    y_px, x_px = (read_numbers(table, f"pxl_{axis}_in_fullres", path) for axis in ("row", "col"))
    refuse_twice(placed, path, "barcode")
    rows, at, notes = match_places(barcodes, placed, read_numbers(table, "in_tissue", path) == 1, "in tissue")
    return [barcodes[i] for i in rows], np.column_stack([x_px, y_px])[at], genes, counts[rows], notes


def read_diameter(files: dict[str, Path]) -> float | None:
    """Return `spot_diameter_fullres`, pixels of the full-resolution image, if the files say it."""
    diameter = None
    for scale in (path for name, path in files.items() if name.endswith(".json")):
        with reading(scale, "JSON"):
            if (said := json.loads(scale.read_text("utf-8")).get("spot_diameter_fullres")) is not None:
                diameter = float(said)
    return diameter


def read_positions(path: Path) -> pa.Table:
    """Return the table of spots. Space Ranger before 2.0 writes it without a header."""
    if path.suffix == ".parquet":
        return pq.read_table(path, partitioning=None)
    with path.open("rb") as f:
        names = None if f.readline().startswith(b"barcode") else _POSITION_COLUMNS
    return pacsv.read_csv(path, read_options=pacsv.ReadOptions(column_names=names))
