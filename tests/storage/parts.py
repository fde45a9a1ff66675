"""Small parts, roots and processes for the tests of the storage.

Making a lake takes seconds, and a lake may be moved: tests work on copies of one that is made once.
"""

import multiprocessing
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from stpath_assets.storage import Store
from stpath_assets.storage.extensions import OFFLINE, load_extensions
from stpath_assets.storage.fingerprint import Fingerprint, start
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import (
    EVALUATION_METRICS,
    GIGAPATH_FEATURES,
    SLIDES,
    SPOT_EXPRESSION,
    STPATH_PREDICTIONS,
    TABLES,
)

METRICS, SPOTS, PREDICTIONS = EVALUATION_METRICS.name, SPOT_EXPRESSION.name, STPATH_PREDICTIONS.name
FEATURES, TILES, THROUGHPUT = GIGAPATH_FEATURES.name, "tile_grids", "gigapath_throughput"
SHA = "0" * 64
FINGERPRINT = start(slide_sha256=SHA, slide_mpp=0.5)
SECTIONS = {"knn:n": "ABCDE", "ridge:n": "BCDEF"}
"""Sections of a part, with their genes: others in each."""

FILES = [t.name for t in TABLES.values() if not t.inline]
VIEWED = [t for t in FILES if not TABLES[t].extended]
"""Tables of files whose view the storage defines; the catalog defines the others."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.storage.parts", "stpath_assets.storage.maintenance"])


def made_from(n: int) -> Fingerprint:
    """One fingerprint of many, all of the scan that `register` registers."""
    return start(slide_sha256=SHA, n=n)


def metrics(n: int = 3, mse: float = 0.5, slide_id: str = "a") -> pa.Table:
    rows = [
        {"slide_id": slide_id, "gene": f"G{i:06d}", "model": "stpath", "protocol": "p", "n_spots": i, "mse": mse}
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, EVALUATION_METRICS.schema)


def any_rows(table: str, slide_id: str = "a", n: int = 4) -> pa.Table:
    """Rows of any table that is not by gene: a few values of each column's type."""
    columns = []
    for i, field in enumerate(TABLES[table].schema):
        if field.name == "slide_id":
            columns.append(pa.array([slide_id] * n))
        elif pa.types.is_fixed_size_list(field.type):
            values = np.random.default_rng(i).standard_normal(n * field.type.list_size).astype(np.float32)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), field.type.list_size))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([np.arange(k + 1, dtype=np.float32) for k in range(n)], field.type))
        elif pa.types.is_string(field.type):
            columns.append(pa.array([f"{field.name} {k}" for k in range(n)]))
        elif pa.types.is_timestamp(field.type):
            columns.append(pa.array([datetime(2026, 1, 1 + k, tzinfo=UTC) for k in range(n)], field.type))
        else:
            columns.append(pa.array(np.arange(n) + i, field.type))
    return pa.table(columns, schema=TABLES[table].schema)


def write_prediction(
    store: Store, genes: Sequence[str], values: npt.NDArray, slide_id: str = "a", fingerprint: Fingerprint = FINGERPRINT
) -> Path:
    tiles = np.array([f"r{i:05d}c00000" for i in range(len(values))], object)
    store.write_by_gene(PREDICTIONS, slide_id, {"tile_id": tiles}, [(genes, values)], fingerprint, model="stpath-demo")
    return store.path(PREDICTIONS, slide_id)


def write_metrics(store: Store, rows: pa.Table, slide_id: str = "a", fingerprint: Fingerprint = FINGERPRINT) -> Path:
    store.write(METRICS, slide_id, rows, fingerprint)
    return store.path(METRICS, slide_id)


def write_any(store: Store, table: str, slide_id: str = "a", fingerprint: Fingerprint = FINGERPRINT) -> None:
    """A small part of any table that is stored in files."""
    spec = TABLES[table]
    if not spec.by_gene:
        store.write(table, slide_id, any_rows(table, slide_id), fingerprint)
        return
    keys = {k: np.array(["t1", "t2"], object) if k.endswith("_id") else np.array([1.5, 2.5]) for k in spec.keys}
    kind = np.int32 if table == SPOTS else np.float32
    values = np.random.default_rng(7).integers(0, 99, (2, 5)).astype(kind)
    if spec.section:
        sections = {name: (keys, [(list(genes), values + i)]) for i, (name, genes) in enumerate(SECTIONS.items())}
        store.write_sections(table, slide_id, sections, fingerprint, {"written": "by sections"})
        return
    constants = {} if table == SPOTS else {"model": "stpath"}
    store.write_by_gene(table, slide_id, keys, [(["A", "B", "C", "D", "E"], values)], fingerprint, **constants)


