"""What labs' folders hold beside good scans: each is named in one line, nothing is printed beside it, and the rest goes on.

Looked at through the command line in processes of their own, since other libraries print and log as they like.
"""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stpath_assets.errors import ScaleError, SlideError
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff

NAMES = [
    "two words.tif", "comma,and;more.tif", "Gewebe_ä_组织.tif", ".hidden.tif", "x" * 250 + ".tif", "#1 [HE] 100%.tif",
    "-leading.tif", "no_suffix",
]  # fmt: skip


def sa(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line as a user calls it."""
    command = [sys.executable, "-m", "stpath_assets", *map(str, arguments), "--home", str(cwd / "home")]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


def refusal(path: Path, mpp: float | None = 0.5, error: type[SlideError] = SlideError) -> str:
    with pytest.raises(error) as raised:
        open_slide(path, mpp)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def with_tag(path: Path, code: int, value: int) -> Path:
    """The file with the value of a tag of its first image overwritten."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags[code].overwrite(value)
    return path


# ---- files that declare more than they hold


def bomb_of_blocks(path: Path) -> None:
    """A tiny file that declares a terapixel."""
    write_tiff(path, tissue_image(512, 512), compression="jpeg")
    for code in (256, 257):
        with_tag(path, code, 1_000_000)


def bomb_in_one_block(path: Path) -> None:
    """One deflated strip that would unpack to 27 GB."""
    write_tiff(path, tissue_image(64, 64))
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="deflate", rowsperstrip=64)
    for code, value in ((256, 100_000), (257, 90_000), (278, 90_000)):
        with_tag(path, code, value)


def bomb_beyond_glass(path: Path) -> None:
    """More pixels a side than any glass has."""
    write_tiff(path, tissue_image(512, 512))
    with_tag(path, 256, 4_000_000_000)


