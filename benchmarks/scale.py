"""A data root of thousands of slides as small synthetic parts: what stays usable, and what each slide costs.

    python -m benchmarks.scale [--slides 5000] [--tiles 40]

Measures the sensor's tick, the page of an asset's partitions, the catalog, status, doctor, retire and maintain, and counts
files and bytes. docs/scale.md works out from them what larger cohorts cost.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.backfills import Platform


def timed(what: str, work: Callable[[], object]) -> None:
    """Print how long some work takes, and what it returns."""
    began = time.perf_counter()
    found = work()
    print(f"{what}: {time.perf_counter() - began:.2f} s{'' if found is None else f' ({found})'}", flush=True)


def bytes_and_files(folder: Path) -> tuple[int, int]:
    """Return the bytes and the number of the files below a folder."""
    files = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return sum(files), len(files)


def run(home: Path, *words: str) -> None:
    """Print how long a command takes. `doctor` may end with 1: what it finds of weights here is no matter."""
    program = [sys.executable, "-m", "stpath_assets", *words, "--home", str(home)]
    began = time.perf_counter()
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if ended.returncode not in ((0, 1) if words[0] == "doctor" else (0,)):
        raise SystemExit(f"{words[0]}: exit code {ended.returncode}: {ended.stderr[-300:]}")
    print(f"{words[0]}: {took:.2f} s", flush=True)


def dagster(home: Path, slides: int) -> None:
    """Give every slide a partition and an event, and ask for the page that shows them."""
    import dagster as dg

    from benchmarks.backfills import Platform
    from benchmarks.catalog_roots import slide_name
    from stpath_assets.defs.materialize import instance, sync_partitions
    from stpath_assets.settings import load_settings

    settings = load_settings(home)
    timed("partitions of all slides made", lambda: len(sync_partitions(settings)))
    with instance(settings) as opened:
        began = time.perf_counter()
        for i in range(slides):
            opened.report_runless_asset_event(dg.AssetMaterialization("stpath_predictions", partition=slide_name(i)))
        events = time.perf_counter() - began
    history, _ = bytes_and_files(home / "dagster")
    print(
        f"an event of a slide, and its history: {1e3 * events / slides:.1f} ms, {history / slides / 1e3:.1f} kB",
        flush=True,
    )
    platform = Platform(home)
    try:
        platform.wait_until_up()
        for turn in ("first", "again"):
            timed(f"page of an asset's partitions, {turn}", lambda: _partitions(platform, slides))
    finally:
        platform.stop()


def _partitions(platform: "Platform", slides: int) -> str:
    query = """{ assetNodeOrError(assetKey: {path: ["stpath_predictions"]}) { ... on AssetNode {
        partitionKeys assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } } } } }"""
    node = platform.ask(query)["assetNodeOrError"]
    made = len(node["assetPartitionStatuses"]["materializedPartitions"])
    if made != slides:
        raise SystemExit(f"{made} of {slides} partitions are shown as made")
    return f"{made} of {len(node['partitionKeys'])} made"


def catalog(home: Path) -> None:
    """Ask what an analyst asks."""
    from stpath_assets.catalog.query import query
    from stpath_assets.settings import load_settings

    def ask(question: str) -> int:
        with query(load_settings(home), question) as result:
            return sum(batch.num_rows for batch in result.batches())

    for what, question in (
        ("slides by organ", "select organ, count(*) from slides group by 1"),
        ("one gene of all tiles", "select avg(expression_log1p) from stpath_predictions where gene = 'EPCAM'"),
        ("one gene by slide", "select count(*) from expression_by_slide where gene = 'EPCAM'"),
    ):
        timed(f"catalog, {what}, rows", lambda question=question: ask(question))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=5000)
    parser.add_argument("--tiles", type=int, default=40, help="tiles a slide")
    asked = parser.parse_args()
    os.environ["BENCHMARK_TILES"] = str(asked.tiles)  # of the processes that write them, too

    from benchmarks.catalog_roots import Roots, slide_name
    from benchmarks.inbox import ticks
    from benchmarks.tiles import cpu_model

    print(f"{cpu_model()}, {os.cpu_count()} cores; {asked.slides} slides of {asked.tiles} tiles", flush=True)
    with tempfile.TemporaryDirectory(prefix="stpath-scale-") as temp:
        inbox = Path(temp) / "inbox-root"
        (inbox / "inbox").mkdir(parents=True)
        ticks(inbox, asked.slides)
        roots = Roots(Path(temp) / "roots", [asked.slides])
        timed("written", roots.grow)
        home = roots.root(asked.slides)
        size, files = bytes_and_files(home / "tables")
        lake_kb = (home / "lake.sqlite").stat().st_size / asked.slides / 1e3
        print(f"tables: {size / 1e9:.2f} GB in {files} files; lake.sqlite: {lake_kb:.1f} kB a slide", flush=True)
        dagster(home, asked.slides)
        for words in (["status", "--json"], ["doctor", "--no-checksums"], ["retire", slide_name(1)]):
            run(home, *words)
        catalog(home)
        run(home, "maintain")
        size, files = bytes_and_files(home / "tables")
        print(f"tables after maintain: {size / 1e9:.2f} GB in {files} files", flush=True)
        run(home, "status", "--json")


if __name__ == "__main__":
    main()
