"""The filter in front of Dagster's web server: pages of others can neither read nor change anything."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from stpath_assets.defs.materialize import instance
from stpath_assets.defs.webserver import allowed_hosts, guard, refusal
from stpath_assets.settings import load_settings

JSON = "application/json"


def scope(
    method: str = "POST", path: str = "/graphql", query: str = "", kind: str = "http", **headers: str
) -> dict[str, Any]:
    named = {"host": "127.0.0.1:3000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "type": kind, "method": method, "path": path, "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (scope(content_type=JSON), None),
        (scope(content_type="application/json; charset=utf-8", origin="http://127.0.0.1:3000"), None),
        (scope(content_type=JSON, host="localhost:3000", origin="http://localhost:3000"), None),
        (scope(content_type=JSON, host="[::1]:3000"), None),
        (scope(content_type=JSON, host="ui.lab.example", origin="https://ui.lab.example"), None),
        (scope("GET", "/runs"), None),
        (scope("GET", "/graphql"), None),
        (scope("GET", kind="websocket", origin="http://127.0.0.1:3000"), None),
        (scope(content_type=JSON, origin="http://evil.example"), "may not do this"),
        (scope(content_type=JSON, origin="http://127.0.0.1:8000"), "may not do this"),
        (scope(content_type=JSON, origin="null"), "may not do this"),
        (scope("GET", kind="websocket", origin="http://evil.example"), "may not do this"),
        (scope("POST", "/report_asset_materialization/slides", origin="http://evil.example"), "may not do this"),
        (scope(content_type=JSON, host="evil.example"), "is not served here"),
        (scope("GET", "/", host="127.0.0.1.evil.example"), "is not served here"),
        (scope("GET", "/", host=""), "is not served here"),
        (scope("GET", "/", host="[::1"), "is not served here"),
        (scope("GET", query="query=mutation%7BdeleteRun%7D"), "by POST"),
        (scope("GET", "/graphql/", query="query=1"), "by POST"),
        (scope(content_type="text/plain"), "in JSON"),
        (scope(content_type="application/x-www-form-urlencoded"), "in JSON"),
        (scope(content_type="multipart/form-data; boundary=application/json"), "in JSON"),
        (scope(), "in JSON"),
    ],
)
def test_what_passes(asked: dict[str, Any], why: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_UI_HOSTS", "ui.lab.example, other")
    found = refusal(asked, allowed_hosts())
    assert found is None if why is None else why in str(found)


def test_what_is_refused_does_not_reach_the_server() -> None:
    reached, sent = list[str](), list[dict[str, Any]]()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    guarded = guard(app, ["localhost"])
    for asked in (
        scope(),
        scope("GET", kind="websocket"),
        {"type": "lifespan"},
        scope(host="LOCALHOST:1", content_type=JSON),
    ):
        asyncio.run(guarded(asked, receive, send))
    assert reached == ["lifespan", "http"]
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body", "websocket.close"]
    assert "is not served here" in json.loads(sent[1]["body"])["error"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dg.DagsterInstance, str]]:
    """A real server with an empty workspace: its URL, its instance, and a run that it knows."""
    home = tmp_path_factory.mktemp("served")
    (home / "workspace.yaml").write_text("load_from: []\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with instance(load_settings(home)) as opened:
        run = opened.add_run(dg.DagsterRun("process_slide", status=dg.DagsterRunStatus.SUCCESS))
        program = [
            sys.executable,
            "-m",
            "stpath_assets.defs.webserver",
            "-w",
            str(home / "workspace.yaml"),
            "-p",
            str(port),
        ]
        environment = {**os.environ, "DAGSTER_HOME": str(home / "dagster")}
        process = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        while True:
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"{url}/server_info", timeout=5)
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield url, opened, run.run_id
        process.kill()
        process.wait()


def ask(url: str, query: str, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(f"{url}/graphql", json.dumps({"query": query}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


@pytest.mark.server
def test_a_foreign_page_cannot_delete_a_run(served: tuple[str, dg.DagsterInstance, str]) -> None:
    url, opened, run_id = served
    delete = f'mutation {{ deletePipelineRun(runId: "{run_id}") {{ __typename }} }}'
    for headers in (
        {"Content-Type": "text/plain", "Origin": "http://evil.example"},
        {"Content-Type": JSON, "Origin": "http://evil.example"},
        {"Content-Type": JSON, "Host": "evil.example"},
        {"Content-Type": "text/plain"},
    ):
        status, said = ask(url, delete, **headers)
        assert (status, list(said)) == (403, ["error"])
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/graphql?query={urllib.parse.quote(delete)}", timeout=30)
    assert caught.value.code == 403
    assert opened.has_run(run_id)
    status, said = ask(url, "{ version }", **{"Content-Type": JSON, "Origin": url})
    assert (status, "version" in said["data"]) == (200, True)
    status, _ = ask(url, delete, **{"Content-Type": JSON, "Origin": url})
    assert status == 200
    assert not opened.has_run(run_id), "the UI itself may"
