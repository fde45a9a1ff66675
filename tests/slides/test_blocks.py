"""Pixels block by block: the right ones for every way of storing them, each block decoded once, damage never painted over."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stpath_assets.slides.blocks import BlockCache, BlockError, BlockLevel
from tests.conftest import tissue_image

HEIGHT, WIDTH = 300, 410
TILED = {"tile": (64, 80)}


def smooth_image() -> npt.NDArray[np.uint8]:
    """No two neighbouring pixels are alike, and JPEG can hold it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) % 256], -1).astype(np.uint8)


def written(path: Path, image: npt.NDArray | None = None, **options: object) -> Path:
    tifffile.imwrite(path, smooth_image() if image is None else image, photometric="rgb", **options)
    return path


@contextmanager
def level_of(path: Path, most: int = 1 << 24) -> Iterator[BlockLevel]:
    with tifffile.TiffFile(path) as tif:
        yield BlockLevel(tif.pages[0], BlockCache(most))


def changed(path: Path, block: int, damage: bytes | None = None, keep: float = 0.0) -> Path:
    """The file with the bytes of a block from a share of them on set to zero, or replaced by `damage` over and over."""
    with tifffile.TiffFile(path) as tif:
        offset, size = tif.pages[0].dataoffsets[block], tif.pages[0].databytecounts[block]
    first = int(keep * size)
    content = bytearray(path.read_bytes())
    content[offset + first : offset + size] = ((damage or b"\0") * size)[: size - first]
    path.write_bytes(content)
    return path


# ---- every way of storing pixels


STORED = {
    "tiles, jpeg": {**TILED, "compression": "jpeg"},
    "tiles, deflate": {**TILED, "compression": "deflate"},
    "tiles, lzw with predictor": {**TILED, "compression": "lzw", "predictor": 2},
    "tiles, jpeg 2000": {**TILED, "compression": "jpeg2000"},
    "tiles, plain": TILED,
    "tiles wider than the image": {"tile": (512, 512), "compression": "deflate"},
    "one column of plain tiles": {"tile": (64, 416)},
    "strips, jpeg": {"rowsperstrip": 16, "compression": "jpeg"},
    "strips, lzw": {"rowsperstrip": 7, "compression": "lzw"},
    "strips, plain": {"rowsperstrip": 7},
    "one strip, plain": {"rowsperstrip": HEIGHT},
    "one strip, deflate": {"rowsperstrip": HEIGHT, "compression": "deflate"},
    "big-endian plain": {"rowsperstrip": 32, "byteorder": ">"},
}


@pytest.mark.parametrize("how", STORED)
def test_every_box_is_what_tifffile_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr("stpath_assets.slides.blocks._STRIP_BYTES", 10 * WIDTH * 3)
    path = written(tmp_path / "a.tif", **STORED[how])
    expected = tifffile.imread(path)
    rng = np.random.default_rng(0)
    with level_of(path) as level:
        assert (level.width, level.height) == (WIDTH, HEIGHT)
        np.testing.assert_array_equal(level.read(0, 0, WIDTH, HEIGHT), expected)
        for _ in range(40):
            (x0, x1), (y0, y1) = (sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in (WIDTH, HEIGHT))
            np.testing.assert_array_equal(level.read(x0, y0, x1 - x0, y1 - y0), expected[y0:y1, x0:x1])


def test_a_plain_image_in_one_strip_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stpath_assets.slides.blocks._STRIP_BYTES", 10 * WIDTH * 3)
    with level_of(written(tmp_path / "a.tif", rowsperstrip=HEIGHT)) as level:
        level.read(5, 112, 20, 6)
        assert level.block_height == 10
        assert level.cache.held_bytes == 10 * WIDTH * 3


def test_aperio_jpeg_2000_in_ycbcr_comes_out_as_rgb(tmp_path: Path) -> None:
    """Compression 33003 holds YCbCr and does not say so in its codestream."""
    ycbcr = np.asarray(Image.fromarray(smooth_image()).convert("YCbCr"))
    path = written(tmp_path / "a.svs", ycbcr, **TILED, compression="jpeg2000")
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags["Compression"].valueoffset
        order = tif.byteorder
    path.write_bytes(content[:at] + (33003).to_bytes(2, "little" if order == "<" else "big") + content[at + 2 :])
    with level_of(path) as level:
        found = level.read(0, 0, WIDTH, HEIGHT)
    assert np.abs(found.astype(int) - smooth_image()).max() <= 4, "the rounding of two conversions"


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((64, 64), np.uint8, {"photometric": "minisblack"}),
        ((64, 64, 3), np.uint16, {"photometric": "rgb"}),
        ((64, 64, 4), np.uint8, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ((3, 64, 64), np.uint8, {"photometric": "rgb", "planarconfig": "separate"}),
        ((64, 64, 3), np.uint8, {"photometric": "cielab"}),
    ],
)
def test_other_pixels_are_refused(tmp_path: Path, shape: tuple[int, ...], dtype: type, options: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, dtype), **options)
    with pytest.raises(ValueError, match=r"not interleaved 8-bit RGB|not RGB"), level_of(tmp_path / "a.tif"):
        pass


