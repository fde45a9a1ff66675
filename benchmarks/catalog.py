"""The lake at the size of a lab: questions, registration, commits, contention: `python -m benchmarks.catalog`.

Roots are synthetic (`catalog_roots`). What is compared takes turns in one run: what else the machine does falls upon both.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import duckdb

from benchmarks import catalog_commands as commands
from benchmarks import catalog_contention as contention
from benchmarks import catalog_queries as queries
from benchmarks.__main__ import ROOT, Row, machine
from benchmarks.catalog_roots import SCORED, Roots

DOCS = ROOT / "docs" / "benchmarks-catalog.md"
FEW = 10
_HEAD = ("| measured | figure | target | met |", "|---|---|---|---|")


def question_rows(roots: Roots, sizes: Sequence[int], folder: Path) -> Iterator[Row]:
    """One gene of one slide, and one gene of all: the lake, glob views and h5ad files, before and after `maintain`.

    Targets are those of the largest size: few files are quick in any way.
    """
    least: dict[str, float] = {}
    for n in sorted(sizes):
        largest, globs, h5ads = n == max(sizes), folder / f"glob_{n}", folder / f"h5ad_{n}"
        queries.write_glob_files(roots, n, globs)
        queries.write_h5ad_files(h5ads, n)
        one = queries.one_gene_of_one_slide(roots, n)
        glob_ms = queries.one_gene_by_glob(globs, n)
        yield from _one_rows(n, one, glob_ms, largest)
        if least:
            yield from _growth_rows(n, one, least)
        least = least or one
        glob_ms, (h5ad_ms, expected) = queries.mean_by_glob(globs, n), queries.mean_by_h5ad(h5ads, n)
        yield from _mean_rows(roots, n, "before maintain", (glob_ms, h5ad_ms, expected), False)
        yield Row(f"{n:,} slides: maintain", f"{queries.maintain(roots, n):.0f} s")
        yield from _mean_rows(roots, n, "after maintain", (glob_ms, h5ad_ms, expected), largest)
        one = queries.one_gene_of_one_slide(roots, n)
        yield Row(
            f"{n:,} slides: one gene of one slide after maintain", f"{one['ask']:.0f} ms; {one['warm']:.0f} ms warm"
        )


def _one_rows(n: int, one: dict[str, float], glob_ms: float, largest: bool) -> Iterator[Row]:
    what = f"{n:,} slides: one gene of one slide, from no connection to the rows"
    yield Row(what, f"{one['ask']:.0f} ms", *(("≤ 150 ms", one["ask"] <= 150) if largest else ()))
    figure = f"{one['set_up']:.0f} ms; {one['warm']:.0f} ms"
    yield Row("of it attaching the lake; the query alone on a warm connection", figure)
    ratio = glob_ms / one["warm"]
    figure = f"{glob_ms:,.0f} ms: {ratio:.1f}×"
    yield Row(f"{n:,} slides: the same by glob views, warm", figure, *(("≥ 10×", ratio >= 10) if largest else ()))


def _growth_rows(n: int, one: dict[str, float], least: dict[str, float]) -> Iterator[Row]:
    for kind, what in (("ask", "with the connection"), ("warm", "warm")):
        growth = one[kind] / least[kind]
        yield Row(f"growth up to {n:,} slides, {what}", f"{growth:.1f}×", "≤ 1.5×", growth <= 1.5)


def _mean_rows(roots: Roots, n: int, when: str, others: tuple[float, float, float], is_target: bool) -> Iterator[Row]:
    glob_ms, h5ad_ms, expected = others
    ms, mean = queries.mean_of_one_gene(roots, n)
    if abs(mean - expected) > 1e-5:
        raise SystemExit(f"the mean is {mean}, by h5ad {expected}")
    yield Row(f"{n:,} slides: one gene's mean over all, {when}", f"{ms:,.0f} ms")
    for what, other, factor in (("backed h5ad files", h5ad_ms, 10), ("glob views", glob_ms, 5)):
        target = (f"≥ {factor}×", other >= factor * ms) if is_target else ()
        yield Row(f"the same by {what}", f"{other:,.0f} ms: {other / ms:.1f}×", *target)


def command_rows(roots: Roots, n: int) -> Iterator[Row]:
    """`status`, `doctor`, one more `add` and a stage's commit at n slides, beside a root of a few."""
    whole, inside = commands.status(roots, n)
    yield Row(
        f"{n:,} slides: status --json", f"{whole:.1f} s, {inside:.1f} s of it the slides' states", "≤ 2 s", whole <= 2
    )
    whole, few = commands.doctor(roots, n)
    figure = f"{whole:.1f} s; {few:.1f} s at {FEW} slides"
    yield Row(f"{n:,} slides: doctor --no-checksums", figure, "≤ 5 s", whole <= 5)
    added = commands.add_one_more(roots, (FEW, n))
    for kind, what in (("process", "the command"), ("call", "Registry.add alone")):
        few, many = added[FEW][kind], added[n][kind]
        figure = f"{few:.2f} s, {many:.2f} s: {many / few:.2f}×"
        yield Row(f"one more add at {FEW} and {n:,} slides, {what}", figure, "≤ 1.5×", many <= 1.5 * few)
    took = commands.commit(roots, (FEW, n))
    for size in (FEW, n):
        r = took[size]
        figure = f"{r['write']:.0f} ms, {r['transact']:.0f} ms of it the transaction"
        yield Row(f"{size:,} slides: a stage's commit of new predictions", figure, "≤ 100 ms", r["write"] <= 100)


