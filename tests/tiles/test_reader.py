"""Pixels of tiles: where exactly they come from, at every scale, whatever is read together."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from stpath_assets.errors import SlideError
from stpath_assets.slides import open_slide
from stpath_assets.tiles import reader, tile
from stpath_assets.tiles.grid import regular_grid, side_in_level0
from stpath_assets.tiles.reader import area_weights, read_tiles, resample
from tests.conftest import tissue_image, write_tiff

OFFSETS = st.floats(0, 1, exclude_max=True)

# ---- weights


@given(OFFSETS, st.floats(1, 60), st.integers(1, 30))
def test_weights_are_means_over_equal_parts(offset: float, length: float, out_px: int) -> None:
    weights = area_weights(round(offset, 9), length, out_px)
    assert weights.shape == (out_px, math.ceil(round(offset, 9) + length - 1e-9))
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


@given(OFFSETS, st.floats(1, 60), st.integers(1, 30), st.integers(0, 99))
def test_weights_keep_the_mean(offset: float, length: float, out_px: int, seed: int) -> None:
    weights = area_weights(round(offset, 9), length, out_px)
    n = weights.shape[1]
    values = np.random.default_rng(seed).random(n)
    overlap = np.clip(np.minimum(offset + length, np.arange(n) + 1) - np.maximum(offset, np.arange(n)), 0, None)
    assert (weights @ values).mean() == pytest.approx((values * overlap).sum() / overlap.sum(), abs=1e-5)


# ---- one box


@given(st.integers(0, 16), st.integers(0, 16), st.integers(1, 24))
def test_at_the_same_scale_on_whole_pixels_nothing_changes(x: int, y: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    np.testing.assert_array_equal(resample(image, x, y, size, size, size), image[y : y + size, x : x + size])


Image = npt.NDArray[np.uint8]


def axis_means(image: npt.NDArray, start: float, length: float, n: int) -> npt.NDArray:
    """Rows averaged over n equal parts of [start, start + length): differences of the running sum, as real numbers."""
    total = np.concatenate([np.zeros((1, *image.shape[1:])), image.astype(float).cumsum(0)])
    edges = start + np.arange(n + 1) * length / n
    below = np.minimum(edges.astype(int), len(image) - 1)
    part = (edges - below).reshape(-1, *[1] * (image.ndim - 1))
    at_edges = total[below] * (1 - part) + total[below + 1] * part
    return np.diff(at_edges, axis=0) / (length / n)


def axis_cubic(image: npt.NDArray, start: float, length: float, n: int) -> npt.NDArray:
    """Rows at the centres of n equal parts by cubic convolution with a = -0.5 (Keys, 1981), the kernel cut at the edge."""
    centres = start + (np.arange(n) + 0.5) * length / n
    t = np.abs(centres[:, None] - (np.arange(len(image)) + 0.5))
    weights = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
    return np.tensordot(weights / weights.sum(1, keepdims=True), image.astype(float), 1)


def resampled(image: Image, x: float, y: float, side: float, n: int) -> npt.NDArray:
    """What `resample` should give of a square box, as real numbers."""
    one_axis = axis_means if side >= n else axis_cubic
    rows = one_axis(image, y, side, n)
    return one_axis(rows.transpose(1, 0, 2), x, side, n).transpose(1, 0, 2).clip(0, 255)


SLOPE, N = 12.0, 21


def ramp(axis: int) -> Image:
    """An image whose value is SLOPE times the pixel's index along an axis."""
    line = (SLOPE * np.arange(N)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(line[None, :, None] if axis else line[:, None, None], (N, N, 3)))


BOXES = {"x": st.floats(2, 6), "y": st.floats(2, 6), "side": st.floats(8, 12.9), "out_px": st.integers(2, 40)}


@settings(deadline=None)
@given(axis=st.sampled_from([0, 1]), **BOXES)
def test_every_output_pixel_is_where_it_should_be(axis: int, x: float, y: float, side: float, out_px: int) -> None:
    """On a ramp, a pixel's value is its position: each output pixel has its centre's, to the rounding of grey values.

    Shrinking, a pixel counts as a square of one value, whose mean may lie an eighth of a pixel from the ramp's.
    """
    out = resample(ramp(axis), x, y, side, side, out_px)
    assert out.shape == (out_px, out_px, 3)
    centres = (x if axis else y) + (np.arange(out_px) + 0.5) * side / out_px
    found = out[:, :, 0] if axis else out[:, :, 0].T
    tolerance = 0.52 if side < out_px else 0.52 + SLOPE / 8
    assert np.abs(found - SLOPE * (centres - 0.5)).max() <= tolerance
    assert np.abs(found.mean() - SLOPE * (centres - 0.5).mean()) <= 0.52 + SLOPE / 8 / out_px


