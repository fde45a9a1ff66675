"""`make dev`: code server, daemon and filtered web server of a data root, which end together, and the slide viewer.

    STPATH_HOME=DIR DAGSTER_HOME=DIR/dagster python -m stpath_assets.defs.dev [--port 3000]

In place of `dagster dev`, whose web server has no filter (`webserver`). The code server loads the definitions once for both.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from stpath_assets.defs.materialize import instance
from stpath_assets.settings import load_settings

WAIT_S = 120.0
_BIN = Path(sys.executable).parent  # not resolved: a virtual environment's Python is a link


def main() -> int:
    """Run them until one of Dagster's ends or a signal comes. Returns the exit code: 0 after a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="3000")
    chosen = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, _interrupt
        )  # SIGINT too: started in the background, it would be ignored, also by those that we start
    with instance(load_settings()):
        pass  # creates Dagster's databases, which the processes below would all do at once
    with tempfile.TemporaryDirectory() as folder:
        code = _free_port()
        workspace = Path(folder) / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {code}, location_name: stpath_assets}}\n"
        )
        server = [str(_BIN / "dagster"), "code-server", "start", "-m", "stpath_assets.definitions", "-a", "defs"]
        processes = [subprocess.Popen([*server, "-h", "127.0.0.1", "-p", str(code)])]
        try:
            _wait_for(code, processes[0])
            target = ["-w", str(workspace)]
            processes.append(subprocess.Popen([str(_BIN / "dagster-daemon"), "run", *target]))
            web = [sys.executable, "-m", "stpath_assets.defs.webserver", *target, "-h", chosen.host, "-p", chosen.port]
            processes.append(subprocess.Popen(web))
            # Links in the UI lead to it. The others go on without it, for example if its port is taken.
            viewer = subprocess.Popen([sys.executable, "-m", "stpath_assets", "view", "--no-browser"])
            needed, processes = tuple(processes), [*processes, viewer]
            while all(process.poll() is None for process in needed):
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
        finally:
            _end(processes)
    print("error: one of Dagster's processes ended; its last lines are above", file=sys.stderr)  # noqa: T201
    return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process listens on a port, or ends."""
    until = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)


def _end(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in reversed(processes):
        process.send_signal(signal.SIGINT)  # as Ctrl-C in a terminal, which Dagster's processes end cleanly on
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    if "DAGSTER_HOME" not in os.environ:
        raise SystemExit("error: DAGSTER_HOME is not set; type: make dev")
    raise SystemExit(main())
