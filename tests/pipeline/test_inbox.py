"""The sensor and the jobs of the inbox: from a file to rows, without a click, and nothing twice."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import numpy as np
import psutil
import pytest

from stpath_assets.definitions import defs
from stpath_assets.defs import sensors
from stpath_assets.defs.assets.spec import CAN_BE_MADE
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import SLIDES
from stpath_assets.defs.processes import PROCESS, process_of
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
from stpath_assets.stages import STAGES, Plan, find_wanted, first_wanted, read_failures
from stpath_assets.stages.states import State
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.storage.servers import bucket, object_server  # noqa: F401

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    home = tmp_path / "root"  # the lake is made by the first scan
    monkeypatch.setenv("STPATH_ENCODER", "demo")
    monkeypatch.setenv("STPATH_GENES", "EPCAM,VIM")
    (home / "inbox").mkdir(parents=True)
    return load_settings(home, inbox_wait_s=0)


@pytest.fixture
def opened(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with instance(settings) as opened:
        yield opened


class Ticks:
    """The sensor's daemon, a tick at a time."""

    def __init__(self, opened: dg.DagsterInstance, settings: Settings) -> None:
        self.opened, self.settings, self.cursor = opened, settings, ""

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(self.opened, cursor=self.cursor)
        result = sensors.new_scans(context, settings=self.settings)
        assert isinstance(result, dg.SensorResult)
        self.cursor = str(result.cursor)
        return list(result.run_requests or [])

    def run(self, request: dg.RunRequest) -> bool:
        config: Mapping[str, Any] = request.run_config
        chosen = {"home": str(self.settings.home)}
        job = defs.resolve_job_def(str(request.job_name))
        return job.execute_in_process(
            run_config={
                **config,
                "resources": {"settings": {"config": chosen}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.opened,
            tags=dict(request.tags),
            raise_on_error=False,
        ).success

    def tick_and_run(self) -> list[tuple[str, bool]]:
        return [(str(request.job_name), self.run(request)) for request in self.tick()]


@pytest.fixture
def ticks(opened: dg.DagsterInstance, settings: Settings) -> Ticks:
    return Ticks(opened, settings)


def draw(folder: Path, name: str, seed: int = 0) -> None:
    write_tiff(folder / f"{name}.tif", tissue_image(700, 900, seed=seed))
    (folder / f"{name}.yaml").write_text("organ: Breast\ntech: Visium\n")


def last_check(opened: dg.DagsterInstance, asset: str, slide_id: str) -> tuple[bool, str]:
    key = dg.AssetCheckKey(dg.AssetKey(asset), CAN_BE_MADE)
    records = opened.event_log_storage.get_asset_check_execution_history(key, limit=99)
    evaluations = [
        r.event.dagster_event.asset_check_evaluation_data for r in records if r.partition == slide_id and r.event
    ]
    return evaluations[0].passed, str(evaluations[0].metadata.get("reason", dg.MetadataValue.text("")).value)


def test_from_files_to_rows_without_a_click_and_the_broken_one_into_quarantine(
    ticks: Ticks, opened: dg.DagsterInstance, settings: Settings
) -> None:
    assert ticks.tick() == []
    inbox = settings.home / "inbox"
    draw(inbox, "a")
    draw(inbox, "b", 1)
    (inbox / "broken.svs").write_text("no scan")
    assert ticks.tick() == [], "a file is taken when two ticks see it the same"
    assert ticks.tick_and_run() == [("register_scans", True)]
    assert set(opened.get_dynamic_partitions(str(SLIDES.name))) == {"a", "b", "broken"}
    passed, reason = last_check(opened, "slides", "broken")
    assert not passed
    assert "broken.svs: is not a readable slide" in reason
    (event,) = opened.fetch_observations(
        dg.AssetRecordsFilter(dg.AssetKey("slides"), asset_partitions=["broken"]), limit=9
    ).records
    assert event.asset_observation is not None
    assert event.asset_observation.metadata["reason"].value == reason
    (request,) = ticks.tick()
    assert request.tags == {
        "dagster/asset_partition_range_start": "a",
        "dagster/asset_partition_range_end": "b",
    }, "both slides in one run, without the broken one"
    assert ticks.run(request)
    (run,) = opened.get_runs(dg.RunsFilter(job_name="process_slide"))
    assert run.tags[PROCESS] == process_of(psutil.Process()), "so that it can be told when this is gone"
    store = Store(settings.home)
    assert store.slide_ids("stpath_predictions") == ["a", "b"]
    assert ticks.tick() == []
    assert ticks.tick() == []


@pytest.mark.server
def test_the_inbox_may_be_a_folder_of_a_bucket(
    opened: dg.DagsterInstance,
    settings: Settings,
    bucket: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STPATH_INBOX", f"s3://{bucket}/scans")
    ticks = Ticks(opened, load_settings(settings.home, inbox_wait_s=0))
    scan = write_tiff(tmp_path / "a.tif", tissue_image(700, 900))
    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key="scans/a.tif", Body=scan.read_bytes())
    client.put_object(Bucket=bucket, Key="scans/a.yaml", Body=b"organ: Breast\ntech: Visium\n")
    assert ticks.tick() == []
    assert ticks.tick_and_run() == [("register_scans", True)]
    (row,) = Registry(Store(settings.home)).all()
    assert (row.uri, row.organ) == (f"s3://{bucket}/scans/a.tif", "Breast")
    assert ticks.tick_and_run() == [("process_slide", True)]
    assert Store(settings.home).slide_ids("stpath_predictions") == ["a"]
    assert ticks.tick() == []


def test_nothing_is_asked_for_while_its_run_is_under_way(
    ticks: Ticks, opened: dg.DagsterInstance, settings: Settings
) -> None:
    draw(settings.home / "inbox", "a")
    ticks.tick()
    (request,) = ticks.tick()
    (again,) = ticks.tick()
    assert again.run_config == request.run_config, "the run was not made, so it is asked for again"
    job = defs.resolve_job_def("register_scans")
    opened.create_run_for_job(job, run_config=request.run_config, status=dg.DagsterRunStatus.STARTED)
    assert ticks.tick() == []
    for run in opened.get_runs():
        opened.delete_run(run.run_id)
    ticks.tick_and_run()
    (request,) = ticks.tick()
    opened.create_run_for_job(
        defs.resolve_job_def("process_slide"), tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED
    )
    assert ticks.tick() == []


def test_a_run_whose_process_is_gone_is_ended_and_its_slides_are_asked_for_again(
    ticks: Ticks, opened: dg.DagsterInstance, settings: Settings
) -> None:
    draw(settings.home / "inbox", "a")
    ticks.tick()
    ticks.tick_and_run()
    (request,) = ticks.tick()
    with subprocess.Popen(["true"]) as gone:
        tags = {**request.tags, PROCESS: process_of(psutil.Process(gone.pid))}
    job = defs.resolve_job_def("process_slide")
    run = opened.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert ticks.tick() == [request]
    ended = opened.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.FAILURE


def test_a_slide_that_failed_is_tried_again_when_its_settings_change_and_not_before(
    ticks: Ticks, opened: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiff(settings.home / "inbox" / "blank.tif", np.full((700, 900, 3), 242, np.uint8))
    (settings.home / "inbox" / "blank.yaml").write_text("organ: Breast\ntech: Visium\n")
    ticks.tick()
    assert ticks.tick_and_run() == [("register_scans", True)]
    assert ticks.tick_and_run() == [("process_slide", False)]
    passed, reason = last_check(opened, "tile_grids", "blank")
    assert not passed
    assert "no tissue" in reason
    assert ticks.tick() == []
    assert ticks.tick() == []
    monkeypatch.setenv("STPATH_MIN_TISSUE", "0.1")
    ticks.settings = load_settings(settings.home, inbox_wait_s=0)
    assert len(ticks.tick()) == 1


def test_a_changed_sidecar_runs_what_it_changes_and_a_changed_setting_runs_nothing(
    ticks: Ticks, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, store = settings.home / "inbox", Store(settings.home)
    draw(inbox, "a")
    ticks.tick()
    ticks.tick_and_run()
    ticks.tick_and_run()
    features = store.require("gigapath_features", "a").digest
    (inbox / "a.yaml").write_text("organ: Brain\ntech: Visium\n")
    ticks.tick()
    assert ticks.tick_and_run() == [("register_scans", True)]
    assert ticks.tick_and_run() == [("process_slide", True)]
    assert store.require("stpath_predictions", "a").facts["organ"] == "Brain"
    assert store.require("gigapath_features", "a").digest == features
    monkeypatch.setenv("STPATH_GENES", "EPCAM")
    ticks.settings = load_settings(settings.home, inbox_wait_s=0)
    assert ticks.tick() == []


def test_slides_that_were_added_by_hand_are_left_to_their_user(settings: Settings, tmp_path: Path) -> None:
    scan = write_tiff(tmp_path / "mine.tif", tissue_image())
    Registry(Store(settings.home)).add(scan, organ="Breast", tech="Visium")
    assert list(find_wanted(Store(settings.home), Plan(settings))) == []


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ({}, None),
        ({"tile_grids": State("missing"), "gigapath_features": State("missing")}, "tile_grids"),
        ({"slides": State("gone"), "tile_grids": State("missing")}, None),
        ({"tile_grids": State("failed"), "gigapath_features": State("missing")}, None),
        ({"gigapath_features": State("failed"), "stpath_predictions": State("missing")}, None),
        ({"gigapath_features": State("failed"), "spot_expression": State("missing")}, "spot_expression"),
        ({"stpath_predictions": State("outdated", "", (("organ", "Breast", "Brain"),))}, "stpath_predictions"),
        ({"stpath_predictions": State("outdated", "", (("genes", ["A"], ["B"]),))}, None),
        ({"evaluation_metrics": State("nothing")}, None),
    ],
)
def test_which_states_want_a_run(states: dict[str, State], wanted: str | None) -> None:
    assert first_wanted(dict.fromkeys(STAGES, State("current")) | states) == wanted


def test_a_slide_whose_runs_die_gets_its_own_and_is_given_up(
    ticks: Ticks, opened: dg.DagsterInstance, settings: Settings
) -> None:
    draw(settings.home / "inbox", "a")
    draw(settings.home / "inbox", "b", 1)
    ticks.tick()
    ticks.tick_and_run()
    (first,) = ticks.tick()
    assert "dagster/asset_partition_range_start" in first.tags, "both in one run"
    for _ in range(2):  # nothing was made, as if the run had been killed
        job = defs.resolve_job_def("process_slide")
        run = opened.create_run_for_job(job, tags=dict(first.tags), status=dg.DagsterRunStatus.STARTED)
        assert ticks.tick() == []
        opened.report_run_failed(run)
        assert [request.tags for request in ticks.tick()] == [{"dagster/partition": "a"}, {"dagster/partition": "b"}]
    assert ticks.tick() == []
    (states,) = ({s: why for (_, s), why in read_failures(Store(settings.home)).items()},)
    assert set(states) == {"a", "b"}
    assert states["a"].reason.startswith("a: its run ended 3 times without a result or a reason")
    assert ticks.tick() == []
    (settings.home / "inbox" / "a.yaml").write_text("organ: Breast\ntech: Visium\nmpp: 0.4\n")
    ticks.tick()
    ticks.tick_and_run()
    (request,) = ticks.tick()
    assert request.tags == {"dagster/partition": "a"}, "it has another scale now"


def test_a_rescan_names_scans_that_are_gone(ticks: Ticks, opened: dg.DagsterInstance, settings: Settings) -> None:
    draw(settings.home / "inbox", "a")
    ticks.tick()
    ticks.tick_and_run()
    (settings.home / "inbox" / "a.tif").unlink()
    assert ticks.run(dg.RunRequest(job_name="rescan"))
    passed, reason = last_check(opened, "slides", "a")
    assert not passed
    assert reason.startswith("a: gone: ")
    assert ticks.tick() == [], "a run could not help"


def test_slides_are_retired_from_the_ui_all_or_none(
    ticks: Ticks, opened: dg.DagsterInstance, settings: Settings
) -> None:
    draw(settings.home / "inbox", "a")
    ticks.tick()
    ticks.tick_and_run()
    registry = Registry(Store(settings.home))

    def retire(*slide_ids: str) -> bool:
        config = {"ops": {"retire": {"config": {"slide_ids": list(slide_ids), "reason": "wrong patient"}}}}
        return ticks.run(dg.RunRequest(job_name="retire_slides", run_config=config))

    assert not retire("a", "nobody")
    assert registry.get("a").status == "ready"
    assert retire("a")
    assert (registry.get("a").status, registry.get("a").reason) == ("retired", "wrong patient")
    assert opened.get_dynamic_partitions(str(SLIDES.name)) == []
    assert ticks.tick() == []
