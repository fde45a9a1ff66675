"""The warm encoder on a real Ray cluster of this machine: shared, killed, restarted, mistaken for another."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

import stpath_assets
from stpath_assets.errors import FeatureError, ServingError, SlideError
from stpath_assets.features import EncoderChoice, embed, read_features
from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.features.serving import client as client_module
from stpath_assets.features.serving.client import RayEmbedder
from stpath_assets.features.serving.messages import Hello, sample_of
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.tiles import Tiles, tile
from tests.conftest import tissue_image, write_tiff

DEMO = EncoderChoice("demo")
REPLICAS, IN_FLIGHT = 2, 2
ENV = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0"}


def command(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`stpath-assets` in a process of its own."""
    program = [sys.executable, "-m", "stpath_assets", *map(str, arguments)]
    return subprocess.run(program, env={**ENV, **env}, capture_output=True, text=True, timeout=200, check=False)


class Cluster:
    """A Ray cluster of one node on a port of its own, with the encoder served on it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            port, self.client_port = one.getsockname()[1], other.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        """Starts the head and serves."""
        ray = Path(sys.executable).with_name("ray")
        self.head = subprocess.Popen(
            [str(ray), "start", "--head", "--block", f"--port={self.address.split(':')[1]}", "--num-cpus=4", "--num-gpus=0",
             "--include-dashboard=false", f"--ray-client-server-port={self.client_port}", "--disable-usage-stats"],
            env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        options = ["--replicas", str(REPLICAS), "--cpus", "0.5", "--max-in-flight", str(IN_FLIGHT), "--detach"]
        for _ in range(20):
            ran = command("gigapath", "serve", "--encoder", "demo", *options, "--address", self.address)
            if ran.returncode == 0:
                return
            time.sleep(1)
        pytest.fail(ran.stderr)

    def stop(self) -> None:
        """As a machine that goes down: the head and all it started are killed."""
        if self.head.poll() is not None:
            return
        for process in [*psutil.Process(self.head.pid).children(recursive=True), self.head]:
            with suppress(psutil.NoSuchProcess):  # of several, one ends when another does
                process.kill()
        self.head.wait()

    def counts(self) -> dict[str, dict]:
        """What the server says its replicas have done."""
        ran = command("gigapath", "status", "--address", self.address)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


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


@pytest.fixture
def tiles(scan: Path) -> Iterator[Tiles]:
    with open_slide(scan) as slide:
        yield tile(slide)


@pytest.fixture
def expected(tiles: Tiles) -> np.ndarray:
    return DemoEncoder().encode(np.stack(list(tiles.pixels())))


def test_a_slides_tiles_are_shared_by_all_replicas_and_come_in_order(
    cluster: Cluster, tiles: Tiles, expected: np.ndarray
) -> None:
    embedder = RayEmbedder(cluster.address, DEMO)
    features = embed(tiles, embedder, 2)
    np.testing.assert_array_equal(features.matrix, expected)
    assert features.facts == DEMO.facts()
    assert len(set(embedder.meter.devices)) == REPLICAS
    assert embedder.meter.via == "ray"
    assert embedder.meter.computing_s > 0


def test_two_runs_in_processes_of_their_own_find_the_model_loaded(
    cluster: Cluster, scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    before = cluster.counts()
    stores = [Store(tmp_path / "one"), Store(tmp_path / "two")]
    for store in stores:
        Registry(store).add(scan, slide_id="s", organ="Breast", tech="Visium")
        arguments = ["run", "--encoder", "demo", "--genes", "EPCAM", "--home", store.home]
        ran = command(*arguments, STPATH_RAY_ADDRESS=cluster.address)
        assert ran.returncode == 0, ran.stderr
        assert "ray" not in ran.stderr.lower(), "Ray's own talk does not reach the terminal"
        np.testing.assert_array_equal(read_features(store, "s").matrix, expected)
        assert store.read("gigapath_throughput", "s")["via"][0].as_py() == "ray"
    assert len({store.path("gigapath_features", "s").read_bytes() for store in stores}) == 1
    after = cluster.counts()
    assert set(after) == set(before), "no replica was started for these runs"
    assert [c["loads"] for c in after.values()] == [1] * REPLICAS
    embedded = sum(c["tiles"] for c in after.values()) - sum(c["tiles"] for c in before.values())
    assert embedded == 2 * len(expected)


def test_places_and_pixels_give_the_same_bytes(
    cluster: Cluster, tiles: Tiles, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    request = client_module._Slide.request
    monkeypatch.setattr(
        client_module._Slide, "request", lambda self, i: sent.append(type(r := request(self, i)).__name__) or r
    )
    # As a replica sees it that has another file under the scan's name.
    monkeypatch.setattr(client_module, "sample_of", lambda slide: "0" * 64)
    features = embed(tiles, RayEmbedder(cluster.address, DEMO), 16)
    np.testing.assert_array_equal(features.matrix, expected)
    assert sent[0] == "Places"
    assert sent[-1] == "Pixels"
    assert sent.count("Places") <= REPLICAS * IN_FLIGHT, "once refused, places are not tried again"


def test_no_more_is_asked_for_at_once_than_the_replicas_take(cluster: Cluster, tiles: Tiles) -> None:
    before = sum(c["tiles"] for c in cluster.counts().values())
    stream = RayEmbedder(cluster.address, DEMO).stream(tiles, 0, 1)
    next(stream)
    time.sleep(2)
    done = sum(c["tiles"] for c in cluster.counts().values()) - before
    assert 1 <= done <= REPLICAS * IN_FLIGHT + 1 < len(tiles)
    stream.close()


def test_a_replica_killed_in_mid_slide_costs_nothing(cluster: Cluster, tiles: Tiles, expected: np.ndarray) -> None:
    stream = RayEmbedder(cluster.address, DEMO).stream(tiles, 0, 1)
    rows = [next(stream) for _ in range(3)]
    victim = max(cluster.counts().values(), key=lambda c: c["tiles"])["pid"]
    os.kill(victim, signal.SIGKILL)
    rows += list(stream)
    np.testing.assert_array_equal(np.concatenate(rows), expected)


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
    for model in (DEMO, RayEmbedder(cluster.address, DEMO)):
        with open_slide(scan) as slide, pytest.raises(SlideError, match=r"^hurt\.tif: level 0 cannot be read") as error:
            embed(replace(tiles, slide=slide), model, 4)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_another_encoder_than_is_served_is_refused_before_any_tile(cluster: Cluster) -> None:
    with pytest.raises(ServingError, match=r"is not the one asked for: its encoder is demo, here it is gigapath"):
        RayEmbedder(cluster.address, EncoderChoice("gigapath")).facts()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "0.0.0"}, "its version is 0.0.0, here it is"),
        ({"encoder_weights_sha256": "f" * 64}, "its encoder_weights_sha256 is ffff"),
        ({"encoder_precision": "float16"}, "its encoder_precision is float16, here it is float32"),
        ({"encoder_code": "0"}, "its encoder_code is 0"),
    ],
)
def test_what_differs_between_step_and_server_is_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    choice = EncoderChoice("gigapath", tmp_path / "w.bin", "cpu", "float32")
    version = changed.get("version", stpath_assets.__version__)
    facts = {**choice.facts(), **{k: v for k, v in changed.items() if k != "version"}}
    client_module._check("h:1", Hello(choice.facts(), stpath_assets.__version__, 16, 1, 2), choice)
    with pytest.raises(ServingError, match=said) as error:
        client_module._check("h:1", Hello(facts, version, 16, 1, 2), choice)
    assert "\n" not in str(error.value)


def test_where_nothing_answers_is_one_line_at_once(tmp_path: Path, scan: Path) -> None:
    began = time.monotonic()
    Registry(Store(tmp_path)).add(scan)
    ran = command("run", "--encoder", "demo", "--genes", "EPCAM", "--home", tmp_path, STPATH_RAY_ADDRESS="127.0.0.1:1")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: no Ray cluster answers at 127.0.0.1:1 (ConnectionRefusedError")
    assert ran.stderr.count("\n") == 1
    assert "stpath-assets gigapath serve" in ran.stderr
    assert time.monotonic() - began < 60


def test_an_address_of_a_ray_client_is_refused() -> None:
    with pytest.raises(ServingError, match=r"STPATH_RAY_ADDRESS=ray://h:10001: is a Ray client's address"):
        RayEmbedder("ray://h:10001", DEMO).facts()


def test_more_than_the_cluster_has_is_refused(cluster: Cluster) -> None:
    for options, said in (
        (["--gpus", "1"], "1 replicas need 1 GPUs, and the cluster has 0"),
        (["--cpus", "64"], "64 CPUs"),
    ):
        ran = command("gigapath", "serve", "--encoder", "demo", *options, "--detach", "--address", cluster.address)
        assert ran.returncode == 1
        assert said in ran.stderr


def test_a_sample_tells_scans_apart(scan: Path, tmp_path: Path) -> None:
    def sample(path: Path) -> str | None:
        with open_slide(path) as slide:
            return sample_of(slide)

    content = scan.read_bytes()
    (tmp_path / "same.tif").write_bytes(content)
    assert sample(tmp_path / "same.tif") == sample(scan)
    (tmp_path / "same.tif").write_bytes(content + b"\0")
    assert sample(tmp_path / "same.tif") != sample(scan)


# The last of all: it takes the cluster down.


def test_a_head_that_is_restarted_in_mid_slide_is_waited_for(
    cluster: Cluster, tiles: Tiles, expected: np.ndarray
) -> None:
    stream = RayEmbedder(cluster.address, DEMO).stream(tiles, 0, 1)
    rows = [next(stream) for _ in range(3)]
    cluster.stop()
    cluster.start()
    rows += list(stream)
    np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_a_cluster_that_does_not_come_back_is_one_clear_error(cluster: Cluster, tiles: Tiles) -> None:
    stream = RayEmbedder(cluster.address, DEMO, recover_s=3).stream(tiles, 0, 1)
    next(stream)
    cluster.stop()
    with pytest.raises((ServingError, FeatureError), match=r"lost the encoder in mid-slide; what is done is kept"):
        list(stream)
