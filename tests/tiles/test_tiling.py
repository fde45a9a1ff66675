"""From a scan to its table of tiles: which are kept, what is said, and when the stored table is up to date."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.errors import TissueError
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import RegularGrid, TileParameters, centers_of, store_tiles, tile
from stpath_assets.tiles.grid import union_share
from stpath_assets.tiles.tissue import TissueParameters
from tests.conftest import tissue_image


@pytest.fixture
def store(empty_store: Store) -> Store:
    return empty_store


@pytest.mark.filterwarnings("ignore:.*coarser than the tiles")
@pytest.mark.parametrize("mpp", [0.25, 0.4, 0.5, 0.687])
def test_tiles_have_their_exact_physical_size(slide_of: Callable[..., Path], mpp: float) -> None:
    with open_slide(slide_of("a.tif", mpp=mpp), mpp) as slide:
        table = tile(slide).table
    sides, x, y = (table[c].to_numpy() for c in ("side_px", "x_px", "y_px"))
    np.testing.assert_allclose(sides * mpp, 112, rtol=1e-12)
    columns = np.array([int(i[7:]) for i in table["tile_id"].to_pylist()])
    rows = np.array([int(i[1:6]) for i in table["tile_id"].to_pylist()])
    np.testing.assert_allclose(x * mpp, columns * 112, atol=1e-9)
    np.testing.assert_allclose(y * mpp, rows * 112, atol=1e-9)
    np.testing.assert_allclose(centers_of(table) * mpp, np.stack([columns, rows], 1) * 112 + 56, atol=1e-9)
    assert table.schema.equals(TILE_GRIDS.schema)
    assert set(table["tile_px"].to_pylist()) == {224}
    assert set(table["mpp"].to_pylist()) == {0.5}


@pytest.mark.filterwarnings("ignore:.*tiles of tissue dropped")
def test_tiles_are_kept_by_their_share_of_tissue(drawn_slide: Path) -> None:
    """Tissue was drawn from (400, 300) to (1200, 900); the mask may be a pixel of 16 off on each side."""
    with open_slide(drawn_slide) as slide:
        every = tile(slide, min_tissue=0.0)
        for x, y, fraction in zip(
            *(every.table[c].to_numpy() for c in ("x_px", "y_px", "tissue_fraction")), strict=True
        ):
            shares = [
                max(0, min(x + 224, 1200 + d) - max(x, 400 - d))
                * max(0, min(y + 224, 900 + d) - max(y, 300 - d))
                / 224**2
                for d in (-24, 24)
            ]
            assert shares[0] <= fraction <= shares[1]
            assert 0 < fraction <= 1
        for least in (0.25, 0.5, 0.9):
            kept = tile(slide, min_tissue=least)
            fractions = dict(zip(every.tile_ids, every.table["tissue_fraction"].to_pylist(), strict=True))
            assert kept.tile_ids == [i for i in every.tile_ids if fractions[i] >= least]
    assert 0.15 < union_share(kept.grid, slide.width_px, slide.height_px) < 0.4


def test_blank_glass_is_an_error_that_names_the_slide(slide_of: Callable[..., Path]) -> None:
    for i, colour in enumerate([(242, 242, 242), (225, 215, 190)]):
        blank = np.broadcast_to(np.array(colour, np.uint8), (1200, 1600, 3))
        with open_slide(slide_of(f"blank{i}.tif", np.ascontiguousarray(blank))) as slide:
            with pytest.raises(
                TissueError, match=f"^blank{i}: no tissue found: none of 35 tiles is at least 25%"
            ) as error:
                tile(slide)
            with pytest.raises(TissueError, match="no tissue found"):
                tile(slide, min_tissue=0.0)
        assert "\n" not in str(error.value)


def test_a_scan_smaller_than_a_tile_is_an_error_that_names_it(slide_of: Callable[..., Path]) -> None:
    with open_slide(slide_of("tiny.tif", tissue_image(223, 500))) as slide:
        with pytest.raises(
            TissueError, match=r"^tiny: 500 by 223 pixels is smaller than one tile of 112 µm; check its mpp"
        ):
            tile(slide)


def test_one_tile_is_enough(slide_of: Callable[..., Path]) -> None:
    with open_slide(slide_of("one.tif", tissue_image(400, 400, box=(0, 0, 330, 330)))) as slide:
        tiles = tile(slide)
        assert tiles.tile_ids == ["r00000c00000"]
        assert len(list(tiles.pixels())) == 1


@pytest.mark.parametrize(("mpp", "times"), [(0.687, "1.37"), (1.0, "2.00")])
def test_a_coarser_scan_is_enlarged_and_that_is_said(slide_of: Callable[..., Path], mpp: float, times: str) -> None:
    with open_slide(slide_of("coarse.tif"), mpp) as slide:
        with pytest.warns(UserWarning, match=f"^coarse: the scan has {mpp:g} .* they are enlarged {times} times$"):
            tiles = tile(slide)
        assert next(tiles.pixels()).shape == (224, 224, 3)


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.505])
def test_a_scan_as_fine_as_its_tiles_is_no_news(slide_of: Callable[..., Path], mpp: float) -> None:
    with open_slide(slide_of("fine.tif"), mpp) as slide, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tile(slide).mpp == 0.5


@pytest.mark.parametrize("wrong", [{"tile_px": 0}, {"mpp": 0.0}, {"mpp": float("nan")}, {"min_tissue": 1.1}])
def test_parameters_that_make_no_sense(drawn_slide: Path, wrong: dict[str, float]) -> None:
    with open_slide(drawn_slide) as slide, pytest.raises(ValueError, match=r"(tile_px|min_tissue) must be"):
        tile(slide, **wrong)  # type: ignore[arg-type]


# ---- stored


def test_the_same_scan_gives_the_same_bytes(drawn_slide: Path, tmp_path: Path) -> None:
    parts = []
    for name in ("one", "two"):
        store = Store(tmp_path / name)
        store_tiles(store, Registry(store).add(drawn_slide), TileParameters())
        parts.append(store.path(TILE_GRIDS.name, "drawn").read_bytes())
    assert parts[0] == parts[1]


def test_a_stored_grid_is_made_again_only_when_what_it_depends_on_changes(store: Store, drawn_slide: Path) -> None:
    registry = Registry(store)
    row = registry.add(drawn_slide)
    made = store_tiles(store, row, TileParameters())
    assert made.recomputed
    assert store.require(TILE_GRIDS.name, "drawn") == made.fingerprint
    assert not store_tiles(store, row, TileParameters()).recomputed
    assert not store_tiles(store, registry.add(drawn_slide, organ="Breast"), TileParameters()).recomputed
    for changed in (
        TileParameters(layout=RegularGrid(min_tissue=0.5)),
        TileParameters(tile_px=256),
        TileParameters(mpp=0.6),
        TileParameters(tissue=TissueParameters(min_texture=6.0)),
    ):
        assert store_tiles(store, row, changed).recomputed
    assert store_tiles(store, registry.add(drawn_slide, mpp=0.49), TileParameters()).recomputed


def test_a_damaged_grid_is_made_again(store: Store, drawn_slide: Path) -> None:
    row = Registry(store).add(drawn_slide)
    store_tiles(store, row, TileParameters())
    path = store.path(TILE_GRIDS.name, "drawn")
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert store_tiles(store, row, TileParameters()).recomputed
    assert store.path(TILE_GRIDS.name, "drawn").read_bytes() == whole


def test_a_slide_without_tissue_stores_no_grid(store: Store, slide_of: Callable[..., Path]) -> None:
    row = Registry(store).add(slide_of("blank.tif", np.full((600, 600, 3), 242, np.uint8)), slide_id="mine")
    with pytest.raises(TissueError, match=r"^mine: no tissue found"):
        store_tiles(store, row, TileParameters())
    assert store.slide_ids(TILE_GRIDS.name) == []


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:.*coarser than the tiles")
def test_tiles_of_real_sections_cover_their_spots(shared: Path) -> None:
    """The spots that the authors selected as under tissue are the truth that nobody drew for us."""
    rows = np.loadtxt(
        shared / "data" / "her2st" / "C2_selection.tsv", delimiter="\t", skiprows=1, usecols=(4, 5), ndmin=2
    )
    with open_slide(shared / "data" / "her2st" / "C2.tif") as slide:
        tiles = tile(slide)
    half = tiles.grid.side_px / 2
    inside = (np.abs(rows[:, None, :] - tiles.centers_px[None]) <= half).all(2).any(1)
    assert inside.mean() > 0.9
    assert union_share(tiles.grid, tiles.slide.width_px, tiles.slide.height_px) < 0.6
