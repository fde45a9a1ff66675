"""Synthetic data roots of `benchmarks.catalog`: true parts, rows and fingerprints, written by the storage itself.

Nothing is computed from pixels: scans are stubs of some bytes, values are drawn. A slide's parts are what the stages would expect
now, so `status` finds them current. Registration is in bulk, as `storage.takeover` does it; one commit a slide takes minutes.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.prediction import ModelChoice
from stpath_assets.prediction.summaries import neighbours, summary_rows
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registered
from stpath_assets.stages import STAGES, Plan
from stpath_assets.storage import Store
from stpath_assets.storage.by_gene import tables_of_blocks, write_parquet
from stpath_assets.storage.fingerprint import Fingerprint, sha256_of_file
from stpath_assets.storage.lake import Cursor
from stpath_assets.storage.part import part_key
from stpath_assets.storage.stage import add_files, add_lineage, insert_rows
from stpath_assets.tables import (
    EVALUATION_METRICS,
    EXPRESSION_BY_SLIDE,
    GIGAPATH_FEATURES,
    GIGAPATH_THROUGHPUT,
    SLIDES,
    SPOT_EXPRESSION,
    STPATH_PREDICTIONS,
    TABLES,
    TILE_GRIDS,
)

TILES = int(os.environ.get("BENCHMARK_TILES", "400"))
AT_ONCE = 100
SPOTS = 20
SCORED = 4
"""One slide in so many has measured spots, and so scores."""

_FEATURES = 4  # tiles whose features are stored: a slide's would be 2.4 MB
_SIDE_PX = 224.0
_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
_Lines = list[tuple[dict[str, Any], Fingerprint]]
_Values = npt.NDArray[np.float32]


@cache
def panel() -> list[str]:
    """The 200 genes of the demo vocabulary, ascending."""
    return sorted(ModelChoice.for_encoder("demo", load_settings()).load_vocabulary().select(None)[0])


def slide_name(index: int) -> str:
    """The slide_id of a slide."""
    return f"slide_{index:05d}"


class Roots:
    """Data roots of several sizes: one is grown, the smaller ones are copies made on the way, their files hard links."""

    def __init__(self, folder: Path, sizes: Sequence[int], constant: float | None = None, scored: int = SCORED) -> None:
        self.folder, self.sizes, self.constant, self.scored = folder, sorted(set(sizes)), constant, scored
        self.scans = folder / "scans"
        self._settings: dict[int, Settings] = {}

    def root(self, n: int) -> Path:
        """The folder of the root of n slides."""
        return self.folder / f"root_{n}"

    def settings(self, n: int) -> Settings:
        """The settings of the root of n slides, as its settings.toml has them."""
        if n not in self._settings:
            self._settings[n] = load_settings(self.root(n))
        return self._settings[n]

    def store(self, n: int) -> Store:
        """The tables of the root of n slides."""
        return Store.of(self.settings(n))

    def grow(self) -> None:
        """Writes all roots."""
        self.scans.mkdir(parents=True)
        _write_spots(self.spots)
        largest = self.sizes[-1]
        _write_settings(self.root(largest))
        store = self.store(largest)
        store.create()
        Plan(self.settings(largest)).model(self._row(0))  # hashes weights once, before the workers ask for them
        cuts = sorted({*self.sizes, *range(0, largest, AT_ONCE)})
        batches = [range(a, b) for a, b in itertools.pairwise(cuts)]
        # Spawned: a fork would take DuckDB's threads over.
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for batch, written in zip(batches, pool.imap(self._write, batches), strict=True):
                self._register(store, batch, written)
                if batch.stop in self.sizes[:-1]:
                    copy_root(self.root(largest), self.root(batch.stop))

    @property
    def spots(self) -> Path:
        """The measured counts that all slides share."""
        return self.folder / "spots" / "shared_counts.tsv"

    @cached_property
    def _plan(self) -> Plan:
        return Plan(self.settings(self.sizes[-1]))

    def _row(self, index: int) -> Registered:
        slide_id = slide_name(index)
        scan = self.scans / f"{slide_id}.tif"
        if not scan.exists():
            scan.write_text(f"stub of {slide_id}")
        stat, spots = scan.stat(), None if index % self.scored else str(self.spots)
        return Registered(
            slide_id, str(scan), hashlib.sha256(scan.read_bytes()).hexdigest(), stat.st_size, 20_000, 20_000, 0.5, "file", 0.5,
            "aperio", 3, ("Breast", "Lung", "Kidney")[index % 3], "Visium", spots, "ready", None, (), _SINCE,
            mpp_x=0.5, mpp_y=0.5, modified_ns=stat.st_mtime_ns,
        )  # fmt: skip

    def _write(self, batch: Sequence[int]) -> _Lines:
        """Writes the parts of some slides; returns their rows of `lineage`, each with its fingerprint."""
        return [line for index in batch for line in self._write_slide(index)]

    def _write_slide(self, index: int) -> Iterator[tuple[dict[str, Any], Fingerprint]]:
        row, place = self._row(index), self.store(self.sizes[-1]).objects
        for stage in list(STAGES)[1:]:
            fingerprint = self._plan.expected(stage, row)
            if fingerprint is None:
                continue
            for table in STAGES[stage].tables:
                line = _line(row.slide_id, table, fingerprint)
                spec = TABLES[table]
                if not spec.inline:
                    key = part_key(table, row.slide_id, fingerprint.digest)
                    path = place.local(key)
                    path.parent.mkdir(parents=True)
                    rows = list(_rows(table, row.slide_id, index, self.constant))
                    write_parquet(path, spec, rows, fingerprint, None)
                    line |= {"file": key, "sha256": sha256_of_file(path), "size_bytes": path.stat().st_size}
                    line["row_count"] = _row_count(table, rows)
                yield line, fingerprint

    def _register(self, store: Store, batch: Sequence[int], lineage: _Lines) -> None:
        slides = pa.Table.from_pylist(
            [{**row.__dict__, "warnings": []} for row in map(self._row, batch)], SLIDES.schema
        )
        throughput = pa.Table.from_pylist([_throughput(slide_name(i)) for i in batch], GIGAPATH_THROUGHPUT.schema)

        def work(cursor: Cursor) -> None:
            insert_rows(cursor, SLIDES, slides)
            insert_rows(cursor, GIGAPATH_THROUGHPUT, throughput)
            for table in TABLES:
                files = [store.objects.where(p["file"]) for p, _ in lineage if p["table_name"] == table and p["file"]]
                if files:
                    add_files(cursor, table, files)
            add_lineage(cursor, [row for row, _ in lineage], [f for _, f in lineage])

        store.lake.transact(work)


def copy_root(old: Path, new: Path) -> None:
    """A copy of a data root whose files are hard links, its metadata as of now."""
    new.mkdir(mode=0o700)
    shutil.copytree(old / "tables", new / "tables", copy_function=lambda a, b: Path(b).hardlink_to(a))
    shutil.copyfile(old / "settings.toml", new / "settings.toml")
    with closing(sqlite3.connect(old / "lake.sqlite")) as source, closing(sqlite3.connect(new / "lake.sqlite")) as copy:
        source.backup(copy)
        copy.execute("pragma journal_mode = wal")


def values_of(index: int, constant: float | None = None) -> _Values:
    """A slide's predictions, (TILES, genes)."""
    shape = (TILES, len(panel()))
    if constant is not None:
        return np.full(shape, constant, np.float32)
    return np.random.default_rng(index).gamma(1.0, 0.5, shape).astype(np.float32)


