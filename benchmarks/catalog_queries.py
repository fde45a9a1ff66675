"""Questions of `benchmarks.catalog`: one gene of one slide, and one gene over all slides, beside glob views and h5ad files.

The glob views are those of version 0.1, word for word: `read_parquet` over a file a slide. Each file is in the page cache.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import pyarrow as pa

from benchmarks.catalog_roots import Roots, panel, slide_name, tile_ids, values_of
from stpath_assets.catalog import query
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import maintenance
from stpath_assets.storage.by_gene import write_parquet
from stpath_assets.storage.lake import attach
from stpath_assets.tables import SLIDES, STPATH_PREDICTIONS

GLOB_SLIDES = "create view slides as select * from read_parquet('{folder}/slides/[!.]*.parquet', union_by_name = true)"
GLOB_PREDICTIONS = (
    "create view stpath_predictions as with parts as (select * from "
    "read_parquet('{folder}/stpath_predictions/[!.]*.parquet', union_by_name = true) "
    "where slide_id in (select slide_id from slides where status = 'ready')), "
    "heads as (select slide_id, tile_id from parts where gene is null) "
    "select p.slide_id, unnest(h.tile_id) as tile_id, p.gene, unnest(p.expression_log1p) as expression_log1p, p.model "
    "from parts p join heads h using (slide_id) where p.gene is not null"
)

ONE = "select tile_id, expression_log1p from stpath_predictions where slide_id = '{slide}' and gene = '{gene}'"
MEAN = "select avg(expression_log1p) from stpath_predictions where gene = '{gene}'"


def answer(settings: Settings, sql: str) -> pa.Table:
    """The rows of a question to the catalog, as `stpath-assets sql` asks it."""
    with query(settings, sql) as result:
        return pa.Table.from_batches(list(result.batches()))


def median_ms(runs: Sequence[Callable[[], Any]]) -> float:
    """The median of the runs' times, ms; the first, which is not counted, warms up."""
    took = []
    for run in (runs[0], *runs):
        began = time.perf_counter()
        run()
        took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took[1:])


def asked(n: int, times: int) -> Iterator[tuple[str, str]]:
    """A different slide and gene each time."""
    genes = panel()
    for i in range(times):
        yield slide_name((i * 7919 + 13) % n), genes[(i * 37 + 5) % len(genes)]


def one_gene_of_one_slide(roots: Roots, n: int, times: int = 15) -> dict[str, float]:
    """ms: `ask` the whole of `catalog.query`, of which `set_up` attaches the lake; `warm` on a connection that is open."""
    settings, store = roots.settings(n), roots.store(n)

    def ask(slide: str, gene: str) -> None:
        assert answer(settings, ONE.format(slide=slide, gene=gene)).num_rows == len(tile_ids())

    whole = median_ms([lambda s=s, g=g: ask(s, g) for s, g in asked(n, times)])  # type: ignore[misc]
    set_up = median_ms([lambda: attach(store.place, read_only=True).close()] * 5)
    with attach(store.place, read_only=True) as connection:
        warm = median_ms([lambda s=s, g=g: fetch(connection, ONE, slide=s, gene=g) for s, g in asked(n, times)])  # type: ignore[misc]
    return {"ask": whole, "set_up": set_up, "warm": warm}


def one_gene_by_glob(folder: Path, n: int, times: int = 3) -> float:
    """ms of the same question to the glob views, on a connection that is open."""
    with glob_views(folder) as connection:
        return median_ms([lambda s=s, g=g: fetch(connection, ONE, slide=s, gene=g) for s, g in asked(n, times)])  # type: ignore[misc]


def mean_of_one_gene(roots: Roots, n: int, times: int = 3) -> tuple[float, float]:
    """ms of one gene's mean over all slides by `catalog.query`, and the mean of the first gene asked."""
    settings, means = roots.settings(n), list[float]()

    def ask(gene: str) -> None:
        means.extend(answer(settings, MEAN.format(gene=gene)).column(0).to_pylist())

    took = median_ms([lambda g=g: ask(g) for _, g in asked(n, times)])  # type: ignore[misc]
    return took, means[0]


def mean_by_glob(folder: Path, n: int, times: int = 3) -> float:
    """ms of the same question to the glob views."""
    with glob_views(folder) as connection:
        return median_ms([lambda g=g: fetch(connection, MEAN, gene=g) for _, g in asked(n, times)])  # type: ignore[misc]


def mean_by_h5ad(folder: Path, n: int) -> tuple[float, float]:
    """ms of a loop over backed h5ad files, once, and the mean."""
    import anndata

    gene, total, count = next(asked(n, 1))[1], 0.0, 0
    began = time.perf_counter()
    for i in range(n):
        opened = anndata.read_h5ad(folder / f"{slide_name(i)}.h5ad", backed="r")
        x = np.asarray(opened[:, gene].X)
        total, count = total + float(x.sum(dtype=np.float64)), count + x.size
        opened.file.close()
    return (time.perf_counter() - began) * 1e3, total / count


def maintain(roots: Roots, n: int) -> float:
    """Seconds that `maintain` takes."""
    began = time.perf_counter()
    maintenance.maintain(roots.store(n), timedelta(days=30))
    return time.perf_counter() - began


def fetch(connection: duckdb.DuckDBPyConnection, sql: str, **values: str) -> pa.Table:
    """The rows of a question that has some."""
    rows = connection.execute(sql.format(**values)).to_arrow_table()
    assert rows.num_rows
    return rows


# ---- what it is compared with


def write_glob_files(roots: Roots, n: int, folder: Path) -> None:
    """The files of version 0.1: one a slide and table. Predictions are hard links to the lake's parts."""
    rows = Registry(roots.store(n)).all()
    for table in (SLIDES, STPATH_PREDICTIONS):
        (folder / table.name).mkdir(parents=True)
    for row in rows:
        values = pa.Table.from_pylist([{**row.__dict__, "warnings": list(row.warnings)}], SLIDES.schema)
        write_parquet(folder / SLIDES.name / f"{row.slide_id}.parquet", SLIDES, [values], None)
        (part,) = (roots.root(n) / "tables" / "parts" / STPATH_PREDICTIONS.name / row.slide_id).iterdir()
        (folder / STPATH_PREDICTIONS.name / f"{row.slide_id}.parquet").hardlink_to(part)


def glob_views(folder: Path) -> duckdb.DuckDBPyConnection:
    """A connection with the views of version 0.1."""
    connection = duckdb.connect()
    for view in (GLOB_SLIDES, GLOB_PREDICTIONS):
        connection.execute(view.format(folder=folder))
    return connection


def write_h5ad_files(folder: Path, n: int) -> None:
    """An h5ad a slide, (TILES, genes) float32: one written by anndata, the others copies of it with their own values."""
    import anndata
    import pandas as pd

    folder.mkdir(parents=True)
    first = folder / f"{slide_name(0)}.h5ad"
    obs = pd.DataFrame(index=tile_ids().astype(str))
    anndata.AnnData(values_of(0), obs=obs, var=pd.DataFrame(index=panel())).write_h5ad(first)
    for i in range(1, n):
        path = folder / f"{slide_name(i)}.h5ad"
        shutil.copyfile(first, path)
        with h5py.File(path, "r+") as file:
            file["X"][...] = values_of(i)
