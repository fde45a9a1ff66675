"""One `Slide` whatever reads it: the same pixels, levels and scale from two readers, and every format drawn and read."""

import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from stpath_assets.errors import ScaleError, SlideError
from stpath_assets.slides import Registry, Slide, open_slide
from stpath_assets.slides.formats.openslide import OpenSlideBackend
from stpath_assets.slides.formats.tiff import TiffBackend
from stpath_assets.slides.source import Source
from stpath_assets.storage import Store
from stpath_assets.tiles import tile
from tests.conftest import tissue_image, write_tiff
from tests.slides.drawn import bif, halved, mirax, ndpi, philips, qptiff, scn, vms
from tests.slides.drawn_dicom import dicom

IMAGE = tissue_image(1024, 1536)
BESIDE = {"mirax": mirax, "hamamatsu": vms, "ventana": bif, "dicom": dicom}
DIALECTS = {"hamamatsu": (ndpi, 20.0, (1, 2)), "philips": (philips, None, (1, 2, 8)), "akoya": (qptiff, 20.0, (1, 2))}
"""TIFFs of other scanners: how they are drawn, the objective that they name, and how many times smaller their levels are."""


def assert_same(path: Path, levels: int) -> None:
    """Both readers agree on scale, objective and vendor, and on every pixel of the levels that both see."""
    ours, theirs = TiffBackend(Source(path)), OpenSlideBackend(Source(path))
    assert theirs.mpp == pytest.approx(ours.mpp)
    assert (theirs.objective_power, theirs.vendor, theirs.files) == (ours.objective_power, ours.vendor, ours.files)
    for level in range(levels):
        width, height = ours.level_dimensions[level]
        assert theirs.level_dimensions[level] == (width, height)
        assert theirs.level_downsamples[level] == pytest.approx(ours.level_downsamples[level])
        for x, y, w, h in ((0, 0, width // 2, height // 3), (width // 3, height // 2, width // 2, height // 2)):
            np.testing.assert_array_equal(ours.read_level(level, x, y, w, h), theirs.read_level(level, x, y, w, h))
    ours.close()
    theirs.close()


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", None])
def test_two_readers_of_a_drawn_tiff_agree(tmp_path: Path, compression: str | None) -> None:
    assert_same(write_tiff(tmp_path / "a.tif", IMAGE, 0.25, compression=compression), 1)


def test_two_readers_of_an_aperio_pyramid_agree(tmp_path: Path) -> None:
    said = "Aperio Image Library v11\n1536x1024|AppMag = 40|MPP = 0.2525"
    with tifffile.TiffWriter(tmp_path / "a.svs") as tif:
        for level, image in enumerate((IMAGE, halved(IMAGE, 4))):
            tif.write(image, tile=(256, 256), photometric="rgb", compression="jpeg", description=said, metadata=None)
            if level == 0:  # Aperio's second image is a thumbnail in strips
                tif.write(halved(IMAGE, 8), photometric="rgb", rowsperstrip=16, description=said, metadata=None)
    assert_same(tmp_path / "a.svs", 2)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "her2st/C2.tif", "her2st/C3.tif"])
def test_two_readers_of_a_real_scan_agree(shared: Path, name: str) -> None:
    """OpenSlide does not look into sub-images, where these keep their smaller levels."""
    path = shared / "data" / name
    if name.endswith("C3.tif"):
        assert OpenSlideBackend(Source(path)).mpp is TiffBackend(Source(path)).mpp is None
    else:
        assert_same(path, 1)