def tile_ids() -> npt.NDArray[np.object_]:
    """The tile_ids of every slide."""
    return np.array([f"{i // 20:03d}_{i % 20:03d}" for i in range(TILES)], object)


def metrics_rows(slide_id: str, value: float | None = None) -> pa.Table:
    """A slide's scores; `value` as the mse of all."""
    genes = panel()
    drawn = np.linspace(0, 1, len(genes)) if value is None else np.full(len(genes), value)
    columns = {
        "slide_id": [slide_id] * len(genes), "gene": genes, "model": ["stpath-demo"] * len(genes),
        "protocol": ["benchmark"] * len(genes), "n_spots": [SPOTS] * len(genes), "pearson_r": drawn, "mse": drawn,
    }  # fmt: skip
    return _table(EVALUATION_METRICS.schema, len(genes), columns)


def _rows(table: str, slide_id: str, index: int, constant: float | None) -> Iterator[pa.Table]:
    genes = panel()
    if table == STPATH_PREDICTIONS.name:
        blocks = [(genes, values_of(index, constant))]
        yield from tables_of_blocks(TABLES[table], slide_id, {"tile_id": tile_ids()}, blocks, {"model": "stpath-demo"})
    elif table == SPOT_EXPRESSION.name:
        at = np.arange(SPOTS) * 500.0
        keys = {"spot_id": np.array([f"{i}x{i}" for i in range(SPOTS)], object), "x_px": at, "y_px": at}
        counts = np.random.default_rng(index).poisson(3.0, (SPOTS, 10)).astype(np.int32)
        yield from tables_of_blocks(TABLES[table], slide_id, keys, [(genes[:10], counts)], {})
    elif table == EVALUATION_METRICS.name:
        yield metrics_rows(slide_id, constant)
    elif table == GIGAPATH_FEATURES.name:
        drawn = np.random.default_rng(index).standard_normal(_FEATURES * 1536).astype(np.float32)
        features = pa.FixedSizeListArray.from_arrays(pa.array(drawn), 1536)
        columns = {
            "slide_id": [slide_id] * _FEATURES,
            "tile_id": tile_ids()[:_FEATURES],
            "encoder": ["demo"] * _FEATURES,
        }
        yield _table(TABLES[table].schema, _FEATURES, {**columns, "feature": features})
    elif table == EXPRESSION_BY_SLIDE.name:
        near = neighbours(np.stack(np.divmod(np.arange(TILES), 20)[::-1], axis=-1) * _SIDE_PX)
        yield summary_rows(slide_id, "stpath-demo", genes, values_of(index, constant), near)
    elif table in STAGES[EVALUATION_METRICS.name].tables:
        yield TABLES[table].schema.empty_table()  # what is beside the scores: one model has none to compare with
    else:
        assert table == TILE_GRIDS.name
        y, x = (a * _SIDE_PX for a in np.divmod(np.arange(TILES), 20))
        columns = {
            "slide_id": [slide_id] * TILES, "tile_id": tile_ids(), "x_px": x, "y_px": y, "center_x_px": x + _SIDE_PX / 2,
            "center_y_px": y + _SIDE_PX / 2, "side_px": np.full(TILES, _SIDE_PX), "tile_px": np.full(TILES, 224, np.int32),
            "mpp": np.full(TILES, 0.5), "tissue_fraction": np.random.default_rng(index).random(TILES),
            "pen_fraction": np.zeros(TILES), "blank_fraction": np.zeros(TILES),
        }  # fmt: skip
        yield _table(TABLES[table].schema, TILES, columns)