@given(st.integers(-5, WIDTH + 5), st.integers(-5, HEIGHT + 5), st.integers(-2, WIDTH), st.integers(-2, HEIGHT))
@settings(deadline=None, max_examples=50)
def test_a_box_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, x: int, y: int, w: int, h: int) -> None:
    path = tmp_path_factory.getbasetemp() / "boxes.tif"
    if not path.exists():
        written(path, **TILED)
    with level_of(path) as level:
        if x < 0 or y < 0 or w < 0 or h < 0 or x + w > WIDTH or y + h > HEIGHT:
            with pytest.raises(ValueError, match="leaves 410 by 300 pixels"):
                level.read(x, y, w, h)
        else:
            np.testing.assert_array_equal(level.read(x, y, w, h), smooth_image()[y : y + h, x : x + w])


# ---- each block once


def test_neighbouring_boxes_decode_a_block_once(tmp_path: Path) -> None:
    with level_of(written(tmp_path / "a.tif", **TILED, compression="jpeg")) as level:
        for y in range(0, HEIGHT - 50, 37):
            for x in range(0, WIDTH - 50, 23):
                level.read(x, y, 50, 50)
        assert level.cache.decoded == 5 * 5, "all but the last column"


def test_threads_that_want_one_block_decode_it_once() -> None:
    cache, at_once = BlockCache(), threading.Barrier(6)

    def slow() -> npt.NDArray[np.uint8]:
        time.sleep(0.05)
        return np.ones((2, 2, 3), np.uint8)

    def get(_: int) -> npt.NDArray[np.uint8]:
        at_once.wait(10)
        return cache.get("a", slow)

    with ThreadPoolExecutor(6) as pool:
        blocks = list(pool.map(get, range(6)))
    assert cache.decoded == 1
    assert all(b is blocks[0] for b in blocks)


def test_many_threads_read_what_one_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = [(int(x), int(y)) for x, y in zip(rng.integers(0, WIDTH - 90, 200), rng.integers(0, HEIGHT - 70, 200))]  # noqa: B905
    with level_of(written(tmp_path / "a.tif", **TILED, compression="deflate"), most=8 * 64 * 80 * 3) as level:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: level.read(*at, 90, 70), boxes))
        assert level.cache.held_bytes <= 8 * 64 * 80 * 3
    for (x, y), pixels in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(pixels, smooth_image()[y : y + 70, x : x + 90])


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 12))
def test_the_cache_is_bounded_and_keeps_what_was_used_last(keys: list[int], room: int) -> None:
    cache = BlockCache(room * 12)
    for i, key in enumerate(keys):
        before = cache.decoded
        assert cache.get(key, lambda k=key: np.full((2, 2, 3), k, np.uint8))[0, 0, 0] == key
        assert cache.held_bytes <= room * 12
        recent = set(keys[max(0, i - room) : i])
        if key in recent and len(recent) <= room:
            assert cache.decoded == before, "it was used recently enough to be held"


def test_a_failed_decode_is_tried_again_and_held_by_nobody() -> None:
    cache = BlockCache()

    def fail() -> npt.NDArray[np.uint8]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get("a", fail)
    assert cache.get("a", lambda: np.zeros((1, 1, 3), np.uint8)).shape == (1, 1, 3)
    assert (cache.decoded, cache.held_bytes) == (2, 3)


# ---- damage


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "jpeg2000"])
@pytest.mark.parametrize("damage", [b"\0", b"\xff", b"\xa5\x3c"])
def test_a_damaged_block_is_an_error_that_says_where(tmp_path: Path, compression: str, damage: bytes) -> None:
    path = changed(written(tmp_path / "a.tif", **TILED, compression=compression), 8, damage)
    with level_of(path) as level:
        with pytest.raises(BlockError, match=r"^block at x=160, y=64 of the level: \w+: ") as error:
            level.read(0, 0, WIDTH, HEIGHT)
        assert (error.value.x, error.value.y) == (160, 64)
        assert "\n" not in str(error.value)
        assert np.abs(level.read(240, 64, 80, 64).astype(int) - smooth_image()[64:128, 240:320]).max() < 40


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_jpeg_data_that_stop_early_are_not_painted_grey(tmp_path: Path, keep: float) -> None:
    """libjpeg fills in what is missing and calls it a warning, which no one sees."""
    path = changed(written(tmp_path / "a.tif", tissue_image(HEIGHT, WIDTH), **TILED, compression="jpeg"), 8, keep=keep)
    with level_of(path) as level, pytest.raises(BlockError, match=r"x=160, y=64 .*its JPEG data stop early"):
        level.read(160, 64, 10, 10)


def test_a_file_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", **TILED)
    with level_of(path) as level:
        with path.open("rb+") as f:
            f.truncate(path.stat().st_size - 1000)
        with pytest.raises(BlockError, match=r"x=400, y=256 of the level: EOFError: the file ends within it"):
            level.read(405, 299, 1, 1)


def test_a_header_with_too_few_blocks_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffFile(written(tmp_path / "a.tif", **TILED)) as tif:
        page = tif.pages[0]
        page.dataoffsets = page.dataoffsets[:-1]
        with pytest.raises(ValueError, match="29 blocks of 30: the header is damaged"):
            BlockLevel(page)


def test_blocks_that_were_never_scanned_are_glass(tmp_path: Path) -> None:
    """Philips' scanners leave out what lies outside the tissue: offset 0 and no bytes."""
    with tifffile.TiffFile(written(tmp_path / "a.tif", **TILED, compression="jpeg")) as tif:
        page = tif.pages[0]
        page.dataoffsets = (*page.dataoffsets[:8], 0, *page.dataoffsets[9:])
        page.databytecounts = (*page.databytecounts[:8], 0, *page.databytecounts[9:])
        level = BlockLevel(page)
        assert (level.read(160, 64, 80, 64) == 255).all()
        assert (level.read(240, 64, 80, 64) < 255).any()
