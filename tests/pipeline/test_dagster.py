"""The Dagster side: what the UI shows of a run, and the rules that every asset keeps."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from stpath_assets.definitions import defs
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import SLIDES, sync
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.stages import STAGES, Plan
from stpath_assets.storage import Store
from stpath_assets.tables import TABLES

ROOT = Path(__file__).resolve().parents[2]
GPU = {"gigapath_features", "stpath_predictions", "context_predictions"}
ASSETS = list(STAGES)


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_one_asset_a_stage_and_the_catalog() -> None:
    assert set(specs()) == {*ASSETS, "catalog", "model", "reference_models"}


def test_data_flows_forward_only() -> None:
    first = ["slides", "tile_grids", "gigapath_features", "spot_expression", "spot_registration"]
    order = ["model", *first, "reference_models", *[name for name in ASSETS if name not in first], "catalog"]
    for name, spec in specs().items():
        for dep in spec.deps:
            assert order.index(dep.asset_key.to_user_string()) < order.index(name)
    assert {spec.group_name for name, spec in specs().items() if name in ASSETS} == {"slide"}
    assert specs()["catalog"].group_name == "cohort"


@pytest.mark.parametrize("name", [*ASSETS, "catalog"])
def test_every_asset_is_documented(name: str) -> None:
    spec = specs()[name]
    assert spec.description
    assert spec.owners
    assert spec.kinds
    assert spec.code_version
    if name in TABLES:
        columns = spec.metadata["dagster/column_schema"].columns
        assert [c.name for c in columns] == [f.name for f in TABLES[name].view_columns()]
        assert all(c.description for c in columns)
        assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition)


def test_assets_depend_on_what_their_stages_say() -> None:
    found = specs()
    for stage in STAGES.values():
        of_model = (
            {"model"} if stage.name in ("gigapath_features", "stpath_predictions", "context_predictions") else set()
        )
        fitted = {"reference_models"} if stage.name == "reference_predictions" else set()
        assert {d.asset_key.to_user_string() for d in found[stage.name].deps} == {*stage.parents, *of_model, *fitted}
        assert found[stage.name].code_version == stage.code_version


def test_gpu_stages_stand_in_the_gpu_pool_and_are_tagged() -> None:
    for name in ASSETS:
        op = defs.resolve_assets_def(name).op
        assert (op.pool == "gpu") == (name in GPU), name
        assert ("dagster-ray/config" in op.tags) == (name in GPU), name


def test_each_run_is_recorded_with_the_fingerprint_as_data_version(demo_home: Path) -> None:
    settings = load_settings(demo_home)
    plan, registry = Plan(settings), Registry(Store(demo_home))
    with instance(settings) as opened:
        assert set(opened.get_dynamic_partitions(str(SLIDES.name))) == {"phantom_A", "phantom_B", "phantom_C"}
        for name in ASSETS:
            key = dg.AssetKey(name)
            assert opened.get_materialized_partitions(key) == {"phantom_A", "phantom_B", "phantom_C"}
            event = opened.get_latest_materialization_event(key)
            materialization = event.asset_materialization
            expected = plan.expected(name, registry.get(str(materialization.partition)))
            if expected is not None:  # nothing is stored of measurements that a slide has not
                assert materialization.tags["dagster/data_version"] == expected.digest
            assert materialization.tags["dagster/code_version"] == STAGES[name].code_version
        assert opened.get_latest_materialization_event(dg.AssetKey("catalog")) is not None


def test_metadata_is_small_and_shows_pictures_and_numbers(demo_home: Path) -> None:
    def of(name: str, slide_id: str) -> dict[str, dg.MetadataValue]:
        events = opened.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), asset_partitions=[slide_id]), limit=1
        )
        return dict(events.records[0].asset_materialization.metadata)

    with instance(load_settings(demo_home)) as opened:
        thumbnail = of("slides", "phantom_B")["thumbnail"].value
        prediction, metrics = of("stpath_predictions", "phantom_B"), of("evaluation_metrics", "phantom_B")
        empty = of("evaluation_metrics", "phantom_C")
    assert "data:image/jpeg;base64," in thumbnail
    assert len(thumbnail) * 3 / 4 < 50_000
    assert sum(k.startswith("map_") for k in prediction) == 4
    assert prediction["dagster/partition_row_count"].value == 200 * 98
    assert list(prediction)[:2] == list(metrics)[:2] == ["summary", "viewer"]
    assert prediction["summary"].value == "200 genes by stpath-demo"
    assert str(metrics["summary"].value).startswith("mean Pearson r 0.5")
    assert prediction["viewer"].value == "http://127.0.0.1:3100/slides/phantom_B"
    assert empty["summary"].value == "nothing to compare with"
    assert metrics["mean_pearson_r"].value > 0.3
    assert metrics["n_spots"].value > 100
    assert "has no measured spots" in empty["notes"].value
    assert empty["dagster/partition_row_count"].value == 0
    assert "mean_pearson_r" not in empty


def test_partitions_follow_the_live_slides(demo_home: Path) -> None:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        ephemeral.add_dynamic_partitions(str(SLIDES.name), ["gone"])
        assert sync(ephemeral, Registry(Store(demo_home))) == ["phantom_A", "phantom_B", "phantom_C"]
        assert set(ephemeral.get_dynamic_partitions(str(SLIDES.name))) == {"phantom_A", "phantom_B", "phantom_C"}


def test_an_instance_is_private_to_its_data_root(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "root")
    with instance(settings) as opened:
        assert opened.telemetry_enabled is False
        assert opened.run_monitoring_enabled
    assert "DAGSTER_HOME" not in os.environ
    assert (tmp_path / "root" / "dagster" / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()


def test_a_run_of_a_slide_that_is_not_registered_fails_in_one_line(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "root", encoder="demo")
    Store(settings.home).create()
    with instance(settings) as opened:
        opened.add_dynamic_partitions(str(SLIDES.name), ["ghost"])
        ran = defs.resolve_job_def("process_slide").execute_in_process(
            run_config={"resources": {"settings": {"config": {"home": str(settings.home)}}}},
            instance=opened,
            partition_key="ghost",
            raise_on_error=False,
        )
    assert not ran.success
    failure = next(e for e in ran.all_events if e.is_step_failure).step_failure_data.user_failure_data
    assert failure.description.startswith("ghost: no such slide here")


@pytest.mark.parametrize(
    "tool", [["dagster", "definitions", "validate", "-w", "workspace.yaml"], ["dg", "check", "defs"]]
)
def test_the_code_location_loads(tool: list[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "STPATH_HOME": str(tmp_path),
        "PYTHONWARNINGS": "ignore",
    }
    program = str(Path(sys.executable).with_name(tool[0]))
    ran = subprocess.run([program, *tool[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_code_location_loads_without_a_warning() -> None:
    program = (
        "import warnings; warnings.simplefilter('error'); import dagster; warnings.simplefilter('error')\n"
        "from stpath_assets.definitions import defs\n"
        "dagster.Definitions.validate_loadable(defs); defs.get_repository_def()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
