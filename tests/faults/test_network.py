"""Who can reach what we start, and what it reaches: loopback only, known names only, nothing outside."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.faults.harness import build_shim
from tests.roots import copy_home

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or sys.platform != "linux",
    reason="needs gcc and Linux, whose libc the shim stands before",
)
ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-must-be-nowhere-0123456789"
WEBHOOK = "http://127.0.0.1:9/hook/another-secret-987"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Started:
    """A server's processes, what it may reach, and what it has said."""

    process: "subprocess.Popen[bytes]"
    ports: tuple[int, ...]
    network: Path
    said: Path

    def everyone(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def listening(self) -> dict[int, str]:
        """Address by port, of all its processes."""
        found = {}
        for process in self.everyone():
            for c in process.net_connections("inet"):
                if c.status == psutil.CONN_LISTEN:
                    found[c.laddr.port] = c.laddr.ip
        return found


def start(program: list[str | Path], shim: Path, folder: Path, ports: tuple[int, ...], **environment: str) -> Started:
    network, said = folder / "network.log", folder / "said.log"
    known = {k: v for k, v in os.environ.items() if not k.startswith(("STPATH_", "DAGSTER_"))}
    process = subprocess.Popen(
        [sys.executable, *map(str, program)], cwd=ROOT, stdout=said.open("wb"), stderr=subprocess.STDOUT,
        start_new_session=True, env={**known, **environment, "LD_PRELOAD": str(shim), "NETWORK_LOG": str(network)},
    )  # fmt: skip
    started = Started(process, ports, network, said)
    end = time.monotonic() + 120
    while not all(answers(port) for port in ports):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.3)
    return started


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def stop(started: Started) -> None:
    processes = started.everyone()
    started.process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=30)
    for process in alive:
        process.kill()


@pytest.fixture(scope="module")
def dev(finished: Path, shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """What `make dev` starts, on a finished root."""
    folder = tmp_path_factory.mktemp("dev")
    copy_home(finished, folder)
    home, web, view = folder / "home", free_port(), free_port()
    shutil.copy(ROOT / "dagster.yaml", home / "dagster" / "dagster.yaml")
    started = start(
        ["-m", "stpath_assets.defs.dev", "--port", str(web)], shim, folder, (web, view),
        STPATH_HOME=str(home), DAGSTER_HOME=str(home / "dagster"), STPATH_VIEWER_PORT=str(view),
        DAGSTER_DISABLE_TELEMETRY="1", STPATH_FAILURE_WEBHOOK=WEBHOOK, STPATH_ENCODER_TOKEN=TOKEN,
    )  # fmt: skip
    yield started
    stop(started)


def ask(port: int, path: str = "/", body: bytes | None = None, **headers: str) -> tuple[int, str]:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode("utf-8", "replace")


RUNS = json.dumps({"query": "{ runsOrError { ... on Runs { results { runId tags { key value } } } } }"}).encode()


def test_dev_listens_on_loopback_only(dev: Started) -> None:
    listening = dev.listening()
    assert set(dev.ports) <= set(listening)
    assert {ip.removeprefix("::ffff:") for ip in listening.values()} == {"127.0.0.1"}


def test_dev_answers_its_own_names_and_pages_only(dev: Started) -> None:
    for port in dev.ports:
        assert ask(port)[0] == 200
        status, said = ask(port, Host="rebound.example")
        assert (status, "is not served here" in said) == (403, True)
    web, view = dev.ports
    own = {"Content_Type": "application/json"}
    assert ask(web, "/graphql", RUNS, **own)[0] == 200
    for port, path in ((web, "/graphql"), (view, "/slides/a/regions")):
        status, said = ask(port, path, b"{}", Origin="http://foreign.example", **own)
        assert (status, "may not do this" in said) == (403, True)


def test_dev_reaches_nothing_outside_and_tells_no_secret(dev: Started) -> None:
    web, view = dev.ports
    said = [
        ask(web, "/graphql", RUNS, Content_Type="application/json")[1],
        ask(web, "/assets")[1],
        ask(view, "/slides/a")[1],
    ]
    time.sleep(3)  # the daemon's first tick
    assert not dev.network.exists(), dev.network.read_text()
    home = dev.said.parent / "home"
    told = [p for p in (dev.said, *home.rglob("*")) if p.is_file()]
    for secret in (TOKEN, WEBHOOK):
        assert not any(secret in text for text in said)
        assert [str(p) for p in told if secret.encode() in p.read_bytes()] == []
        for process in dev.everyone():
            assert not any(secret in word for word in process.cmdline())


def test_commands_reach_nothing_outside(finished: Path, shim: Path, tmp_path: Path) -> None:
    """Below Python, where DuckDB, SQLite and readers of scans would ask; `test_air_gapped` looks at Python."""
    copy_home(finished, tmp_path)
    network, home = tmp_path / "network.log", tmp_path / "home"
    code = (
        "import sys; from click.testing import CliRunner; from stpath_assets.cli import main\n"
        "for line in sys.argv[2:]:\n"
        "    ran = CliRunner().invoke(main, [*line.split(), '--home', sys.argv[1]])\n"
        "    assert ran.exit_code == 0 or line == 'doctor', (line, ran.output)\n"
    )
    commands = [
        "status",
        "run --encoder demo --genes EPCAM,CD74",
        "doctor",
        "maintain",
        "report --out r.html",
        "sql --format csv select(1)",
    ]
    planted = {"STPATH_ENCODER_TOKEN": TOKEN, "STPATH_FAILURE_WEBHOOK": WEBHOOK, "HF_TOKEN": f"hf_{TOKEN}"}
    shimmed = {"LD_PRELOAD": str(shim), "NETWORK_LOG": str(network), "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", code, home, *commands]
    ran = subprocess.run(
        program, cwd=tmp_path, env={**os.environ, **shimmed, **planted}, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert not network.exists(), network.read_text()
    told = [p for p in tmp_path.rglob("*") if p.is_file()]
    for secret in (TOKEN, WEBHOOK):
        assert secret not in ran.stdout + ran.stderr
        assert [str(p) for p in told if secret.encode() in p.read_bytes()] == []


def test_an_attempt_would_be_seen(shim: Path, tmp_path: Path) -> None:
    network = tmp_path / "network.log"
    code = (
        "import socket\n"
        "for attempt in (lambda: socket.create_connection(('192.0.2.9', 80), 1), lambda: socket.getaddrinfo('a.invalid', 1)):\n"
        "    try: attempt()\n"
        "    except OSError: pass\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(shim), "NETWORK_LOG": str(network)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [line.rpartition(",")[0] for line in network.read_text().splitlines()] == [
        "connect 192.0.2.9",
        "look-up of a.invalid",
    ]
