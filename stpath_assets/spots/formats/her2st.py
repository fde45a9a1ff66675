"""Reads tables of her2st: `<name>_counts.tsv` with `<name>_selection.tsv` next to it."""

import gzip
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.csv as pacsv
import scipy

from stpath_assets.errors import SpotsError
from stpath_assets.spots.formats.base import Measured, match_places, read_numbers, reading, refuse_twice


def read_her2st(files: dict[str, Path]) -> Measured:
    """Read counts in rows named `XxY`, matched to the array positions x and y of the selection file."""
    selection = files["selection.tsv"]
    counts_file = next(path for name, path in files.items() if name.startswith("counts"))
    spot_ids, genes, counts = _counts_table(counts_file)
    refuse_twice(genes, counts_file, "gene")
    keys = [_array_position(spot_id, counts_file) for spot_id in spot_ids]
    refuse_twice(keys, counts_file, "array position")

    with reading(selection, "a table of spots"):
        table = pacsv.read_csv(selection, parse_options=pacsv.ParseOptions(delimiter="\t"))
    x, y, pixel_x, pixel_y = (read_numbers(table, name, selection) for name in ("x", "y", "pixel_x", "pixel_y"))
    placed = list(zip(x.tolist(), y.tolist(), strict=True))
    refuse_twice(placed, selection, "array position")
    selected = np.ones(len(x), bool)
    if "selected" in table.column_names:
        selected = read_numbers(table, "selected", selection) == 1
    rows, at, notes = match_places(keys, placed, selected, "of the selection")
    xy_px = np.column_stack([pixel_x, pixel_y])[at]
    return Measured([spot_ids[i] for i in rows], xy_px, genes, counts[rows], notes)


def _counts_table(path: Path) -> tuple[list[str], list[str], "scipy.sparse.csr_matrix"]:
    """Return row names, genes and counts of a tab-separated table, sparse by row, because dense it may not fit in memory."""
    spot_ids: list[str] = []
    columns: list[npt.NDArray] = []
    values: list[npt.NDArray] = []
    width = 0
    with (
        reading(path, "a table of counts"),
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
        raise SpotsError(f"{path}: is empty; it needs a header of gene symbols and a row of counts per spot")
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
        raise SpotsError(f"{path}: row {spot_id[:40]!r} is not an array position such as 10x21; rename it")
    return int(match[1]), int(match[2])
