"""A backfill of all assets in a real Dagster (web server, daemon, code server) beside `stpath-assets run` of the same slides.

    python -m benchmarks.backfills [--slides 12] [--blank 0] [--kill] [--retire] [--twice]

Draws small phantoms, of which each `--blank`-th is empty glass, and registers them in two data roots. One gets a backfill as the
UI asks for it, the other the command. With --kill, a run's process is killed with SIGKILL while it works, to see what is left.
With --retire, the last slide is retired on the way; with --twice, two backfills of the same slides are asked for at once.
"""

import argparse
import json
import os
import platform as platform_module
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil

from benchmarks.tiles import cpu_model
from stpath_assets.defs.materialize import instance
from stpath_assets.demo.phantom import draw_phantom, write_slide
from stpath_assets.settings import load_settings
from stpath_assets.stages import STAGES
from stpath_assets.storage import Store

ROOT = Path(__file__).resolve().parents[1]
GENES = "EPCAM,ERBB2,VIM"
SIZE_UM = 768
DRAWN = 12
"""Different phantoms; more scans are copies of them that differ in a corner."""

CHOICE = {"STPATH_ENCODER": "demo", "STPATH_GENES": GENES}

LAUNCH = """mutation($assets: [AssetKeyInput!]!, $slides: [String!]!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $slides}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } } } }"""


