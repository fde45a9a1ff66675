"""A cohort's questions at the size of a study: `python -m benchmarks.cohort`.

200 slides × 1,500 tiles × 1,000 genes, 300 million values, made by `cohort_roots`; beside them a loop over backed h5ad files and
long Parquet files with the same values. Each question is asked in a process of its own, whose memory is measured.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.__main__ import ROOT, Row
from benchmarks.catalog import report
from benchmarks.cohort_roots import Cohort, grow, slide_name
from stpath_assets.catalog.views import bring_up
from stpath_assets.prediction.predict import round_blocks
from stpath_assets.storage import maintenance
from stpath_assets.storage.by_gene import tables_of_blocks, write_parquet
from stpath_assets.tables import STPATH_PREDICTIONS

DOCS = ROOT / "docs" / "benchmarks-cohort.md"
MB = 2**20
TIMES = 9
QUESTIONS = {
    "one gene over the cohort": "select slide_id, avg(expression_log1p) from stpath_predictions where gene = '{gene}' group by 1",
    "expression_by_slide for one gene": "select * from expression_by_slide where gene = '{gene}'",
    "a gene map of one slide": "from gene_map('{slide}', '{gene}')",
    "the same by tile_expression": "select * from tile_expression where slide_id = '{slide}' and gene = '{gene}'",
    "hotspots of a gene in one slide": "from hotspots('{slide}', '{gene}')",
    "two genes over the cohort": "from gene_pair('{gene}', '{other}')",
    "all genes of one slide by z": "select gene, z from expression_by_slide where slide_id = '{slide}' order by z desc",
    "genes of one tile by z": "from tile_genes('{slide}', '{tile}')",
    "batch effect of all genes": "from batch_effect('vendor') order by epsilon2 desc",
    "20 nearest tiles": "from neighbours('{slide}', '{tile}')",
}


def ask(cohort: Cohort, question: str, times: int = TIMES) -> dict[str, float]:
    """Times and memory of a question about some slides and genes, in a new process (`asking`)."""
    tile = str(cohort.tile_ids()[cohort.tiles // 3])
    words = [
        {
            "slide": slide_name((i * 79 + 13) % cohort.slides), "gene": cohort.panel[(i * 37 + 5) % cohort.genes], "tile": tile,
            "other": cohort.panel[-1],
        }
        for i in range(times + 1)
    ]  # fmt: skip
    place = {"root": str(cohort.root), "lake": cohort.lake, "tables": cohort.tables_at}
    request = json.dumps({**place, "sql": QUESTIONS[question], "words": words})
    command = [sys.executable, "-m", "benchmarks.asking", request]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def h5ad_files(cohort: Cohort, folder: Path) -> int:
    """Write an h5ad a slide, as anndata does without compression, and return their bytes."""
    import anndata
    import h5py
    import pandas as pd

    folder.mkdir()
    first = folder / f"{slide_name(0)}.h5ad"
    obs, var = pd.DataFrame(index=cohort.tile_ids().astype(str)), pd.DataFrame(index=cohort.panel)
    anndata.AnnData(cohort.values(0), obs=obs, var=var, obsm={"spatial": cohort.centers()}).write_h5ad(first)
    for i in range(1, cohort.slides):
        path = folder / f"{slide_name(i)}.h5ad"
        shutil.copyfile(first, path)
        with h5py.File(path, "r+") as file:
            file["X"][...] = cohort.values(i)
    return sum(p.stat().st_size for p in folder.iterdir())


def mean_by_h5ad(cohort: Cohort, folder: Path) -> float:
    """ms of a loop over backed h5ad files that reads one gene of each."""
    import anndata

    began = time.perf_counter()
    for i in range(cohort.slides):
        opened = anndata.read_h5ad(folder / f"{slide_name(i)}.h5ad", backed="r")
        float(np.asarray(opened[:, cohort.panel[5]].X).mean())
        opened.file.close()
    return (time.perf_counter() - began) * 1e3


def long_files(cohort: Cohort, folder: Path) -> int:
    """Write a Parquet file a slide with a row a value, sorted by gene, zstd; return their bytes."""
    folder.mkdir()
    ids, genes = pa.array(cohort.tile_ids(), pa.string()), pa.array(cohort.panel, pa.string())
    tile = pa.DictionaryArray.from_arrays(np.tile(np.arange(cohort.tiles, dtype=np.int32), cohort.genes), ids)
    gene = pa.DictionaryArray.from_arrays(np.repeat(np.arange(cohort.genes, dtype=np.int32), cohort.tiles), genes)
    for i in range(cohort.slides):
        flat = pa.array(np.ascontiguousarray(cohort.values(i).T).ravel())
        rows = pa.table({"tile_id": tile, "gene": gene, "expression_log1p": flat})
        pq.write_table(
            rows, folder / f"{slide_name(i)}.parquet", compression="zstd", use_dictionary=["tile_id", "gene"],
            column_encoding={"expression_log1p": "BYTE_STREAM_SPLIT"}, row_group_size=122_880,
        )  # fmt: skip
    return sum(p.stat().st_size for p in folder.iterdir())


def mean_by_long(cohort: Cohort, folder: Path) -> float:
    """ms of one gene over the long files, by DuckDB."""
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        took = []
        for i in range(3):
            began = time.perf_counter()
            connection.execute(
                f"select filename, avg(expression_log1p) from read_parquet('{folder}/*.parquet', filename = true) "
                f"where gene = '{cohort.panel[(i * 37 + 5) % cohort.genes]}' group by all"
            ).fetchall()
            took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)


def stored_bytes(cohort: Cohort) -> dict[str, int]:
    """Bytes of the current parts of each table."""
    rows = cohort.store.rows(
        "select table_name, sum(size_bytes) from (select distinct on (file) * from lake.parts.lineage) group by 1"
    )
    return {table: int(size or 0) for table, size in rows}


def maintain(cohort: Cohort) -> float:
    """Seconds that `maintain` takes."""
    began = time.perf_counter()
    maintenance.maintain(cohort.store, timedelta(days=30))
    return time.perf_counter() - began


def question_rows(cohort: Cohort, when: str, h5ad_ms: float | None, targets: bool) -> Iterator[Row]:
    """Each question, with its memory."""
    most = 0.0
    for question in QUESTIONS:
        if "nearest" in question and not cohort.features:
            continue
        r = ask(cohort, question, times=3 if "nearest" in question else TIMES)
        most, warm = max(most, r["mb"]), r["warm"]
        limit = {"expression_by_slide for one gene": 50, "a gene map of one slide": 30, "20 nearest tiles": 2000}.get(
            question
        )
        target = (f"≤ {limit:,} ms", warm <= limit) if limit and targets else ()
        figure = f"{warm:,.0f} ms warm, {r['first']:,.0f} ms first; {r['mb']:.0f} MB"
        yield Row(f"{cohort.slides:,} slides, {when}: {question}", figure, *target)
        if question == "one gene over the cohort" and h5ad_ms is not None:
            target = ("≥ 10×", h5ad_ms >= 10 * warm) if targets else ()
            yield Row("the same by a loop over backed h5ad files", f"{h5ad_ms:,.0f} ms: {h5ad_ms / warm:.0f}×", *target)
    yield Row(
        f"{cohort.slides:,} slides, {when}: most memory of a question", f"{most:.0f} MB", "≤ 1,024 MB", most <= 1024
    )


def study_rows(folder: Path, slides: int, tiles: int, genes: int) -> Iterator[Row]:
    """The study: growth, questions before and after `maintain`, bytes."""
    cohort, few = Cohort(folder, slides, tiles, genes), max(slides // 4, 2)
    began = time.perf_counter()
    grow(cohort, [few])
    yield Row(f"{slides:,} slides × {tiles:,} tiles × {genes:,} genes written", f"{time.perf_counter() - began:.0f} s")
    small, values = replace(cohort, slides=few), slides * tiles * genes
    for c in (small, cohort):
        bring_up(c.store)
    h5ad = h5ad_files(cohort, folder / "h5ad")
    h5ad_ms = mean_by_h5ad(cohort, folder / "h5ad")
    long = long_files(cohort, folder / "long")
    long_ms = mean_by_long(cohort, folder / "long")
    for question in ("one gene over the cohort", "expression_by_slide for one gene", "a gene map of one slide"):
        a, b = (ask(c, question)["warm"] for c in (small, cohort))
        yield Row(f"growth from {few:,} to {slides:,} slides: {question}", f"{a:,.0f} ms, {b:,.0f} ms: {b / a:.1f}×")
    yield from question_rows(cohort, "before maintain", h5ad_ms, False)
    yield Row("one gene over the cohort by long Parquet files", f"{long_ms:,.0f} ms")
    sizes = stored_bytes(cohort)
    yield Row("maintain", f"{maintain(cohort):.0f} s")
    yield from question_rows(cohort, "after maintain", h5ad_ms, True)
    ours = stored_bytes(cohort)["stpath_predictions"]
    best = min(h5ad, long)
    yield Row(
        "bytes a value: before, after maintain; long Parquet; h5ad",
        f"{sizes['stpath_predictions'] / values:.2f}, {ours / values:.2f}; {long / values:.2f}; {h5ad / values:.2f}",
        "≤ 1.5× the best", ours <= 1.5 * best,
    )  # fmt: skip
    for table in ("expression_by_slide", "gigapath_features", "tile_grids"):
        yield Row(f"{table}: bytes a slide", f"{sizes[table] / slides:,.0f}")
    yield from choice_rows(cohort, folder)


def choice_rows(cohort: Cohort, folder: Path) -> Iterator[Row]:
    """What the storage of predictions could be: genes per row group, codec, float16. One slide, read by DuckDB."""
    values, genes = cohort.values(0), cohort.panel
    error = float(np.max(np.abs(values.astype(np.float16).astype(np.float32) - values)))
    for what, group, codec, store_as in (
        ("16 genes a row group", 16, "zstd", "float32"), ("64 genes, as stored", 64, "zstd", "float32"),
        ("256 genes", 256, "zstd", "float32"), ("64 genes, snappy", 64, "snappy", "float32"),
        ("64 genes, not compressed", 64, "none", "float32"), ("64 genes, float16", 64, "zstd", "float16"),
    ):  # fmt: skip
        path = folder / "choice.parquet"
        blocks = round_blocks([(genes, values)], store_as)
        tables = list(
            tables_of_blocks(STPATH_PREDICTIONS, "s", {"tile_id": cohort.tile_ids()}, blocks, {"model": "stpath"})
        )
        began = time.perf_counter()
        write_parquet(path, STPATH_PREDICTIONS, tables, None, row_group=group, compression=codec)
        wrote, took = time.perf_counter() - began, []
        with duckdb.connect() as connection:
            connection.execute("set threads = 1")
            for i in range(40):
                query = f"select list_sum(expression_log1p) from '{path}' where gene = '{genes[(i * 37) % len(genes)]}'"
                began = time.perf_counter()
                connection.execute(query).fetchall()
                took.append((time.perf_counter() - began) * 1e3)
        a_value = path.stat().st_size / values.size
        figure = f"{a_value:.2f} bytes a value; one gene {statistics.median(took):.1f} ms; written in {wrote:.2f} s"
        more = f"; largest error {error:.1e} of values up to {values.max():.1f}" if store_as == "float16" else ""
        yield Row(f"one slide's predictions: {what}", figure + more)


def many_rows(folder: Path, slides: int, genes: int) -> Iterator[Row]:
    """Many slides of few genes: what the number of files costs."""
    cohort = Cohort(folder, slides, 400, genes, features=False)
    began = time.perf_counter()
    grow(cohort)
    bring_up(cohort.store)
    yield Row(f"{slides:,} slides × 400 tiles × {genes:,} genes written", f"{time.perf_counter() - began:.0f} s")
    yield from question_rows(cohort, "before maintain", None, False)
    yield Row(f"{slides:,} slides: maintain", f"{maintain(cohort):.0f} s")
    yield from question_rows(cohort, "after maintain", None, False)
    size = cohort.store.place.sqlite.stat().st_size
    yield Row(f"{slides:,} slides: lake.sqlite", f"{size / MB:.1f} MB, {size / slides:,.0f} bytes a slide")


def server_rows(folder: Path, slides: int, tiles: int, genes: int) -> Iterator[Row]:
    """The lake's metadata on Postgres, and its parts in an object store, both on this machine."""
    from tests.storage.servers import Postgres, object_store

    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        print("  (no Postgres server here: left out)", file=sys.stderr)
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stpath-postgres-")))
        place.chmod(0o700)
        server = Postgres(programs[-1].parent, place)
        stack.callback(server.stop)
        for what, on_s3 in (("Postgres", False), ("Postgres and S3", True)):
            cohort = Cohort(
                folder / what.replace(" ", "_"), slides, tiles, genes, lake=server.create(f"lake_{uuid.uuid4().hex}")
            )
            if on_s3:
                import boto3

                address = stack.enter_context(object_store())
                os.environ |= {
                    "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "any",
                    "AWS_SECRET_ACCESS_KEY": "any-secret",
                }  # fmt: skip
                boto3.client("s3").create_bucket(Bucket="lake")
                cohort = replace(cohort, tables_at="s3://lake/tables")
            began = time.perf_counter()
            grow(cohort)
            bring_up(cohort.store)
            wrote = time.perf_counter() - began
            yield Row(f"{what}: {slides} slides × {tiles:,} tiles × {genes:,} genes written", f"{wrote:.0f} s")
            yield Row(f"{what}: maintain", f"{maintain(cohort):.0f} s")
            for question in list(QUESTIONS)[:3] + list(QUESTIONS)[-1:]:
                r = ask(cohort, question, times=3)
                yield Row(f"{what}: {question}", f"{r['warm']:,.0f} ms warm; {r['mb']:.0f} MB")


