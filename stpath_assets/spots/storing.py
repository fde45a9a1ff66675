"""Stores a slide's measured counts by gene in `spot_expression`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SpotsError
from stpath_assets.slides import Registered
from stpath_assets.spots.reading import CODE_VERSION, Spots, check_inside, read_spots, spots_fingerprint
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import SPOT_EXPRESSION

_BLOCK = 512  # genes written at a time


def require_path(row: Registered) -> Path:
    """Return the path of a slide's measured spots. Raises `SpotsError` if it has none."""
    if row.spots_uri is None:
        raise SpotsError(f"{row.slide_id}: has no measured spots; add it with --spots, or set grid to regular")
    return Path(row.spots_uri)


def spots_from(row: Registered) -> Fingerprint:
    """Return the fingerprint of a slide's `spot_expression`. Raises `SpotsError` if its files cannot be read."""
    sha256 = None if row.spots_uri is None else spots_fingerprint(Path(row.spots_uri))
    return row.fingerprint.extend(SPOT_EXPRESSION.name, CODE_VERSION, spots_sha256=sha256)


def store_spots(store: Store, row: Registered) -> Outcome:
    """Bring a slide's `spot_expression` up to date with its measured files, or remove it if there are none.

    Raises `SpotsError` if files cannot be read, or if spots lie outside the slide.
    """
    fingerprint = spots_from(row)
    if row.spots_uri is None:
        store.remove([SPOT_EXPRESSION.name], row.slide_id)
        return Outcome(fingerprint, False)
    if store.is_current(SPOT_EXPRESSION.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False)
    path = Path(row.spots_uri)
    measured = read_spots(path)
    check_inside(measured, row.width_px, row.height_px, row.slide_id)
    keys = {
        "spot_id": np.array(measured.spot_ids, object),
        "x_px": np.ascontiguousarray(measured.xy_px[:, 0]),
        "y_px": np.ascontiguousarray(measured.xy_px[:, 1]),
    }
    blocks = (
        (measured.genes[i : i + _BLOCK], measured.counts[:, i : i + _BLOCK].toarray())
        for i in range(0, len(measured.genes), _BLOCK)
    )
    store.write_by_gene(SPOT_EXPRESSION.name, row.slide_id, keys, blocks, fingerprint)
    return Outcome(fingerprint, True, tuple(f"{row.slide_id}: {note}" for note in measured.notes))


def check_spots(row: Registered) -> list[str]:
    """Read the measured spots of a slide that is to be registered, and return the reader's notes.

    Raises `SpotsError` if they cannot be read or lie outside the slide, so that this is known before a run.
    """
    if row.spots_uri is None:
        return []
    measured = read_spots(Path(row.spots_uri))
    check_inside(measured, row.width_px, row.height_px, row.slide_id)
    return measured.notes


@dataclass(frozen=True)
class Depth:
    """What the stored spots of a slide have in all: centres `xy_px` (N, 2) float64, level-0 pixels; `depth` (N,) float64, the sum
    of each spot's counts; and the measured genes.
    """

    xy_px: npt.NDArray[np.float64]
    depth: npt.NDArray[np.float64]
    genes: list[str]


def read_stored(store: Store, slide_id: str) -> Spots:
    """Return a slide's stored spots. Some genes are in memory at a time as they are stored; the counts stay sparse."""
    import scipy

    genes, counts, keys = list[str](), list[Any](), dict[str, npt.NDArray]()
    for block in store.read_blocks(SPOT_EXPRESSION.name, slide_id):
        genes, keys = genes + block.genes, block.keys
        counts.append(scipy.sparse.csc_matrix(block.values))
    xy_px = np.stack([keys["x_px"], keys["y_px"]], axis=1).astype(np.float64)
    return Spots(keys["spot_id"].tolist(), xy_px, genes, scipy.sparse.hstack(counts, format="csc"), "stored")


def read_depth(store: Store, slide_id: str) -> Depth:
    """Return what a slide's stored spots have in all. Some genes are in memory at a time.

    The last few are kept: registration, scores and figures of a slide all need them, and 5,000 spots with 36,601 genes take 2 s.
    """
    part = store.part(SPOT_EXPRESSION.name, slide_id)
    key = None if part is None else (str(store.home), part.file, part.sha256, slide_id)
    if key in _depths:
        return _depths[key]
    genes, depth, keys = list[str](), np.zeros(1), dict[str, npt.NDArray]()
    for block in store.read_blocks(SPOT_EXPRESSION.name, slide_id):
        genes, keys, depth = genes + block.genes, block.keys, depth + block.values.sum(axis=1, dtype=np.float64)
    found = Depth(np.stack([keys["x_px"], keys["y_px"]], axis=1).astype(np.float64), depth, genes)
    while len(_depths) >= _MOST_DEPTHS:
        _depths.pop(next(iter(_depths)))
    _depths[key] = found
    return found


_depths: dict[object, Depth] = {}
_MOST_DEPTHS = 4
