"""Kills `stpath-assets run` over two phantoms at random moments: all that is registered is whole, a re-run ends the same.

    python -m benchmarks.kills [--times 40] [--seed 0]

Each time a data root with two registered phantoms is made anew, a run of it is killed with SIGKILL, every registered part is read
and compared with those of an undisturbed run, and the run is started again to its end. Takes about a quarter of an hour.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stpath_assets.demo import write_phantom
from stpath_assets.doctor.root import counts, tables
from stpath_assets.storage import Store

SLIDES = ("phantom_A", "phantom_C")
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
    """A data root with the two phantoms, nothing computed."""
    home = folder / "registered"
    for slide_id in SLIDES:
        slide = write_phantom(folder / "scans", slide_id)
        spots = ["--spots", str(slide.spots)] if slide.spots else []
        done(sa(home, "add", str(slide.slide), "--organ", "Breast", "--tech", "Visium", *spots), "add")
    return home


def main() -> int:
    """Prints a line a kill and what it came to; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, bad = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory(prefix="stpath-kills-") as temp:
        start = registered(Path(temp))
        whole = Path(temp) / "whole"
        shutil.copytree(start, whole)
        began = time.monotonic()
        done(sa(whole, *RUN), "run")
        took = time.monotonic() - began
        expected = content(whole)
        for i in range(asked.times):
            home = Path(temp) / f"killed{i}"
            shutil.copytree(start, home)
            after_s = rng.uniform(0.15, 1) * took
            process = sa(home, *RUN)
            time.sleep(after_s)
            ended = process.poll() is not None
            process.kill()
            process.communicate()
            store = Store(home)
            left = content(home)
            checks = [tables(store), counts(store)]
            whole_parts = all(c.ok for c in checks) and all(expected[k] == v for k, v in left.items())
            done(sa(home, *RUN), "run after a kill")
            same = content(home) == expected
            leftovers = list((home / "tables").rglob("*.tmp"))
            bad += not (whole_parts and same and not leftovers)
            said = "ended before" if ended else f"killed after {after_s:.1f} s"
            how = f"{'whole' if whole_parts else 'NOT WHOLE'}; re-run {'the same' if same else 'NOT THE SAME'}"
            print(f"{i + 1:2}: {said}, {len(left)} of {len(expected)} parts registered, {how}", flush=True)
            shutil.rmtree(home)
    print(f"{asked.times} kills, {bad} with a loss; an undisturbed run took {took:.1f} s; {os.cpu_count()} cores")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