def _table(schema: pa.Schema, n: int, columns: dict[str, Any]) -> pa.Table:
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def _row_count(table: str, rows: list[pa.Table]) -> int:
    n = sum(r.num_rows for r in rows)
    keys = {STPATH_PREDICTIONS.name: TILES, SPOT_EXPRESSION.name: SPOTS}.get(table)
    return n if keys is None else (n - 1) * keys


def _line(slide_id: str, table: str, fingerprint: Fingerprint) -> dict[str, Any]:
    return {
        "slide_id": slide_id, "table_name": table, "digest": fingerprint.digest, "file": None, "sha256": None,
        "size_bytes": None, "row_count": 1, "made_at": _SINCE, "damaged": None, "summary": None,
    }  # fmt: skip


def _throughput(slide_id: str) -> dict[str, Any]:
    return {
        "slide_id": slide_id, "encoder": "demo", "precision": "float32", "device": "cpu", "via": "local", "batch_size": 16,
        "tiles": TILES, "resumed_tiles": 0, "seconds": 1.0, "tiles_per_s": float(TILES), "waiting_s": 0.5, "computing_s": 0.5,
        "peak_rss_bytes": 10**9, "finished_at": _SINCE,
    }  # fmt: skip


def _write_settings(root: Path) -> None:
    root.mkdir(mode=0o700)
    (root / "settings.toml").write_text(f'encoder = "demo"\ngenes = {json.dumps(",".join(panel()))}\n')


def _write_spots(path: Path) -> None:
    path.parent.mkdir()
    genes = panel()[:10]
    lines = ["\t".join(["", *genes]), *("\t".join([f"{i}x{i}", *["3"] * len(genes)]) for i in range(SPOTS))]
    path.write_text("\n".join(lines) + "\n")
    chosen = ["x\ty\tpixel_x\tpixel_y", *(f"{i}\t{i}\t{i * 500}\t{i * 500}" for i in range(SPOTS))]
    path.with_name("shared_selection.tsv").write_text("\n".join(chosen) + "\n")
