"""The synthetic cohort of `benchmarks.cohort`: slides with tiles, features, predictions and their summaries, nothing else.

Values are smooth fields with noise, written by the storage itself, and registered in bulk. `catalog_roots` has roots whose
slides have all parts, as `status` and `doctor` need them.
"""

import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.catalog_roots import copy_root
from stpath_assets.prediction.summaries import neighbours, summary_rows
from stpath_assets.storage import Home, Store
from stpath_assets.storage.by_gene import tables_of_blocks, write_parquet
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import Cursor
from stpath_assets.storage.part import part_key
from stpath_assets.storage.stage import add_files, add_lineage, insert_rows
from stpath_assets.tables import EXPRESSION_BY_SLIDE, GIGAPATH_FEATURES, SLIDES, STPATH_PREDICTIONS, TABLES, TILE_GRIDS

MODEL = "stpath"
AT_ONCE = 50
SIDE_PX = 448.0
ORGANS = ("Breast", "Lung", "Kidney", "Skin")
_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
_Line = tuple[dict[str, Any], Fingerprint]


@dataclass(frozen=True)
class Cohort:
    """A cohort of one size. `features` says whether tiles have features; `lake` and `tables` are those of `Home`."""

    folder: Path
    slides: int
    tiles: int
    genes: int
    features: bool = True
    lake: str | None = None
    tables_at: str | None = None

    @property
    def root(self) -> Path:
        """The data root."""
        return self.folder / f"cohort_{self.slides}"

    @property
    def place(self) -> Home:
        """Where its lake and its tables are."""
        return Home(self.root, self.lake, self.tables_at)

    @property
    def store(self) -> Store:
        """Its tables."""
        return Store(self.place)

    @property
    def panel(self) -> list[str]:
        """The genes, ascending."""
        return [f"GENE{i:05d}" for i in range(self.genes)]

    def tile_ids(self) -> npt.NDArray[np.object_]:
        """The tile_ids of every slide."""
        return np.array([f"r{y:05d}c{x:05d}" for y, x in zip(*self._at(), strict=True)], object)

    def centers(self) -> npt.NDArray[np.float64]:
        """The centres of every slide's tiles, (tiles, 2) level-0 pixels."""
        y, x = self._at()
        return np.column_stack([x, y]) * SIDE_PX + SIDE_PX / 2

    def values(self, index: int) -> npt.NDArray[np.float32]:
        """A slide's predictions, (tiles, genes) log1p: eight smooth fields that genes share, and noise of a tenth."""
        drawn = np.random.default_rng(index)
        xy = self.centers() / (SIDE_PX * 40)
        waves = np.cos(xy @ drawn.normal(0, 6, (2, 8)) + drawn.uniform(0, 6, 8))
        loads = np.random.default_rng(0).normal(0, 0.3, (8, self.genes))
        base = np.random.default_rng(1).gamma(1.5, 0.5, self.genes) + drawn.normal(0, 0.1, self.genes)
        found = base + waves @ loads + drawn.normal(0, 0.1, (self.tiles, self.genes))
        return np.maximum(found, 0).astype(np.float32)

    def _at(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return np.divmod(np.arange(self.tiles), 40)


def grow(cohort: Cohort, sizes: Sequence[int] = ()) -> None:
    """Write a cohort's root, and copies of it at smaller sizes on the way, their files hard links."""
    cohort.root.mkdir(mode=0o700, parents=True)
    (cohort.root / "settings.toml").write_text("")
    cohort.store.create()
    cuts = sorted({*sizes, cohort.slides, *range(0, cohort.slides, AT_ONCE)})
    batches = [range(a, b) for a, b in itertools.pairwise(cuts)]
    # Spawned: a fork would take DuckDB's threads over.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for batch in batches:
            lines = [line for each in pool.starmap(_write_slide, [(cohort, i) for i in batch]) for line in each]
            _register(cohort, batch, lines)
            if batch.stop in sizes and batch.stop != cohort.slides:
                copy_root(cohort.root, cohort.folder / f"cohort_{batch.stop}")


def slide_name(index: int) -> str:
    """The slide_id of a slide."""
    return f"slide_{index:05d}"


def _write_slide(cohort: Cohort, index: int) -> list[_Line]:
    """Write the parts of a slide; returns their rows of `lineage`, each with its fingerprint."""
    slide_id, place, lines = slide_name(index), cohort.store.objects, list[_Line]()
    for table, count, rows in _parts(cohort, slide_id, index):
        fingerprint = Fingerprint({"slide": slide_id, "table": table})
        key = part_key(table, slide_id, fingerprint.digest)
        with place.draft(key) as path:
            write_parquet(path, TABLES[table], rows, fingerprint, None)
        line = {
            "slide_id": slide_id, "table_name": table, "digest": fingerprint.digest, "file": key,
            "sha256": place.sha256(key), "size_bytes": place.size(key), "row_count": count, "made_at": _SINCE,
            "damaged": None, "summary": None,
        }  # fmt: skip
        lines.append((line, fingerprint))
    return lines


def _parts(cohort: Cohort, slide_id: str, index: int) -> Iterator[tuple[str, int, Iterator[pa.Table]]]:
    n, ids, genes, values = cohort.tiles, cohort.tile_ids(), cohort.panel, cohort.values(index)
    keys = {"tile_id": ids}
    rows = tables_of_blocks(STPATH_PREDICTIONS, slide_id, keys, [(genes, values)], {"model": MODEL})
    yield STPATH_PREDICTIONS.name, n * len(genes), rows
    summary = summary_rows(slide_id, MODEL, genes, values, neighbours(cohort.centers()))
    yield EXPRESSION_BY_SLIDE.name, len(genes), iter([summary])
    xy, drawn = cohort.centers(), np.random.default_rng(index)
    columns = {
        "slide_id": [slide_id] * n, "tile_id": ids, "x_px": xy[:, 0] - SIDE_PX / 2, "y_px": xy[:, 1] - SIDE_PX / 2,
        "center_x_px": xy[:, 0], "center_y_px": xy[:, 1], "side_px": np.full(n, SIDE_PX),
        "tile_px": np.full(n, 224, np.int32), "mpp": np.full(n, 0.5), "tissue_fraction": drawn.random(n),
        "pen_fraction": np.zeros(n), "blank_fraction": np.zeros(n),
    }  # fmt: skip
    yield TILE_GRIDS.name, n, iter([_table(TILE_GRIDS.schema, n, columns)])
    if cohort.features:
        # Tissue types that slides share, and what is a tile's own.
        types = np.random.default_rng(2).standard_normal((30, 1536), np.float32)
        features = types[drawn.integers(0, 30, n)] + drawn.standard_normal((n, 1536), np.float32)
        listed = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 1536)
        columns = {"slide_id": [slide_id] * n, "tile_id": ids, "encoder": ["gigapath"] * n, "feature": listed}
        yield GIGAPATH_FEATURES.name, n, iter([_table(GIGAPATH_FEATURES.schema, n, columns)])


