"""Deep zoom: the tiles of each level lie side by side, show what the scan shows there, and pixels are square."""

import io
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stpath_assets.errors import SlideError
from stpath_assets.slides import open_slide
from stpath_assets.viewer.pyramid import TILE_PX, Pyramid


def decoded(jpeg: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def joined(pyramid: Pyramid, level: int) -> npt.NDArray[np.uint8]:
    """A whole level from its tiles."""
    width, height = pyramid.size_of(level)
    rows = range(math.ceil(height / TILE_PX))
    columns = range(math.ceil(width / TILE_PX))
    return np.vstack([np.hstack([decoded(pyramid.tile(level, c, r)) for c in columns]) for r in rows])


def gradient(height: int, width: int) -> npt.NDArray[np.uint8]:
    """An image whose red says x and whose green says y, so that a shift by a pixel is seen."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 // width + 20, y * 200 // height + 20, np.full_like(x, 120)], -1).astype(np.uint8)


@pytest.mark.parametrize("levels", [1, 2])
def test_each_level_is_the_scan_shrunk(slide_of: Callable[..., Path], levels: int) -> None:
    image = gradient(1300, 1700)
    with open_slide(slide_of("a.tif", image, levels=levels)) as slide:
        pyramid = Pyramid(slide)
        assert (pyramid.width, pyramid.height, pyramid.levels) == (1700, 1300, 12)
        for level in range(7, pyramid.levels):
            width, height = pyramid.size_of(level)
            shown = joined(pyramid, level)
            assert shown.shape == (height, width, 3)
            expected = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
            assert np.abs(shown.astype(int) - expected).max() <= 8, f"level {level}"


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 5000), height=st.integers(1, 5000), aspect=st.floats(0.5, 2))
def test_levels_halve_down_to_one_pixel(width: int, height: int, aspect: float) -> None:
    class Sized:
        width_px, height_px, mpp_xy = width, height, (0.5, 0.5 * aspect)

    pyramid = Pyramid(Sized())  # type: ignore[arg-type]
    sizes = [pyramid.size_of(level) for level in range(pyramid.levels)]
    assert sizes[0] == (1, 1)
    assert sizes[-1] == (width, pyramid.height)
    for (w, h), (wide, high) in pairwise(sizes):
        assert w == math.ceil(wide / 2) or abs(w - wide / 2) < 1
        assert h == math.ceil(high / 2) or abs(h - high / 2) < 1


def test_pixels_of_the_picture_are_square(slide_of: Callable[..., Path]) -> None:
    with open_slide(slide_of("a.tif", gradient(600, 800), mpp=(0.5, 0.75))) as slide:
        pyramid = Pyramid(slide)
        assert (pyramid.width, pyramid.height, pyramid.stretch_y) == (800, 900, pytest.approx(1.5))
        shown = joined(pyramid, pyramid.levels - 1)
        assert shown.shape == (900, 800, 3)
        assert abs(int(shown[450, 400, 1]) - 120) <= 4, "half way down is half way down the scan"
        crop = decoded(pyramid.region(200, 150, 150, 100, (150, 150)))
        assert abs(int(crop[75, 75, 0]) - (275 * 200 // 800 + 20)) <= 4
        assert abs(int(crop[75, 75, 1]) - (200 * 200 // 600 + 20)) <= 4


def test_tiles_that_are_not_there_are_said(slide_of: Callable[..., Path]) -> None:
    with open_slide(slide_of("a.tif")) as slide:
        pyramid = Pyramid(slide)
        last = pyramid.levels - 1
        for at in ((last + 1, 0, 0), (-1, 0, 0), (last, 99, 0), (last, 0, 99), (last, -1, 0)):
            with pytest.raises(KeyError):
                pyramid.tile(*at)
        with pytest.raises(KeyError, match="beyond the scan"):
            pyramid.region(5000, 0, 10, 10, (10, 10))


def test_a_damaged_part_is_an_error_and_no_colour(slide_of: Callable[..., Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), dtype=np.uint8)
    path = slide_of("a.tif", noise, compression="jpeg")
    data = bytearray(path.read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 60_000] = bytes(60_000)
    path.write_bytes(data)
    with open_slide(path) as slide:
        pyramid = Pyramid(slide)
        last = pyramid.levels - 1
        assert decoded(pyramid.tile(last, 0, 0)).shape == (512, 512, 3)
        with pytest.raises(SlideError, match="cannot be read at x="):
            pyramid.tile(last, 1, 1)
