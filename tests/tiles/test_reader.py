"""Pixels of tiles: where exactly they come from, at every scale, whatever is read together, and each block read once."""

import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from stpath_assets.errors import SlideError
from stpath_assets.slides import open_slide
from stpath_assets.slides.blocks import BlockLevel
from stpath_assets.tiles import reader, tile
from stpath_assets.tiles.grid import Grid, regular_grid, side_in_level0
from stpath_assets.tiles.reader import find_readable, read_batches, read_tiles
from tests.conftest import tissue_image, write_tiff
from tests.slides.test_resampling import checker, resampled

MPPS = [0.25, 0.4, 0.499, 0.5, 0.687, 1.0]


def grid_at(corners: list[tuple[float, float]], side_px: float) -> Grid:
    """Tiles at any corners."""
    x, y = np.array(corners, float).T
    n = np.arange(len(corners))
    return Grid(n, n, x, y, side_px, side_px)


# ---- the tiles of a scan


def test_tiles_come_in_table_order_and_are_crops_of_the_scan(drawn_slide: Path) -> None:
    image = tifffile.imread(drawn_slide)
    with open_slide(drawn_slide) as slide:
        tiles = tile(slide)
        pixels = list(tiles.pixels())
    assert len(pixels) == len(tiles) > 4
    assert tiles.tile_ids == sorted(tiles.tile_ids)
    for x, y, found in zip(tiles.grid.x_px, tiles.grid.y_px, pixels, strict=True):
        np.testing.assert_array_equal(found, image[int(y) : int(y) + 224, int(x) : int(x) + 224])


@pytest.mark.parametrize("mpp_xy", [*((m, m) for m in MPPS), (0.25, 0.5), (0.687, 0.4), (0.5, 0.687), (0.25, 0.2525)])
def test_a_tile_shows_its_112_um_at_every_scale(tmp_path: Path, mpp_xy: tuple[float, float]) -> None:
    """Tile (r, c) shows the scan from (112 c, 112 r) µm on, to a small part of a pixel, and pixels need not be square."""
    x, y = mpp_xy
    width, height = math.ceil(360 / x), math.ceil(250 / y)
    noise = np.random.default_rng(0).random((height, width, 3))
    image = (128 + 400 * (gaussian_filter(noise, (1.5, 1.5, 0)) - 0.5)).clip(0, 255).astype(np.uint8)
    with open_slide(write_tiff(tmp_path / "a.tif", image, mpp_xy)) as slide:
        assert slide.mpp_xy == pytest.approx(mpp_xy)
        side, side_y = (side_in_level0(224, 0.5, mpp) for mpp in slide.mpp_xy)
        grid = regular_grid(slide.width_px, slide.height_px, side, 1.0, side_y)
        tiles = list(read_tiles(slide, grid, 224))
    assert len(tiles) == 6
    for row, column, found in zip(grid.row, grid.column, tiles, strict=True):
        expected = resampled(image, column * 112 / x, row * 112 / y, 112 / x, 224, 112 / y)
        assert np.abs(found - expected).max() <= 0.6
        assert np.abs((found - expected).mean()) < 0.01


def test_the_level_at_the_tiles_scale_is_read(tmp_path: Path) -> None:
    scan = write_tiff(tmp_path / "p.tif", tissue_image(1792, 1792), 0.125, levels=2)
    with tifffile.TiffFile(scan) as tif:
        level = tif.series[0].levels[1].asarray()
    with open_slide(scan) as slide:
        tiles = list(read_tiles(slide, regular_grid(1792, 1792, 896), 224))
    expected = [level[y : y + 224, x : x + 224] for y in (0, 224) for x in (0, 224)]
    np.testing.assert_array_equal(np.stack(tiles), np.stack(expected))


@pytest.mark.parametrize("mpp", [0.4, 0.5, 0.687])
def test_tiles_do_not_depend_on_what_is_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mpp: float
) -> None:
    scan = write_tiff(tmp_path / "a.tif", tissue_image(), mpp)
    with open_slide(scan) as slide:
        grid = regular_grid(slide.width_px, slide.height_px, side_in_level0(224, 0.5, slide.mpp))
        whole = np.stack(list(read_tiles(slide, grid, 224)))
        some = np.flatnonzero(np.random.default_rng(0).random(len(grid)) < 0.5)
        selected = np.stack(list(read_tiles(slide, grid.take(some), 224)))
        monkeypatch.setattr(reader, "MAX_BAND_PX", 1)
        single = np.stack(list(read_tiles(slide, grid, 224, workers=1)))
    np.testing.assert_array_equal(selected, whole[some])
    np.testing.assert_array_equal(single, whole)


