"""GPU stages serve many slides a run: the good are kept and recorded one by one, the bad are named."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from stpath_assets.definitions import defs
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import sync
from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
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


def test_one_run_serves_many_slides_each_recorded_by_itself(settings: Settings, opened: dg.DagsterInstance) -> None:
    assert run(opened, settings, ["gigapath_features"], "a", "c").success
    assert run(opened, settings, ["stpath_predictions"], "a", "c").success
    store = Store(settings.home)
    for name in ("gigapath_features", "stpath_predictions"):
        key = dg.AssetKey(name)
        assert opened.get_materialized_partitions(key) == set(SLIDES)
        for slide_id in SLIDES:
            events = opened.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[slide_id]), limit=9)
            assert len(events.records) == 1, "one event a slide"
            event = events.records[0].asset_materialization
            assert event is not None
            assert event.tags["dagster/data_version"] == store.require(name, slide_id).digest
            assert event.metadata["dagster/partition_row_count"].value == store.row_count(name, slide_id)
    assert len({store.require("gigapath_features", s).digest for s in SLIDES}) == 3


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


def test_a_bad_slide_is_named_and_the_others_are_kept(
    settings: Settings, opened: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = DemoEncoder.encode
    calls: list[int] = []

    def sometimes(self: DemoEncoder, batch: np.ndarray) -> np.ndarray:
        calls.append(len(batch))
        return encode(self, batch) * (np.nan if 1 < len(calls) <= 2 else 1)

    monkeypatch.setattr(DemoEncoder, "encode", sometimes)
    store = Store(settings.home)
    assert store.row_count("tile_grids", "a") <= 16, "a batch a slide: the second slide gets the bad one"
    ran = run(opened, settings, ["gigapath_features"], "a", "c")
    assert not ran.success
    failure = next(e for e in ran.all_events if e.is_step_failure).step_failure_data.user_failure_data
    assert failure is not None
    assert failure.description is not None
    assert failure.description.startswith(
        "1 of 3 slides failed, the others are kept: b: demo gave features that are not"
    )
    assert "\n" not in failure.description
    assert opened.get_materialized_partitions(dg.AssetKey("gigapath_features")) == {"a", "c"}
    assert store.slide_ids("gigapath_features") == ["a", "c"]


def test_a_bug_with_one_slide_costs_the_others_nothing(
    settings: Settings, opened: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = DemoEncoder.encode

    def breaks(self: DemoEncoder, batch: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("division\nby zero")
        return encode(self, batch)

    monkeypatch.setattr(DemoEncoder, "encode", breaks)
    ran = run(opened, settings, ["gigapath_features"], "a", "c")
    failure = next(e for e in ran.all_events if e.is_step_failure).step_failure_data.user_failure_data
    assert failure is not None
    assert "a: ZeroDivisionError: division by zero (a bug;" in str(failure.description)
    assert opened.get_materialized_partitions(dg.AssetKey("gigapath_features")) == {"b", "c"}


def test_a_model_is_made_once_a_run(
    settings: Settings, opened: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stpath_assets.prediction import predict

    predict._load.cache_clear()
    loaded: list[int] = []
    load = predict._load.__wrapped__
    monkeypatch.setattr(predict, "_load", __import__("functools").lru_cache(lambda *a: loaded.append(1) or load(*a)))
    run(opened, settings, ["gigapath_features"], "a", "c")
    assert run(opened, settings, ["stpath_predictions"], "a", "c").success
    assert loaded == [1]


def test_gpu_stages_are_filled_in_batches_and_do_not_share_a_run() -> None:
    policies = {
        name: defs.resolve_assets_def(name).backfill_policy
        for name in ("slides", "tile_grids", "gigapath_features", "stpath_predictions")
    }
    sizes = {name: policy.max_partitions_per_run for name, policy in policies.items() if policy}
    assert sizes == {"slides": 1, "tile_grids": 1, "gigapath_features": 16, "stpath_predictions": 32}