@settings(deadline=None)
@given(seed=st.integers(0, 9), **BOXES)
def test_every_box_against_real_numbers(seed: int, x: float, y: float, side: float, out_px: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (N, N, 3), np.uint8)
    out = resample(image, x, y, side, side, out_px)
    # Enlarging rounds, and cuts at black and white, after each of its two passes.
    tolerance = 0.51 if side >= out_px else 1.3
    middle = np.clip(axis_cubic(image.transpose(1, 0, 2), x, side, out_px), 0, 255).transpose(1, 0, 2)
    expected = resampled(image, x, y, side, out_px) if side >= out_px else axis_cubic(middle, y, side, out_px).clip(0, 255)
    assert np.abs(out - expected).max() <= tolerance


@settings(deadline=None)
@given(value=st.integers(0, 255), x=st.floats(0, 5), side=st.floats(3, 15), out_px=st.integers(1, 40))
def test_a_flat_image_stays_flat(value: int, x: float, side: float, out_px: int) -> None:
    out = resample(np.full((20, 20, 3), value, np.uint8), x, x, side, side, out_px)
    assert np.unique(out).tolist() == [value]


def test_shrinking_averages_by_area() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    expected = image.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(resample(image, 0, 0, 64, 64, 16) - expected).max() <= 0.5 + 1e-3


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


@pytest.mark.parametrize("mpp", [0.25, 0.4, 0.499, 0.5, 0.687, 1.0])
def test_a_tile_shows_its_112_um_at_every_scale(tmp_path: Path, mpp: float) -> None:
    """Tile (r, c) shows the scan from (112 c, 112 r) µm on, to a small part of a pixel."""
    width, height = math.ceil(360 / mpp), math.ceil(250 / mpp)
    noise = np.random.default_rng(0).random((height, width, 3))
    image = (128 + 400 * (gaussian_filter(noise, (1.5, 1.5, 0)) - 0.5)).clip(0, 255).astype(np.uint8)
    with open_slide(write_tiff(tmp_path / "a.tif", image, mpp)) as slide:
        side = side_in_level0(224, 0.5, slide.mpp)
        grid = regular_grid(slide.width_px, slide.height_px, side)
        tiles = list(read_tiles(slide, grid, 224))
    assert len(tiles) == 6
    for row, column, found in zip(grid.row, grid.column, tiles, strict=True):
        expected = resampled(image, column * 112 / mpp, row * 112 / mpp, 112 / mpp, 224)
        assert np.abs(found - expected).max() <= 1.1
        assert np.abs((found - expected).mean()) < 0.02


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
        single = np.stack(list(read_tiles(slide, grid, 224)))
    # Pillow, which enlarges, keeps a box in float32: its last bit depends on where the band begins.
    tolerance = 1 if mpp > 0.5 else 0
    for found, expected in ((selected, whole[some]), (single, whole)):
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= tolerance
        assert (difference > 0).mean() < 1e-3


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


# ---- blocks that cannot be decoded


def flip_block(scan: Path, block: int) -> None:
    with tifffile.TiffFile(scan) as tif:
        offset, size = tif.pages[0].dataoffsets[block], tif.pages[0].databytecounts[block]
    content = bytearray(scan.read_bytes())
    content[offset : offset + size] = bytes(255 - b for b in content[offset : offset + size])
    scan.write_bytes(content)


def test_a_damaged_block_stops_the_tiles_and_is_never_a_white_one(drawn_slide: Path) -> None:
    scan = write_tiff(drawn_slide, tissue_image(), compression="jpeg")
    with open_slide(scan) as slide:
        whole = tile(slide)
        flip_block(scan, 17)  # x 768 to 1024, y 512 to 768
    with open_slide(scan) as slide:
        with pytest.raises(SlideError, match=r"^drawn\.tif: level 0 cannot be read"):
            tile(slide)
        seen = []
        with pytest.raises(SlideError, match=r"^drawn\.tif: level 0 cannot be read"):
            seen.extend(read_tiles(slide, whole.grid, 224))
    hurt = (whole.grid.x_px < 1024) & (whole.grid.x_px + 224 > 768) & (whole.grid.y_px < 768) & (whole.grid.y_px + 224 > 512)
    assert len(seen) <= np.flatnonzero(hurt)[0]
    assert all(s.mean() < 235 for s in seen)