def _register(cohort: Cohort, batch: Sequence[int], lines: Sequence[_Line]) -> None:
    store = cohort.store
    slides = pa.Table.from_pylist([_slide(i) for i in batch], SLIDES.schema)

    def work(cursor: Cursor) -> None:
        insert_rows(cursor, SLIDES, slides)
        for table in dict.fromkeys(line["table_name"] for line, _ in lines):
            add_files(cursor, table, [store.objects.where(ln["file"]) for ln, _ in lines if ln["table_name"] == table])
        add_lineage(cursor, [line for line, _ in lines], [f for _, f in lines])

    store.lake.transact(work)


def _slide(index: int) -> dict[str, Any]:
    slide_id = slide_name(index)
    return {
        "slide_id": slide_id, "uri": f"/scans/{slide_id}.svs", "sha256": f"{index:064x}", "size_bytes": 10**9,
        "width_px": 40_000, "height_px": 40_000, "mpp": 0.25, "mpp_source": "file", "backend": "tiffslide", "levels": 4,
        "vendor": ("aperio", "hamamatsu")[index // 4 % 2], "organ": ORGANS[index % len(ORGANS)], "tech": "Visium",
        "status": "ready", "warnings": [], "registered_at": _SINCE, "patient_id": f"P{index // 2:05d}", "cohort": "bench",
    }  # fmt: skip


def _table(schema: pa.Schema, n: int, columns: dict[str, Any]) -> pa.Table:
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.table(arrays, schema=schema)
