"""A failed run is told once, with the names and reasons of its slides."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from stpath_assets.definitions import defs
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import sync
from stpath_assets.defs.webhook import TRIES, tell_failures
from stpath_assets.errors import SettingsError
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import write_tiff


class Server(http.server.HTTPServer):
    """A webhook. Answers with `statuses`, then 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses, self.told = list[int](), list[dict[str, Any]]()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.told.append(said)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STPATH_FAILURE_WEBHOOK", f"http://127.0.0.1:{server.server_address[1]}/secret")
        monkeypatch.setattr("stpath_assets.defs.webhook.time.sleep", lambda _: None)
        yield server
        server.shutdown()


@pytest.fixture
def failed(tmp_path: Path, server: Server) -> Iterator[dg.RunFailureSensorContext]:
    """A run of two blank slides that failed."""
    settings = load_settings(tmp_path / "home", encoder="demo", genes="EPCAM")
    for n in range(2):
        scan = write_tiff(tmp_path / f"blank{n}.tif", np.full((700, 900, 3), 242 + n, np.uint8))
        Registry(Store(settings.home)).add(scan, organ="Breast", tech="Visium")
    with instance(settings) as opened:
        sync(opened, Registry(Store(settings.home)))
        ran = defs.resolve_job_def("process_slide").execute_in_process(
            run_config={
                "resources": {
                    "settings": {"config": {"home": str(settings.home), "encoder": "demo", "genes": "EPCAM"}}
                },
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=opened,
            tags={"dagster/asset_partition_range_start": "blank0", "dagster/asset_partition_range_end": "blank1"},
            raise_on_error=False,
        )
        (event,) = (e for e in ran.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)
        run = opened.get_run_by_id(ran.run_id)
        assert run is not None
        yield dg.build_run_status_sensor_context(
            sensor_name="tell_failures", dagster_event=event, dagster_instance=opened, dagster_run=run,
            resources={"settings": settings},
        ).for_run_failure()  # fmt: skip


def test_a_failed_run_is_told_with_its_slides_and_reasons(failed: dg.RunFailureSensorContext, server: Server) -> None:
    tell_failures(failed)
    (said,) = server.told
    assert set(said["slides"]) == {"blank0", "blank1"}
    assert all("no tissue" in reason for reason in said["slides"].values())
    assert said["text"].startswith("process_slide failed: blank0: ")
    assert said["run_id"] == failed.dagster_run.run_id
    assert said["other"] == []


def test_a_webhook_that_is_down_is_asked_again_and_its_secret_is_not_shown(
    failed: dg.RunFailureSensorContext, server: Server
) -> None:
    server.statuses = [503]
    tell_failures(failed)
    assert len(server.told) == 1
    server.statuses = [503] * TRIES
    with pytest.raises(dg.Failure, match=r"did not take its failure \(503\)") as caught:
        tell_failures(failed)
    assert "secret" not in str(caught.value)
    assert "secret" not in str(load_settings(None))


def test_the_webhook_is_not_kept_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('failure_webhook = "https://hooks.example/secret"\n')
    with pytest.raises(SettingsError, match="must not hold a webhook"):
        load_settings(tmp_path)