@pytest.mark.parametrize("mpp", [0.25, 0.4, 0.4999, 0.5001, 0.687, 1.0])
@pytest.mark.parametrize("extra", [0, 1])
def test_tiles_at_the_very_edge_of_a_scan(slide_of: Callable[..., Path], mpp: float, extra: int) -> None:
    side = side_in_level0(224, 0.5, mpp)
    size = math.ceil(2 * side) + extra
    image = tissue_image(size, size, box=(0, 0, size, size))
    with open_slide(slide_of("a.tif", image, mpp)) as slide:
        tiles = list(read_tiles(slide, regular_grid(size, size, side_in_level0(224, 0.5, slide.mpp)), 224))
    assert [t.shape for t in tiles] == [(224, 224, 3)] * 4
    for t in tiles:
        edges = np.concatenate([t[0], t[-1], t[:, 0], t[:, -1]]).astype(float)
        assert np.abs(edges.mean(0) - t.mean((0, 1))).max() < 30, "no white or black rim"


@pytest.mark.parametrize("mpp", MPPS)
def test_a_round_spot_is_where_it_should_be_to_a_tenth_of_a_pixel(tmp_path: Path, mpp: float) -> None:
    """Its centre of mass in tiles whose corners lie between pixels, shrinking, at the same scale and enlarging."""
    at_um, spread_um, size = (70.3, 61.9), 4.0, math.ceil(160 / mpp)
    y, x = ((np.mgrid[0:size, 0:size] + 0.5) * mpp) - np.reshape(at_um[::-1], (2, 1, 1))
    spot = np.round(220 * np.exp(-(x**2 + y**2) / (2 * spread_um**2))).astype(np.uint8)
    corners = [(0.0, 0.0), (10.37, 3.81), (20.0, 11.5), (30.25, 29.99)]
    with open_slide(write_tiff(tmp_path / "spot.tif", np.repeat(spot[..., None], 3, 2), mpp)) as slide:
        side = side_in_level0(224, 0.5, slide.mpp)
        tiles = list(read_tiles(slide, grid_at(corners, side), 224))
    for corner, found in zip(corners, tiles, strict=True):
        mass = found[..., 1].astype(float)
        centre = [(mass.sum(axis) * (np.arange(224) + 0.5)).sum() / mass.sum() for axis in (0, 1)]
        expected = (np.array(at_um) - np.array(corner) * mpp) / 0.5
        assert np.abs(centre - expected).max() < 0.1


@pytest.mark.parametrize(("mpp", "side"), [(0.25, 448), (0.125, 896)])
def test_a_pattern_finer_than_the_tiles_is_grey(tmp_path: Path, mpp: float, side: int) -> None:
    with open_slide(write_tiff(tmp_path / "c.tif", checker(1, side + 8), mpp)) as slide:
        (found,) = read_tiles(slide, grid_at([(3.3, 4.6)], side), 224)
    assert np.abs(found - 127.5).max() <= 0.51


# ---- how it is read


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """How often each compressed block is decoded."""
    counted: Counter[tuple[int, int]] = Counter()
    decode, lock = BlockLevel._decode, threading.Lock()

    def counting(self: BlockLevel, index: int, left: int, top: int) -> npt.NDArray[np.uint8]:
        with lock:
            counted[(id(self), index)] += 1
        return decode(self, index, left, top)

    monkeypatch.setattr(BlockLevel, "_decode", counting)
    return counted


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("mpp", "stride"), [(0.5, 1.0), (0.25, 1.0), (0.31, 0.5), (0.687, 1.0)])
def test_each_block_is_decoded_about_once(
    tmp_path: Path, decodes: Counter[tuple[int, int]], mpp: float, stride: float, workers: int
) -> None:
    scan = write_tiff(tmp_path / "a.tif", tissue_image(2048, 4096), mpp, compression="jpeg")
    with open_slide(scan) as slide:
        grid = regular_grid(slide.width_px, slide.height_px, side_in_level0(224, 0.5, slide.mpp), stride)
        n = sum(1 for _ in read_tiles(slide, grid, 224, workers=workers))
    assert n == len(grid) > 20
    assert len(decodes) > 80
    assert decodes.total() <= 1.15 * len(decodes)


