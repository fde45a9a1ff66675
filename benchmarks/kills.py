"""Kills `stpath-assets run` over two phantoms at random moments: all that is registered is whole, a re-run ends the same.

    python -m benchmarks.kills [--times 40] [--seed 0] [--at-once 2]

Each time a data root with two registered phantoms is made anew, a run of it is killed with SIGKILL, every registered part is read
and compared with those of an undisturbed run, and the run is started again to its end. A run that ended before its kill is done
over, with an earlier moment.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stpath_assets.demo.phantom import draw_phantom, write_slide
from stpath_assets.demo.spots import simulate, write_spots
from stpath_assets.doctor.root import counts, tables
from stpath_assets.storage import Store

SLIDES = ("phantom_A", "phantom_B")
MEASURED = ("phantom_A",)
SIZE_UM = 768
"""Side of a phantom, half of the demo's: most of a run is then the program's own, where a kill may do harm."""

RUN = ("run", "--encoder", "demo", "--genes", "EPCAM,ERBB2,VIM")


def sa(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts a command on a data root."""
    program = [sys.executable, "-m", "stpath_assets", *arguments, "--home", str(home)]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def done(process: subprocess.Popen[bytes], what: str) -> None:
    """Waits for a command. Raises `SystemExit` where it fails."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{what} failed: {said.decode()}")


def content(home: Path) -> dict[str, bytes]:
    """The files of all registered parts, by table and slide."""
    store = Store(home)
    return {f"{p.table}/{p.slide_id}": store.path(p.table, p.slide_id).read_bytes() for p in store.parts() if p.file}


def registered(folder: Path) -> Path:
    """A data root with the two phantoms, nothing computed; one has measured spots."""
    home = folder / "registered"
    (folder / "scans").mkdir()
    for seed, slide_id in enumerate(SLIDES):
        phantom = draw_phantom(seed, size_um=SIZE_UM)
        write_slide(phantom, folder / "scans" / f"{slide_id}.tif")
        known = ["--organ", "Breast", "--tech", "Visium"]
        if slide_id in MEASURED:
            known += ["--spots", str(write_spots(simulate(phantom, seed), folder / "scans", slide_id))]
        done(sa(home, "add", str(folder / "scans" / f"{slide_id}.tif"), *known), "add")
    return home


def kill_once(start: Path, home: Path, expected: dict[str, bytes], draw: Callable[[], float]) -> tuple[bool, str]:
    """Kills a run of a copy of `start` and runs it again: whether nothing was lost, and what happened."""
    while True:
        shutil.copytree(start, home)
        process, after_s = sa(home, *RUN), draw()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            break
        shutil.rmtree(home)
    store, left = Store(home), content(home)
    checks = [tables(store), counts(store)]
    whole = all(c.ok for c in checks) and all(expected[k] == v for k, v in left.items())
    done(sa(home, *RUN), "run after a kill")
    same = content(home) == expected and not list((home / "tables").rglob("*.tmp"))
    shutil.rmtree(home)
    how = f"{'whole' if whole else 'NOT WHOLE'}; re-run {'the same' if same else 'NOT THE SAME'}"
    return whole and same, f"killed after {after_s:.1f} s, {len(left)} of {len(expected)} parts registered, {how}"


def main() -> int:
    """Prints a line a kill and what it came to; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="kills side by side")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stpath-kills-") as temp, ThreadPoolExecutor(asked.at_once) as pool:
        folder = Path(temp)
        start, whole = registered(folder), folder / "whole"
        shutil.copytree(start, whole)
        began = time.monotonic()
        done(sa(whole, *RUN), "run")
        took, expected = time.monotonic() - began, content(whole)
        rng = random.Random(asked.seed)

        def draw() -> float:
            return rng.uniform(0.15, 1.3) * took  # two runs side by side take longer than one alone

        kills = [pool.submit(kill_once, start, folder / f"killed{i}", expected, draw) for i in range(asked.times)]
        outcomes = []
        for i, kill in enumerate(kills, 1):
            outcomes.append(kill.result())
            print(f"{i:2}: {outcomes[-1][1]}", flush=True)
    lost = sum(not ok for ok, _ in outcomes)
    print(f"{asked.times} kills, {lost} with a loss; an undisturbed run took {took:.1f} s; {os.cpu_count()} cores")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
