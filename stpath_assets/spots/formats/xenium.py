"""Reads a Xenium output folder: the cells' counts, summed over squares of a tile's size on the aligned H&E scan."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from stpath_assets.errors import SpotsError
from stpath_assets.spots.formats import binning
from stpath_assets.spots.formats.base import Measured, left_out, match_places, read_column, read_numbers, reading
from stpath_assets.spots.formats.tenx import feature_matrix

FEWEST_CELLS = 3
"""Cells that a square needs: the mean of fewer says little of what a tile shows."""


def read_xenium(files: dict[str, Path]) -> Measured:
    """Read the cells, take their centres to the H&E scan, and sum counts over squares of 112 µm there.

    Centres are in µm of the morphology image, whose µm per pixel `experiment.xenium` has. The alignment file has the matrix
    (3, 3) that takes pixels of the H&E scan to pixels of the morphology image, as Xenium Explorer writes it.
    """
    cells, genes, counts = feature_matrix(files)
    path = next(path for name, path in files.items() if name.startswith("cells."))
    with reading(path, "a table of cells"):
        table = _table(path)
        placed = [
            c.decode() if isinstance(c, bytes) else str(c) for c in read_column(table, "cell_id", path).to_pylist()
        ]
    um = np.column_stack([read_numbers(table, f"{axis}_centroid", path) for axis in "xy"])
    rows, at, notes = match_places(cells, placed, np.asarray(np.isfinite(um).all(axis=1)), "with a centre")
    said = files["experiment.xenium"]
    with reading(said, "JSON"):
        morphology_mpp = float(json.loads(said.read_text("utf-8"))["pixel_size"])
    to_morphology = _alignment(files["imagealignment.csv"])
    xy_px = (np.column_stack([um[at] / morphology_mpp, np.ones(len(at))]) @ np.linalg.inv(to_morphology).T)[:, :2]
    # A pixel of the scan covers this many µm: the root of the area that the matrix gives it.
    side_px = binning.side_px(morphology_mpp * float(np.sqrt(abs(np.linalg.det(to_morphology[:2, :2])))))
    ids, centres, summed, lost = binning.sum_squares(xy_px, counts[rows], side_px, FEWEST_CELLS)
    notes = [
        f"{len(rows)} cells are summed over {len(ids)} squares of {binning.SIDE_UM:g} µm",
        *notes,
        *left_out(lost, f"(cells) in squares with fewer than {FEWEST_CELLS}"),
    ]
    return Measured(ids, centres, genes, summed, notes, side_px)


def _table(path: Path) -> pa.Table:
    return pq.read_table(path, partitioning=None) if path.suffix == ".parquet" else pacsv.read_csv(path)


def _alignment(path: Path) -> npt.NDArray[np.float64]:
    """Return the matrix (3, 3) of an alignment file. Raises `SpotsError` if it is none that can be inverted."""
    with reading(path, "an alignment of the H&E scan"):
        rows = [line.split(",") for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        matrix = np.array([[float(cell) for cell in row] for row in rows])
        if matrix.shape != (3, 3) or matrix[2].tolist() != [0, 0, 1] or not np.isfinite(matrix).all():
            raise ValueError(f"a matrix of shape {matrix.shape}, not of 3 rows that end with 0, 0, 1")
        if abs(np.linalg.det(matrix)) < 1e-9:
            raise SpotsError(f"{path}: its matrix cannot be inverted; export the alignment again")
    return matrix
