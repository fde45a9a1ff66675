"""The processes of deploy/host with a real Postgres: a scan from the inbox to rows, with kill -9 of the code server on the way.

    python -m benchmarks.host

Takes the commands from the systemd units, in a folder of its own. Needs the programs of a Postgres server.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.backfills import CHOICE
from benchmarks.inbox import Watch
from stpath_assets.demo.phantom import draw_phantom, write_slide
from tests.storage.servers import Postgres

HOST = Path(__file__).resolve().parents[1] / "deploy" / "host"
LIMIT_S = 400


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def commands(home: Path, ports: dict[str, str]) -> dict[str, list[str]]:
    """Return the units' commands by name, with paths and ports of our own."""
    found = {}
    for unit in sorted((HOST / "systemd").glob("*.service")):
        said = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)[0]
        said = said.replace("/opt/stpath_assets/.venv/bin", str(Path(sys.executable).parent)).replace(
            "/srv/stpath", str(home)
        )
        found[unit.stem] = [ports.get(word, word) for word in said.split()]
    return found


def answer(url: str, body: bytes | None = None) -> tuple[int, str]:
    """Return the status and text of an answer, 0 if there is none."""
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as said:
            return said.status, said.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
    except OSError:
        return 0, ""


def draw(home: Path, seed: int) -> None:
    """Put a phantom into the inbox."""
    (home / "inbox" / f"p{seed}.yaml").write_text("organ: Breast\ntech: Visium\n")
    write_slide(draw_phantom(seed, size_um=768), home / "inbox" / f"p{seed}.tif")


def wait(what: str, until: Callable[[], object], began: float) -> None:
    """Wait until a call returns something true, and print how long it took."""
    while not until():
        if time.time() - began > LIMIT_S:
            raise SystemExit(f"{what}: not after {LIMIT_S} s")
        time.sleep(0.5)
    print(f"  {what}: {time.time() - began:.0f} s", flush=True)


def main() -> None:
    """Run it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stpath-host-")))
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stpath-postgres-")))
        base.chmod(0o700)
        server = Postgres(programs, base)
        stack.callback(server.stop)
        home, ports = folder / "srv", {port: free_port() for port in ("3000", "3001", "4000")}
        for name in ("inbox", "dagster"):
            (home / name).mkdir(parents=True)
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(HOST / name, home / "dagster")
        workspace = home / "dagster" / "workspace.yaml"
        workspace.write_text(workspace.read_text().replace("4000", ports["4000"]))
        place = {
            "STPATH_HOME": str(home),
            "DAGSTER_HOME": str(home / "dagster"),
            "CODE_SERVER_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_URL": server.create("dagster").replace("postgres://", "postgresql+psycopg2://"),
            "STPATH_INBOX_WAIT_S": "0",
            **CHOICE,
        }
        log = stack.enter_context((folder / "log").open("wb"))
        units, running = commands(home, ports), dict[str, subprocess.Popen[bytes]]()

        def start(name: str) -> None:
            running[name] = subprocess.Popen(units[name], cwd=home, env={**os.environ, **place}, stdout=log, stderr=log)

        def stop(name: str) -> None:
            # As systemd: all processes of the unit.
            family = [*psutil.Process(running[name].pid).children(recursive=True), psutil.Process(running[name].pid)]
            for process in family:
                process.send_signal(signal.SIGKILL)
            running[name].wait()

        stack.callback(lambda: [stop(name) for name in running])
        began = time.time()
        for name in ("stpath-code", "stpath-daemon", "stpath-web", "stpath-web-readonly"):
            start(name)
        urls = [f"http://127.0.0.1:{ports[port]}" for port in ("3000", "3001")]
        wait("both web servers answer", lambda: all(answer(f"{url}/server_info")[0] == 200 for url in urls), began)
        loaded = b'{"query": "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"}'
        wait("the code location is loaded", lambda: "LOADED" in answer(f"{urls[0]}/graphql", loaded)[1], began)
        mutation = b'{"query": "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }"}'
        for url, what in zip(urls, ("web server", "read-only web server"), strict=True):
            print(f"  a change by the {what}: {answer(f'{url}/graphql', mutation)[1][:90]}", flush=True)
        watch = Watch(home)
        draw(home, 1)
        wait("a scan in the inbox has rows", lambda: watch.predicted() >= {"p1"}, time.time())
        draw(home, 2)
        lock = home / "locks" / "slides" / "p2.lock"
        wait("a run of a second one has begun", lock.exists, time.time())
        stop("stpath-code")
        print("  killed the code server and its runs", flush=True)
        start("stpath-code")
        wait("the second one has rows", lambda: watch.predicted() >= {"p1", "p2"}, time.time())
        print(f"  all processes had {watch.peak / 2**30:.1f} GiB at most", flush=True)


if __name__ == "__main__":
    main()