def test_a_wide_scan_is_decoded_about_once_in_bounded_memory(
    tmp_path: Path, decodes: Counter[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of tiles share blocks that lie further apart than the cache holds at first: it grows to what it needs."""
    block, columns = 256 * 256 * 3, 28
    monkeypatch.setattr("stpath_assets.slides.blocks._FIRST_BYTES", columns * block)
    scan = write_tiff(tmp_path / "a.tif", tissue_image(5376, 7168), 0.5, compression="jpeg")
    with open_slide(scan) as slide:
        grid = regular_grid(7168, 5376, 224)
        for _ in read_tiles(slide, grid, 224, workers=2):
            pass
        cache = slide._open_backend._levels[0].cache  # type: ignore[attr-defined]
        assert cache.held_bytes <= 4 * columns * block, "four rows of blocks of twenty-one"
    assert decodes.total() <= 1.15 * len(decodes)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(drawn_slide: Path, workers: int) -> None:
    with open_slide(drawn_slide) as slide:
        grid = regular_grid(1600, 1200, 201.7)
        one = np.stack(list(read_tiles(slide, grid, 224, workers=1)))
        np.testing.assert_array_equal(np.stack(list(read_tiles(slide, grid, 224, workers=workers))), one)


def test_no_thread_is_left_behind(drawn_slide: Path) -> None:
    before = threading.active_count()
    with open_slide(drawn_slide) as slide:
        tiles = read_tiles(slide, regular_grid(1600, 1200, 100), 224, workers=3)
        next(tiles)
        assert threading.active_count() > before
        tiles.close()
        assert threading.active_count() == before


def test_an_empty_grid_has_no_tiles(drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide:
        none = regular_grid(1600, 1200, 224).take(np.zeros(0, int))
        assert list(read_tiles(slide, none, 224)) == []
        assert find_readable(slide, none, 224).shape == (0,)


@pytest.mark.parametrize("size", [1, 5, 16, 1000])
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_hold_the_tiles_in_order_and_are_not_written_again(drawn_slide: Path, size: int, workers: int) -> None:
    with open_slide(drawn_slide) as slide:
        grid = regular_grid(1600, 1200, 201.7)
        one_by_one = np.stack(list(read_tiles(slide, grid, 224)))
        batches = list(read_batches(slide, grid, 224, size, workers=workers))
    assert {len(b) for b in batches[:-1]} <= {size}
    np.testing.assert_array_equal(np.concatenate(batches), one_by_one)


# ---- blocks that cannot be decoded


def flip_block(scan: Path, block: int) -> None:
    with tifffile.TiffFile(scan) as tif:
        offset, size = tif.pages[0].dataoffsets[block], tif.pages[0].databytecounts[block]
    content = bytearray(scan.read_bytes())
    content[offset : offset + size] = bytes(255 - b for b in content[offset : offset + size])
    scan.write_bytes(content)


@pytest.fixture
def hurt(drawn_slide: Path) -> tuple[Path, Grid, npt.NDArray[np.bool_]]:
    """A scan with one damaged block, x 768 to 1024 and y 512 to 768; its grid; and which tiles lie on that block."""
    scan = write_tiff(drawn_slide, tissue_image(), compression="jpeg")
    with open_slide(scan) as slide:
        grid = tile(slide).grid
    flip_block(scan, 17)
    on_block = (grid.x_px < 1024) & (grid.x_px + 224 > 768) & (grid.y_px < 768) & (grid.y_px + 224 > 512)
    assert 0 < on_block.sum() < len(grid)
    return scan, grid, on_block


def test_a_damaged_block_stops_the_tiles_and_is_never_a_white_one(
    hurt: tuple[Path, Grid, npt.NDArray[np.bool_]],
) -> None:
    scan, grid, on_block = hurt
    with open_slide(scan) as slide:
        with pytest.raises(SlideError, match=r"^drawn\.tif: level 0 cannot be read"):
            tile(slide)
        seen = []
        with pytest.raises(SlideError, match=r"^drawn\.tif: level 0 cannot be read") as error:
            seen.extend(read_tiles(slide, grid, 224))
    assert "block at x=768, y=512" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(seen) <= np.flatnonzero(on_block)[0]
    assert all(s.mean() < 235 for s in seen)


def test_what_lies_beside_a_damaged_block_is_read(
    hurt: tuple[Path, Grid, npt.NDArray[np.bool_]],
) -> None:
    scan, grid, on_block = hurt
    image = tissue_image()
    with open_slide(scan) as slide:
        np.testing.assert_array_equal(find_readable(slide, grid, 224), ~on_block)
        seen = list(read_tiles(slide, grid.take(~on_block), 224))
    assert len(seen) == len(grid) - on_block.sum()
    for x, y, found in zip(grid.x_px[~on_block].astype(int), grid.y_px[~on_block].astype(int), seen, strict=True):
        assert np.abs(found.astype(int) - image[y : y + 224, x : x + 224]).mean() < 12, "JPEG's loss, and its own place"


def test_a_damaged_block_puts_nothing_on_the_terminal(hurt: tuple[Path, Grid, npt.NDArray[np.bool_]]) -> None:
    """zarr's event loop, which would read the file otherwise, leaves hundreds of lines there."""
    code = (
        "import sys; import stpath_assets as sa; from stpath_assets.errors import SlideError\n"
        "from stpath_assets.tiles.grid import regular_grid; from stpath_assets.tiles.reader import read_tiles\n"
        "slide = sa.open_slide(sys.argv[1])\n"
        "try: list(read_tiles(slide, regular_grid(1600, 1200, 224), 224))\n"
        "except SlideError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, hurt[0]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
