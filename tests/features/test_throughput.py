"""What features took is measured, stored beside them, and no part of what they are."""

import time
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.features import EncoderChoice, store_features
from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.features.local import LocalEmbedder
from stpath_assets.slides import Registered, Registry, Slide
from stpath_assets.storage import Store
from stpath_assets.tiles import TileParameters, store_tiles
from tests.asked import ask_arrow


@pytest.fixture
def slide(drawn_slide: Path, tmp_path: Path) -> tuple[Store, Registered]:
    store = Store(tmp_path / "home")
    row = Registry(store).add(drawn_slide)
    store_tiles(store, row, TileParameters())
    return store, row


def test_what_features_took_can_be_asked_for_in_sql(slide: tuple[Store, Registered]) -> None:
    store, row = slide
    store_features(store, row, EncoderChoice("demo"), 4)
    took = ask_arrow(store.home, "select * from gigapath_throughput").to_pylist()
    assert len(took) == 1
    n = store.row_count("tile_grids", row.slide_id)
    assert (took[0]["slide_id"], took[0]["encoder"], took[0]["precision"]) == (row.slide_id, "demo", "float32")
    assert (took[0]["via"], took[0]["device"], took[0]["batch_size"]) == ("local", "cpu", 4)
    assert (took[0]["tiles"], took[0]["resumed_tiles"], took[0]["gpu_memory_bytes"]) == (n, 0, None)
    assert took[0]["tiles_per_s"] == pytest.approx(n / took[0]["seconds"])
    assert took[0]["waiting_s"] + took[0]["computing_s"] <= took[0]["seconds"]
    assert took[0]["peak_rss_bytes"] > 50e6


@pytest.mark.parametrize("slow", ["reading", "encoder"])
def test_waiting_is_told_from_computing(
    slide: tuple[Store, Registered], slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, row = slide
    if slow == "encoder":
        encode = DemoEncoder.encode
        monkeypatch.setattr(DemoEncoder, "encode", lambda self, batch: time.sleep(0.2) or encode(self, batch))
    else:
        read = Slide.read_level
        monkeypatch.setattr(Slide, "read_level", lambda self, *box: time.sleep(0.2) or read(self, *box))
    embedder = LocalEmbedder(EncoderChoice("demo"))
    store_features(store, row, embedder, 4)
    meter = embedder.meter
    if slow == "encoder":
        assert meter.computing_s > 0.5 > meter.waiting_s
    else:
        assert meter.waiting_s > 0.2


def test_the_same_features_are_the_same_bytes_whatever_they_took(
    slide: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, row = slide
    store_features(store, row, EncoderChoice("demo"), 4)
    path = store.path("gigapath_features", row.slide_id)
    first, took = path.read_bytes(), store.read("gigapath_throughput", row.slide_id)
    path.unlink()
    encode, batches = DemoEncoder.encode, -(-took["tiles"][0].as_py() // 4)
    monkeypatch.setattr(DemoEncoder, "encode", lambda self, batch: time.sleep(0.05) or encode(self, batch))
    store_features(store, row, EncoderChoice("demo"), 4)
    assert store.path("gigapath_features", row.slide_id).read_bytes() == first
    slow = store.read("gigapath_throughput", row.slide_id)
    assert slow["seconds"][0].as_py() >= slow["computing_s"][0].as_py() >= 0.05 * batches
    assert slow["finished_at"][0].as_py() > took["finished_at"][0].as_py()


def test_resumed_tiles_are_counted_apart(slide: tuple[Store, Registered], monkeypatch: pytest.MonkeyPatch) -> None:
    store, row = slide
    monkeypatch.setattr("stpath_assets.features.embedding.PIECE", 4)
    encode, calls = DemoEncoder.encode, []

    def dies(self: DemoEncoder, batch: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return encode(self, batch)

    monkeypatch.setattr(DemoEncoder, "encode", dies)
    with pytest.raises(RuntimeError, match="killed"):
        store_features(store, row, EncoderChoice("demo"), 4)
    store_features(store, row, EncoderChoice("demo"), 4)
    took = store.read("gigapath_throughput", row.slide_id).to_pylist()[0]
    assert took["resumed_tiles"] == 4
    assert took["tiles"] == store.row_count("tile_grids", row.slide_id) - 4
