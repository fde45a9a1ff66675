"""Reading pixels: the right ones of each level, and none made up where a block cannot be decoded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.errors import SlideError
from stpath_assets.slides import Slide, open_slide
from tests.conftest import tissue_image, write_tiff


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three levels whose sizes are no multiples of each other."""
    return write_tiff(tmp_path_factory.mktemp("pyramid") / "p.tif", tissue_image(1203, 1611), 0.25, levels=3)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_level_gives_what_tifffile_gives(pyramid: Path, level: int) -> None:
    with tifffile.TiffFile(pyramid) as tif:
        expected = tif.series[0].levels[level].asarray()
    height, width = expected.shape[:2]
    rng = np.random.default_rng(level)
    with open_slide(pyramid) as slide:
        assert slide.level_dimensions[level] == (width, height)
        np.testing.assert_array_equal(slide.read_level(level, 0, 0, width, height), expected)
        for _ in range(60):
            x0, x1 = sorted(rng.choice(width + 1, 2, replace=False).tolist())
            y0, y1 = sorted(rng.choice(height + 1, 2, replace=False).tolist())
            pixels = slide.read_level(level, x0, y0, x1 - x0, y1 - y0)
            np.testing.assert_array_equal(pixels, expected[y0:y1, x0:x1])
            assert pixels.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 1612, 5), (1600, 0, 12, 5), (0, 1200, 5, 4), (5, 5, -1, 5)])
def test_a_box_that_leaves_the_scan_is_an_error(pyramid: Path, box: tuple[int, int, int, int]) -> None:
    with open_slide(pyramid) as slide, pytest.raises(ValueError, match="leaves level 0"):
        slide.read_level(0, *box)


def test_the_level_that_is_read_is_the_coarsest_fine_enough(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:  # 0.25, about 1 and about 4 µm per pixel
        wanted = {0.1: 0, 0.25: 0, 0.5: 0, 0.99: 0, 1.01: 1, 4.0: 1, 4.1: 2, 8.0: 2}
        assert {mpp: slide.level_for(mpp) for mpp in wanted} == wanted


# ---- the whole scan at a scale


@settings(max_examples=25, deadline=None)
@given(mpp=st.floats(0.2, 20), box=st.integers(100, 1500))
def test_the_scaled_scan_does_not_depend_on_the_boxes(pyramid: Path, mpp: float, box: int) -> None:
    with open_slide(pyramid) as slide:
        whole, boxed = slide.read_scaled(mpp, 1 << 20), slide.read_scaled(mpp, box)
    # A mean of exactly half a grey value may be rounded either way: its last bit depends on the box's corner.
    assert boxed.shape == whole.shape
    difference = boxed.astype(int) - whole
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3


def test_the_scaled_scan_has_the_size_that_the_scale_says(drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide:
        assert slide.read_scaled(8.0).shape == (75, 100, 3)
        assert slide.read_scaled(3.0).shape == (200, 267, 3)
        assert slide.read_scaled(5000.0).shape == (1, 1, 3)


@pytest.mark.parametrize("levels", [1, 3])
def test_the_scaled_scan_is_the_mean_of_its_pixels(tmp_path: Path, levels: int) -> None:
    image = tissue_image(1280, 1600)
    with open_slide(write_tiff(tmp_path / "a.tif", image, 0.5, levels)) as slide:
        scaled = slide.read_scaled(8.0)
    expected = image.reshape(80, 16, 100, 16, 3).mean((1, 3))
    assert np.abs(scaled - expected).max() <= 1.5


def test_a_thumbnail_fits_its_square(drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide:
        assert slide.thumbnail(400).shape == (300, 400, 3)


# ---- blocks that cannot be decoded


def damaged(path: Path, damage: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]], block: int) -> Path:
    """The file with one compressed block changed."""
    with tifffile.TiffFile(path) as tif:
        offset, size = tif.pages[0].dataoffsets[block], tif.pages[0].databytecounts[block]
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[offset : offset + size] = damage(content[offset : offset + size])
    path.write_bytes(content.tobytes())
    return path


DAMAGES = {"flipped": lambda b: ~b, "zeroed": lambda b: b * 0}


def read_block(slide: Slide, block: int) -> npt.NDArray[np.uint8]:
    row, column = divmod(block, 7)  # 1600 px are seven blocks of 256
    return slide.read_level(0, column * 256, row * 256, 200, 200)


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "jpeg2000"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_is_an_error_that_names_the_scan(tmp_path: Path, compression: str, damage: str) -> None:
    scan = write_tiff(tmp_path / "hurt.tif", tissue_image(), compression=compression)
    with open_slide(damaged(scan, DAMAGES[damage], block=17)) as slide:
        with pytest.raises(SlideError, match=r"^hurt\.tif: level 0 cannot be read at x=768, y=512 .* damaged") as error:
            read_block(slide, 17)
        assert "\n" not in str(error.value)
        assert read_block(slide, 16).shape == (200, 200, 3)


def test_a_scan_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    scan = write_tiff(tmp_path / "hurt.tif", tissue_image(), compression="jpeg")
    with open_slide(scan) as slide:
        with scan.open("rb+") as f:
            f.truncate(scan.stat().st_size // 2)
        with pytest.raises(SlideError, match=r"^hurt\.tif: level 0 cannot be read"):
            slide.read_level(0, 0, 0, 1600, 1200)
