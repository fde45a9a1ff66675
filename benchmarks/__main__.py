"""Runs the benchmarks and prints their table; with --write puts it into docs/benchmarks.md."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "benchmarks.md"

Ask = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, the figure, what it has to be, whether it is."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        return f"| {self.what} | {self.figure} | {self.target} | {'' if self.met is None else 'yes' if self.met else 'NO'} |"


def rows(ask: Ask) -> Iterator[Row]:
    """The default set."""
    for n, repeats in ((1426, 9), (4000, 7)):
        r = ask("compare", n, a="ours", b="plain_reading", repeats=repeats)
        yield Row(
            f"{n:,} tiles, 5 genes: engine, plain reading", f"{r['a']:.2f} s, {r['b']:.2f} s: {r['ratio']:.1f}×", "≥ 8×",
            r["ratio"] >= 8,
        )  # fmt: skip
        for b in ("each_block", "distances_alone"):
            r = ask("compare", n, a="ours", b=b, repeats=3)
            yield Row(f"the same, {b.replace('_', ' ')}", f"{r['a']:.2f} s, {r['b']:.2f} s: {r['ratio']:.1f}×")
    yield Row("4,000 tiles: matrix products in the engine's time", f"{ask('products', 4000)['share']:.0%}")
    ours, theirs = (ask("memory", 4000, a=a)["mb"] for a in ("ours", "plain_reading"))
    yield Row(
        "4,000 tiles: memory of engine, plain reading", f"{ours:.0f} MB, {theirs:.0f} MB: {theirs / ours:.0f}×", "≥ 4×",
        theirs / ours >= 4,
    )  # fmt: skip
    for n, repeats in ((4000, 5), (10_000, 3)):
        r = ask("compare", n, a="without_bias", b="ours", repeats=repeats)
        yield Row(
            f"{n:,} tiles: engine, the network without bias through SDPA",
            f"{r['b']:.2f} s, {r['a']:.2f} s: {r['ratio']:.2f}×", "≤ 1.6×", r["ratio"] <= 1.6,
        )  # fmt: skip
    r = ask("memory", 20_000, a="ours")
    yield Row("20,000 tiles, 5 genes: memory", f"{r['mb']:.0f} MB ({r['seconds']:.0f} s)", "≤ 500 MB", r["mb"] <= 500)
    r = ask("compare", 1426, a="five_and_dense", b="store_all", repeats=3)
    yield Row(
        "1,426 tiles, all 38,982 genes into a table; 5 genes and a dense head",
        f"{r['b']:.2f} s, {r['a']:.2f} s: {r['ratio']:.2f}×", "≤ 3×", r["ratio"] <= 3,
    )  # fmt: skip
    r = ask("memory", 1426, a="store_all")
    yield Row("the same: memory", f"{r['mb']:.0f} MB", "≤ 400 MB", r["mb"] <= 400)
    r = ask("bytes", 1426)
    yield Row("the same: stored", f"{r['bytes_a_value']:.2f} bytes a value", "≤ 3.5", r["bytes_a_value"] <= 3.5)
    r = ask("agree", 1426)
    yield Row("1,426 tiles: largest difference from the plain reading", _error(r), "< 1e-4", r["error"] < 1e-4)
    r = ask("agree", 1426, dtype="bfloat16", other_dtype="float32")
    yield Row("the same: bfloat16 from float32", _error(r))


def long_rows(ask: Ask) -> Iterator[Row]:
    """What takes minutes."""
    r = ask("memory", 50_000, a="ours")
    yield Row("50,000 tiles, 5 genes: time", f"{r['seconds']:.0f} s", "finishes", True)
    yield Row("50,000 tiles, 5 genes: memory", f"{r['mb']:.0f} MB", "≤ 1,500 MB", r["mb"] <= 1500)


def _error(r: dict[str, Any]) -> str:
    return f"{r['error']:.1e} (values up to {r['largest']:.1f})"


def machine() -> str:
    """The machine in words, without its name."""
    import torch

    info = Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"model name\s*:\s*(.+)", info)
    # A name such as "AMD EPYC" says little: two generations of it differ twofold here.
    family = re.search(r"cpu family\s*:\s*(\d+)", info)
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    name = (cpu[1] if cpu else platform.machine()) + (f" (family {family[1]})" if family else "")
    return (
        f"{name}, {os.cpu_count()} cores, {gib:.0f} GiB; "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, 2 threads"
    )


def asking(folder: Path) -> Ask:
    """Has a measurement taken in a fresh process with the weights of a folder."""
    # Threads that wait sleep: what else runs on the machine then disturbs less.
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"}

    def ask(what: str, n: int, **rest: Any) -> dict[str, Any]:
        request = json.dumps({"what": what, "n": n, "folder": str(folder), **rest})
        command = [sys.executable, "-m", "benchmarks.measure", request]
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        if result.get("noise", 0) > 0.05:
            print(f"  (other processes took up to {result['noise']:.0%} of the processors)", file=sys.stderr)
        return result

    return ask


def write(block: str, table: str) -> None:
    """Replaces a marked block of docs/benchmarks.md."""
    text = DOCS.read_text()
    begin, end = f"<!-- {block} -->\n", f"<!-- end of {block} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    DOCS.write_text(f"{head}{begin}{table}\n{end}{tail}")


def main() -> int:
    """Runs, prints and, if asked, writes; 1 where a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--long", action="store_true", help="50,000 tiles as well, some minutes")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    options = parser.parse_args()
    from benchmarks.measure import write_weights

    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder))
        ask = asking(Path(folder))
        for block, some in (("engine", rows), *((("long", long_rows),) if options.long else ())):
            lines = [f"{machine()}.", "", "| measured | figure | target | met |", "|---|---|---|---|"]
            print("\n".join(lines), flush=True)
            for row in some(ask):
                lines.append(str(row))
                print(row, flush=True)
                missed += row.met is False
            if options.write:
                write(block, "\n".join(lines))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