def content(store: Store, table: str, slide_id: str) -> Any:
    """All that is read of a part, comparable; the order of rows is no part of a table."""
    if TABLES[table].by_gene:
        return [_by_gene(store, table, slide_id, s) for s in (SECTIONS if TABLES[table].section else [None])]
    return sorted(repr(r) for r in store.read(table, slide_id).to_pylist())


def _by_gene(store: Store, table: str, slide_id: str, section: str | None) -> Any:
    part = store.read_by_gene(table, slide_id, section=section)
    blocks = list(store.read_blocks(table, slide_id, section))
    assert [gene for block in blocks for gene in block.genes] == part.genes
    assert np.concatenate([block.values.T for block in blocks]).T.tolist() == part.values.tolist()
    one = store.read_by_gene(table, slide_id, part.genes[1:2], section)
    assert (one.genes, one.values.tolist()) == (part.genes[1:2], part.values[:, 1:2].tolist())
    return section, part.genes, {k: v.tolist() for k, v in part.keys.items()}, part.values.tolist()


def contents(store: Store) -> dict[tuple[str, str], Any]:
    """All parts that are stored, by table and slide: what they were made from and what is in them."""
    return {(p.table, p.slide_id): (p.digest, p.row_count, content(store, p.table, p.slide_id)) for p in store.parts()}


def views(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all views that show parts."""
    return {t: sorted(store.rows(f"select * from lake.main.{t}"), key=repr) for t in VIEWED}


def register(store: Store, *slide_ids: str, status: str = "ready", sha256: str = SHA) -> None:
    """Puts slides into the register without a scan: the views show registered slides only."""
    store.create()
    for slide_id in slide_ids:
        known = {
            "slide_id": slide_id, "uri": f"/scans/{slide_id}.tif", "sha256": sha256, "size_bytes": 1, "width_px": 1,
            "height_px": 1, "mpp": 0.5, "mpp_source": "file", "backend": "tiffslide", "levels": 1,
            "status": status, "warnings": ["pale", "torn"], "registered_at": datetime(2026, 1, 1, tzinfo=UTC),
        }  # fmt: skip
        rows = pa.Table.from_pylist([known], SLIDES.schema)

        def work(cursor: Any, slide_id: str = slide_id, rows: pa.Table = rows) -> None:
            cursor.execute("delete from lake.parts.slides where slide_id = ?", [slide_id])
            insert_rows(cursor, SLIDES, rows)

        store.lake.transact(work)


@contextmanager
def killed_before_registration(store: Store) -> Iterator[None]:
    """What is written in the block ends as in a run that is killed between the rename of a file and its registration."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    store.create()
    with pytest.MonkeyPatch.context() as kill, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        kill.setattr(store.lake, "transact", killed)
        yield


def drafts(store: Store) -> list[Path]:
    return list(store.home.rglob(".*.tmp"))


def files(store: Store) -> set[str]:
    """The keys of all files among the tables."""
    return {key for key, _, _ in store.objects.listing()}


def plain_client(root: Path, at: int | None = None) -> duckdb.DuckDBPyConnection:
    """The lake as any DuckDB client attaches it, without a line of this project's storage but the path of its extensions."""
    client = duckdb.connect(config=OFFLINE)
    load_extensions(client, "sqlite_scanner", "ducklake")
    when = "" if at is None else f", snapshot_version {at}"
    client.execute(
        f"attach 'ducklake:sqlite:{root}/lake.sqlite' as l (read_only, data_path '{root}/tables/', override_data_path true{when})"
    )
    client.execute("use l.main")
    return client


def child(work: Any, *arguments: Any) -> ForkServerProcess:
    """Runs a function of a module in a new process, that begins without any connection of this one."""
    process = _processes.Process(target=work, args=arguments)
    process.start()
    return process


def pipe() -> tuple[Any, Any]:
    """Two ends of a pipe: what a child sends by the second, the first receives."""
    return _processes.Pipe(duplex=False)


def joined(*processes: ForkServerProcess, within_s: float = 60) -> list[int | None]:
    """The exit codes of processes that are waited for."""
    for process in processes:
        process.join(within_s)
    return [p.exitcode for p in processes]


def run_python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program in a new process. Its first argument is the data root."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=60, **options
    )


def write_two(store: Store) -> tuple[Any, Any]:
    """Slides a and b with a part of every table of files, one of them replaced: all contents, and what the views show."""
    register(store, "a", "b")
    for table in FILES:
        for slide_id in "ab":
            write_any(store, table, slide_id)
    store.write(METRICS, "a", metrics(3, 9.0), made_from(2))
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {9.0}
    seen = views(store)
    assert len(seen[PREDICTIONS]) == 20 + 40 + 40, "those of fitted predictors and of other tools, too"
    return contents(store), seen
