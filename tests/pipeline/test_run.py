"""`stpath-assets run` when things go wrong: each bad slide is named, the others go on. Runs that are killed: `test_killed`."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff

pytestmark = pytest.mark.usefixtures("blank_pictures")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_a_bad_slide_is_named_and_the_others_go_on(tmp_path: Path, sa) -> None:
    home = tmp_path / "home"
    good, gone = (
        write_tiff(tmp_path / "good.tif", tissue_image()),
        write_tiff(tmp_path / "gone.tif", tissue_image(seed=1)),
    )
    blank = write_tiff(tmp_path / "blank.tif", np.full((1200, 1600, 3), 242, np.uint8))
    assert sa("add", good, gone, blank, "--organ", "breast", "--home", home).exit_code == 0
    gone.unlink()
    ran = sa("run", "--encoder", "demo", "--genes", "EPCAM,VIM", "--home", home)
    assert ran.exit_code == 1
    errors = [line for line in lines(ran.stderr) if line.startswith("error:")]
    assert len(errors) == 2, ran.stderr
    assert any("blank" in e and "no tissue" in e for e in errors)
    assert any("gone.tif" in e and "no such file" in e for e in errors)
    assert "Traceback" not in ran.stderr
    assert "good" in ran.stdout
    assert Store(home).slide_ids("stpath_predictions") == ["good"]


def test_a_scan_truncated_after_registration_is_named(tmp_path: Path, sa) -> None:
    home, scan = tmp_path / "home", write_tiff(tmp_path / "cut.tif", tissue_image())
    sa("add", scan, "--home", home)
    with scan.open("rb+") as f:
        f.truncate(scan.stat().st_size * 2 // 3)
    ran = sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home)
    assert ran.exit_code == 1
    assert len(lines(ran.stderr)) == 1
    assert "cut" in ran.stderr


def test_spots_outside_the_slide_are_refused_by_add_and_fail_that_slide_alone_in_a_run(tmp_path: Path, sa) -> None:
    home, scan = tmp_path / "home", write_tiff(tmp_path / "one.tif", tissue_image())
    (tmp_path / "one_counts.tsv").write_text("\tEPCAM\tVIM\n1x1\t3\t0\n2x1\t0\t4\n")
    selection = "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n1\t1\t1\t1\t800\t600\t1\n2\t1\t2\t1\t{}\t600\t1\n"
    (tmp_path / "one_selection.tsv").write_text(selection.format(8000))
    added = sa("add", scan, "--home", home, "--spots", tmp_path / "one_counts.tsv")
    assert added.exit_code == 1
    assert "one: 1 of 2 spots lie outside the slide" in added.stderr
    assert "no slide is registered" in sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home).stderr
    (tmp_path / "one_selection.tsv").write_text(selection.format(900))
    assert sa("add", scan, "--home", home, "--spots", tmp_path / "one_counts.tsv").exit_code == 0
    (tmp_path / "one_selection.tsv").write_text(selection.format(8000))
    ran = sa("run", "--encoder", "demo", "--genes", "EPCAM,VIM", "--home", home)
    assert ran.exit_code == 1
    assert "one: 1 of 2 spots lie outside the slide" in ran.stderr
    # Predictions do not depend on the measurement.
    assert Store(home).slide_ids("stpath_predictions") == ["one"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encoder", "demo", "--genes", "ERBB22"], "ERBB2"),
        (["--encoder", "demo", "--genes", ","], "no gene"),
        (["--genes", "EPCAM"], "STPATH_VOCABULARY"),
        (["--encoder", "demo", "nosuch"], "nosuch"),
    ],
)
def test_what_would_fail_every_slide_fails_before_any(drawn_slide: Path, tmp_path: Path, sa, arguments, words) -> None:
    home = tmp_path / "home"
    sa("add", drawn_slide, "--home", home)
    ran = sa("run", "--home", home, *arguments)
    assert ran.exit_code == 1
    assert len(lines(ran.stderr)) == 1
    assert words in ran.stderr
    assert Store(home).slide_ids("tile_grids") == []


def test_another_panel_leaves_features_as_they_are(finished_home: Path, sa) -> None:
    home, store = finished_home, Store(finished_home)
    features = store.path("gigapath_features", "a").stat().st_mtime_ns
    ran = sa("run", "--encoder", "demo", "--genes", "VIM,CD74,GNAS", "--home", home, "--json")
    assert json.loads(ran.stdout)[0]["genes"] == 3
    assert store.path("gigapath_features", "a").stat().st_mtime_ns == features
    assert store.read_by_gene("stpath_predictions", "a").genes == ["CD74", "GNAS", "VIM"]


def test_another_scan_under_a_registered_path_is_not_taken_over(finished_home: Path, sa) -> None:
    home, store, scan = finished_home, Store(finished_home), finished_home.parent / "a.tif"
    first = store.require("stpath_predictions", "a").digest
    write_tiff(scan, tissue_image(seed=2))
    for again in (sa("run", "--home", home), sa("add", scan, "--home", home)):
        assert again.exit_code == 1
        assert len(lines(again.stderr)) == 1
        assert "is now another scan" in again.stderr
        assert "retire a" in again.stderr
    assert store.require("stpath_predictions", "a").digest == first
    assert sa("retire", "a", "--home", home).exit_code == 0
    assert sa("add", scan, "--home", home).exit_code == 0
    assert sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home).exit_code == 0
    retired, new = json.loads(sa("status", "--home", home, "--json").stdout)
    assert (retired["status"], new["status"]) == ("retired", "ready")
    assert new["slide"].startswith("a-")
    assert new["stpath_predictions"] == "current"


def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path: Path, sa, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    sa("add", write_tiff(tmp_path / "a.tif", tissue_image()), "--home", home)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("stpath_assets.storage.files.os.fsync", full)
        ran = sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home)
    assert ran.exit_code == 1
    assert all("the disk is full" in line for line in lines(ran.stderr))
    assert not list(home.rglob("*.tmp"))
    assert sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home).exit_code == 0
