"""Opening a scan: which scale is believed, and that what is no scan is refused in one line that names it."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stpath_assets.errors import ScaleError, SlideError
from stpath_assets.slides import open_slide
from tests.conftest import tissue_image, write_tiff

SQUARE = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


def aperio(path: Path, mpp: str) -> Path:
    """A scan that says its scale the way Aperio's do."""
    description = f"Aperio Image Library v11.2.1\n512x512|AppMag = 20|MPP = {mpp}"
    image = tissue_image(512, 512)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=description, metadata=None)
    return path


def refusal(path: Path, mpp: float | None = None, error: type[SlideError] = SlideError) -> str:
    """The message with which a file is refused: one line that names the file."""
    with pytest.raises(error) as raised:
        open_slide(path, mpp)
    message = str(raised.value)
    assert "\n" not in message
    assert path.name in message
    return message


# ---- scale


def test_the_files_scale(drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide:
        assert (slide.mpp, slide.mpp_source, slide.mpp_file) == (0.5, "file", 0.5)
        assert (slide.width_px, slide.height_px, slide.name, slide.warnings) == (1600, 1200, "drawn.tif", [])


def test_the_scale_of_an_aperio_scan(tmp_path: Path) -> None:
    with open_slide(aperio(tmp_path / "a.svs", "0.2525")) as slide:
        assert (slide.mpp, slide.mpp_source, slide.vendor) == (0.2525, "file", "aperio")


def test_the_users_scale_where_the_file_has_none(slide_of: Callable[..., Path]) -> None:
    scan = slide_of("a.tif", mpp=None)
    assert "does not say its scale" in refusal(scan, error=ScaleError)
    assert "--mpp" in refusal(scan, error=ScaleError)
    with open_slide(scan, 0.687) as slide:
        assert (slide.mpp, slide.mpp_source, slide.mpp_file, slide.warnings) == (0.687, "user", None, [])


@pytest.mark.parametrize("mpp", ["0", "nan", "-0.5", "264", "inf", "1e-9"])
def test_a_scale_in_the_file_that_no_microscope_has_is_not_believed(tmp_path: Path, mpp: str) -> None:
    scan = aperio(tmp_path / "a.svs", mpp)
    assert "is outside the range of microscope scans" in refusal(scan, error=ScaleError)
    with open_slide(scan, 0.5) as slide:
        assert (slide.mpp, slide.mpp_source, slide.mpp_file) == (0.5, "user", None)


@pytest.mark.parametrize("mpp", ["", "unknown"])
def test_a_scale_in_the_file_that_is_no_number(tmp_path: Path, mpp: str) -> None:
    assert "does not say its scale" in refusal(aperio(tmp_path / "a.svs", mpp), error=ScaleError)


@pytest.mark.parametrize(("dpi", "um"), [(96, "264.6"), (72, "352.8")])
def test_a_viewers_default_resolution_is_not_believed(tmp_path: Path, dpi: int, um: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue_image(), tile=(256, 256), resolution=(dpi, dpi), resolutionunit="INCH")
    message = refusal(tmp_path / "a.tif", error=ScaleError)
    assert um in message
    assert "72 or 96 dpi" in message


def test_a_resolution_of_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue_image(), tile=(256, 256), resolution=(0, 0), resolutionunit="INCH")
    assert "--mpp" in refusal(tmp_path / "a.tif", error=ScaleError)


@pytest.mark.parametrize("mpp", [0.0, float("nan"), -0.5, 264.0, float("inf"), 0.04])
def test_an_absurd_scale_from_the_user_is_refused(drawn_slide: Path, mpp: float) -> None:
    assert f"--mpp {mpp:g} is outside the range of microscope scans" in refusal(drawn_slide, mpp, ScaleError)


@pytest.mark.parametrize("mpp", [0.526, 0.474, 1.0])
def test_a_contradiction_warns_and_the_user_wins(drawn_slide: Path, mpp: float) -> None:
    with open_slide(drawn_slide, mpp) as slide:
        assert (slide.mpp, slide.mpp_source, slide.mpp_file) == (mpp, "user", 0.5)
        assert slide.warnings == [f"drawn.tif: the given mpp {mpp:g} contradicts the file's 0.5; the given one is used"]


