"""The warm encoder on a real Ray cluster of this machine, by HTTP: shared, killed, restarted, without a token.

What needs no cluster, the meaning of every status among it, is in `test_serving_http`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from stpath_assets.errors import FeatureError, ServingError, SlideError
from stpath_assets.features import EncoderChoice, embed, read_features
from stpath_assets.features.serving.client import ServedEmbedder, Server
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.tiles import TileParameters, Tiles, store_tiles, tile
from tests.conftest import tissue_image, write_tiff

pytestmark = pytest.mark.server

DEMO = EncoderChoice("demo")
REPLICAS, IN_FLIGHT = 2, 2
TOKEN = "a-token-of-tests-only"
ENV = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_enable_worker_prestart": "false",  # workers that nobody asks for cost two cores a second each
}

STEP = """
import sys
from stpath_assets.features import embedder_of, store_features
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
settings = load_settings()
store = Store.of(settings)
store_features(store, Registry(store).get("s"), embedder_of(settings))
print([name for name in sys.modules if name.split(".")[0] in ("ray", "torch", "dagster")])
"""


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, as a step is."""
    program = [sys.executable, *map(str, arguments)]
    return subprocess.run(program, env={**ENV, **env}, capture_output=True, text=True, timeout=200, check=False)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Cluster:
    """A Ray cluster of one node on a port of its own, with the encoder served on it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            with socket.create_server(("127.0.0.1", 0)) as three:
                self.gcs, self.client_port, self.port = (s.getsockname()[1] for s in (one, two, three))
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Server(self.url, TOKEN)
        self.start()

    def start(self) -> None:
        """Starts a head and serves on it."""
        ray = Path(sys.executable).with_name("ray")
        self.head = subprocess.Popen(
            [str(ray), "start", "--head", "--block", f"--port={self.gcs}", "--num-cpus=4", "--num-gpus=0",
             "--include-dashboard=false", f"--ray-client-server-port={self.client_port}", "--disable-usage-stats"],
            env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until(lambda: is_listening(self.gcs))
        command = [*self.serving(), "--detach", "--address", f"127.0.0.1:{self.gcs}"]
        until(lambda: run(*command, STPATH_ENCODER_TOKEN=TOKEN).returncode == 0)

    def start_of_its_own(self) -> None:
        """Serves on a cluster that the command starts and ends with it."""
        self.head = subprocess.Popen(
            [sys.executable, *self.serving()], env={**ENV, "STPATH_ENCODER_TOKEN": TOKEN}, stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        assert self.head.stdout is not None
        said = [self.head.stdout.readline() for _ in range(2)]
        self.listening = {
            (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
            for process in psutil.Process(self.head.pid).children(recursive=True)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert said[1] == f"ready: 2 replicas, 0 GPUs and 0.5 CPUs each; use it with STPATH_ENCODER_URL={self.url}\n"

    def serving(self) -> list[str]:
        """The command that serves."""
        counts = ["--replicas", str(REPLICAS), "--cpus", "0.5", "--max-in-flight", str(IN_FLIGHT)]
        return ["-m", "stpath_assets", "gigapath", "serve", "--encoder", "demo", "--port", str(self.port), *counts]

    def stop(self) -> None:
        """As a machine that goes down: the head and all it started are killed."""
        if self.head.poll() is not None:
            return
        for process in [*psutil.Process(self.head.pid).children(recursive=True), self.head]:
            with suppress(psutil.NoSuchProcess):  # of several, one ends when another does
                process.kill()
        self.head.wait()

    def embedder(self, **options: float) -> ServedEmbedder:
        return ServedEmbedder(self.url, TOKEN, DEMO, **options)

    def tiles_done(self) -> int:
        return sum(c["tiles"] for c in self.server.counts().values())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of some eighty tiles."""
    image = np.tile(tissue_image(), (2, 2, 1))
    return write_tiff(tmp_path_factory.mktemp("scan") / "odd näme, 1.tif", image)


def test_a_slides_tiles_are_shared_by_all_replicas_and_come_in_order(
    cluster: Cluster, tiles: Tiles, expected: np.ndarray
) -> None:
    embedder = cluster.embedder()
    features = embed(tiles, embedder, 2)
    np.testing.assert_array_equal(features.matrix, expected)
    assert features.facts == DEMO.facts()
    assert len(set(embedder.meter.devices)) == REPLICAS
    assert embedder.meter.via == "ray"
    assert embedder.meter.computing_s > 0


