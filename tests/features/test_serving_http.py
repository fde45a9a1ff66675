"""What a step and the served encoder say to each other: the real client and a real replica, with no cluster between them.

`Between` stands for Ray Serve: it hands requests on, and answers itself where a test says that a replica died or is not there.
"""

import asyncio
import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

import stpath_assets
from stpath_assets.cli import main
from stpath_assets.errors import EncoderMismatchError, FeatureError, ServingError, SettingsError
from stpath_assets.features import EncoderChoice, embed
from stpath_assets.features.serving import client as client_module
from stpath_assets.features.serving import deploy, messages
from stpath_assets.features.serving.client import ServedEmbedder
from stpath_assets.features.serving.cluster import connect
from stpath_assets.features.serving.messages import Hello, Pixels, Places, sample_of, tiles_from_http
from stpath_assets.features.serving.token import digest_of, read_token
from stpath_assets.settings import load_settings
from stpath_assets.slides import open_slide
from stpath_assets.tiles import Tiles
from tests.conftest import tissue_image, write_tiff

server = pytest.importorskip("stpath_assets.features.serving.server")
from click.testing import CliRunner  # noqa: E402
from starlette.requests import Request  # noqa: E402

DEMO = EncoderChoice("demo")
TOKEN = "a-token-of-tests-only"
URL = "http://h:1"
ARROW, BYTES = "application/vnd.apache.arrow.stream", "application/octet-stream"


class Counter:
    """As the handle of the counter's actor."""

    def __init__(self) -> None:
        self.done = server.Counter()

    def __getattr__(self, name: str) -> SimpleNamespace:
        async def value(result: object) -> object:
            return result

        method = getattr(self.done, name)
        if name == "counts":
            return SimpleNamespace(remote=lambda: value(method()))
        return SimpleNamespace(remote=method)


class Between:
    """Hands requests to a replica. `answers`: statuses that are given first instead, None for a connection that breaks."""

    def __init__(self, replica: object, *answers: int | None) -> None:
        self.replica, self.answers, self.asked = replica, list(answers), []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.rsplit("/", 1)[-1]
        self.asked.append((path, request.headers.get("content-type")))
        if path == "embed" and self.answers:
            status = self.answers.pop(0)
            if status is None:
                raise httpx.ReadError("broken")
            return httpx.Response(status, text="Internal Server Error")
        return asyncio.run(answer_of(self.replica, request.method, path, dict(request.headers), request.content))


