"""Many scans at once in the inbox of a real Dagster, one in ten of them broken: from files to rows, without a click.

    python -m benchmarks.inbox [--slides 200] [--size 768] [--kill]
    python -m benchmarks.inbox --ticks 5000       # how long a tick of the sensor takes with so many scans

With --two, two of Dagster run on the root at once. With --kill, the daemon, the code server and the process of a run are each
killed with SIGKILL on the way, and Dagster is started again.
"""

import argparse
import os
import platform as platform_module
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa

from benchmarks.backfills import CHOICE, Platform, made_twice, run_pids
from benchmarks.tiles import cpu_model
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.sensors import new_scans
from stpath_assets.demo.phantom import draw_phantom, write_slide
from stpath_assets.errors import StpathError
from stpath_assets.ingestion import list_inbox, read_quarantine
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.stages import read_failures
from stpath_assets.storage import Store
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import SLIDES

WAIT_S = 10
DRAWN = 10
"""Different phantoms; the scans are copies of them that differ in a corner."""

KILLS = ("the daemon", "the code server", "a run")


def draw(folder: Path, slides: int, size_um: int) -> tuple[set[str], set[str]]:
    """Draw scans with sidecars. Returns the names of the good and of the broken ones.

    The broken ones are in turn no scan, cut off, empty glass, and with an organ that STPath does not know.
    """
    good, broken = set[str](), set[str]()
    drawn = [draw_phantom(seed, size_um=size_um) for seed in range(DRAWN)]
    for n in range(slides):
        name, kind = f"s{n:03d}", n // 10 % 4 if n % 10 == 9 else -1
        path, organ = folder / f"{name}.tif", "Brest" if kind == 3 else "Breast"
        if kind == 0:
            path.write_text(f"no scan, but a text: {n}")
        else:
            phantom = drawn[n % DRAWN]
            phantom = replace(phantom, image=phantom.image.copy())
            if kind == 2:
                phantom.image[:] = np.array([243, 242, 244], np.uint8)
            phantom.image[:16, :16] = np.array(
                [240 + n % 16, 240 + n // 16, 244], np.uint8
            )  # each is a scan of its own
            write_slide(phantom, path)
            if kind == 1:
                os.truncate(path, path.stat().st_size // 2)
        path.with_suffix(".yaml").write_text(f"organ: {organ}\ntech: Visium\n")
        (good if kind < 0 else broken).add(name)
    return good, broken


class Watch:
    """What a data root holds, and the most memory that the processes of Dagster had."""

    def __init__(self, home: Path) -> None:
        self.home, self.peak = home, 0
        threading.Thread(target=self._measure, daemon=True).start()

    def predicted(self) -> set[str]:
        """The slides that have predictions."""
        store = Store(self.home)
        return set(store.slide_ids("stpath_predictions")) if store.is_there() else set()

    def refused(self) -> dict[str, str]:
        """Why scans cannot be used, by name: those that cannot be registered, and those of which a stage failed."""
        store = Store(self.home)
        if not store.is_there():
            return {}
        found = {q.slide_id: q.reason for q in read_quarantine(store).values() if q.reason}
        return found | {slide_id: f.reason for (_, slide_id), f in read_failures(store).items()}

    def _measure(self) -> None:
        while True:
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(1)


@contextmanager
def running(home: Path, two: bool = False) -> Iterator[list[Platform]]:
    """Run Dagster on a data root, or two of it; the list holds what runs, and may be replaced."""
    up = [Platform(home) for _ in range(1 + two)]
    try:
        for one in up:
            one.wait_until_up()
        yield up
    finally:
        for one in up:
            one.stop()


def pids_of(up: Platform, word: str) -> list[int]:
    """Return the processes of Dagster with a word in their command line."""
    found = []
    for process in psutil.Process(up.process.pid).children(recursive=True):
        try:
            if word in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def kill(what: str, up: list[Platform], opened: dg.DagsterInstance) -> bool:
    """Kill one of Dagster's processes, and start Dagster again where it ends with it. Returns whether there was one."""
    if what == "a run":
        runs = opened.get_runs(dg.RunsFilter(job_name="process_slide", statuses=[dg.DagsterRunStatus.STARTED]))
        pids = [pid for run in runs[:1] for pid in run_pids(opened, run.run_id) if psutil.pid_exists(pid)]
    else:
        pids = pids_of(up[0], "dagster-daemon" if what == "the daemon" else "api grpc")
    if not pids:
        return False
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    print(f"  killed {what} ({len(pids)} processes)", flush=True)
    if what != "a run":
        time.sleep(5)
        up[0].stop()
        up[0] = Platform(up[0].home)
        up[0].wait_until_up()
    return True


def wait(
    home: Path, good: set[str], broken: set[str], kills: list[str], limit_s: float, two: bool = False
) -> tuple[float, Watch]:
    """Wait until all scans are predicted or refused, with some kills on the way. Returns the seconds."""
    watch, began = Watch(home), time.time()
    with instance(load_settings(home)) as opened, running(home, two) as up:
        total = len(kills)
        while time.time() - began < limit_s:
            time.sleep(2)
            try:
                predicted, refused = watch.predicted(), watch.refused()
            except StpathError as e:  # the lake is being made
                print(f"  {e}", flush=True)
                continue
            if (
                kills
                and len(predicted) >= len(good) * (total - len(kills) + 1) / (total + 2)
                and kill(kills[0], up, opened)
            ):
                kills.pop(0)
            ends = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING]
            if good <= predicted and broken <= set(refused) and not opened.get_runs_count(dg.RunsFilter(statuses=ends)):
                break
    return time.time() - began, watch


def report(home: Path, good: set[str], broken: set[str], took: float, watch: Watch) -> None:
    """Print what came of it."""
    predicted, refused = watch.predicted(), watch.refused()
    for what, wanted, found, other in (
        ("good scans predicted", good, predicted, set(refused)),
        ("broken scans refused", broken, set(refused), predicted),
    ):
        missing, wrong = (", ".join(sorted(names)) or "none" for names in (wanted - found, wanted & other))
        print(f"  {len(found & wanted)} of {len(wanted)} {what}; missing: {missing}; the other way round: {wrong}")
    rows = Registry(Store(home)).all()
    print(f"  registered: {len(rows)} slides of {len({row.uri for row in rows})} files")
    with instance(load_settings(home)) as opened:
        runs = Counter((r.job_name, r.status.value) for r in opened.get_runs())
        busy = [opened.get_run_records(dg.RunsFilter(run_ids=[r.run_id]))[0] for r in opened.get_runs()]
        twice = made_twice(opened)
    seconds = sum((r.end_time or 0) - (r.start_time or 0) for r in busy)
    print("  runs: " + ", ".join(f"{count} {job} {status}" for (job, status), count in sorted(runs.items())))
    print(f"  computed twice: {twice or 'none'}")
    print(f"  {took:.0f} s in all, {took / len(good):.1f} s a good scan, {seconds:.0f} s in runs")
    print(f"  all processes of Dagster had {watch.peak / 2**30:.1f} GiB at most", flush=True)


def ticks(home: Path, scans: int) -> None:
    """Print the time of the sensor's ticks over an inbox of scans with sidecars: new ones, then all of them registered."""
    for n in range(scans):
        folder = home / "inbox" / f"d{n % 50}"
        folder.mkdir(exist_ok=True)
        (folder / f"s{n:05d}.svs").write_text(f"no scan, but a text: {n}")
        (folder / f"s{n:05d}.yaml").write_text("organ: Breast\ntech: Visium\n")
    os.environ.update(CHOICE)
    settings, cursor = load_settings(home), ""
    with instance(settings) as opened:
        for what in ("new", "complete", "registered", "registered"):
            if what == "registered" and not Store(home).is_there():
                register_rows(home)
            context = dg.build_sensor_context(opened, cursor=cursor)
            began = time.time()
            result = new_scans(context, settings=settings)
            print(f"  {scans} scans, {what}: {time.time() - began:.1f} s", flush=True)
            cursor = str(getattr(result, "cursor", ""))


def register_rows(home: Path) -> None:
    """Register every file of the inbox as if it were a copy of one phantom: reading 5,000 scans would take longer."""
    store = Store(home)
    write_slide(draw_phantom(0, size_um=512), home / "one.tif")
    one = Registry(store).add(home / "one.tif", organ="Breast", tech="Visium")
    rows = [
        {**one.__dict__, "slide_id": Path(a.entry.scan).stem, "uri": a.entry.scan, "arrival": a.digest, "warnings": [],
         "sha256": a.digest * 2, "modified_ns": a.seen.modified_ns, "size_bytes": a.seen.size_bytes}
        for a in list_inbox([home / "inbox"]).arrivals
    ]  # fmt: skip
    store.lake.transact(lambda cursor: insert_rows(cursor, SLIDES, pa.Table.from_pylist(rows, SLIDES.schema)))


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slides", type=int, default=200)
    options.add_argument("--size", type=int, default=768, help="side of a phantom, µm")
    options.add_argument("--limit", type=float, default=3600, help="most time, s")
    options.add_argument("--kill", action="store_true")
    options.add_argument("--two", action="store_true", help="two daemons, code servers and web servers on the root")
    options.add_argument("--ticks", type=int, default=0, metavar="SCANS")
    given = options.parse_args()
    print(f"{cpu_model()}, {os.cpu_count()} cores, Python {platform_module.python_version()}", flush=True)
    os.environ["STPATH_INBOX_WAIT_S"] = str(WAIT_S)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        (home / "inbox").mkdir(parents=True)
        if given.ticks:
            ticks(home, given.ticks)
            return
        good, broken = draw(home / "inbox", given.slides, given.size)
        took, watch = wait(home, good, broken, list(KILLS) if given.kill else [], given.limit, given.two)
        report(home, good, broken, took, watch)


if __name__ == "__main__":
    main()
