"""A run serves many slides in all stages: the good are kept and recorded one by one, the bad are named."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.definitions import defs
from stpath_assets.defs.assets.batches import ancestors, is_last
from stpath_assets.defs.assets.spec import CAN_BE_MADE
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import sync
from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
from stpath_assets.stages import STAGES
from stpath_assets.storage import Store
from stpath_assets.tiles import TileParameters, store_tiles
from tests.conftest import tissue_image, write_tiff

SLIDES = ["a", "b", "c"]

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Three slides with their tiles."""
    settings = load_settings(tmp_path / "home", encoder="demo", genes="EPCAM,CD74")
    for i, slide_id in enumerate(SLIDES):
        image = tissue_image()
        image[:8, :8] = i  # other content, so other features' fingerprints
        scan = write_tiff(tmp_path / f"{slide_id}.tif", image)
        row = Registry(Store(settings.home)).add(scan, organ="Breast", tech="Visium")
        store_tiles(Store(settings.home), row, TileParameters.of(settings))
    return settings


@pytest.fixture
def opened(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with instance(settings) as opened:
        sync(opened, Registry(Store(settings.home)))
        yield opened


def run(opened: dg.DagsterInstance, settings: Settings, assets: list[str], first: str, last: str | None = None):
    """One run of some assets over one slide, or over those from `first` to `last`."""
    span = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last} if last else {}
    chosen = {"home": str(settings.home), "encoder": "demo", "genes": settings.genes}
    return dg.materialize(
        [asset for asset in defs.assets if isinstance(asset, dg.AssetsDefinition)],
        selection=dg.AssetSelection.assets(*assets),
        resources=defs.resources,
        run_config={"resources": {"settings": {"config": chosen}}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=opened,
        partition_key=None if last else first,
        tags={k: v for k, v in span.items() if v},
        raise_on_error=False,
    )  # fmt: skip


def checks(
    opened: dg.DagsterInstance, asset: str, slide_id: str, name: str = CAN_BE_MADE
) -> tuple[bool, dict[str, str]]:
    """Whether a slide's check passed last, and its metadata."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    records = opened.event_log_storage.get_asset_check_execution_history(key, limit=99)
    of_slide = [r.event.dagster_event for r in records if r.partition == slide_id and r.event and r.event.dagster_event]
    evaluation = of_slide[0].asset_check_evaluation_data  # raises if it was planned and not evaluated
    return evaluation.passed, {k: str(v.value) for k, v in evaluation.metadata.items()}


def failure_of(ran: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """The step that failed, and its one line."""
    ((step, data),) = [(e.step_key, e.step_failure_data) for e in ran.all_events if e.is_step_failure]
    assert data.user_failure_data
    return str(step), str(data.user_failure_data.description)


def test_one_run_takes_many_slides_through_all_stages_each_recorded_by_itself(
    settings: Settings, opened: dg.DagsterInstance
) -> None:
    assert run(opened, settings, list(STAGES), "a", "c").success
    store = Store(settings.home)
    for name in STAGES:
        key = dg.AssetKey(name)
        assert opened.get_materialized_partitions(key) == set(SLIDES)
        for slide_id in SLIDES:
            events = opened.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[slide_id]), limit=9)
            assert len(events.records) == 1, "one event a slide"
            event = events.records[0].asset_materialization
            assert event is not None
            if name in ("tile_grids", "gigapath_features", "stpath_predictions"):
                assert event.tags["dagster/data_version"] == store.require(name, slide_id).digest
                assert event.metadata["dagster/partition_row_count"].value == store.row_count(name, slide_id)
            assert checks(opened, name, slide_id) == (True, {})
    assert len({store.require("gigapath_features", s).digest for s in SLIDES}) == 3


@pytest.mark.soak
def test_where_nothing_is_made_numbers_stay_and_pictures_are_found_in_the_earlier_run(
    settings: Settings, opened: dg.DagsterInstance
) -> None:
    def last(name: str) -> dg.AssetMaterialization:
        of_slide = dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=["b"])
        event = opened.fetch_materializations(of_slide, limit=1).records[0].asset_materialization
        assert event is not None
        return event

    first = run(opened, settings, list(STAGES), "a", "c")
    before = {name: last(name) for name in STAGES}
    second = run(opened, settings, list(STAGES), "a", "c")
    assert second.success
    for name in STAGES:
        was, now = dict(before[name].metadata), dict(last(name).metadata)
        assert last(name).tags["dagster/data_version"] == before[name].tags["dagster/data_version"]
        assert now.pop("made").value is False
        pictures = [k for k, v in was.items() if isinstance(v, dg.MarkdownMetadataValue)]
        if pictures:
            assert now.pop("pictures").value == first.run_id
        assert now == {k: v for k, v in was.items() if k not in pictures and k != "made"}
        assert checks(opened, name, "b") == (True, {})
    assert checks(opened, "tile_grids", "b", "few_tiles_lost")[0], "judged by the numbers of the earlier run"


def test_what_a_batch_made_is_fresh_until_its_tiles_are_made_anew(
    settings: Settings, opened: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slide_id in SLIDES:
        run(opened, settings, ["slides", "tile_grids"], slide_id)
    run(opened, settings, ["gigapath_features"], "a", "c")

    def status() -> list[StaleStatus]:
        resolver = CachingStaleStatusResolver(opened, defs.resolve_asset_graph(), LoadingContextForTest(opened))
        return [resolver.get_status(dg.AssetKey("gigapath_features"), slide_id) for slide_id in SLIDES]

    assert status() == [StaleStatus.FRESH] * 3
    monkeypatch.setenv("STPATH_MIN_TISSUE", "0.6")
    run(opened, settings, ["tile_grids"], "b")
    assert status() == [StaleStatus.FRESH, StaleStatus.STALE, StaleStatus.FRESH]


@pytest.mark.soak
def test_an_event_of_an_earlier_version_is_not_taken_over(settings: Settings, opened: dg.DagsterInstance) -> None:
    run(opened, settings, list(STAGES), "a")
    digest = Store(settings.home).require("stpath_predictions", "a").digest
    tags = {"dagster/data_version": digest, "dagster/code_version": STAGES["stpath_predictions"].code_version}
    old = dg.AssetMaterialization("stpath_predictions", partition="a", metadata={"genes": 2}, tags=tags)
    opened.report_runless_asset_event(old)
    assert run(opened, settings, list(STAGES), "a").success
    assert checks(opened, "stpath_predictions", "a", "varies_over_tiles")[0]


@pytest.fixture
def second_encode_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Let the encoder's second batch, which is the second slide's, raise, or be not finite."""

    def set_(error: Exception | None) -> None:
        encode, calls = DemoEncoder.encode, list[int]()

        def sometimes(self: DemoEncoder, batch: np.ndarray) -> np.ndarray:
            calls.append(len(batch))
            if len(calls) != 2:
                return encode(self, batch)
            if error is not None:
                raise error
            return encode(self, batch) * np.nan

        monkeypatch.setattr(DemoEncoder, "encode", sometimes)

    return set_


def test_a_bad_slide_is_left_out_of_later_stages_and_named_by_the_last(
    settings: Settings, opened: dg.DagsterInstance, second_encode_fails: Callable[[Exception | None], None]
) -> None:
    second_encode_fails(None)
    store = Store(settings.home)
    assert store.row_count("tile_grids", "a") <= 16, "a batch a slide: the second slide gets the bad one"
    ran = run(opened, settings, list(STAGES), "a", "c")
    step, reason = failure_of(ran)
    assert not any(e.is_step_up_for_retry for e in ran.all_events)
    assert step == "evaluation_metrics"
    assert reason.startswith("1 of 3 slides failed, the others are kept: b: demo gave features that are not finite")
    assert "\n" not in reason
    for name in ("gigapath_features", "stpath_predictions", "evaluation_metrics"):
        assert opened.get_materialized_partitions(dg.AssetKey(name)) == {"a", "c"}
    assert store.slide_ids("stpath_predictions") == ["a", "c"]
    assert opened.get_materialized_partitions(dg.AssetKey("spot_expression")) == set(SLIDES), (
        "it does not wait for features"
    )
    passed, why = checks(opened, "gigapath_features", "b")
    assert not passed
    assert why["reason"].startswith("b: demo gave features that are not finite")
    assert checks(opened, "gigapath_features", "a") == (True, {})


def test_a_slide_that_works_again_passes_its_check(
    settings: Settings, opened: dg.DagsterInstance, second_encode_fails: Callable[[Exception | None], None]
) -> None:
    second_encode_fails(None)
    run(opened, settings, list(STAGES), "a", "c")
    assert run(opened, settings, list(STAGES), "a", "c").success
    assert checks(opened, "gigapath_features", "b") == (True, {})
    assert opened.get_materialized_partitions(dg.AssetKey("evaluation_metrics")) == set(SLIDES)


def test_a_stage_in_which_no_slide_is_left_fails_itself(settings: Settings, opened: dg.DagsterInstance) -> None:
    Registry(Store(settings.home)).add(settings.home.parent / "b.tif", spots=__file__)
    step, reason = failure_of(run(opened, settings, list(STAGES), "b"))
    assert step == "spot_expression"
    assert "b" in reason
    assert "slides failed" not in reason


def test_a_bug_with_one_slide_costs_the_others_nothing(
    settings: Settings, opened: dg.DagsterInstance, second_encode_fails: Callable[[Exception | None], None]
) -> None:
    second_encode_fails(ZeroDivisionError("division\nby zero"))
    step, reason = failure_of(run(opened, settings, ["gigapath_features"], "a", "c"))
    assert step == "gigapath_features"
    assert "b: ZeroDivisionError: division by zero (a bug;" in reason
    assert opened.get_materialized_partitions(dg.AssetKey("gigapath_features")) == {"a", "c"}


class Clock:
    """A clock that jumps where Dagster would sleep until the next try."""

    def __init__(self) -> None:
        self.now, self.slept = time.time(), list[float]()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + 1


def test_what_may_pass_is_tried_again_and_the_good_slides_are_kept_meanwhile(
    settings: Settings,
    opened: dg.DagsterInstance,
    second_encode_fails: Callable[[Exception | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("dagster._core.execution.plan.active.time", clock)
    second_encode_fails(ConnectionError("reset by peer"))
    ran = run(opened, settings, list(STAGES), "a", "c")
    assert ran.success
    assert [e.step_key for e in ran.all_events if e.is_step_up_for_retry] == ["gigapath_features"]
    assert sum(clock.slept) == pytest.approx(30, abs=2)
    assert opened.get_materialized_partitions(dg.AssetKey("evaluation_metrics")) == set(SLIDES)


def test_a_model_is_made_once_a_run(
    settings: Settings, opened: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stpath_assets.prediction import predict

    predict._load.cache_clear()
    loaded: list[int] = []
    load = predict._load.__wrapped__
    monkeypatch.setattr(predict, "_load", __import__("functools").lru_cache(lambda *a: loaded.append(1) or load(*a)))
    assert run(opened, settings, list(STAGES), "a", "c").success
    assert loaded == [1]


def test_all_stages_share_one_policy_so_that_a_backfill_is_few_runs() -> None:
    policies = {defs.resolve_assets_def(name).backfill_policy for name in STAGES}
    assert policies == {dg.BackfillPolicy.multi_run(16)}


@given(st.sets(st.sampled_from(list(STAGES)), min_size=1))
def test_what_runs_before_a_stage_and_whether_it_is_last_follow_from_the_graph(selected: set[str]) -> None:
    for stage in selected:
        before = ancestors(stage, selected)
        assert before <= selected - {stage}
        assert all(list(STAGES).index(b) < list(STAGES).index(stage) for b in before)
        assert is_last(stage, selected) == (not any(stage in ancestors(other, selected) for other in selected))
    assert any(is_last(stage, selected) for stage in selected)


def test_a_slide_retired_after_the_run_was_asked_for_is_left_out(
    settings: Settings, opened: dg.DagsterInstance
) -> None:
    Registry(Store(settings.home)).retire("b")
    assert run(opened, settings, list(STAGES), "a", "c").success
    assert Store(settings.home).slide_ids("stpath_predictions") == ["a", "c"]
    _, reason = failure_of(run(opened, settings, list(STAGES), "b"))
    assert "b: is retired" in reason