async def answer_of(replica: object, method: str, path: str, headers: dict, *body: bytes) -> httpx.Response:
    chunks = [{"type": "http.request", "body": b, "more_body": i + 1 < len(body)} for i, b in enumerate(body)]
    scope = {
        "type": "http", "method": method, "path": f"/stpath-encoder/{path}",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip

    async def receive() -> dict:
        return chunks.pop(0)

    answer = await replica(Request(scope, receive))
    return httpx.Response(answer.status_code, headers=answer.raw_headers, content=answer.body)


@pytest.fixture
def replica() -> object:
    return server.EncoderReplica(DEMO, 2, 2, digest_of(TOKEN), Counter())


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiff(tmp_path_factory.mktemp("scan") / "odd näme, 1.tif", tissue_image())


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PAUSE_S", 0.01)


def embedder(
    between: Callable[[httpx.Request], httpx.Response], choice: EncoderChoice = DEMO, recover_s: float = 5
) -> ServedEmbedder:
    made = ServedEmbedder(URL, TOKEN, choice, recover_s)
    made._server._http._transport = httpx.MockTransport(between)
    return made


def post(replica: object, kind: str, *body: bytes, **headers: str) -> httpx.Response:
    said = {"authorization": f"Bearer {TOKEN}", "x-encoder": replica._hello.identity, "content-type": kind}
    return asyncio.run(answer_of(replica, "POST", "embed", {**said, **headers}, *body))


# ---- features


def test_places_are_sent_where_the_scan_is_the_same(replica: object, tiles: Tiles, expected: np.ndarray) -> None:
    between = Between(replica)
    np.testing.assert_array_equal(embed(tiles, embedder(between), 4).matrix, expected)
    assert {kind for path, kind in between.asked if path == "embed"} == {ARROW}
    assert len([path for path, _ in between.asked if path == "hello"]) == 1


@pytest.mark.parametrize("reason", ["another file", "no file", "no scan"])
def test_places_and_pixels_give_the_same_bytes(
    replica: object, tiles: Tiles, expected: np.ndarray, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = client_module._Slide.request
    (tmp_path / "none.tif").write_bytes(b"no scan")
    wrong = {
        "another file": {"sample": "0" * 64},
        "no file": {"uri": "/nowhere/at/all.tif"},
        "no scan": {"uri": str(tmp_path / "none.tif")},
    }[reason]

    def request_of(work: object, batch: int) -> Places | Pixels:
        made = request(work, batch)
        return Places(**{**vars(made), **wrong}) if isinstance(made, Places) else made

    monkeypatch.setattr(client_module._Slide, "request", request_of)
    between = Between(replica)
    np.testing.assert_array_equal(embed(tiles, embedder(between), 2).matrix, expected)
    kinds = [kind for path, kind in between.asked if path == "embed"]
    assert kinds[0] == ARROW
    assert kinds[-1] == BYTES
    assert kinds.count(ARROW) <= 4, "once refused, places are not tried again"


def test_answers_in_another_order_come_in_that_of_the_slide(
    replica: object, tiles: Tiles, expected: np.ndarray
) -> None:
    between, lock, late = Between(replica), threading.Lock(), [0.2, 0.1, 0.05]

    def uneven(request: httpx.Request) -> httpx.Response:
        with lock:
            wait = late.pop(0) if late and request.url.path.endswith("embed") else 0
        time.sleep(wait)
        return between(request)

    np.testing.assert_array_equal(embed(tiles, embedder(uneven), 2).matrix, expected)


def test_a_stream_that_is_left_keeps_no_process_from_ending(scan: Path) -> None:
    """Ctrl-C in a step whose server has taken a batch and says nothing."""
    program = f"""
import os, signal, socket, threading
from stpath_assets.features import EncoderChoice, embed
from stpath_assets.features.serving.client import ServedEmbedder
from stpath_assets.features.serving.messages import Hello
from stpath_assets.slides import open_slide
from stpath_assets.tiles import tile
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
listening = socket.create_server(("127.0.0.1", 0))
model = ServedEmbedder("http://127.0.0.1:%d" % listening.getsockname()[1], None, EncoderChoice("demo"))
model._hello = Hello({{}}, "1", 2, 2, 2)
held = []
def interrupt():
    held.append(listening.accept())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
with open_slide({str(scan)!r}) as slide:
    try:
        embed(tile(slide), model, 2)
    except KeyboardInterrupt:
        print("ended")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert (ran.stdout, ran.stderr) == ("ended\n", "")


# ---- what goes wrong


@pytest.mark.parametrize("status", [404, 500, 502, 503, 504, None])
def test_a_replica_that_died_costs_nothing(
    replica: object, tiles: Tiles, expected: np.ndarray, status: int | None
) -> None:
    between = Between(replica, *[status] * 4)
    np.testing.assert_array_equal(embed(tiles, embedder(between), 8).matrix, expected)
    assert not between.answers


def test_tiles_that_kill_every_replica_are_given_up(replica: object, tiles: Tiles) -> None:
    between = Between(replica, *[500] * 1000)
    with pytest.raises(
        FeatureError, match=r"the served encoder died 5 times at the same tiles; see Ray's logs"
    ) as error:
        embed(tiles, embedder(between), 100)
    assert "\n" not in str(error.value)
    assert 1000 - len(between.answers) == 5


def test_a_server_that_does_not_come_back_is_one_line(replica: object, tiles: Tiles) -> None:
    between, gone = Between(replica), threading.Event()

    def dying(request: httpx.Request) -> httpx.Response:
        if gone.is_set():
            raise httpx.ConnectError("refused")
        return between(request)

    stream = embedder(dying, recover_s=0.1).stream(tiles, 0, 1)
    next(stream)
    gone.set()
    with pytest.raises(ServingError, match=r"^odd näme, 1\.tif: lost the encoder in mid-slide; what is done is kept"):
        list(stream)


def test_another_encoder_after_a_restart_is_refused(replica: object, tiles: Tiles) -> None:
    between = Between(replica)
    model = embedder(between)
    stream = model.stream(tiles, 0, 1)
    next(stream)
    other = replica._hello
    replica._hello = Hello({**other.facts, "encoder_precision": "float16"}, other.version, 16, 2, 2)
    with pytest.raises(EncoderMismatchError, match="http://h:1 now serves another encoder than at the start"):
        list(stream)
    assert model.facts()["encoder_precision"] == "float16", "the next slide asks again"


def test_another_encoder_after_an_outage_is_named(replica: object, tiles: Tiles) -> None:
    between = Between(replica, 500)
    model = embedder(between)
    model.facts()
    replica._hello = Hello({**DEMO.facts(), "encoder": "gigapath"}, stpath_assets.__version__, 16, 2, 2)
    with pytest.raises(
        EncoderMismatchError, match=r"lost the encoder in mid-slide.*its encoder is gigapath, here it is"
    ):
        list(model.stream(tiles, 0, 100))


def test_another_encoder_than_is_served_is_refused_before_any_tile(replica: object, tiles: Tiles) -> None:
    between = Between(replica)
    with pytest.raises(EncoderMismatchError, match="not the one asked for: its encoder is demo, here it is gigapath"):
        embed(tiles, embedder(between, EncoderChoice("gigapath")))
    assert [path for path, _ in between.asked] == ["hello"]


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
    client_module._check(URL, Hello(choice.facts(), stpath_assets.__version__, 16, 1, 2), choice)
    with pytest.raises(EncoderMismatchError, match=said) as error:
        client_module._check(URL, Hello(facts, version, 16, 1, 2), choice)
    assert "\n" not in str(error.value)


def test_an_encoder_that_fails_is_one_line_and_not_tried_again(replica: object, tiles: Tiles) -> None:
    def fail(batch: np.ndarray) -> np.ndarray:
        raise RuntimeError("CUDA error:\nillegal")

    replica._encoder = SimpleNamespace(encode=fail, device="cuda")
    between = Between(replica)
    said = r"^the served encoder failed \(RuntimeError: CUDA error: illegal\); see Ray's logs$"
    with pytest.raises(FeatureError, match=said):
        embed(tiles, embedder(between), 100)
    assert len(between.asked) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(404), "no encoder is served at http://h:1; start it: stpath-assets gigapath serve"),
        (httpx.Response(503), r"the encoder at http://h:1 has no replica that answers \(HTTP 503\)"),
        (httpx.Response(403), "http://h:1 is not a served encoder: it answers HTTP 403; check STPATH_ENCODER_URL"),
        (httpx.Response(200, html="<p>"), "http://h:1 is not a served encoder: it answers something else"),
        (httpx.Response(200, json={"a": 1}), "http://h:1 is not a served encoder: it answers something else"),
        (httpx.Response(302, headers={"location": "http://evil"}), "it answers HTTP 302"),
    ],
)
def test_what_is_no_served_encoder_is_one_line(answer: httpx.Response, said: str) -> None:
    with pytest.raises(ServingError, match=said) as error:
        embedder(lambda request: answer).facts()
    assert "\n" not in str(error.value)


def test_where_nothing_answers_is_one_line_at_once(scan: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(scan), "--out", str(tmp_path / "o.h5ad"), "--organ", "Breast", "--tech", "Visium"]
    ran = CliRunner(env={"STPATH_ENCODER_URL": "http://127.0.0.1:1"}).invoke(
        main, [*arguments, "--encoder", "demo", "--genes", "EPCAM"]
    )
    assert ran.exit_code == 1
    assert ran.stderr.startswith("error: no encoder answers at http://127.0.0.1:1 (ConnectError")
    assert ran.stderr.endswith("start it: stpath-assets gigapath serve\n")


# ---- what the server refuses


def test_no_pickle_is_ever_read(replica: object, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    for kind in (ARROW, BYTES, "application/x-pickle", "application/octet-stream; pickle"):
        for body in (pickle.dumps(Trap()), np.lib.format.magic(1, 0) + pickle.dumps(Trap())):
            assert post(replica, kind, body, **{"x-tile-px": "224"}).status_code == 400
    assert not (tmp_path / "sprung").exists()
    for module in (messages, client_module, server):
        assert not hasattr(module, "pickle")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"x-tile-px": "0"}, 400),
        ({"x-tile-px": "²"}, 400),
        ({"x-tile-px": "9" * 5000}, 400),
        ({"x-tile-px": "5"}, 400),
        ({"content-type": "text/html"}, 400),
        ({"x-encoder": "other"}, 412),
        ({"authorization": "Bearer other"}, 401),
        ({"authorization": TOKEN[:-1]}, 401),
        ({"authorization": "Bearer"}, 401),
        ({}, 200),
    ],
)
def test_what_is_no_request_of_a_step_is_one_line(replica: object, changed: dict[str, str], status: int) -> None:
    headers = {"x-tile-px": "224", **changed}
    answer = post(replica, headers.pop("content-type", BYTES), bytes(224 * 224 * 3), **headers)
    assert answer.status_code == status
    assert status == 200 or "\n" not in answer.json()["error"]


def test_damaged_and_foreign_tables_are_refused(replica: object, tiles: Tiles) -> None:
    whole = Places("/a.tif", (0.5, 0.5), "0" * 64, tiles.table).to_http()[1]
    assert post(replica, ARROW, whole).status_code == 409
    for at in range(0, len(whole), 97):
        assert post(replica, ARROW, whole[:at]).status_code == 400
    rng = np.random.default_rng(0)
    for _ in range(100):
        hurt = bytearray(whole)
        hurt[rng.integers(len(hurt))] ^= int(rng.integers(1, 256))
        assert post(replica, ARROW, bytes(hurt)).status_code in (400, 409, 413)
    for table in (tiles.table.slice(0, 0), tiles.table.drop_columns(["x_px"])):
        assert post(replica, ARROW, Places("/a.tif", (0.5, 0.5), "", table).to_http()[1]).status_code == 400


def test_a_body_larger_than_any_batch_is_refused_while_it_comes(
    replica: object, tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_BYTES", 1000)
    assert post(replica, BYTES, bytes(600), bytes(600), bytes(600)).status_code == 413
    assert post(replica, ARROW, *[bytes(1 << 20)] * 17).status_code == 413
    body = Places("/a.tif", (0.5, 0.5), "", tiles.table).to_http()[1]
    assert post(replica, ARROW, body).status_code == 413, "a small table may ask for many pixels"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "https://h/x.svs", "/etc/passwd", "a\0b", ""])
def test_only_local_scans_are_opened(replica: object, tiles: Tiles, path: str) -> None:
    answer = post(replica, ARROW, Places(path, (0.5, 0.5), "0" * 64, tiles.table).to_http()[1])
    assert answer.status_code == 409
    assert "root:" not in answer.text


def test_messages_come_out_as_they_went_in(tiles: Tiles) -> None:
    headers, body = Places("/ä b.tif", (0.5, 0.25), "ab", tiles.table.slice(3, 4)).to_http()
    found = tiles_from_http(headers, body)
    assert isinstance(found, Places)
    assert (found.uri, found.mpp_xy, found.sample) == ("/ä b.tif", (0.5, 0.25), "ab")
    assert found.table.to_pydict() == tiles.table.slice(3, 4).select(found.table.column_names).to_pydict()
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(tiles_from_http(*Pixels(pixels).to_http()).batch, pixels)
    block = messages.Block(np.arange(6, dtype=np.float32).reshape(2, 3), "r", "cpu", None)
    np.testing.assert_array_equal(messages.Block.from_http(*block.to_http()).features, block.features)


# ---- the token, and what is served


def test_the_token_is_of_the_environment_or_a_file_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_token(load_settings(tmp_path)) is None
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "settings.toml").write_text('encoder_token_file = "token"')
    assert read_token(load_settings(tmp_path)) == TOKEN
    monkeypatch.setenv("STPATH_ENCODER_TOKEN", "one-of-the-environment")
    settings = load_settings(tmp_path)
    assert read_token(settings) == "one-of-the-environment"
    assert "one-of-the-environment" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
    for wrong in ("short", "with a space in between it", "näme-of-more-than-sixteen"):
        monkeypatch.setenv("STPATH_ENCODER_TOKEN", wrong)
        with pytest.raises(SettingsError, match="a token has at least 16 ASCII characters") as error:
            read_token(load_settings(tmp_path))
        assert wrong not in str(error.value)
    monkeypatch.delenv("STPATH_ENCODER_TOKEN")
    monkeypatch.setenv("STPATH_ENCODER_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"none: cannot be read \(FileNotFoundError\); make one: openssl rand"):
        read_token(load_settings(tmp_path))
    (tmp_path / "settings.toml").write_text(f'encoder_token = "{TOKEN}"')
    with pytest.raises(SettingsError, match="it must not hold a token") as error:
        load_settings(tmp_path)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ray://h:10001", "auto", "http://u:secret@h", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="setting encoder_url"):
        load_settings(encoder_url=url)


def test_nothing_is_served_without_a_token() -> None:
    ran = CliRunner().invoke(main, ["gigapath", "serve", "--encoder", "demo"])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("error: the encoder is not served without a token; make one: openssl rand -hex 32")
    assert ran.stderr.count("\n") == 1


def test_more_than_the_cluster_has_is_refused() -> None:
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0})
    with pytest.raises(ServingError, match="1 replicas need 1 GPUs, and the cluster has 0; ask for fewer"):
        deploy._require(ray, deploy.Deployment(gpus=1))
    with pytest.raises(ServingError, match="2 replicas need 8 CPUs, and the cluster has 4"):
        deploy._require(ray, deploy.Deployment(replicas=2, cpus=4))
    deploy._require(ray, deploy.Deployment())


def test_a_port_that_is_taken_is_refused() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServingError, match="give another --host or"):
        deploy._require_free(*taken.getsockname())


def test_an_address_of_a_ray_client_is_refused() -> None:
    with pytest.raises(ServingError, match=r"--address ray://h:10001: is the address of a Ray client"):
        connect("ray://h:10001")


def test_status_is_json_of_what_replicas_have_done(replica: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module.httpx, "HTTPTransport", lambda **options: httpx.MockTransport(Between(replica)))
    ran = CliRunner(env={"STPATH_ENCODER_TOKEN": TOKEN}).invoke(main, ["gigapath", "status"])
    assert ran.exit_code == 0
    [counts] = json.loads(ran.stdout).values()
    assert {k: counts[k] for k in ("device", "loads", "batches", "tiles")} == {
        "device": "cpu", "loads": 1, "batches": 0, "tiles": 0
    }  # fmt: skip


def test_a_sample_tells_scans_apart(scan: Path, tmp_path: Path) -> None:
    def sample(path: Path) -> str | None:
        with open_slide(path) as slide:
            return sample_of(slide)

    content = scan.read_bytes()
    (tmp_path / "same.tif").write_bytes(content)
    assert sample(tmp_path / "same.tif") == sample(scan)
    (tmp_path / "same.tif").write_bytes(content + b"\0")
    assert sample(tmp_path / "same.tif") != sample(scan)
