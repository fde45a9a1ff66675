"""The return type of readers of measured expression, and checks that they share.

Requirements of all measurements (raw counts, one column per gene, finite positions) are checked in `reading`.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy

from stpath_assets.errors import SpotsError, describe


@dataclass(frozen=True)
class Measured:
    """The unchecked content of a measurement's files: N spots, their centres (N, 2) and counts (N, G).

    Centres are x, y in level-0 pixels. `held_in` says where in the file the counts are, if that can vary.
    """

    spot_ids: list[str]
    xy_px: npt.NDArray[np.float64]
    genes: list[str]
    counts: "scipy.sparse.csr_matrix"
    notes: list[str] = field(default_factory=list)
    spot_diameter_px: float | None = None
    held_in: str = ""


_AT_ONCE = 1 << 20


def first_no_count(values: npt.NDArray) -> int | None:
    """Return the index of the first value that is no raw count, a whole number from 0 to the largest int32. None if all are."""
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE]
        with np.errstate(invalid="ignore"):
            counts = (some >= 0) & (some <= np.iinfo(np.int32).max) & (some == np.floor(some))
        if not counts.all():
            return start + int(counts.argmin())
    return None


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Convert exceptions of parsers to `SpotsError`; they have no common base class."""
    try:
        yield
    except SpotsError:
        raise
    except Exception as e:
        cause = describe(e)
        raise SpotsError(
            f"{path}: cannot be read as {what} ({cause}); check that it is complete, or export it again"
        ) from e


def refuse_links(path: Path) -> None:
    """Raise `SpotsError` if an HDF5 file has parts elsewhere: links to other files, or external or virtual data sets. A file that
    was sent in would have this machine read any file that it names. What is no HDF5 is left to its reader.
    """
    import h5py

    def look(group: Any) -> Iterator[str]:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield f"{group.name}/{name}"
            elif isinstance(link, h5py.HardLink):
                item = group[name]
                if isinstance(item, h5py.Group):
                    yield from look(item)
                elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                    yield item.name

    try:
        with h5py.File(path, "r") as file:
            found = next(look(file), None)
    except Exception:  # damaged, for which h5py has errors of many types: its reader says so
        return
    if found is not None:
        raise SpotsError(f"{path}: its {found} lies in another file, which is refused; write all data into the file")


def refuse_twice(items: Sequence[Hashable], path: Path, what: str) -> None:
    """Raise `SpotsError` with the first duplicate of `items`."""
    seen: set[Hashable] = set()
    for item in items:
        if item in seen:
            name = "x".join(f"{i:g}" for i in item) if isinstance(item, tuple) else item
            raise SpotsError(f"{path}: {what} {name} occurs twice; remove or rename one of them")
        seen.add(item)


def match_places(
    keys: Sequence[Hashable], placed: Sequence[Hashable], wanted: npt.NDArray[np.bool_], which: str
) -> tuple[list[int], list[int], list[str]]:
    """Return the rows of `keys` with a wanted place, the index of that place for each, and notes on left-out spots."""
    places = {key: i for i, key in enumerate(placed)}
    found = [(row, places[key]) for row, key in enumerate(keys) if key in places]
    kept = [(row, at) for row, at in found if wanted[at]]
    notes = [
        *left_out(len(keys) - len(found), "with counts but without a position"),
        *left_out(len(found) - len(kept), f"with counts but not {which}"),
        *left_out(int(wanted.sum()) - len(kept), f"{which} but without counts"),
    ]
    return [row for row, _ in kept], [at for _, at in kept], notes


def left_out(n: int, why: str) -> list[str]:
    """Return a note on left-out spots, if there are any."""
    return [f"left out: {n} spot{'s' * (n > 1)} {why}"] if n else []


def read_numbers(table: pa.Table, name: str, path: Path) -> npt.NDArray[np.float64]:
    """Return a column as float64, NaN where it is empty."""
    with reading(path, f"numbers in column {name}"):
        return read_column(table, name, path).cast(pa.float64()).to_numpy()


def read_column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """Return a column by its name. Raises `SpotsError` if it does not exist."""
    if name not in table.column_names:
        raise SpotsError(f"{path}: has no column {name}; it has {', '.join(table.column_names)}")
    return table[name]


def check_sparse(matrix: Any) -> Any:
    """Return a sparse matrix after checking its arrays; scipy would read beyond inconsistent ones and crash."""
    if scipy.sparse.issparse(matrix):
        if (np.diff(matrix.indptr) < 0).any():  # not looked at by scipy's own check where the last pointer is 0
            raise ValueError("pointers of the sparse matrix do not ascend")
        matrix.check_format(full_check=True)
    return matrix
