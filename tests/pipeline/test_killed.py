"""Runs that are killed, interrupted or not alone: nothing that was stored is lost, and the next run goes on."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from stpath_assets import definitions
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.processes import release_dead
from stpath_assets.settings import load_settings
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command, start

pytestmark = pytest.mark.usefixtures("blank_pictures")

RUN = ["run", "--encoder", "demo", "--genes", "EPCAM"]


def parts(home: Path) -> dict[str, bytes]:
    """The files of all registered parts: each is a function of the scan."""
    store = Store(home)
    return {f"{p.table}/{p.slide_id}": store.path(p.table, p.slide_id).read_bytes() for p in store.parts() if p.file}


def begun(home: Path, part: str) -> bool:
    """Whether a file of a part is there, registered or not yet."""
    return any((home / "tables" / "parts" / part).glob("*.parquet"))


def started(home: Path, until: Callable[[], object]) -> "subprocess.Popen[str]":
    """A run in a process of its own, at the moment when `until` first holds."""
    process = start(*RUN, "--home", home)
    while not until() and process.poll() is None:
        time.sleep(0.003)
    assert process.poll() is None, process.communicate()
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root of a run of two slides that was killed while it held the pool's slot. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("killed")
    scans = [write_tiff(folder / f"s{i}.tif", tissue_image(seed=i)) for i in range(2)]
    home = folder / "home"
    assert command("add", *scans, "--home", home).exit_code == 0
    with instance(load_settings(home)) as opened:
        storage = opened.event_log_storage
        kill(started(home, lambda: storage.get_concurrency_info("gpu").claimed_slots))
    return home


@pytest.fixture
def home(killed: Path, tmp_path: Path) -> Path:
    """A copy of `killed`."""
    return Path(shutil.copytree(killed, tmp_path / "killed"))


@pytest.mark.soak
def test_kill_9_at_any_moment_loses_nothing(home: Path, killed: Path, tmp_path: Path, sa) -> None:
    whole = tmp_path / "whole"
    assert sa("add", *sorted(killed.parent.glob("*.tif")), "--home", whole).exit_code == 0
    assert sa(*RUN, "--home", whole).exit_code == 0
    complete, first = parts(whole), parts(home)
    assert {"tile_grids/s0"} <= set(first) < set(complete)
    kill(started(home, lambda: begun(home, "stpath_predictions/s0")))
    second = parts(home)
    assert set(first) < set(second)
    for found in (first, second):
        assert all(complete[name] == content for name, content in found.items())
    ran = sa(*RUN, "--home", home)
    assert ran.exit_code == 0, ran.stderr
    assert parts(home) == complete
    assert not list((home / "tables").rglob("*.tmp"))


def test_the_pool_slot_of_a_killed_run_comes_back(home: Path) -> None:
    with instance(load_settings(home)) as opened:
        storage = opened.event_log_storage
        assert len(storage.get_concurrency_info("gpu").claimed_slots) == 1
        released = release_dead(opened)
        assert storage.get_concurrency_info("gpu").claimed_slots == []
        assert len(released) == 1
        assert opened.get_run_by_id(released[0]).status == dg.DagsterRunStatus.FAILURE
        assert release_dead(opened) == []


@pytest.mark.soak
def test_two_runs_at_once_leave_whole_tables(tmp_path: Path, sa) -> None:
    """One in a process of its own; the other in this one, as soon as the first has begun."""
    home = tmp_path / "home"
    sa("add", write_tiff(tmp_path / "a.tif", tissue_image()), "--home", home)
    assert definitions.defs, "this process need not import what the other one has"
    with instance(load_settings(home)) as opened:
        other = started(home, opened.get_runs_count)
    ran = sa(*RUN, "--home", home)
    _, said = other.communicate(timeout=200)
    assert (ran.exit_code, other.returncode) == (0, 0), ran.stderr + said
    with instance(load_settings(home)) as opened:
        one, two = (opened.get_run_stats(r.run_id) for r in opened.get_runs(dg.RunsFilter(job_name="process_slide")))
    assert max(one.start_time, two.start_time) < min(one.end_time, two.end_time), "they were at work at once"
    counted = sa("sql", "select count(*) n from stpath_predictions", "--home", home, "--format", "csv")
    assert int(counted.stdout.split()[-1]) == Store(home).row_count("tile_grids", "a")


def test_ctrl_c_ends_the_run_and_not_one_slide(tmp_path: Path, sa) -> None:
    home = tmp_path / "home"
    scans = [write_tiff(tmp_path / f"s{i}.tif", tissue_image(seed=i)) for i in range(2)]
    sa("add", *scans, "--home", home)
    process = started(home, lambda: begun(home, "tile_grids/s0"))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "bug" not in stderr
    # Interrupted between the file and its registration, the grid is taken up by the next run.
    assert set(Store(home).slide_ids("tile_grids")) <= {"s0"}


def test_dagsters_records_are_there_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while they are created; Dagster itself would go on with what it left, and fail for ever."""
    settings, create = load_settings(tmp_path / "home"), dg.DagsterInstance.from_config

    def break_off(folder: str) -> dg.DagsterInstance:
        create(folder).dispose()
        (Path(folder) / "schedules" / "schedules.db").write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dg.DagsterInstance, "from_config", break_off)
    with pytest.raises(OSError, match="No space"), instance(settings):
        pass
    assert not list((settings.home / "dagster").glob(".new-*"))
    monkeypatch.undo()
    with instance(settings) as opened:
        assert opened.get_dynamic_partitions("slides") == []
        assert opened.all_instigator_state() == []