def test_two_runs_in_processes_of_their_own_find_the_model_loaded(
    cluster: Cluster, scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    before = cluster.server.counts()
    (tmp_path / "token").write_text(TOKEN + "\n")
    asked = {"STPATH_ENCODER": "demo", "STPATH_ENCODER_URL": cluster.url}
    stores, steps = [Store(tmp_path / "one"), Store(tmp_path / "two")], []
    for store in stores:
        store_tiles(store, Registry(store).add(scan, slide_id="s", organ="Breast", tech="Visium"), TileParameters())
        env = {**ENV, **asked, "STPATH_HOME": str(store.home), "STPATH_ENCODER_TOKEN_FILE": str(tmp_path / "token")}
        steps.append(
            subprocess.Popen([sys.executable, "-c", STEP], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    for store, step in zip(stores, steps, strict=True):
        # It needs neither Ray nor what replicas have loaded.
        assert step.communicate(timeout=60) == (b"[]\n", b"")
        np.testing.assert_array_equal(read_features(store, "s").matrix, expected)
        assert store.read("gigapath_throughput", "s")["via"][0].as_py() == "ray"
    assert len({store.path("gigapath_features", "s").read_bytes() for store in stores}) == 1
    until(lambda: cluster.tiles_done() == sum(c["tiles"] for c in before.values()) + 2 * len(expected))
    after = cluster.server.counts()
    assert set(after) == set(before), "no replica was started for these runs"
    assert [c["loads"] for c in after.values()] == [1] * REPLICAS


def test_no_more_is_asked_for_at_once_than_the_replicas_take(cluster: Cluster, tiles: Tiles) -> None:
    before = cluster.tiles_done()
    stream = cluster.embedder().stream(tiles, 0, 1)
    next(stream)
    until(lambda: cluster.tiles_done() - before == REPLICAS * IN_FLIGHT)
    time.sleep(0.5)
    assert cluster.tiles_done() - before == REPLICAS * IN_FLIGHT < len(tiles)
    stream.close()


def test_pixels_are_taken_where_a_replica_has_another_scan_of_that_name(
    cluster: Cluster, tiles: Tiles, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stpath_assets.features.serving.client.sample_of", lambda slide: "0" * 64)
    np.testing.assert_array_equal(embed(tiles, cluster.embedder(), 16).matrix, expected)


def test_a_damaged_scan_is_the_same_line_as_without_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    import tifffile

    scan = write_tiff(tmp_path / "hurt.tif", tissue_image(), compression="jpeg")
    with open_slide(scan) as slide:
        tiles = tile(slide)
    with tifffile.TiffFile(scan) as tif:
        offset, size = tif.pages[0].dataoffsets[17], tif.pages[0].databytecounts[17]
    with scan.open("rb+") as f:
        f.seek(offset)
        f.write(bytes(size))
    said = []
    for model in (DEMO, cluster.embedder()):
        with open_slide(scan) as slide, pytest.raises(SlideError, match=r"^hurt\.tif: level 0 cannot be read") as error:
            embed(replace(tiles, slide=slide), model, 4)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("token", [None, "another-token-than-the-servers"])
def test_without_the_token_nothing_is_said(cluster: Cluster, tiles: Tiles, token: str | None) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    for method, path in (("GET", "hello"), ("GET", "counts"), ("POST", "embed"), ("GET", "")):
        answer = httpx.request(method, f"{cluster.url}/stpath-encoder/{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.json() == {"error": "no token, or another one than the server's"}
    with pytest.raises(ServingError, match=r"refuses this step, which gives (no|another) token") as error:
        ServedEmbedder(cluster.url, token, DEMO).facts()
    assert "\n" not in str(error.value)
    assert token is None or token not in str(error.value)


def test_the_token_is_in_no_process_and_no_log(cluster: Cluster) -> None:
    children = psutil.Process(cluster.head.pid).children(recursive=True)
    assert len(children) > REPLICAS
    for process in children:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            assert TOKEN not in " ".join(process.cmdline())
    session = next(m for p in children if (m := re.search(r"/\S+/session_[\w.-]+", " ".join(p.cmdline()))))
    logs = [p for p in Path(session[0]).glob("logs/**/*") if p.is_file()]
    assert logs
    assert not [p for p in logs if TOKEN.encode() in p.read_bytes()]


def test_a_body_that_is_none_is_refused_and_the_server_goes_on(cluster: Cluster) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "x-encoder": cluster.server.hello().identity}
    for kind in ("application/vnd.apache.arrow.stream", "application/octet-stream", "application/x-pickle"):
        answer = httpx.post(
            f"{cluster.url}/stpath-encoder/embed", headers={**headers, "content-type": kind}, content=b"\x80\x05."
        )
        assert answer.status_code == 400
        assert "\n" not in answer.json()["error"]
    assert cluster.server.hello().facts == DEMO.facts()


def test_status_needs_the_url_and_the_token_only(cluster: Cluster) -> None:
    ran = run("-m", "stpath_assets", "gigapath", "status", "--url", cluster.url, STPATH_ENCODER_TOKEN=TOKEN)
    assert ran.returncode == 0, ran.stderr
    assert {c["loads"] for c in json.loads(ran.stdout).values()} == {1}


def test_a_replica_killed_in_mid_slide_costs_nothing(cluster: Cluster, tiles: Tiles, expected: np.ndarray) -> None:
    stream = cluster.embedder().stream(tiles, 0, 1)
    rows = [next(stream) for _ in range(3)]
    victim = max(cluster.server.counts().values(), key=lambda c: c["tiles"])["pid"]
    os.kill(victim, signal.SIGKILL)
    rows += list(stream)
    np.testing.assert_array_equal(np.concatenate(rows), expected)


# The last of all: they take the cluster down.


def test_a_head_that_is_restarted_in_mid_slide_is_waited_for(
    cluster: Cluster, tiles: Tiles, expected: np.ndarray
) -> None:
    stream = cluster.embedder().stream(tiles, 0, 1)
    rows = [next(stream) for _ in range(3)]
    cluster.stop()
    cluster.start_of_its_own()
    rows += list(stream)
    np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_a_cluster_of_its_own_listens_on_loopback_only(cluster: Cluster) -> None:
    """Ray Serve lets a replica listen on every interface; what others reach would also be said, which is a third line."""
    assert {"raylet", "gcs_server"} <= {name for name, _ in cluster.listening}
    assert sum(name.startswith("ray::ServeRepli") for name, _ in cluster.listening) > 0
    assert {address for _, address in cluster.listening} <= {"127.0.0.1", "::1"}


def test_a_cluster_that_does_not_come_back_is_one_clear_error(cluster: Cluster, tiles: Tiles) -> None:
    stream = cluster.embedder(recover_s=0.5).stream(tiles, 0, 1)
    next(stream)
    cluster.stop()
    with pytest.raises((ServingError, FeatureError), match=r"lost the encoder in mid-slide; what is done is kept"):
        list(stream)