@pytest.mark.parametrize("vendor", DIALECTS)
def test_a_tiff_of_another_scanner(tmp_path: Path, vendor: str) -> None:
    draw, power, steps = DIALECTS[vendor]
    with open_slide(draw(tmp_path, IMAGE)) as slide:
        assert (slide.backend, slide.vendor, slide.objective_power) == ("tiffslide", vendor, power)
        assert (slide.mpp_xy, slide.mpp_source, slide.warnings) == ((0.5, 0.5), "file", [])
        assert slide.level_dimensions == tuple((1536 // step, 1024 // step) for step in steps), "nothing but its levels"
        assert slide.level_downsamples == steps
        for level, step in enumerate(steps):
            width, height = slide.level_dimensions[level]
            x, y, w, h = width // 4 - 10, height // 4 - 6, width // 8, height // 8
            off = slide.read_level(level, x, y, w, h).astype(int) - halved(IMAGE, step)[y : y + h, x : x + w]
            # What JPEG costs a random pattern; one pixel aside, it would be above 10.
            assert np.abs(off).mean() < 6
        assert len(tile(slide)) > 4


@pytest.mark.parametrize(("vendor", "levels"), [("hamamatsu", 2), ("philips", 3)])
def test_two_readers_of_a_tiff_of_another_scanner_agree(tmp_path: Path, vendor: str, levels: int) -> None:
    assert_same(DIALECTS[vendor][0](tmp_path, IMAGE), levels)


def test_a_hamamatsu_scan_under_another_name(tmp_path: Path) -> None:
    scan = ndpi(tmp_path, IMAGE).rename(tmp_path / "a.tif")
    with open_slide(scan) as slide:
        assert (slide.vendor, slide.mpp, slide.level_dimensions) == ("hamamatsu", 0.5, ((1536, 1024), (768, 512)))


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "half zeroed"])
def test_a_damaged_part_of_a_hamamatsu_jpeg(tmp_path: Path, damage: str) -> None:
    """Its blocks are parts of one JPEG between restart markers."""
    scan = ndpi(tmp_path, IMAGE)
    with tifffile.TiffFile(scan) as tif:
        offset, size = tif.pages[0].dataoffsets[100], tif.pages[0].databytecounts[100]
    content = np.frombuffer(scan.read_bytes(), np.uint8).copy()
    part = content[offset : offset + size]
    part[:] = (
        ~part if damage == "flipped" else 0 if damage == "zeroed" else np.where(np.arange(size) < size // 2, part, 0)
    )
    scan.write_bytes(content.tobytes())
    with open_slide(scan) as slide:
        with pytest.raises(SlideError, match=r"^n\.ndpi: level 0 cannot be read .*block at x=1024, y=128 of the level"):
            slide.read_level(0, 1024, 128, 100, 8)
        assert slide.read_level(0, 0, 0, 1024, 128).shape == (128, 1024, 3)


@pytest.mark.parametrize("vendor", BESIDE)
def test_a_scan_of_another_format(tmp_path: Path, vendor: str) -> None:
    with open_slide(BESIDE[vendor](tmp_path, IMAGE)) as slide:
        assert (slide.backend, slide.vendor, slide.objective_power) == ("openslide", vendor, 20.0)
        assert (slide.mpp, slide.mpp_source, slide.warnings) == (0.5, "file", [])
        assert slide.level_dimensions[:2] == ((1536, 1024), (768, 512))
        for level, expected in enumerate((IMAGE, halved(IMAGE, 2))):
            pixels = slide.read_level(level, 100, 60, 600, 400)
            assert pixels.dtype == np.uint8
            assert pixels.flags["C_CONTIGUOUS"]
            # What JPEG costs a random pattern; one pixel aside, it would be above 30.
            assert np.abs(pixels.astype(int) - expected[60:460, 100:700]).mean() < 4
        assert len(tile(slide)) > 4
        assert slide.thumbnail(300).shape == (200, 300, 3)


def test_a_leica_scan_lies_where_its_glass_says(tmp_path: Path) -> None:
    with open_slide(scn(tmp_path, IMAGE)) as slide:
        assert (slide.vendor, slide.mpp, slide.objective_power) == ("leica", 0.5, 20.0)
        assert (slide.width_px, slide.height_px) == (3 * 1536, 2 * 1024)
        whole = slide.read_level(0, 0, 0, slide.width_px, slide.height_px)
    assert np.abs(whole[512:1536, 1536:3072].astype(int) - IMAGE).mean() < 4
    assert (whole[:512] == 255).all(), "what was never scanned is background, and the macro image is not seen"


def test_two_readers_of_dicom_agree(tmp_path: Path) -> None:
    wsidicom = pytest.importorskip("wsidicom")
    path = dicom(tmp_path, IMAGE)
    with open_slide(path) as slide, wsidicom.WsiDicom.open(sorted(tmp_path.glob("*.dcm"))) as theirs:
        assert (slide.mpp, slide.mpp) == (theirs.mpp.width, theirs.mpp.height)
        for level in (0, 1):
            pixels = theirs.read_region((100, 60), level, (500, 300), as_array=True)
            np.testing.assert_array_equal(slide.read_level(level, 100, 60, 500, 300), pixels)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_scan_is_known_by_what_it_is_and_not_by_its_name(tmp_path: Path, compression: str) -> None:
    with open_slide(write_tiff(tmp_path / "a.mrxs", IMAGE, compression=compression)) as slide:
        assert (slide.backend, slide.width_px) == ("tiffslide", 1536)


# ---- scans of several files


@pytest.mark.parametrize(("draw", "part"), [(mirax, "m/Data0000.dat"), (vms, "v_macro.jpg"), (dicom, "d1.dcm")])
def test_the_hash_of_a_scan_covers_all_its_files(tmp_path: Path, draw: Callable[..., Path], part: str) -> None:
    path, registry = draw(tmp_path, IMAGE), Registry(Store(tmp_path / "root"))
    (tmp_path / "other.txt").write_text("not of the scan")
    row = registry.add(path)
    files = [f for f in tmp_path.rglob("*") if f.is_file() and "root" not in f.parts and f.name != "other.txt"]
    assert row.size_bytes == sum(f.stat().st_size for f in files)
    assert registry.refresh(row.slide_id) == row
    hurt = tmp_path / part
    hurt.write_bytes(hurt.read_bytes() + b"\0\0")
    with pytest.raises(SlideError, match="is now another scan"):
        registry.refresh(row.slide_id)


@pytest.mark.parametrize(("draw", "part"), [(mirax, "m/Data0000.dat"), (mirax, "m/Slidedat.ini"), (vms, "v_0.jpg")])
def test_a_scan_of_which_a_file_is_missing_is_refused(tmp_path: Path, draw: Callable[..., Path], part: str) -> None:
    path = draw(tmp_path, IMAGE)
    (tmp_path / part).unlink()
    with pytest.raises(SlideError, match=rf"^{path.name}: ") as error:
        open_slide(path, 0.5)
    assert "\n" not in str(error.value)


def test_a_damaged_region_of_another_format_is_an_error_and_the_others_stay(tmp_path: Path) -> None:
    path = mirax(tmp_path, IMAGE)
    data = tmp_path / "m" / "Data0000.dat"
    content = bytearray(data.read_bytes())
    start = content.index(b"\xff\xd8", 100)  # the second tile of level 0
    content[start : start + 200] = bytes(200)
    data.write_bytes(content)
    with open_slide(path) as slide:
        for _ in range(2):
            with pytest.raises(SlideError, match=r"^m\.mrxs: level 0 cannot be read at x=300, y=20 .* damaged"):
                slide.read_level(0, 300, 20, 50, 50)
            assert np.abs(slide.read_level(0, 0, 0, 200, 200).astype(int) - IMAGE[:200, :200]).mean() < 4


def test_threads_that_meet_a_damaged_region_do_not_hurt_each_other(tmp_path: Path) -> None:
    """OpenSlide's handle is spent after an error, for every thread that reads with it."""
    path = mirax(tmp_path, IMAGE)
    data = tmp_path / "m" / "Data0000.dat"
    content = bytearray(data.read_bytes())
    start = content.index(b"\xff\xd8", 100)
    content[start : start + 200] = bytes(200)
    data.write_bytes(content)

    def read(slide: Slide, tile: int) -> bool:
        y, x = tile // 6 * 256, tile % 6 * 256
        try:
            return bool(
                np.abs(slide.read_level(0, x, y, 256, 256).astype(int) - IMAGE[y : y + 256, x : x + 256]).mean() < 4
            )
        except SlideError:
            return False

    with open_slide(path) as slide, ThreadPoolExecutor(8) as pool:
        well = list(pool.map(lambda t: read(slide, t), [*range(24)] * 3))
    assert [i % 24 for i, good in enumerate(well) if not good] == [1, 1, 1]


# ---- PNG and JPEG


def saved(path: Path, image: npt.NDArray, **options: object) -> Path:
    Image.fromarray(image).save(path, **options)
    return path


def test_a_picture_needs_a_scale(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        path = saved(tmp_path / name, IMAGE, dpi=(50800, 50800))  # 0.5 µm, which no camera means
        with pytest.raises(ScaleError, match=rf"^{name}: the file does not say its scale .* --mpp"):
            open_slide(path)
        with open_slide(path, 0.5) as slide:
            assert (slide.backend, slide.mpp, slide.mpp_source, slide.mpp_file) == ("image", 0.5, "user", None)
            assert slide.level_dimensions == ((1536, 1024),)
            assert len(tile(slide)) > 4


def test_the_pixels_of_a_picture(tmp_path: Path) -> None:
    with open_slide(saved(tmp_path / "a.png", IMAGE), 0.5) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 10, 20, 300, 100), IMAGE[20:120, 10:310])
        with pytest.raises(ValueError, match="leaves level 0"):
            slide.read_level(0, 1500, 0, 100, 10)
    with open_slide(saved(tmp_path / "a.jpg", IMAGE, quality=95, subsampling=0), 0.5) as slide:
        assert np.abs(slide.read_level(0, 0, 0, 1536, 1024).astype(int) - IMAGE).mean() < 4


