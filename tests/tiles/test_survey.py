"""What becomes of a scan's tiles: the filter and its record, regions, spots, overlap, and the picture of it all."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from stpath_assets.definitions import defs
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import SLIDES
from stpath_assets.errors import SlideError, TissueError
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import QualityParameters, RegularGrid, TileParameters, store_tiles, tile
from stpath_assets.tiles.storing import overlay_path, tile_numbers
from tests.conftest import tissue_image, write_tiff

BOX = (0, 0, 1120, 1568)  # five rows of seven tiles


def out_of_focus(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Tissue at 0.5 µm/px of which only what is larger than 12 µm is seen."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((height, width, 1)), (24, 24, 0))
    return (np.array([150, 80, 140]) + 25 * noise / noise.std()).clip(0, 255).astype(np.uint8)


def spoilt() -> npt.NDArray[np.uint8]:
    """Tissue of 5 x 7 tiles at 0.5 µm/px: the first two columns out of focus, the last under blue pen."""
    image = tissue_image(1344, 1792, box=BOX)
    image[:1120, :480] = out_of_focus(1120, 480)
    image[:1120, 1344:1568] = (image[:1120, 1344:1568] * (0.15, 0.25, 0.7)).astype(np.uint8)
    return image


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "spoilt.tif", spoilt())


@pytest.fixture
def store(empty_store: Store) -> Store:
    return empty_store


def columns_of(ids: list[str]) -> set[int]:
    return {int(i[7:]) for i in ids}


def test_bad_tiles_are_dropped_and_that_is_said(scan: Path) -> None:
    with open_slide(scan) as slide:
        with pytest.warns(UserWarning, match=r"^spoilt: \d+ of \d+ tiles of tissue dropped: \d+ blurred"):
            kept = tile(slide)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            every = tile(slide, quality=False)
    assert columns_of(kept.tile_ids) == {2, 3, 4, 5}
    assert columns_of(every.tile_ids) >= {0, 1, 2, 3, 4, 5}
    assert set(kept.tile_ids) <= set(every.tile_ids)
    measured = dict(zip(every.tile_ids, every.table["focus"].to_pylist(), strict=True))
    assert max(measured[i] for i in every.tile_ids if int(i[7:]) == 0) < 0.15 < min(measured[i] for i in kept.tile_ids)


def test_the_filter_can_be_set_and_is_part_of_what_a_grid_is_made_from(store: Store, scan: Path) -> None:
    row = Registry(store).add(scan)
    strict = TileParameters()
    loose = TileParameters(layout=RegularGrid(quality=QualityParameters(min_focus=0.0)))
    off = TileParameters(layout=RegularGrid(quality=QualityParameters(drop=False)))
    made = [store_tiles(store, row, p) for p in (strict, loose, off)]
    assert all(m.recomputed for m in made)
    assert len({m.fingerprint.digest for m in made}) == 3
    assert store.row_count(TILE_GRIDS.name, "spoilt") > 20
    assert store.summary(TILE_GRIDS.name, "spoilt")["dropped"] == {}


def test_what_was_dropped_is_stored_by_reason(store: Store, scan: Path) -> None:
    row = Registry(store).add(scan)
    made = store_tiles(store, row, TileParameters())
    summary = store.summary(TILE_GRIDS.name, "spoilt")
    assert columns_of(summary["dropped"]["blurred"]) == {0, 1}
    kept = store.read(TILE_GRIDS.name, "spoilt")["tile_id"].to_pylist()
    dropped = [i for ids in summary["dropped"].values() for i in ids]
    assert not set(kept) & set(dropped)
    assert summary["candidates"] == len(kept) + len(dropped)
    numbers = tile_numbers(store, row)
    assert numbers["dropped_blurred"] == 10
    assert numbers["lost"] == pytest.approx(len(dropped) / summary["candidates"])
    assert 0.5 < numbers["tissue_share"] < 0.65
    assert 0.1 < numbers["pen_share"] < 0.18
    assert any("10 blurred" in note for note in made.notes)
    assert store_tiles(store, row, TileParameters()).notes == made.notes, "and said of a grid that is up to date too"


def test_where_all_tiles_are_bad_that_is_the_error_and_the_picture_is_there(store: Store, tmp_path: Path) -> None:
    image = np.full((900, 900, 3), 242, np.uint8)
    image[100:800, 100:800] = out_of_focus(700, 700)
    # Its edge too: a sharp one would be detail.
    image = ndimage.gaussian_filter(image.astype(np.float32), (24, 24, 0)).astype(np.uint8)
    row = Registry(store).add(write_tiff(tmp_path / "soft.tif", image))
    with pytest.raises(
        TissueError, match=r"^soft: all \d+ tiles of tissue were dropped: \d+ blurred; .*quality_filter off"
    ):
        store_tiles(store, row, TileParameters())
    assert store.slide_ids(TILE_GRIDS.name) == []
    assert overlay_path(store, "soft").exists()


def test_the_picture_is_drawn_again_when_it_is_gone_and_the_grid_stays(store: Store, scan: Path) -> None:
    row = Registry(store).add(scan)
    made = store_tiles(store, row, TileParameters())
    picture, part = overlay_path(store, "spoilt"), store.path(TILE_GRIDS.name, "spoilt")
    before, written = picture.read_bytes(), part.stat().st_mtime_ns
    assert pictures.is_current(picture, made.fingerprint.digest)
    picture.unlink()
    assert not store_tiles(store, row, TileParameters()).recomputed
    assert picture.read_bytes() == before
    assert part.stat().st_mtime_ns == written
    drawn = np.asarray(Image.open(picture)).astype(int)
    scale = drawn.shape[1] / 1792
    tint = {c: drawn[int(300 * scale), int((c * 224 + 112) * scale)] for c in (0, 3)}
    assert tint[0][0] - tint[0][1] > tint[3][0] - tint[3][1], "a blurred tile is filled in red"


# ---- overlap and gaps


@pytest.mark.parametrize(("stride", "columns"), [(0.5, 13), (1.0, 7), (2.0, 4)])
def test_tiles_may_overlap_or_leave_gaps(drawn_slide: Path, stride: float, columns: int) -> None:
    with open_slide(drawn_slide) as slide:
        tiles = tile(slide, min_tissue=0.9, stride=stride)
        assert len(list(tiles.pixels())) == len(tiles)
    np.testing.assert_array_equal(tiles.table["x_px"].to_numpy() % (224 * stride), 0)
    assert tiles.grid.column.max() < columns
    assert len(set(tiles.tile_ids)) == len(tiles)


# ---- regions


def geojson(path: Path, ring: list[tuple[float, float]], name: str | None = None) -> Path:
    properties = {"classification": {"name": name}} if name else {}
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}))
    return path


LEFT = [(0.0, 0.0), (800.0, 0.0), (800.0, 1200.0), (0.0, 1200.0)]
CORNER = [(0.0, 0.0), (448.0, 0.0), (448.0, 224.0), (0.0, 224.0)]


def test_regions_restrict_replace_and_cut(drawn_slide: Path, tmp_path: Path) -> None:
    """Tissue was drawn from (400, 300) to (1200, 900)."""
    with open_slide(drawn_slide) as slide:
        every = tile(slide)
        restricted = tile(slide, regions=geojson(tmp_path / "a.geojson", LEFT))
        replaced = tile(slide, regions=geojson(tmp_path / "b.geojson", CORNER, "Tissue"), quality=False)
        cut = tile(slide, regions=geojson(tmp_path / "c.geojson", LEFT, "Ignore*"))
    assert set(restricted.tile_ids) < set(every.tile_ids)
    assert restricted.table["x_px"].to_numpy().max() < 800
    assert cut.table["x_px"].to_numpy().min() + 224 > 800
    assert replaced.tile_ids == ["r00000c00000", "r00000c00001"]
    np.testing.assert_allclose(replaced.table["tissue_fraction"].to_numpy(), 1, atol=1e-9)


def test_registered_regions_are_part_of_what_a_grid_is_made_from(
    store: Store, drawn_slide: Path, tmp_path: Path
) -> None:
    registry, file = Registry(store), geojson(tmp_path / "a.geojson", LEFT)
    plain = store_tiles(store, registry.add(drawn_slide), TileParameters())
    row = registry.add(drawn_slide, regions=file)
    assert row.regions_uri == str(file)
    edited = store_tiles(store, row, TileParameters())
    assert edited.recomputed
    assert edited.fingerprint.digest != plain.fingerprint.digest
    fewer = store.row_count(TILE_GRIDS.name, "drawn")
    assert not store_tiles(store, registry.add(drawn_slide), TileParameters()).recomputed, "adding again keeps them"
    geojson(file, LEFT, "Ignore*")
    assert store_tiles(store, registry.get("drawn"), TileParameters()).recomputed, "the content counts, not the path"
    file.unlink()
    with pytest.raises(TissueError, match="regions cannot be read"):
        store_tiles(store, registry.get("drawn"), TileParameters())
    with pytest.raises(SlideError, match=r"nothere\.geojson .*check --regions"):
        registry.add(drawn_slide, regions=tmp_path / "nothere.geojson")
    assert fewer > 0


# ---- spots


def test_tiles_about_spots_are_all_there_and_know_their_spots(drawn_slide: Path) -> None:
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, (1600, 1200), (60, 2))
    room = ((centers >= 112) & (centers <= (1600 - 112, 1200 - 112))).all(1)
    with open_slide(drawn_slide) as slide:
        with pytest.warns(UserWarning, match=rf"^drawn: {(~room).sum()} spots are too close to the scan's edge"):
            tiles = tile(slide, spots=centers)
        pixels = list(tiles.pixels())
        whole = slide.read_level(0, 0, 0, 1600, 1200)
    assert len(tiles) == room.sum() == len(pixels)
    spot = np.array([int(i) for i in tiles.table["spot_id"].to_pylist()])
    np.testing.assert_allclose(tiles.centers_px, centers[spot], atol=1e-9)
    nearest = np.linalg.norm(tiles.centers_px[None] - centers[room][:, None], axis=2).argmin(1)
    np.testing.assert_array_equal(spot[nearest], np.flatnonzero(room))
    assert tiles.tile_ids == sorted(tiles.tile_ids)
    for (x, y), found in zip(tiles.centers_px, pixels, strict=True):
        near = whole[round(y) - 112 : round(y) + 112, round(x) - 112 : round(x) + 112]
        assert abs(float(near.mean()) - float(found.mean())) < 3


def test_spots_without_room_are_an_error(drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide, pytest.raises(TissueError, match=r"^drawn: no spot has room for its tile"):
        tile(slide, spots=np.array([[5.0, 5.0]]))
    with open_slide(drawn_slide) as slide, pytest.raises(ValueError, match="shape"):
        tile(slide, spots=np.zeros((3, 3)))


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:.*coarser than the tiles")
def test_every_spot_of_a_real_section_has_its_tile(shared: Path) -> None:
    from stpath_assets.spots import read_spots

    spots = read_spots(shared / "data" / "her2st" / "C2_counts.tsv.gz")
    with open_slide(shared / "data" / "her2st" / "C2.tif") as slide:
        tiles = tile(slide, spots=spots)
    distance = np.linalg.norm(tiles.centers_px[None] - spots.xy_px[:, None], axis=2)
    nearest = [tiles.table["spot_id"][int(i)].as_py() for i in distance.argmin(1)]
    assert nearest == spots.spot_ids
    assert distance.min(1).max() < 1e-6


# ---- the asset


def materialized(home: Path, slide_id: str, **settings: str | float) -> dg.ExecuteInProcessResult:
    values = "\n".join(f"{k} = {json.dumps(v)}" for k, v in settings.items())
    (home / "settings.toml").write_text(values)
    with instance(load_settings(home)) as opened:
        opened.add_dynamic_partitions(str(SLIDES.name), [slide_id])
        job = defs.resolve_job_def("process_slide")
        return job.execute_in_process(
            instance=opened, partition_key=slide_id, raise_on_error=False, asset_selection=[dg.AssetKey("tile_grids")],
            run_config={"resources": {"settings": {"config": {"home": str(home)}}}},
        )  # fmt: skip


def checks(ran: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """The results of the checks of tiles; that a grid was made, `can_be_made` says."""
    return {e.check_name: e.passed for e in ran.get_asset_check_evaluations() if e.check_name != "can_be_made"}


def test_the_checks_say_when_a_mask_takes_all_or_the_filter_much(
    store: Store, scan: Path, slide_of: Callable[..., Path]
) -> None:
    registry = Registry(store)
    registry.add(scan)
    registry.add(slide_of("full.tif", tissue_image(672, 672, box=(0, 0, 672, 672))))
    registry.add(slide_of("good.tif"))
    good = materialized(store.home, "good")
    assert checks(good) == {"covers_part_of_the_slide": True, "few_tiles_lost": True}
    assert checks(materialized(store.home, "full")) == {"covers_part_of_the_slide": False, "few_tiles_lost": True}
    assert checks(materialized(store.home, "spoilt")) == {"covers_part_of_the_slide": True, "few_tiles_lost": False}
    assert checks(materialized(store.home, "spoilt", max_lost=0.9))["few_tiles_lost"]
    assert checks(materialized(store.home, "spoilt", quality_filter=False))["few_tiles_lost"]
    metadata = good.asset_materializations_for_node("tile_grids")[0].metadata
    assert metadata["tiles"].value == metadata["dagster/partition_row_count"].value
    assert "data:image/jpeg" in str(metadata["overlay"].value)
    assert len(str(metadata["overlay"].value)) < 70_000


def test_a_grid_about_spots_needs_spots(store: Store, slide_of: Callable[..., Path]) -> None:
    Registry(store).add(slide_of("good.tif"))
    ran = materialized(store.home, "good", grid="spots")
    assert not ran.success
    reason = next(e for e in ran.all_events if e.is_step_failure).step_failure_data.user_failure_data
    assert reason is not None
    assert str(reason.description).startswith("good: has no measured spots; add it with --spots")