def text(command: str, lines: Sequence[str]) -> str:
    """docs/benchmarks-cohort.md."""
    return f"""# Benchmarks: a cohort's questions

    {command}

Synthetic slides, written by the storage itself: smooth fields with noise of a tenth, in float32; features of 1536 random numbers
around 30 types of tissue; the slides' summaries as the stage makes them. All files are in the page cache. Each question is asked
in a process of its own: once, then {TIMES} times of other slides and genes on the same connection, of which the median is given.
Memory is the peak of that process. `stpath-assets sql` also starts Python and attaches the lake, some 0.5 s. DuckDB has two
threads.

- *Backed h5ad files*: a loop that opens a file a slide with `anndata.read_h5ad(backed="r")` and reads the gene's column.
- *Long Parquet*: a file a slide with a row a value, sorted by gene, dictionaries for tile and gene, zstd.
- *S3* is moto's server on this machine, a single process: its times say that it works, not how fast a real object store is.

{chr(10).join(lines)}

What was chosen: 64 genes a row group, byte-stream-split and zstd. Merged files are sorted by gene, so that one gene of a cohort
is in few row groups, of {maintenance.MERGED_ROWS} rows: a query for the keys looks at each row group, so more of them make a map
slower. The keys of {maintenance.HEADS} slides have a row group of their own. Float16 is an option (`store_as`).
"""


def all_rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Every measurement."""
    yield from study_rows(folder / "study", options.slides, options.tiles, options.genes)
    if options.many:
        slides, genes = map(int, options.many.split(","))
        yield from many_rows(folder / "many", slides, genes)
    if options.servers:
        yield from server_rows(folder, 20, options.tiles, min(options.genes, 200))


def main() -> int:
    """Measures, prints and, if asked, writes; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cohort", description=__doc__)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--tiles", type=int, default=1500)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument(
        "--many", default="2000,200", help="slides and genes of the root of many files; empty: leave it out"
    )
    parser.add_argument("--servers", action="store_true", help="also on Postgres and an object store of this machine")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks-cohort.md")
    options = parser.parse_args()
    command = " ".join(["python -m benchmarks.cohort", *sys.argv[1:]])
    return report(partial(all_rows, options), options.write, DOCS, partial(text, command))


if __name__ == "__main__":
    sys.exit(main())