WRONG_PICTURES = {
    "grey.png": (IMAGE[..., 0], "8-bit greyscale"),
    "deep.png": (IMAGE[..., 0].astype(np.uint16) << 8, "16-bit greyscale"),
    "bits.png": (IMAGE[..., 0] > 100, "1-bit greyscale"),
    "alpha.png": (np.dstack([IMAGE, IMAGE[..., 0]]), "RGB with an alpha channel"),
    "grey.jpg": (IMAGE[..., 0], "greyscale"),
}


@pytest.mark.parametrize("name", WRONG_PICTURES)
def test_pictures_of_other_pixels_are_refused(tmp_path: Path, name: str) -> None:
    image, said = WRONG_PICTURES[name]
    with pytest.raises(SlideError, match=rf"^{name}: is .*{said}; H&E scans are 8-bit RGB, convert it first$"):
        open_slide(saved(tmp_path / name, image), 0.5)


def test_a_picture_in_cmyk_or_with_a_palette_is_refused(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).convert("CMYK").save(tmp_path / "a.jpg")
    Image.fromarray(IMAGE).convert("P").save(tmp_path / "a.png")
    for name, said in (("a.jpg", "CMYK"), ("a.png", "8-bit palette")):
        with pytest.raises(SlideError, match=rf"^{name}: is {said}"):
            open_slide(tmp_path / name, 0.5)


def test_a_picture_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        whole = saved(tmp_path / name, IMAGE[:400, :400]).read_bytes()
        for keep in (9, 30, 200, len(whole) // 2, len(whole) - 100):
            (tmp_path / name).write_bytes(whole[:keep])
            with pytest.raises(SlideError, match=rf"^{name}: "):
                open_slide(tmp_path / name, 0.5)


def test_a_picture_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "bomb.png", IMAGE[:256, :256])
    content = bytearray(path.read_bytes())
    content[16:24] = (1_000_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(
        SlideError, match=r"^bomb\.png: declares 1000000 by 1000000 pixels, more than its bytes can hold"
    ):
        open_slide(path, 0.5)


def test_a_mirax_scan_is_not_taken_for_the_jpeg_that_it_begins_with(tmp_path: Path) -> None:
    path = mirax(tmp_path, IMAGE)
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(SlideError, match=r"^m\.mrxs: its folder m is missing"):
        open_slide(path, 0.5)
