"""Files from outside: a few hundred damaged ones, those that once did harm, and what may be done at most."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import tifffile

from stpath_assets import confined as children
from stpath_assets.confined import Limits, confined
from stpath_assets.errors import SlideError, SpotsError, StpathError
from stpath_assets.slides import Registry
from stpath_assets.spots import read_spots
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.faults import fuzzing
from tests.roots import command

LANDED = {
    # Found by `make soak`, with what they did before they were mended.
    "scn": (4, 5, 316, 354, 632, 846),  # KeyError of the second reader; a side image opened as the scan
    "philips": (11, 28),  # struct.error of the second reader
    "svs": (19,),  # TypeError of the second reader
    "ndpi": (714, 738),  # room for as many values as a tag claimed
    "manifest": (19, 22, 191),  # a path longer than any file's; zeros in a message
    "sidecar": (94, 113),  # nested too deep for the parser; a number of 5,000 digits
    "settings": (234, 375),
    "panel": (57,),
    "vocabulary": (126,),
    "selection": (111,),  # a control character in a message
    "counts": (415,),
    "h5ad": (18, 25, 38),  # links that h5py cannot read
    "visium": (19, 25, 31),
}
"""Cases by kind and number."""


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_OPEN_SECONDS", str(fuzzing.SECONDS))
    monkeypatch.setenv("STPATH_OPEN_MEMORY_GB", str(fuzzing.MEMORY_GB))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[fuzzing.Kind]:
    folder = tmp_path_factory.mktemp("fuzz")
    return [*fuzzing.scan_kinds(folder / "scans"), *fuzzing.other_kinds(folder / "others")]


def test_every_kind_is_fuzzed(kinds: list[fuzzing.Kind]) -> None:
    assert [k.name for k in kinds] == [*fuzzing.SCANS, *fuzzing.OTHERS]


def test_what_did_harm_once_is_refused_or_opens_rightly(kinds: list[fuzzing.Kind]) -> None:
    found = fuzzing.Found()
    for kind in kinds:
        for number in LANDED.get(kind.name, ()):
            fuzzing.attempt(kind, number, found)
    assert found.wrong == []
    assert found.cases.total() == sum(map(len, LANDED.values()))


def test_damaged_files_open_rightly_or_are_refused_in_one_line(kinds: list[fuzzing.Kind]) -> None:
    found = fuzzing.fuzz(kinds, 5 * len(kinds), first=10_000)
    assert found.wrong == []
    assert found.opened > 10
    assert found.refused > 50


# ---- the child


def loop_for_ever() -> None:
    while True:
        pass


def take_memory(n_bytes: int) -> int:
    return len(np.ones(n_bytes, np.uint8))


def crash() -> None:
    os.abort()


def fail() -> None:
    raise SlideError("a.svs: is \x1b[31mred")


def stumble() -> None:
    raise KeyError("bug")


def say(text: str) -> str:
    print("noise of a library")
    return text


def pid() -> int:
    return os.getpid()


def refusal(function: object, *arguments: object) -> str:
    with pytest.raises(SlideError) as error:
        confined(function, *arguments, name="a.svs", error=SlideError)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_a_child_may_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert confined(say, "ä", name="a.svs") == "ä", "what a library prints is no answer"
    assert refusal(crash).startswith("a.svs: its reader crashed (SIGABRT)")
    said = refusal(take_memory, 3 << 30)
    assert said.startswith("a.svs: it takes more than 2 GB of memory to open; it is damaged, or larger than")
    assert said.endswith("STPATH_OPEN_MEMORY_GB allows: copy or export it again, or raise that")
    assert confined(take_memory, 100, name="a.svs") == 100
    assert refusal(fail) == r"a.svs: is \x1b[31mred"
    with pytest.raises(RuntimeError, match="KeyError: 'bug'"):
        confined(stumble, name="a.svs")
    first = confined(pid, name="a.svs")
    assert confined(pid, name="a.svs") == first, "a child serves later calls"
    assert confined(pid, name="a.svs", in_new_child=True) != first
    monkeypatch.setenv("STPATH_OPEN_SECONDS", "0.5")
    began = time.monotonic()
    assert refusal(loop_for_ever).startswith("a.svs: opening it took longer than 0.5 s")
    assert time.monotonic() - began < 10
    assert not _is_alive(first), "the child that was killed had served before"


def test_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_OPEN_MEMORY_GB", "1.5")
    assert Limits.of_environment() == Limits(30.0, int(1.5 * 2**30))


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _child_of(process: int) -> int | None:
    """The child that reads files; imports may start others, which end at once."""
    with suppress(psutil.Error):
        for child in psutil.Process(process).children():
            if "stpath_assets.confined" in child.cmdline():
                return int(child.pid)
    return None


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed while the child is in an endless loop, which holds Python's lock."""
    code = (
        "from stpath_assets.confined import confined; from tests.faults import test_files; "
        "confined(test_files.loop_for_ever, name='a')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    end = time.monotonic() + 60
    while (child := _child_of(parent.pid)) is None and time.monotonic() < end:
        time.sleep(0.05)
    assert child is not None
    time.sleep(1)
    assert _is_alive(child)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while _is_alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_alive(child)


def test_a_child_that_was_killed_from_outside_is_replaced() -> None:
    first = confined(pid, name="a")
    os.kill(first, 9)
    while _is_alive(first):
        time.sleep(0.01)
    assert confined(pid, name="a") != first
    assert children._children._idle, "it waits for the next call"


# ---- the register


def test_one_scan_that_ends_its_reader_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STPATH_OPEN_SECONDS", "20")
    good, home = write_tiff(tmp_path / "good.tif", tissue_image(300, 300)), tmp_path / "home"
    looping = write_tiff(tmp_path / "looping.tif", tissue_image(300, 300))
    loop_through_sub_directories(looping)
    wild = write_tiff(tmp_path / "wild.tif", tissue_image(300, 300))
    with tifffile.TiffFile(wild) as tif:
        entry = tif.pages[0].tags[324]
        at = entry.offset + 4
    content = bytearray(wild.read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\x7f"
    wild.write_bytes(content)
    ran = command("add", looping, wild, good, "--home", home)
    assert ran.exit_code == 1
    assert [r.slide_id for r in Registry(Store(home)).all()] == ["good"]
    said = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert "looping.tif: its directories go in circles" in said[0]
    assert "wild.tif: tag 324 declares 2147483647 values, more than its" in said[1]
    assert "a bug" not in ran.stderr


def loop_through_sub_directories(path: Path) -> None:
    """Let a directory name itself as its sub-directory."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        entry, offset = page.tags[305].offset, page.offset  # Software, which nobody needs
    content = bytearray(path.read_bytes())
    content[entry : entry + 12] = np.array([330, 13], "<u2").tobytes() + np.array([1, offset], "<u4").tobytes()
    path.write_bytes(content)


# ---- geometry that a damaged header would change


def with_tag(path: Path, code: int, value: int) -> Path:
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags[code].overwrite(value)
    return path


@pytest.mark.parametrize("compression", [None, "deflate", "jpeg", "lzw", "zstd"])
@pytest.mark.parametrize("layout", [{"tile": (256, 256)}, {"rowsperstrip": 64}])
@pytest.mark.parametrize("tag", [256, 257])
def test_a_side_that_was_halved_is_refused(tmp_path: Path, compression: str | None, layout: dict, tag: int) -> None:
    path, options = tmp_path / "a.tif", {**layout, "photometric": "rgb", "compression": compression}
    tifffile.imwrite(path, tissue_image(1024, 1024), **options)
    with_tag(path, tag, 512)
    with pytest.raises(SlideError, match="copy or convert it again"):
        fuzzing._look(path)


def test_an_uncompressed_tile_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", tissue_image(512, 512))
    with tifffile.TiffFile(path, mode="r+b") as tif:
        counts = list(tif.pages[0].databytecounts)
        tif.pages[0].tags[325].overwrite([counts[0] - 3, *counts[1:]])
    with pytest.raises(
        SlideError, match=f"level 0 has a block of {counts[0] - 3} bytes where its pixels take {counts[0]}"
    ):
        fuzzing._look(path)


def test_a_level_in_another_proportion_is_refused(tmp_path: Path) -> None:
    path, said = tmp_path / "a.svs", "Aperio Image Library v11\n1024x1024|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as tif:
        for side in (1024, 128, 256):  # level 0, the thumbnail, level 1
            tile = None if side == 128 else (256, 256)
            tif.write(tissue_image(side, side), tile=tile, photometric="rgb", metadata=None, description=said)
    assert fuzzing._look(path)["levels"] == 2
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[2].tags[257].overwrite(128)
    with pytest.raises(SlideError, match="level 1 has 256 by 128 pixels, in another proportion than 1024 by 1024"):
        fuzzing._look(path)


# ---- HDF5 that would read this machine's files


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    import anndata

    path = tmp_path / "a.h5ad"
    anndata.AnnData(np.ones((4, 2), np.float32), obsm={"spatial": np.ones((4, 2))}).write_h5ad(path)
    return path


def test_an_h5ad_that_stores_its_data_in_another_file(h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        del file["X"]
        file.create_dataset("X", (4, 2), np.float32, external=[("/etc/passwd", 0, 32)])
    with pytest.raises(SpotsError, match="its /X lies in another file, which is refused"):
        read_spots(h5ad)


# ---- regions


def test_a_hundred_thousand_polygons_in_half_a_gigabyte(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 30)
    circle = np.round(10 * np.stack([np.cos(angles), np.sin(angles)], 1), 2)
    places = np.random.default_rng(0).integers(20, 39_000, (100_000, 2))
    with (tmp_path / "cells.geojson").open("w") as f:
        f.write('{"type": "FeatureCollection", "features": [')
        for i, place in enumerate(places):
            ring = (circle + place).tolist()
            feature = {
                "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "detection", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
            }  # fmt: skip
            f.write(("," if i else "") + json.dumps(feature))
        f.write("]}")
    code = (
        "import re, sys, numpy as np; from stpath_assets.tiles.regions import read_regions; "
        "m = read_regions(sys.argv[1]).apply(np.ones((5000, 5000), bool), 40_000, 40_000); "
        "print(m.mean(), re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cells.geojson"], capture_output=True, text=True, check=True
    )
    covered, kilobytes = map(float, ran.stdout.split())
    assert kilobytes * 1024 < 500e6
    assert 0.015 < covered < 0.022


@pytest.mark.parametrize(
    "content",
    ['{"type": "Polygon", "coordinates": 5}', "[" * 100_000, '{"type": "Polygon", "coordinates": [[[1, 2]]]}'],
)
def test_regions_that_are_none(tmp_path: Path, content: str) -> None:
    from stpath_assets.tiles.regions import read_regions

    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(StpathError, match=r"^a\.geojson: "):
        read_regions(tmp_path / "a.geojson")