@pytest.mark.parametrize("mpp", [0.5, 0.524, 0.476])
def test_up_to_five_percent_is_no_contradiction(drawn_slide: Path, mpp: float) -> None:
    with open_slide(drawn_slide, mpp) as slide:
        assert (slide.mpp, slide.mpp_source, slide.warnings) == (mpp, "user", [])


# ---- what is no scan


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "gone.svs")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.svs").touch()
    assert "is empty" in refusal(tmp_path / "empty.svs")


@pytest.mark.parametrize("content", [b"hello", bytes(300), b"II*\0", b"MM\0*" + bytes(200)])
def test_what_is_no_tiff(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.svs").write_bytes(content)
    said = refusal(tmp_path / "a.svs")
    assert "is not a readable slide" in said or "is truncated within its header" in said


IMAGE = tissue_image(512, 512)
GREY = IMAGE[..., 0]
WRONG_PIXELS = {
    "1-bit": (GREY > 100, {"photometric": "minisblack"}, "1 samples of bool"),
    "16-bit": (IMAGE.astype(np.uint16) << 8, {"photometric": "rgb"}, "3 samples of uint16"),
    "float": (IMAGE.astype(np.float32), {"photometric": "rgb"}, "3 samples of float32"),
    "greyscale": (GREY, {"photometric": "minisblack"}, "1 samples of uint8"),
    "palette": (GREY, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "1 samples of uint8"),
    "RGBA": (np.dstack([IMAGE, GREY]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, "4 samples of uint8"),
    "CMYK": (np.dstack([IMAGE, GREY]), {"photometric": "separated"}, "4 samples of uint8"),
}


@pytest.mark.parametrize("name", WRONG_PIXELS)
def test_other_pixels_than_8_bit_rgb_are_refused(tmp_path: Path, name: str) -> None:
    image, options, said = WRONG_PIXELS[name]
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(256, 256), **SQUARE, **options)
    message = refusal(tmp_path / "a.tif")
    assert said in message
    assert "8-bit RGB" in message


def test_planes_of_colour_are_refused(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", planes, tile=(256, 256), photometric="rgb", planarconfig="separate", **SQUARE)
    assert "is not a readable slide" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("levels", [1, 3])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, levels: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "tifffile")
    whole = write_tiff(tmp_path / "whole.tif", tissue_image(), levels=levels, compression="jpeg").read_bytes()
    cut = tmp_path / "cut.tif"
    for keep in [1, 4, 8, 9, 16, *range(50, 700, 25), 1000, *(len(whole) * i // 10 for i in range(1, 10)), -100, -1]:
        cut.write_bytes(whole[:keep])
        said = refusal(cut, 0.5)
        assert any(w in said for w in ("copy it again", "cannot be read", "is not a readable slide", "convert it")), (
            said
        )


def test_a_scan_is_never_changed(drawn_slide: Path, tmp_path: Path) -> None:
    before, stat = drawn_slide.read_bytes(), drawn_slide.stat()
    with open_slide(drawn_slide) as slide:
        slide.thumbnail()
    assert drawn_slide.read_bytes() == before
    assert drawn_slide.stat().st_mtime_ns == stat.st_mtime_ns
    assert [p.name for p in tmp_path.iterdir()] == ["drawn.tif"]


def test_the_name_of_a_scan_may_be_anything(drawn_slide: Path, tmp_path: Path) -> None:
    odd = tmp_path / "Fräulein Müller's scan #3 [HE].tif"
    shutil.copy(drawn_slide, odd)
    with open_slide(odd) as slide:
        assert slide.name == odd.name


@pytest.mark.shared
def test_real_scans(shared: Path) -> None:
    with open_slide(shared / "data" / "CMU-1-Small-Region.svs") as slide:
        assert (slide.width_px, slide.height_px, slide.mpp, slide.vendor) == (2220, 2967, 0.499, "aperio")
    with open_slide(shared / "data" / "her2st" / "C2.tif") as slide:
        assert (slide.width_px, slide.height_px) == (9274, 9911)
        assert slide.mpp == pytest.approx(0.687, abs=5e-4)
        assert len(slide.level_dimensions) > 1
    with pytest.raises(ScaleError, match=r"C3\.tif: the file does not say its scale"):
        open_slide(shared / "data" / "her2st" / "C3.tif")
