"""The files for a server: Dagster's records in a real Postgres, and units that start what is there."""

import re
import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml

from stpath_assets.definitions import defs
from stpath_assets.defs.doctor import records
from stpath_assets.defs.materialize import instance, materialize
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.storage.servers import database, postgres

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "deploy" / "host"

__all__ = ["database", "postgres"]


@pytest.mark.server
@pytest.mark.usefixtures("blank_pictures")
def test_runs_events_and_partitions_are_in_postgres(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", database.replace("postgres://", "postgresql+psycopg2://"))
    settings = load_settings(tmp_path / "home", encoder="demo", genes="EPCAM")
    (settings.home / "dagster").mkdir(parents=True)
    shutil.copy(HOST / "dagster.yaml", settings.home / "dagster")
    Registry(Store(settings.home)).add(write_tiff(tmp_path / "a.tif", tissue_image()), organ="Breast", tech="Visium")
    (outcome,) = materialize(settings, ["a"])
    assert outcome.errors == ()
    assert "2 runs on record, 0 under way" in records(settings).said
    with instance(settings) as opened:
        assert type(opened.run_storage).__name__ == "PostgresRunStorage"
        assert opened.get_dynamic_partitions("slides") == ["a"]
        event = opened.get_latest_materialization_event(dg.AssetKey("stpath_predictions"))
        assert event is not None
        assert opened.event_log_storage.get_concurrency_info("gpu").active_run_ids == set()
    assert not list((settings.home / "dagster").rglob("*.db"))


def test_the_rules_of_a_server_are_those_of_a_data_root() -> None:
    of_server, of_root = (yaml.safe_load(path.read_text()) for path in (HOST / "dagster.yaml", ROOT / "dagster.yaml"))
    assert {name: value for name, value in of_server.items() if name != "storage"} == of_root


def test_units_and_compose_start_the_same_programs() -> None:
    of_units = {
        path.stem.removeprefix("stpath-"): re.findall(
            r"^ExecStart=/opt/stpath_assets/\.venv/bin/(.*)$", path.read_text(), re.M
        )
        for path in (HOST / "systemd").glob("*.service")
    }
    services = yaml.safe_load((HOST / "compose.yaml").read_text())["services"]
    of_compose = {
        name: [s["command"].replace("0.0.0.0", "127.0.0.1")] for name, s in services.items() if "command" in s
    }
    assert of_units == of_compose
    wanted = (HOST / "systemd" / "stpath.target").read_text()
    assert all(f"stpath-{name}.service" in wanted for name in of_units)


def test_the_location_of_the_workspace_is_ours() -> None:
    (server,) = yaml.safe_load((HOST / "workspace.yaml").read_text())["load_from"]
    assert server["grpc_server"]["location_name"] == "stpath_assets"
    assert "-p 4000" in (HOST / "systemd" / "stpath-code.service").read_text()
    assert defs.resolve_job_def("process_slide").name == "process_slide"


def test_the_environment_of_a_server_has_only_settings_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (HOST / "environment").read_text().splitlines()
    said = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert str(settings.home) == said["STPATH_HOME"]
    assert {"DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "CODE_SERVER_HOST"} <= set(said)