def bomb_of_nothing(path: Path) -> None:
    """Tiles that are all declared never scanned."""
    write_tiff(path, tissue_image(512, 512), compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        where = [tif.pages[0].tags[c].valueoffset for c in (324, 325)]
    content = bytearray(path.read_bytes())
    for at in where:
        content[at : at + 16] = bytes(16)
    path.write_bytes(content)


BOMBS = {
    bomb_of_blocks: "declares 1000000 by 1000000 pixels, but holds 4 of their",
    bomb_in_one_block: "keeps 100000 by 90000 pixels in one block",
    bomb_beyond_glass: "declares 4000000000 by 512 pixels, too many for a scan",
    bomb_of_nothing: "a level has no image data",
}


@pytest.mark.parametrize("make", BOMBS)
def test_a_file_that_declares_more_than_it_holds(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "bomb.tif")
    assert refusal(tmp_path / "bomb.tif").startswith("bomb.tif: " + BOMBS[make])


@pytest.mark.parametrize("level", [1, 2])
def test_a_pyramid_of_which_a_level_is_missing(tmp_path: Path, level: int) -> None:
    path = write_tiff(tmp_path / "p.tif", tissue_image(), levels=3, compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        tags = tif.series[0].levels[level].keyframe.tags
        where = [(tags[c].valueoffset, 4 * tags[c].count) for c in (324, 325)]
    content = bytearray(path.read_bytes())
    for at, n in where:
        if n > 4:
            content[at : at + n] = bytes(n)
        else:
            content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert "a level has no image data" in refusal(path)


def test_an_image_that_points_beyond_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", tissue_image(512, 512))
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags[324].valueoffset
    content = bytearray(path.read_bytes())
    content[at : at + 4] = struct.pack("<I", 4_000_000_000)
    path.write_bytes(content)
    assert "is truncated" in refusal(path)


def test_directories_that_go_in_circles(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", tissue_image(256, 256))
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    entries = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    path.write_bytes(content)
    assert refusal(path) == "a.tif: its directories go in circles; it is damaged, copy or convert it again"


# ---- names


def test_odd_names_are_registered_under_ids_of_their_own(tmp_path: Path) -> None:
    registry = Registry(Store(tmp_path / "root"))
    for i, name in enumerate(NAMES):
        row = registry.add(write_tiff(tmp_path / name, tissue_image(300, 300, seed=i)))
        assert row.uri == str(tmp_path / name)
        with registry.get(row.slide_id).open() as slide:
            assert slide.name == name
    assert len(registry.all()) == len(NAMES)


def test_a_name_longer_than_any_file_has(tmp_path: Path) -> None:
    name = "y" * 300 + ".svs"
    assert name in refusal(tmp_path / name)
    with pytest.raises(SlideError, match="cannot be read"):
        Registry(Store(tmp_path / "root")).add(tmp_path / name)


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.svs").symlink_to(tmp_path / "gone.svs")
    assert "no such file" in refusal(tmp_path / "a.svs")


# ---- all at once, as a user sees it


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what arrives: two good scans and everything else."""
    folder = tmp_path_factory.mktemp("inbox")
    image = tissue_image(600, 700)
    good = write_tiff(folder / "good one.tif", image, compression="jpeg")
    (folder / "other").mkdir()
    write_tiff(folder / "other" / "good one.tif", tissue_image(600, 700, seed=1), compression="jpeg")
    shutil.copy(good, folder / "same content.tif")
    whole = good.read_bytes()
    for percent in (1, 30, 60, 99):
        (folder / f"cut{percent}.tif").write_bytes(whole[: len(whole) * percent // 100])
    (folder / "zero.svs").touch()
    (folder / "text.svs").write_text("Dear colleague, enclosed please find\n" * 40)
    (folder / "folder.svs").mkdir()
    for make in BOMBS:
        make(folder / f"{make.__name__}.tif")
    grey, square = image[..., 0], {"tile": (256, 256), "resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(folder / "bit.tif", grey > 100, photometric="minisblack", **square)
    tifffile.imwrite(folder / "deep.tif", image.astype(np.uint16) << 8, photometric="rgb", **square)
    tifffile.imwrite(folder / "grey.tif", grey, photometric="minisblack", **square)
    tifffile.imwrite(folder / "cmyk.tif", np.dstack([image, grey]), photometric="separated", **square)
    tifffile.imwrite(
        folder / "rgba.tif", np.dstack([image, grey]), photometric="rgb", extrasamples=["unassalpha"], **square
    )
    write_tiff(folder / "no scale.tif", image, None)
    write_tiff(folder / "dpi.tif", image, None, resolution=(96, 96), resolutionunit="INCH")
    for mpp in ("0", "-0.5", "nan", "264"):
        said = f"Aperio Image Library v11\n700x600|MPP = {mpp}"
        tifffile.imwrite(
            folder / f"mpp{mpp}.svs", image, tile=(256, 256), photometric="rgb", description=said, metadata=None
        )
    return folder


SAID = {
    "folder.svs": "folder without scans",
    "same content.tif": "same content as slide good_one", "cut1.tif": "", "cut30.tif": "truncated", "cut60.tif": "truncated",
    "cut99.tif": "truncated", "zero.svs": "is empty", "text.svs": "text file",
    "bomb_of_blocks.tif": "declares", "bomb_in_one_block.tif": "in one block", "bomb_beyond_glass.tif": "declares",
    "bomb_of_nothing.tif": "no image data", "bit.tif": "greyscale, 1 samples of bool", "deep.tif": "RGB, 3 samples of uint16",
    "grey.tif": "greyscale", "cmyk.tif": "CMYK", "rgba.tif": "alpha channel", "no scale.tif": "--mpp", "dpi.tif": "96 dpi",
    "mpp0.svs": "microscope scans", "mpp-0.5.svs": "microscope scans", "mppnan.svs": "microscope scans",
    "mpp264.svs": "microscope scans", "absent.svs": "no such file",
}  # fmt: skip


def test_each_bad_scan_is_one_line_and_the_good_ones_are_added(inbox: Path, tmp_path: Path) -> None:
    ran = sa("add", inbox / "good one.tif", *(inbox / n for n in SAID), inbox / "other" / "good one.tif", cwd=tmp_path)
    assert ran.returncode == 1
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("note: good one.tif is registered as ")]
    assert len(lines) == len(SAID), ran.stderr
    for line, (name, said) in zip(lines, SAID.items(), strict=True):
        assert line.startswith("error: ")
        assert name in line
        assert said in line
        assert len(line) < 500
    added = [line.split(":")[0] for line in ran.stdout.splitlines()]
    assert added[0] == "good_one"
    assert added[1].startswith("good_one-")
    assert len(added) == 3, "two slides, and a summary"
    assert "note: good one.tif is registered as good_one: an id has plain letters, digits and _ . -" in ran.stderr
    assert f"note: good one.tif is registered as {added[1]}: that id belongs to another scan" in ran.stderr


@pytest.mark.parametrize("mpp", ["0", "-1", "nan", "264"])
def test_a_scale_by_hand_that_no_scan_has(inbox: Path, mpp: str) -> None:
    said = refusal(inbox / "no scale.tif", float(mpp), ScaleError)
    assert f"--mpp {float(mpp):g} is outside the range of microscope scans" in said


@pytest.mark.soak
def test_a_scan_with_flipped_bytes_is_one_line_of_a_run(tmp_path: Path) -> None:
    """Its header is whole, so that it is added; what is damaged is found on reading, and the other scan goes on."""
    write_tiff(tmp_path / "well.tif", tissue_image(700, 900), compression="jpeg")
    hurt = write_tiff(tmp_path / "hurt.tif", tissue_image(700, 900, seed=1), compression="jpeg")
    with tifffile.TiffFile(hurt) as tif:
        blocks = list(zip(tif.pages[0].dataoffsets, tif.pages[0].databytecounts, strict=True))
    content = bytearray(hurt.read_bytes())
    for offset, size in blocks[3:9]:
        content[offset : offset + size] = bytes(255 - b for b in content[offset : offset + size])
    hurt.write_bytes(content)
    registry = Registry(Store(tmp_path / "home"))
    for scan in (tmp_path / "well.tif", hurt):
        registry.add(scan, organ="Breast", tech="Visium")
    ran = sa("run", "--encoder", "demo", "--genes", "EPCAM", "--json", cwd=tmp_path)
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: hurt.tif: level 0 cannot be read at x=")
    assert "damaged, copy or scan it again" in line
    well, hurt = json.loads(ran.stdout)
    assert well["slide_id"] == "well"
    assert hurt["slide_id"] == "hurt"
    assert hurt["failed"] == [line.removeprefix("error: ")]