def contention_rows(roots: Roots, seconds: float) -> Iterator[Row]:
    """Four writers and four readers for a while."""
    outcome = contention.contend(roots, seconds)
    yield Row(f"4 writers, 4 readers, {seconds:g} s", outcome.text())
    writes, cohort = outcome.took("writes"), outcome.took("cohort queries")
    if writes and cohort:
        figure = f"{max(cohort):.2f} s; a write every {seconds / len(writes):.2f} s"
        yield Row("longest cohort query; interval of writes", figure, "longer", max(cohort) > seconds / len(writes))
    yield Row("conflicts that storage tried again", str(outcome.retries))
    for what, found in (("errors", outcome.errors), ("mixed results", outcome.mixed)):
        yield Row(what, str(len(found)), "0", not found)
        for line in found[:5]:
            print(f"  {line}", file=sys.stderr)


def demo_rows(folder: Path, before: Path) -> Iterator[Row]:
    """`make demo`'s command, beside that of an older checkout."""
    now, then = commands.demo(folder, before)
    yield Row("demo, before and now", f"{then:.1f} s, {now:.1f} s: {now / then:.2f}×", "≤ 1.15×", now <= 1.15 * then)


def all_rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Every measurement."""
    sizes = [int(n) for n in options.slides.split(",")]
    if options.before:
        yield from demo_rows(folder, options.before)
    roots = Roots(folder / "contended", [contention.SLIDES], contention.FIRST, scored=1)
    roots.grow()
    yield from contention_rows(roots, options.seconds)
    roots = Roots(folder / "roots", [FEW, *sizes, options.big])
    roots.grow()
    yield from command_rows(roots, options.big)
    yield from question_rows(roots, sizes, folder)


def text(command: str, lines: Sequence[str]) -> str:
    """docs/benchmarks-catalog.md."""
    return f"""# Benchmarks: the catalog

    {command}

Synthetic slides of 400 tiles × 200 genes, written by the storage itself, each with its parts of `tile_grids`, `gigapath_features`
(4 tiles of it) and `stpath_predictions`; one slide in {SCORED} has measured spots and scores. Their scans are stubs. They are
registered in bulk, 100 slides a transaction. All files are in the page cache.

- *Glob views* are the views of version 0.1, word for word: `read_parquet` over a file a slide. *Backed h5ad files* are a loop
  that opens a file a slide with `anndata.read_h5ad(backed="r")` and reads the gene's column.
- Figures are medians. What is compared takes turns in one run, on a machine that other work shared: the ratios say more than the
  times.
- What grows with the number of slides does so because DuckDB's SQLite scanner passes no filter on: each statement reads the list
  of all files, some 15 ms at 5,000 slides, and each look at `lineage` all of its rows. A commit is six statements.
- A writer stores predictions and scores of a slide in one stage, all of one number. A result is *mixed* where a slide has two
  numbers, or fewer values than it should. Readers are `catalog.query`, `Store.read_by_gene`, and two clients of plain DuckDB.

{chr(10).join(lines)}
"""


def where() -> str:
    """The machine and what the lake runs on."""
    return f"{machine().partition(';')[0]}; Python {platform.python_version()}, DuckDB {duckdb.__version__}."


def main() -> int:
    """Measures, prints and, if asked, writes; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__)
    parser.add_argument("--slides", default="200,2000", help="sizes of the roots that are asked  [200,2000]")
    parser.add_argument("--big", type=int, default=5000, help="size of the root that commands are run on  [5000]")
    parser.add_argument("--seconds", type=float, default=60, help="how long writers and readers contend  [60]")
    parser.add_argument("--before", type=Path, help="an older checkout, beside whose demo this one's is timed")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks-catalog.md")
    options = parser.parse_args()
    return report(
        partial(all_rows, options),
        options.write,
        DOCS,
        partial(text, " ".join(["python -m benchmarks.catalog", *sys.argv[1:]])),
    )


def report(rows: Callable[[Path], Iterator[Row]], write: bool, docs: Path, page: Callable[[Sequence[str]], str]) -> int:
    """Print measurements as they come, and write their page if asked; 1 where a target is missed."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="stpath-bench-") as folder:
        # Not the user's memory of hashes, and no settings from the environment.
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for name in [n for n in os.environ if n.startswith("STPATH_")]:
            del os.environ[name]
        lines = [where(), "", *_HEAD]
        print("\n".join(lines), flush=True)
        for row in rows(Path(folder)):
            lines.append(str(row))
            print(row, flush=True)
            missed += row.met is False
    if write:
        docs.write_text(page(lines))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
