"""A changed setting shows as stale; the catalog is counted again when data changed, and not when a run made nothing."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from stpath_assets.definitions import defs
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import sync
from stpath_assets.defs.sensors import model_changed
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
from stpath_assets.stages import STAGES, describe_model
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STPATH_ENCODER", "demo")
    monkeypatch.setenv("STPATH_GENES", "EPCAM,VIM")
    settings = load_settings(tmp_path / "home")
    Registry(Store(settings.home)).add(write_tiff(tmp_path / "a.tif", tissue_image()), organ="Breast", tech="Visium")
    return settings


@pytest.fixture
def opened(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with instance(settings) as opened:
        sync(opened, Registry(Store(settings.home)))
        yield opened


def run(opened: dg.DagsterInstance, settings: Settings, job: str = "process_slide") -> None:
    ran = defs.resolve_job_def(job).execute_in_process(
        run_config={
            "resources": {"settings": {"config": {"home": str(settings.home)}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        instance=opened,
        partition_key="a" if job == "process_slide" else None,
    )
    assert ran.success


def states(opened: dg.DagsterInstance) -> dict[str, StaleStatus]:
    resolver = CachingStaleStatusResolver(opened, defs.get_repository_def().asset_graph, LoadingContextForTest(opened))
    return {name: resolver.get_status(dg.AssetKey(name), "a") for name in STAGES}


def tick(opened: dg.DagsterInstance, settings: Settings, cursor: str | None) -> str | None:
    """A tick of the sensor that observes the model."""
    result = model_changed(dg.build_sensor_context(opened, cursor=cursor), settings=settings)
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    return result.cursor or cursor


def test_a_changed_setting_shows_as_stale_and_an_equal_one_does_not(
    opened: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = tick(opened, settings, None)
    run(opened, settings)
    fresh = dict.fromkeys(STAGES, StaleStatus.FRESH)
    assert states(opened) == fresh
    assert tick(opened, settings, cursor) == cursor
    assert states(opened) == fresh
    monkeypatch.setenv("STPATH_GENES", "EPCAM")
    changed = load_settings(settings.home)
    cursor = tick(opened, changed, cursor)
    assert states(opened) == fresh | {
        "gigapath_features": StaleStatus.STALE,
        "stpath_predictions": StaleStatus.STALE,
        "context_predictions": StaleStatus.STALE,
    }, "Dagster marks what depends on it directly; `status` also tells what follows"
    run(opened, changed)
    assert states(opened) == fresh
    assert len(opened.fetch_observations(dg.AssetKey("model"), limit=9).records) == 2


def test_a_run_observes_the_model_that_it_used(opened: dg.DagsterInstance, settings: Settings) -> None:
    run(opened, settings)
    (record,) = opened.fetch_observations(dg.AssetKey("model"), limit=9).records
    assert record.asset_observation is not None
    assert record.asset_observation.data_version == describe_model(settings).digest
    assert record.asset_observation.metadata["genes"].value == "EPCAM,VIM"


def test_a_model_whose_weights_are_missing_is_described_by_that(settings: Settings) -> None:
    found = describe_model(settings.model_copy(update={"encoder": "gigapath"}))
    assert {"encoder_error", "model_error"} <= set(found.facts)


@pytest.mark.soak
def test_the_catalog_is_counted_again_when_data_changed_and_not_when_a_run_made_nothing(
    opened: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, cursor = dg.AssetKey("catalog"), None

    def requested() -> int:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(
            defs, opened, asset_selection=dg.AssetSelection.assets(catalog), cursor=cursor
        )
        cursor = result.cursor
        return int(result.get_num_requested(catalog))

    requested()
    run(opened, settings)
    assert requested() == 1, "a slide was made"
    run(opened, settings, "count_catalog")
    assert requested() == 0
    run(opened, settings)
    assert requested() == 0, "its events say that nothing was made"
    monkeypatch.setenv("STPATH_GENES", "EPCAM")
    run(opened, load_settings(settings.home))
    assert requested() == 1, "its predictions changed"
