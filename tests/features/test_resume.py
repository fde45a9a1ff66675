"""A killed run goes on where it stood, and what comes of it is what an uninterrupted one gives."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.features import EncoderChoice, store_features
from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.features.parts import Parts
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Store
from stpath_assets.threads import prefetch
from stpath_assets.tiles import RegularGrid, TileParameters, store_tiles


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def slide(drawn_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Registered]:
    monkeypatch.setattr("stpath_assets.features.embedding.PIECE", 4)
    store = Store(tmp_path / "home")
    row = Registry(store).add(drawn_slide)
    store_tiles(store, row, TileParameters())
    return store, row


def encode_until(monkeypatch: pytest.MonkeyPatch, batches: int) -> list[int]:
    """Lets the encoder take that many batches and then die; the sizes of those it took."""
    seen: list[int] = []
    encode = DemoEncoder.encode

    def dying(self: DemoEncoder, batch: np.ndarray) -> np.ndarray:
        if len(seen) == batches:
            raise Killed
        seen.append(len(batch))
        return encode(self, batch)

    monkeypatch.setattr(DemoEncoder, "encode", dying)
    return seen


@pytest.mark.parametrize("batches", [1, 2, 3, 4])
def test_a_resumed_run_gives_the_same_bytes(
    slide, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, batches: int
) -> None:
    store, row = slide
    store_features(store, row, EncoderChoice("demo"), 2)
    path = store.path("gigapath_features", row.slide_id)
    whole = path.read_bytes()
    path.unlink()
    with monkeypatch.context() as patch:
        encode_until(patch, batches)
        with pytest.raises(Killed):
            store_features(store, row, EncoderChoice("demo"), 2)
    assert not path.exists()
    with monkeypatch.context() as patch:
        seen = encode_until(patch, 1000)
        store_features(store, row, EncoderChoice("demo"), 2)
    done_before = batches * 2 // 4 * 4
    assert sum(seen) == store.row_count("tile_grids", row.slide_id) - done_before
    assert store.path("gigapath_features", row.slide_id).read_bytes() == whole
    assert not (store.home / "unfinished" / "gigapath_features" / row.slide_id).exists()


def test_pieces_of_another_grid_are_not_taken_up(slide, monkeypatch: pytest.MonkeyPatch) -> None:
    store, row = slide
    with monkeypatch.context() as patch:
        encode_until(patch, 3)
        with pytest.raises(Killed):
            store_features(store, row, EncoderChoice("demo"), 2)
    store_tiles(store, row, TileParameters(layout=RegularGrid(min_tissue=0.9)))
    seen = encode_until(monkeypatch, 1000)
    store_features(store, row, EncoderChoice("demo"), 2)
    assert sum(seen) == store.row_count("tile_grids", row.slide_id)


def test_a_damaged_piece_and_what_follows_is_computed_again(tmp_path: Path) -> None:
    parts = Parts(Store(tmp_path), "a", "0" * 64, 1, 2)
    rows = np.arange(6 * 1536, dtype=np.float32).reshape(6, 1536)
    for first in (0, 2, 4):
        parts.write(first, rows[first : first + 2])
    np.testing.assert_array_equal(parts.read(), rows)
    second = sorted((tmp_path / "unfinished").rglob("*.npy"))[1]
    second.write_bytes(second.read_bytes()[:100])
    np.testing.assert_array_equal(parts.read(), rows[:2])


def test_reading_goes_ahead_of_computing() -> None:
    reading = threading.Event()

    def items() -> Iterator[int]:
        for i in range(3):
            if i == 1:
                reading.set()
            yield i

    ahead = prefetch(items())
    got = []
    for item in ahead:
        assert reading.wait(5), "the second item is made while the first is used"
        got.append(item)
    assert got == [0, 1, 2]


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_leaving_early_ends_the_thread() -> None:
    def items() -> Iterator[int]:
        while True:
            time.sleep(0.001)
            yield 0

    for _ in prefetch(items()):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("stpath")]
