"""`stpath-assets run` when things go wrong: each bad slide is named, the others go on, and nothing is lost."""

import errno
import json
import signal
import time
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from stpath_assets.defs.materialize import instance, release_dead
from stpath_assets.settings import load_settings
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def parts(home: Path) -> dict[str, bytes]:
    """The files of all registered parts: each is a function of the scan."""
    store = Store(home)
    return {f"{p.table}/{p.slide_id}": store.path(p.table, p.slide_id).read_bytes() for p in store.parts() if p.file}


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


def test_spots_outside_the_slide_fail_that_slide_alone(tmp_path: Path, sa) -> None:
    home, scan = tmp_path / "home", write_tiff(tmp_path / "one.tif", tissue_image())
    (tmp_path / "one_counts.tsv").write_text("\tEPCAM\tVIM\n1x1\t3\t0\n2x1\t0\t4\n")
    (tmp_path / "one_selection.tsv").write_text(
        "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n1\t1\t1\t1\t800\t600\t1\n2\t1\t2\t1\t8000\t600\t1\n"
    )
    sa("add", scan, "--home", home, "--spots", tmp_path / "one_counts.tsv")
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


def test_another_panel_leaves_features_as_they_are(drawn_slide: Path, tmp_path: Path, sa) -> None:
    home, store = tmp_path / "home", Store(tmp_path / "home")
    sa("add", drawn_slide, "--home", home)
    assert sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home).exit_code == 0
    features = store.path("gigapath_features", "drawn").stat().st_mtime_ns
    ran = sa("run", "--encoder", "demo", "--genes", "VIM,CD74", "--home", home, "--json")
    assert json.loads(ran.stdout)[0]["genes"] == 2
    assert store.path("gigapath_features", "drawn").stat().st_mtime_ns == features
    assert store.read_by_gene("stpath_predictions", "drawn").genes == ["CD74", "VIM"]


def test_another_scan_under_a_registered_path_is_not_taken_over(tmp_path: Path, sa) -> None:
    home, store = tmp_path / "home", Store(tmp_path / "home")
    scan = write_tiff(tmp_path / "a.tif", tissue_image(seed=1))
    sa("add", scan, "--home", home)
    sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home)
    first = store.require("stpath_predictions", "a").digest
    write_tiff(scan, tissue_image(seed=2))
    for again in (sa("run", "--home", home), sa("add", scan, "--home", home)):
        assert again.exit_code == 1
        assert len(lines(again.stderr)) == 1
        assert "is another scan now" in again.stderr
        assert "retire a" in again.stderr
    assert store.require("stpath_predictions", "a").digest == first
    assert sa("retire", "a", "--home", home).exit_code == 0
    assert sa("add", scan, "--home", home).exit_code == 0
    assert sa("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home).exit_code == 0
    retired, new = json.loads(sa("status", "--home", home, "--json").stdout)
    assert (retired["status"], new["status"]) == ("retired", "ready")
    assert new["slide"].startswith("a-")
    assert new["stpath_predictions"] == "current"


def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, sa, started) -> None:
    scans = [write_tiff(tmp_path / f"s{i}.tif", tissue_image(seed=i)) for i in range(2)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for home in (whole, killed):
        assert sa("add", *scans, "--home", home).exit_code == 0
    arguments = ["run", "--encoder", "demo", "--genes", "EPCAM,VIM"]
    assert sa(*arguments, "--home", whole).exit_code == 0
    complete = parts(whole)
    for wanted in ("tile_grids/s0", "stpath_predictions/s1"):
        process = started(*arguments, "--home", killed)
        # The features of the first slide are begun as soon as its tiles are there: the run holds a pool slot then.
        while not any((killed / "tables" / "parts" / wanted).glob("*.parquet")) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert all(complete[name] == content for name, content in parts(killed).items())
    ran = sa(*arguments, "--home", killed)
    assert ran.exit_code == 0, ran.stderr
    assert parts(killed) == complete
    assert not list((killed / "tables").rglob("*.tmp"))


def test_the_pool_slot_of_a_killed_run_comes_back(tmp_path: Path, sa, started) -> None:
    home = tmp_path / "home"
    sa("add", write_tiff(tmp_path / "a.tif", tissue_image()), "--home", home)
    process = started("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home)
    with instance(load_settings(home)) as opened:
        storage = opened.event_log_storage
        while not storage.get_concurrency_info("gpu").claimed_slots and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        held = len(storage.get_concurrency_info("gpu").claimed_slots)
        released = release_dead(opened)
        assert storage.get_concurrency_info("gpu").claimed_slots == []
        assert len(released) == 1
        assert opened.get_run_by_id(released[0]).status == dg.DagsterRunStatus.FAILURE
        assert release_dead(opened) == []
    assert held == 1


def test_two_runs_at_once_leave_whole_tables(tmp_path: Path, sa, started) -> None:
    home = tmp_path / "home"
    sa("add", write_tiff(tmp_path / "a.tif", tissue_image()), "--home", home)
    both = [started("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home) for _ in range(2)]
    ends = [(p.communicate(timeout=200)[1], p.returncode) for p in both]
    assert [code for _, code in ends] == [0, 0], ends
    ran = sa("sql", "select count(*) n from stpath_predictions", "--home", home, "--format", "json")
    assert json.loads(ran.stdout)[0]["n"] == Store(home).row_count("tile_grids", "a")


def test_ctrl_c_ends_the_run_and_not_one_slide(tmp_path: Path, sa, started) -> None:
    home = tmp_path / "home"
    scans = [write_tiff(tmp_path / f"s{i}.tif", tissue_image(seed=i)) for i in range(3)]
    sa("add", *scans, "--home", home)
    process = started("run", "--encoder", "demo", "--genes", "EPCAM", "--home", home)
    tiles = home / "tables" / "parts" / "tile_grids" / "s0"
    while not any(tiles.glob("*.parquet")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert "bug" not in stderr
    # Interrupted between the file and its registration, the grid is taken up by the next run.
    assert set(Store(home).slide_ids("tile_grids")) <= {"s0"}


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
