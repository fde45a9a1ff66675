"""Injects faults at random moments over the whole pipeline, and prints what they came to: `make soak`.

    python -m tests.faults.soak [--kills 200] [--writes 200] [--pairs 90] [--clocks 20] [--fuzz 2000] [--seed 0]

`--fuzz` is the number of damaged scans, and of other damaged files.

Ends with 1 if anything was lost. `make test` runs it with a few of each.
"""

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness import (
    Fault,
    Tally,
    Work,
    fault_once,
    jump_once,
    kill_once,
    pair_once,
    pairs_of,
    prepare,
    start,
)

HOURS = 3600
JUMPS_S = (-400 * 24 * HOURS, -2 * HOURS, 2 * HOURS, 400 * 24 * HOURS)
"""Seconds by which the clock jumps: a battery that died, a change of daylight saving time, a year that was guessed."""


Once = Callable[[int, Tally], None]
"""Injects the i-th fault of a series, and tallies what it came to."""


def kills(works: list[Work], rng: random.Random, folder: Path) -> Once:
    """SIGKILL at random moments. Longer work is killed more often, so that all moments are alike."""

    def once(i: int, tally: Tally) -> None:
        # Each kind of work once; then by its length.
        work = works[-1 - i] if i < len(works) else rng.choices(works, [w.seconds for w in works])[0]
        kill_once(work, folder / "killed", rng, tally)

    return once


def writes(works: list[Work], rng: random.Random, folder: Path) -> Once:
    """Writes that fail: once or from a moment on, of a full or broken disk, or short."""

    def once(i: int, tally: Tally) -> None:
        work = works[i % len(works)]
        kind = rng.choice(("ENOSPC", "ENOSPC", "EIO", "EIO", "short"))
        fault = Fault(kind, rng.randint(1, max(1, work.writes)), rng.choice((0, 0, 1)) if kind != "short" else 0)
        fault_once(work, folder / "faulty", fault, tally)

    return once


def pairs(works: list[Work], rng: random.Random, folder: Path) -> Once:
    """Two of everything at once."""
    all_pairs = pairs_of(works)
    return lambda i, tally: pair_once(all_pairs[i % len(all_pairs)], folder / "shared", rng, tally)


def clocks(works: list[Work], rng: random.Random, folder: Path) -> Once:
    """A wall clock that jumps in the middle of the work."""

    def once(i: int, tally: Tally) -> None:
        work = works[i % len(works)]
        jump_once(work, folder / "jumped", rng.choice(JUMPS_S), rng.randint(1, max(1, work.writes)), tally)

    return once


def tallied(what: str, times: int, once: Once) -> Tally:
    """Injects the faults of a series one by one, and tells of each loss at once."""
    tally, told = Tally(what), 0
    for i in range(times):
        once(i, tally)
        for loss in tally.lost[told:]:
            print(f"  LOST {loss}", flush=True)
        told = len(tally.lost)
        if (i + 1) % 10 == 0:
            print(f"  {what}: {i + 1} of {times}, {told} lost", flush=True)
    print(tally, flush=True)
    return tally


def main() -> int:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=90)
    parser.add_argument("--clocks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fuzz", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="without work that replaces parts")
    parser.add_argument("--replay", help="one failing write again, as WORK:KIND:AT:TIMES, such as stages:EIO:500:0")
    asked = parser.parse_args()
    folder, began = start(), time.monotonic()
    found = [fuzzed(of, asked.fuzz, asked.seed, folder) for of in ("scans", "others")] if asked.fuzz else []
    works = prepare(folder, asked.quick)
    for work in works:
        print(f"undisturbed: {work.name}, {work.seconds:.1f} s, {work.writes} writes", flush=True)
    if asked.replay:
        name, kind, at, times = asked.replay.split(":")
        tally, work = Tally("replay"), next(w for w in works if w.name == name)
        fault_once(work, folder / "faulty", Fault(kind, int(at), int(times)), tally)
        print(tally, *tally.lost, sep="\n")
        return int(bool(tally.lost))
    series = (
        ("kill -9", asked.kills, kills), ("failing writes", asked.writes, writes), ("pairs at once", asked.pairs, pairs),
        ("clock jumps", asked.clocks, clocks),
    )  # fmt: skip
    tallies = [
        tallied(what, times, make(works, random.Random(asked.seed), folder)) for what, times, make in series if times
    ]
    print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s")
    wrong = any(t.lost for t in tallies) or any(not line.endswith(" 0 wrong") for line in found)
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return int(wrong)


def fuzzed(of: str, times: int, seed: int, folder: Path) -> str:
    """Damaged files, in a process of its own: reading them starts threads, which what forks must not have."""
    program = [sys.executable, "-m", "tests.faults.fuzzing", of, str(times), str(seed), str(folder / f"fuzz-{of}")]
    lines = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    print("\n".join(lines), flush=True)
    return lines[-1]


if __name__ == "__main__":
    sys.exit(main())
