"""Damaged scans: the slide fails by name or, if asked for, loses the tiles that cannot be read, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from stpath_assets.errors import SlideError, TissueError
from stpath_assets.features import EncoderChoice, read_features, store_features
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import TileParameters, store_tiles, tile
from tests.conftest import tissue_image, write_tiff

DROP = TileParameters(on_unreadable="drop")


def damaged(path: Path, blocks: list[int], levels: int, page: int = 0) -> tuple[Path, list[tuple[int, int]]]:
    """A scan of JPEG blocks of which some are zeros; their corners, level-0 pixels."""
    write_tiff(path, tissue_image(2048, 2048), levels=levels, compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        level = tif.series[0].levels[page].pages[0]
        offsets, sizes, across = level.dataoffsets, level.databytecounts, -(-level.imagewidth // 256)
    with path.open("rb+") as f:
        for block in blocks:
            f.seek(offsets[block])
            f.write(bytes(sizes[block]))
    return path, [(b % across * 256 * 4**page, b // across * 256 * 4**page) for b in blocks]


def touches(tiles: np.ndarray, side: float, corners: list[tuple[int, int]]) -> np.ndarray:
    """Which tiles (N, 2) lie on a block of 256."""
    return np.any(
        [
            (tiles[:, 0] < x + 256) & (tiles[:, 0] + side > x) & (tiles[:, 1] < y + 256) & (tiles[:, 1] + side > y)
            for x, y in corners
        ],
        axis=0,
    )


@pytest.mark.parametrize("levels", [1, 2])
def test_tiles_that_cannot_be_read_are_dropped_and_recorded(tmp_path: Path, levels: int) -> None:
    whole = write_tiff(tmp_path / "whole.tif", tissue_image(2048, 2048), levels=levels, compression="jpeg")
    hurt, corners = damaged(tmp_path / "hurt.tif", [27, 28], levels)
    store = Store(tmp_path / "home")
    rows = {name: Registry(store).add(path) for name, path in (("whole", whole), ("hurt", hurt))}
    store_tiles(store, rows["whole"], TileParameters())
    made = store_tiles(store, rows["hurt"], DROP)
    table, kept = (store.read(TILE_GRIDS.name, name).to_pandas() for name in ("whole", "hurt"))
    lost = touches(table[["x_px", "y_px"]].to_numpy(), 224, corners)
    assert lost.any()
    assert set(table["tile_id"][~lost]) >= set(kept["tile_id"])
    # The kernel reaches two pixels beyond a tile, and the mask of a single level is coarser than its blocks.
    assert len(table) - len(kept) <= lost.sum() + 6
    dropped = store.summary(TILE_GRIDS.name, "hurt")["dropped"]
    assert set(table["tile_id"]) - set(kept["tile_id"]) <= set(dropped["unreadable"])
    assert any(f"{len(dropped['unreadable'])} unreadable" in note for note in made.notes)
    store_features(store, rows["hurt"], EncoderChoice("demo"))
    assert read_features(store, "hurt").tile_ids == kept["tile_id"].tolist()


def test_without_being_asked_the_slide_fails_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    one = Registry(store).add(damaged(tmp_path / "one.tif", [27], 1)[0])
    with pytest.raises(SlideError, match=r"^one\.tif: level 0 cannot be read at x="):
        store_tiles(store, one, TileParameters())
    two = Registry(store).add(damaged(tmp_path / "two.tif", [27], 2)[0])
    store_tiles(store, two, TileParameters())
    with pytest.raises(SlideError, match=r"^two\.tif: level 0 cannot be read at x="):
        store_features(store, two, EncoderChoice("demo"))


def test_what_the_mask_has_not_seen_is_not_taken_for_glass(tmp_path: Path) -> None:
    """The level that the mask comes from is damaged, the one that tiles come from is not: nobody knows of their tissue."""
    hurt, _ = damaged(tmp_path / "hurt.tif", [1], 2, page=1)
    with open_slide(hurt) as slide, pytest.warns(UserWarning, match="unreadable"):
        tiles = tile(slide, on_unreadable="drop")
    assert len(tiles) > 0
    right = tiles.table["x_px"].to_numpy() + 224 > 1024
    above = tiles.table["y_px"].to_numpy() < 1024
    assert not (right & above).any()


def test_a_whole_scan_has_the_same_tiles_either_way(drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide:
        assert tile(slide, on_unreadable="drop").table.equals(tile(slide).table)


def test_a_scan_of_which_nothing_can_be_read_has_no_tile(tmp_path: Path) -> None:
    hurt, _ = damaged(tmp_path / "hurt.tif", list(range(64)), 1)
    with (
        open_slide(hurt) as slide,
        pytest.raises(TissueError, match=r"^hurt: all \d+ tiles of tissue were dropped: \d+ unreadable"),
    ):
        tile(slide, on_unreadable="drop")


def test_the_choice_is_a_fact_only_where_tiles_may_be_dropped(tmp_path: Path, drawn_slide: Path) -> None:
    row = Registry(Store(tmp_path / "home")).add(drawn_slide)
    assert "tile_unreadable" not in TileParameters().extend(row.fingerprint).facts
    assert DROP.extend(row.fingerprint).facts["tile_unreadable"] == "drop"
    assert TileParameters.of(load_settings(tmp_path, unreadable="drop")).on_unreadable == "drop"


def test_a_thumbnail_of_a_damaged_scan_shows_where(tmp_path: Path) -> None:
    hurt, _ = damaged(tmp_path / "hurt.tif", [27], 1)
    with open_slide(hurt) as slide:
        with pytest.raises(SlideError):
            slide.thumbnail(512)
        shown = (slide.thumbnail(512, partly=True) == (255, 0, 255)).all(axis=2)
    y, x = np.nonzero(shown)
    assert (x.min() // 64, x.max() // 64, y.min() // 64, y.max() // 64) == (3, 3, 3, 3)
    assert shown.sum() == 64 * 64
