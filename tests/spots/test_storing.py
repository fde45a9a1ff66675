"""Stored spots: read as they were written, and read again where they were written again."""

from pathlib import Path

import numpy as np

from stpath_assets.spots import read_depth, read_stored
from stpath_assets.storage import Store
from stpath_assets.tables import SPOT_EXPRESSION
from tests.storage.parts import made_from, register

KEYS = {"spot_id": np.array(["1x1", "2x1"], object), "x_px": np.array([1.5, 2.5]), "y_px": np.array([3.0, 4.0])}
COUNTS = np.array([[3, 0, 1], [0, 2, 5]], np.int32)


def write(store: Store, counts: np.ndarray, n: int) -> None:
    blocks = [(["A", "B"], counts[:, :2]), (["C"], counts[:, 2:])]
    store.write_by_gene(SPOT_EXPRESSION.name, "a", KEYS, blocks, made_from(n))


def test_spots_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    register(store, "a")
    write(store, COUNTS, 1)
    spots = read_stored(store, "a")
    assert (spots.spot_ids, spots.genes) == (["1x1", "2x1"], ["A", "B", "C"])
    assert spots.counts.toarray().tolist() == COUNTS.tolist()
    assert spots.xy_px.tolist() == [[1.5, 3.0], [2.5, 4.0]]
    assert spots.depth.tolist() == [4.0, 7.0]


def test_depth_is_that_of_the_present_part(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    register(store, "a")
    for n, factor in enumerate((1, 2), start=1):
        write(store, COUNTS * factor, n)
        for _ in range(2):  # read, and remembered
            found = read_depth(store, "a")
            assert found.depth.tolist() == [4.0 * factor, 7.0 * factor]
            assert (found.genes, found.xy_px.tolist()) == (["A", "B", "C"], [[1.5, 3.0], [2.5, 4.0]])