def registered(home: Path, slides: int, blank: int) -> list[str]:
    """Draw phantoms and register them in a data root. Returns the ids of those that are empty glass."""
    scans = home.parent / "scans"
    scans.mkdir()
    empty = []
    for n in range(slides):
        phantom = draw_phantom(n % DRAWN, size_um=SIZE_UM)
        if n >= DRAWN:
            phantom.image[:16, :16] = np.array(
                [240 + n % 16, 240, 240 + n // 16], np.uint8
            )  # each is a scan of its own
        path = scans / f"s{n:03d}.tif"
        if blank and n % blank == blank - 1:
            phantom.image[:] = np.array([243, 242, 244], np.uint8)
            phantom.image[:64, :64] = 255 - n  # else all of them were the same scan
            empty.append(path.stem)
        write_slide(phantom, path)
    names = sorted(map(str, scans.iterdir()))
    sa(home, "add", *names, "--organ", "Breast", "--tech", "Visium")
    return empty


def sa(home: Path, *arguments: str) -> None:
    """Run a command on a data root to its end."""
    program = [sys.executable, "-m", "stpath_assets", *arguments, "--home", str(home)]
    subprocess.run(program, env={**os.environ, **CHOICE}, stdout=subprocess.DEVNULL, check=False)


class Platform:
    """A Dagster web server with daemon and code server on a data root."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}/graphql"
        self.home = home
        place = {"DAGSTER_HOME": str(home / "dagster"), "STPATH_HOME": str(home), **CHOICE}
        port = self.url.rpartition(":")[2].partition("/")[0]
        program = [sys.executable, "-m", "stpath_assets.defs.dev", "--port", port]
        self.log = (home.parent / "dagster.log").open("wb")
        self.process = subprocess.Popen(
            program, cwd=ROOT, env={**os.environ, **place}, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def wait_until_up(self) -> None:
        """Wait until the code location is loaded."""
        query = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"
        while True:
            try:
                entries = self.ask(query)["workspaceOrError"]["locationEntries"]
                if entries and all(e["loadStatus"] == "LOADED" for e in entries):
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.5)

    def backfill(self, slides: list[str]) -> str:
        """Ask for a backfill of all stages of some slides, as the UI does. Returns its id."""
        assets = [{"path": [name]} for name in STAGES]
        answer = self.ask(LAUNCH, assets=assets, slides=slides)["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise SystemExit(f"the backfill was refused: {answer}")
        return str(answer["backfillId"])

    def status(self, backfill: str) -> str:
        """Return the status of a backfill."""
        return str(self.ask(STATUS, id=backfill)["partitionBackfillOrError"]["status"])

    def stop(self) -> None:
        """End all its processes."""
        for process in [*psutil.Process(self.process.pid).children(recursive=True)]:
            process.kill()
        self.process.kill()
        self.process.wait()


@contextmanager
def platform(home: Path) -> Iterator[Platform]:
    """Run Dagster on a data root inside the block."""
    up = Platform(home)
    try:
        up.wait_until_up()
        yield up
    finally:
        up.stop()


def run_pids(opened: dg.DagsterInstance, run_id: str) -> list[int]:
    """Return the processes in which a run's steps execute."""
    events = [e.dagster_event for e in opened.all_logs(run_id) if e.dagster_event]
    return sorted(
        {e.pid for e in events if e.pid and (e.is_step_start or "steps in process (pid" in (e.message or ""))}
    )


def kill_a_run(opened: dg.DagsterInstance) -> None:
    """Kill the process of a run that has begun its features, and print what is left of it, and when."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    while True:
        for run in opened.get_runs(started):
            steps = {
                e.step_key for e in opened.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START) if e.step_key
            }
            if "gigapath_features" in steps:
                break
        else:
            time.sleep(0.2)
            continue
        break
    pids = [p for p in run_pids(opened, run.run_id) if psutil.pid_exists(p)]
    family = [q for p in pids for q in (psutil.Process(p), *psutil.Process(p).children(recursive=True))]
    os.kill(pids[0], signal.SIGKILL)
    killed = time.time()
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family if psutil.pid_exists(p.pid)):
        time.sleep(0.05)
    print(
        f"  killed run {run.run_id[:8]}: its {len(family)} processes gone after {time.time() - killed:.1f} s",
        flush=True,
    )
    while not (ended := opened.get_run_by_id(run.run_id)) or not ended.is_finished:
        time.sleep(0.2)
    ended_at = time.time()
    print(f"  the run is {ended.status.value} after {ended_at - killed:.1f} s", flush=True)
    storage = opened.event_log_storage
    while any(run.run_id in storage.get_concurrency_info(p).active_run_ids for p in storage.get_concurrency_keys()):
        time.sleep(0.2)
    print(f"  its pool slot is free after {time.time() - killed:.1f} s", flush=True)
    late = [e for e in opened.all_logs(run.run_id) if e.timestamp > ended_at + 1 and e.step_key]
    print(f"  step events after its end: {len(late)}", flush=True)


def made_twice(opened: dg.DagsterInstance) -> list[str]:
    """Return the stages and slides that were computed more than once."""
    made = Counter[str]()
    for name in STAGES:
        for record in opened.fetch_materializations(dg.AssetKey(name), limit=10_000).records:
            event = record.asset_materialization
            if event and event.metadata.get("made", dg.MetadataValue.bool(False)).value:
                made[f"{name} {event.partition}"] += 1
    return sorted(key for key, count in made.items() if count > 1)


def backfill(home: Path, slides: list[str], kill: bool, retire: bool, twice: bool) -> float:
    """Backfill all stages of the slides, print what came of it, and return the seconds."""
    with platform(home) as up, instance(load_settings(home)) as opened:
        began, id_ = time.time(), up.backfill(slides)
        again = up.backfill(slides) if twice else None
        if kill:
            kill_a_run(opened)
        if retire:
            while not opened.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
                time.sleep(0.2)
            sa(home, "retire", slides[-1])
            print(f"  retired {slides[-1]}; partitions: {len(opened.get_dynamic_partitions('slides'))}", flush=True)
        while (status := up.status(id_)) in ("REQUESTED", "CANCELING"):
            time.sleep(0.5)
        took = time.time() - began
        if again is not None:
            while (of_again := up.status(again)) in ("REQUESTED", "CANCELING"):
                time.sleep(0.5)
            print(f"  asked for twice at once: {status} and {of_again}; computed twice: {made_twice(opened) or 'none'}")
        runs = opened.get_runs(dg.RunsFilter(tags={"dagster/backfill": id_}))
        states = Counter(r.status.value for r in runs)
        of_runs = [opened.get_run_records(dg.RunsFilter(run_ids=[r.run_id]))[0] for r in runs]
        busy = sum((r.end_time or 0) - (r.start_time or 0) for r in of_runs)
        print(
            f"  backfill: {status}, {len(runs)} runs ({dict(states)}), {busy:.1f} s in runs, {took:.1f} s in all",
            flush=True,
        )
        return took


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slides", type=int, default=12)
    options.add_argument("--blank", type=int, default=0)
    options.add_argument("--kill", action="store_true")
    options.add_argument("--retire", action="store_true")
    options.add_argument("--twice", action="store_true", help="two backfills of the same slides at once")
    given = options.parse_args()
    print(f"{cpu_model()}, {os.cpu_count()} cores, Python {platform_module.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        empty = registered(home, given.slides, given.blank)
        other = Path(folder) / "other"
        shutil.copytree(home, other)
        slides = [f"s{n:03d}" for n in range(given.slides)]
        took = backfill(home, slides, given.kill, given.retire, given.twice)
        began = time.time()
        sa(other, "run")
        alone = time.time() - began
        print(f"  stpath-assets run: {alone:.1f} s; the backfill took {took / alone:.2f} times that")
        for name, root in (("backfill", home), ("command", other)):
            predicted = Store(root).slide_ids("stpath_predictions")
            wrong = set(slides) - set(empty) - set(predicted)
            missing = ", ".join(sorted(wrong)) or "none"
            print(f"  {name}: {len(predicted)} slides predicted, {len(empty)} are empty glass; missing: {missing}")


if __name__ == "__main__":
    main()
