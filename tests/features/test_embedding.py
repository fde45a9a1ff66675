"""From tiles to stored features: in table order, batch by batch, and up to date by fingerprint alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import tifffile

from stpath_assets.errors import FeatureError, SettingsError, SlideError, StorageError, WeightsError
from stpath_assets.features import EncoderChoice, embed, read_features, store_features
from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.progress import listening
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registered, Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import sha256_of_file, start
from stpath_assets.tables import GIGAPATH_FEATURES
from stpath_assets.tiles import RegularGrid, TileParameters, Tiles, store_tiles, tile
from tests.conftest import tissue_image, write_tiff

DEMO = EncoderChoice("demo")
FEATURES = GIGAPATH_FEATURES.name


@pytest.fixture
def tiles(drawn_slide: Path) -> Iterator[Tiles]:
    with open_slide(drawn_slide) as slide:
        yield tile(slide)


@pytest.fixture
def row(drawn_slide: Path, store: Store) -> Registered:
    """A registered slide with its stored grid."""
    row = Registry(store).add(drawn_slide)
    store_tiles(store, row, TileParameters())
    return row


@pytest.fixture
def store(empty_store: Store) -> Store:
    return empty_store


# ---- embedding


def test_features_are_those_of_the_tiles_in_table_order(tiles: Tiles) -> None:
    features = embed(tiles, "demo")
    assert features.tile_ids == tiles.tile_ids
    np.testing.assert_array_equal(features.matrix, DemoEncoder().encode(np.stack(list(tiles.pixels()))))
    np.testing.assert_array_equal(features.centers_px, tiles.centers_px)
    assert (features.slide_id, features.encoder, features.slide_mpp, features.tile_mpp) == ("drawn", "demo", 0.5, 0.5)
    assert features.matrix.shape == (len(tiles), 1536) == (len(features), 1536)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_features_do_not_depend_on_the_batch(tiles: Tiles, batch_size: int) -> None:
    np.testing.assert_array_equal(embed(tiles, "demo", batch_size).matrix, embed(tiles, "demo").matrix)


def test_a_batch_without_tiles_makes_no_sense(tiles: Tiles) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        embed(tiles, "demo", 0)


def test_embedding_says_how_far_it_is(tiles: Tiles) -> None:
    said = []
    with listening(lambda *progress: said.append(progress)):
        embed(tiles, "demo", batch_size=5)
    n = len(tiles)
    assert n > 10
    assert said == [("drawn: features", done, n) for done in (*range(0, n, 5), n)]
    embed(tiles, "demo")
    assert len(said) == len(range(0, n, 5)) + 1, "nobody listens any more"


def test_features_that_are_not_finite_are_refused(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(self: DemoEncoder, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        out = np.zeros((len(batch), 1536), np.float32)
        out[1, 7] = np.nan
        return out

    monkeypatch.setattr(DemoEncoder, "encode", encode)
    with pytest.raises(
        FeatureError, match=f"^drawn: demo gave features .* not finite for 1 tiles, first {tiles.tile_ids[1]}"
    ):
        embed(tiles, "demo", 1000)


def test_features_of_another_width_are_not_stored(
    store: Store, row: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DemoEncoder, "encode", lambda self, batch: np.zeros((len(batch), 768), np.float32))
    with pytest.raises(FeatureError, match=r"^drawn: features of demo have width 768, not 1536"):
        store_features(store, row, DEMO)
    assert store.slide_ids(FEATURES) == []


@pytest.mark.parametrize("name", ["uni", "", "Demo"])
def test_an_unknown_encoder_is_an_error(tiles: Tiles, name: str) -> None:
    with pytest.raises(SettingsError, match=f"^unknown encoder {name!r}; known: gigapath, demo, timm:MODEL$"):
        embed(tiles, name)


def test_the_encoders_weights_are_where_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_GIGAPATH_WEIGHTS", str(tmp_path / "g.bin"))
    monkeypatch.setenv("STPATH_DEVICE", "cuda")
    assert EncoderChoice.of("gigapath", load_settings()) == EncoderChoice("gigapath", tmp_path / "g.bin", "cuda")
    assert EncoderChoice.of("gigapath", load_settings(), "cpu").device == "cpu"


# ---- what features are made from


def test_the_weights_are_a_fact_by_their_content(tmp_path: Path) -> None:
    tiles, file = start(slide_sha256="x"), tmp_path / "g.bin"
    file.write_bytes(b"one")
    choice = EncoderChoice("gigapath", file)
    one = choice.extend(tiles)
    assert one.facts["encoder"] == "gigapath"
    assert one.facts["encoder_weights_sha256"] == sha256_of_file(file)
    assert one.extends(tiles)
    assert file.rename(tmp_path / "moved.bin")
    assert EncoderChoice("gigapath", tmp_path / "moved.bin").extend(tiles) == one
    file.write_bytes(b"two")
    assert choice.extend(tiles).facts["encoder_weights_sha256"] == sha256_of_file(file), "other weights, same path"
    assert DEMO.extend(tiles).facts["encoder_weights_sha256"] == "none"
    assert DEMO.extend(tiles).digest != one.digest


def test_weights_that_are_not_there_are_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"g\.bin: no such weights file; check STPATH_GIGAPATH_WEIGHTS"):
        EncoderChoice("gigapath", tmp_path / "g.bin").weights_sha256()


# ---- stored


def test_stored_features_come_back(store: Store, row: Registered) -> None:
    made = store_features(store, row, DEMO, 16)
    assert made.recomputed
    features = read_features(store, "drawn")
    with row.open() as slide:
        expected = embed(tile(slide), "demo")
    np.testing.assert_array_equal(features.matrix, expected.matrix)
    np.testing.assert_array_equal(features.centers_px, expected.centers_px)
    assert features.tile_ids == expected.tile_ids
    assert (features.slide_mpp, features.tile_mpp, features.encoder) == (0.5, 0.5, "demo")
    assert store.read(FEATURES, "drawn").schema.equals(GIGAPATH_FEATURES.schema)
    assert store.require(FEATURES, "drawn").facts["slide_sha256"] == row.sha256


def test_features_are_made_again_only_when_their_tiles_are(
    store: Store, row: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_features(store, row, DEMO, 16).recomputed
    with monkeypatch.context() as patch:
        patch.setattr(DemoEncoder, "encode", lambda *_: pytest.fail("nothing is to be computed"))
        assert not store_features(store, row, DEMO, 8).recomputed
        store_tiles(store, row, TileParameters())
        assert not store_features(store, row, DEMO, 16).recomputed
    store_tiles(store, row, TileParameters(layout=RegularGrid(min_tissue=0.6)))
    assert store_features(store, row, DEMO, 16).recomputed
    assert len(read_features(store, "drawn")) == store.row_count("tile_grids", "drawn")


def test_features_need_tiles_first(store: Store, drawn_slide: Path) -> None:
    row = Registry(store).add(drawn_slide)
    with pytest.raises(StorageError, match=r"^drawn: has no tile_grids yet"):
        store_features(store, row, DEMO, 16)


def test_features_of_an_earlier_grid_are_refused(store: Store, row: Registered) -> None:
    store_features(store, row, DEMO, 16)
    store_tiles(store, row, TileParameters(layout=RegularGrid(min_tissue=0.6)))
    with pytest.raises(
        FeatureError, match=r"^drawn: its gigapath_features belongs to an earlier grid .* stpath-assets run drawn$"
    ):
        read_features(store, "drawn")


def test_features_of_a_grid_with_the_same_ids_but_other_places_are_refused(store: Store, row: Registered) -> None:
    """The number and the names of the tiles are the same; only the fingerprint knows."""
    store_features(store, row, DEMO, 16)
    ids = read_features(store, "drawn").tile_ids
    store_tiles(store, row, TileParameters(mpp=0.501))
    assert store.read("tile_grids", "drawn")["tile_id"].to_pylist() == ids
    with pytest.raises(FeatureError, match="earlier grid"):
        read_features(store, "drawn")


def test_features_of_the_wrong_width_are_refused(
    store: Store, row: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_features(store, row, DEMO, 16)
    rows = store.read(FEATURES, "drawn")
    n = rows.num_rows
    narrow = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * 768, np.float32)), 768)
    at = rows.schema.get_field_index("feature")
    changed = rows.set_column(at, pa.field("feature", narrow.type), narrow)
    read = store.read
    monkeypatch.setattr(store, "read", lambda table, *rest: changed if table == FEATURES else read(table, *rest))
    with pytest.raises(FeatureError, match=r"^drawn: its features have width 768, not 1536"):
        read_features(store, "drawn")


def test_a_failed_embedding_leaves_the_features_as_they_were(
    store: Store, row: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_features(store, row, DEMO, 16)
    before = store.path(FEATURES, "drawn").read_bytes()
    store_tiles(store, row, TileParameters(layout=RegularGrid(min_tissue=0.6)))
    monkeypatch.setattr(DemoEncoder, "encode", lambda self, batch: np.full((len(batch), 1536), np.inf, np.float32))
    with pytest.raises(FeatureError, match="not finite"):
        store_features(store, row, DEMO, 16)
    assert store.path(FEATURES, "drawn").read_bytes() == before


def test_a_scan_that_cannot_be_read_stores_no_feature(store: Store, tmp_path: Path) -> None:
    scan = write_tiff(tmp_path / "hurt.tif", tissue_image(), compression="jpeg")
    row = Registry(store).add(scan)
    store_tiles(store, row, TileParameters())
    with tifffile.TiffFile(scan) as tif:
        offset, size = tif.pages[0].dataoffsets[17], tif.pages[0].databytecounts[17]
    with scan.open("rb+") as f:  # a block of the middle, after the grid was made
        f.seek(offset)
        f.write(bytes(size))
    with pytest.raises(SlideError, match=r"^hurt\.tif: level 0 cannot be read"):
        store_features(store, row, DEMO, 16)
    assert store.slide_ids(FEATURES) == []


def test_messages_are_one_line(store: Store, row: Registered) -> None:
    store_features(store, row, DEMO, 16)
    store_tiles(store, row, TileParameters(layout=RegularGrid(min_tissue=0.6)))
    with pytest.raises(FeatureError) as error:
        read_features(store, "drawn")
    assert "\n" not in str(error.value)
