"""A data root of thousands of slides as small synthetic parts: what stays usable, and what each slide costs.

    python -m benchmarks.scale [--slides 5000] [--tiles 40]

Measures the sensor's tick, the page of an asset's partitions, the catalog, status, doctor, retire and maintain, and counts
files and bytes. docs/scale.md works out from them what larger cohorts cost.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def timed(what: str, work: Callable[[], object]) -> None:
    """Print how long some work takes, and what it returns."""
    began = time.perf_counter()
    found = work()
    print(f"{what}: {time.perf_counter() - began:.2f} s{'' if found is None else f' ({found})'}", flush=True)


def bytes_and_files(folder: Path) -> tuple[int, int]:
    """Return the bytes and the number of the files below a folder."""
    files = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return sum(files), len(files)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=5000)
    parser.add_argument("--tiles", type=int, default=40, help="tiles a slide")
    asked = parser.parse_args()
    os.environ["BENCHMARK_TILES"] = str(asked.tiles)

    import dagster as dg

    from benchmarks.backfills import Platform
    from benchmarks.catalog_commands import command, seconds
    from benchmarks.catalog_roots import Roots, slide_name
    from benchmarks.inbox import ticks
    from benchmarks.tiles import cpu_model
    from stpath_assets.catalog.query import query
    from stpath_assets.defs.materialize import instance, sync_partitions
    from stpath_assets.storage import Store

    print(f"{cpu_model()}, {os.cpu_count()} cores; {asked.slides} slides of {asked.tiles} tiles", flush=True)
    with tempfile.TemporaryDirectory(prefix="stpath-scale-") as temp:
        folder = Path(temp)
        inbox = folder / "inbox-root"
        (inbox / "inbox").mkdir(parents=True)
        ticks(inbox, asked.slides)
        roots = Roots(folder / "roots", [asked.slides])
        timed("written", roots.grow)
        home, settings = roots.root(asked.slides), roots.settings(asked.slides)
        size, files = bytes_and_files(home / "tables")
        lake, _ = (
            bytes_and_files(home / "lake.sqlite")
            if (home / "lake.sqlite").is_dir()
            else ((home / "lake.sqlite").stat().st_size, 1)
        )
        print(
            f"tables: {size / 1e9:.2f} GB in {files} files; lake.sqlite: {lake / asked.slides / 1e3:.1f} kB a slide",
            flush=True,
        )

        timed("partitions of all slides made", lambda: sync_partitions(settings) and None)
        with instance(settings) as opened:
            began = time.perf_counter()
            for i in range(asked.slides):
                opened.report_runless_asset_event(
                    dg.AssetMaterialization("stpath_predictions", partition=slide_name(i))
                )
            events = time.perf_counter() - began
        history, _ = bytes_and_files(home / "dagster")
        each = f"{1e3 * events / asked.slides:.1f} ms, {history / asked.slides / 1e3:.1f} kB"
        print(f"an event of a slide, and its history: {each}", flush=True)
        platform = Platform(home)
        try:
            platform.wait_until_up()
            for turn in ("first", "again"):
                timed(f"page of an asset's partitions, {turn}", lambda: _partitions(platform, asked.slides))
        finally:
            platform.stop()

        for words in (["status", "--json"], ["doctor", "--no-checksums"], ["retire", slide_name(1)]):
            try:
                print(f"{words[0]}: {seconds(command(*words, '--home', str(home))):.2f} s", flush=True)
            except SystemExit as e:  # doctor: what it finds of weights and devices on this machine is no matter here
                timed(f"{words[0]} (exit code 1)", lambda e=e: str(e)[:0] or None)
        for what, question in (
            ("catalog, slides by organ", "select organ, count(*) from slides group by 1"),
            (
                "catalog, one gene of all tiles",
                "select avg(expression_log1p) from stpath_predictions where gene = 'EPCAM'",
            ),
            ("catalog, one gene by slide", "select count(*) from expression_by_slide where gene = 'EPCAM'"),
        ):
            timed(what, lambda question=question: _ask(query, settings, question))
        timed("maintain", lambda: seconds(command("maintain", "--home", str(home))) and None)
        size, files = bytes_and_files(home / "tables")
        print(f"tables after maintain: {size / 1e9:.2f} GB in {files} files", flush=True)
        print(f"status after maintain: {seconds(command('status', '--json', '--home', str(home))):.2f} s", flush=True)
        assert len(Store.of(settings).slide_ids("slides")) == asked.slides


def _ask(query: "Callable[..., object]", settings: object, question: str) -> None:
    with query(settings, question) as result:  # type: ignore[attr-defined]
        list(result.batches())


def _partitions(platform: "object", slides: int) -> str:
    query = """{ assetNodeOrError(assetKey: {path: ["stpath_predictions"]}) { ... on AssetNode {
        partitionKeys assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } } } } }"""
    node = platform.ask(query)["assetNodeOrError"]  # type: ignore[attr-defined]
    made = len(node["assetPartitionStatuses"]["materializedPartitions"])
    if made != slides:
        raise SystemExit(f"{made} of {slides} partitions are shown as made")
    return f"{made} of {len(node['partitionKeys'])} made"


if __name__ == "__main__":
    main()
