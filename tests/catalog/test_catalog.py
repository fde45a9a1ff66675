"""The catalog: views with the columns that `tables` says, over whatever files there are now, and nothing but reading."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stpath_assets import catalog
from stpath_assets.errors import QueryError, StorageError
from stpath_assets.fingerprint import start
from stpath_assets.storage import Store
from stpath_assets.tables import (
    EVALUATION_METRICS,
    GIGAPATH_FEATURES,
    GIGAPATH_THROUGHPUT,
    SLIDES,
    SPOT_EXPRESSION,
    STPATH_PREDICTIONS,
    TABLES,
    TILE_GRIDS,
    Table,
)

FACTS = start(slide_sha256="0" * 64)
TILES = ["r00000c00000", "r00000c00001", "r00001c00000"]
GENES = ["EPCAM", "ERBB2"]
EXPRESSION = np.array([[0.5, 1.5], [2.5, 0.0], [0.25, 3.0]], np.float32)
COUNTS = np.array([[3, 0], [7, 1]], np.int32)

SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.float32(), 1536): "FLOAT[1536]",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def rows_of(table: Table, slide_id: str, **columns: Sequence[Any]) -> pa.Table:
    """Rows with the given columns; any other is 0, an empty text or an empty list."""
    n = len(next(iter(columns.values())))
    empty: dict[pa.DataType, Any] = {
        pa.string(): "", pa.list_(pa.string()): [], pa.timestamp("us", tz="UTC"): datetime(2026, 1, 1, tzinfo=UTC),
        pa.list_(pa.float32(), 1536): [0.0] * 1536,
    }  # fmt: skip
    values = {f.name: columns.get(f.name, [empty.get(f.type, 0)] * n) for f in table.schema}
    values["slide_id"] = [slide_id] * n
    return pa.table([pa.array(values[f.name], f.type) for f in table.schema], schema=table.schema)


def write_slide(store: Store, slide_id: str, status: str = "ready") -> None:
    store.write(SLIDES.name, slide_id, rows_of(SLIDES, slide_id, status=[status]), FACTS)


def write_all(store: Store, slide_id: str, status: str = "ready") -> None:
    """A small part of every table."""
    write_slide(store, slide_id, status)
    store.write(TILE_GRIDS.name, slide_id, rows_of(TILE_GRIDS, slide_id, tile_id=TILES, x_px=[0.0, 224.0, 0.0]), FACTS)
    store.write(GIGAPATH_FEATURES.name, slide_id, rows_of(GIGAPATH_FEATURES, slide_id, tile_id=TILES), FACTS)
    store.write(GIGAPATH_THROUGHPUT.name, slide_id, rows_of(GIGAPATH_THROUGHPUT, slide_id, encoder=["demo"]), FACTS)
    tiles = {"tile_id": np.array(TILES, object)}
    store.write_by_gene(STPATH_PREDICTIONS.name, slide_id, tiles, [(GENES, EXPRESSION)], FACTS, model="stpath-demo")
    spots = {"spot_id": np.array(["1x1", "2x1"], object), "x_px": np.array([10.0, 20]), "y_px": np.array([5.0, 6])}
    store.write_by_gene(SPOT_EXPRESSION.name, slide_id, spots, [(GENES, COUNTS)], FACTS)
    store.write(EVALUATION_METRICS.name, slide_id, rows_of(EVALUATION_METRICS, slide_id, gene=GENES), FACTS)


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return catalog.query(store, sql).fetchall()


def counts(store: Store) -> dict[str, int]:
    return {name: ask(store, f"select count(*) from {name}")[0][0] for name in TABLES}


FULL = {
    "slides": 1,
    "tile_grids": 3,
    "gigapath_features": 3,
    "gigapath_throughput": 1,
    "stpath_predictions": 6,
    "spot_expression": 4,
    "evaluation_metrics": 2,
}


# ---- what the views hold


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_a_view_has_exactly_the_columns_of_its_table(store: Store, name: str, full: bool) -> None:
    if full:
        write_all(store, "a")
    described = [(row[0], row[1]) for row in ask(store, f"describe {name}")]
    assert described == [(f.name, SQL_TYPES[f.type]) for f in TABLES[name].view_columns()]


def test_there_are_no_other_views(store: Store) -> None:
    assert {row[0] for row in ask(store, "show tables")} == set(TABLES)


def test_an_empty_data_root_answers_with_no_rows(store: Store) -> None:
    assert counts(store) == dict.fromkeys(TABLES, 0)
    assert ask(store, "select t.tile_id from tile_grids t join slides using (slide_id)") == []


def test_tables_stored_by_gene_are_a_row_a_value(store: Store) -> None:
    write_all(store, "a")
    predicted = ask(
        store, "select tile_id, gene, expression_log1p, model from stpath_predictions order by gene, tile_id"
    )
    assert predicted == [
        (t, g, float(EXPRESSION[i, j]), "stpath-demo") for j, g in enumerate(GENES) for i, t in enumerate(TILES)
    ]
    measured = ask(store, "select spot_id, x_px, y_px, gene, count from spot_expression order by gene, spot_id")
    spots = [("1x1", 10.0, 5.0), ("2x1", 20.0, 6.0)]
    assert measured == [(*s, g, int(COUNTS[i, j])) for j, g in enumerate(GENES) for i, s in enumerate(spots)]


def test_every_slide_at_once(store: Store) -> None:
    for slide_id in ("a", "b", "c"):
        write_all(store, slide_id)
    assert counts(store) == {name: 3 * n for name, n in FULL.items()}
    per_slide = "select slide_id, count(*), count(distinct tile_id) from stpath_predictions group by all order by all"
    assert ask(store, per_slide) == [(s, 6, 3) for s in ("a", "b", "c")]


def test_every_view_and_column_is_described(store: Store) -> None:
    catalog.build(store)
    views = dict(ask(store, "select view_name, comment from duckdb_views() where not internal"))
    assert views == {t.name: f"one row is {t.row}" for t in TABLES.values()}
    columns = ask(store, "select table_name, column_name, comment from duckdb_columns() where not internal")
    assert {(t, c) for t, c, comment in columns if comment} >= {
        (t.name, f.name) for t in TABLES.values() for f in t.view_columns()
    }


def test_a_part_of_an_earlier_schema_still_answers(store: Store) -> None:
    """A column that is not there yet is NULL: an update of the package breaks no query."""
    write_all(store, "a")
    write_slide(store, "b")
    path = store.path(TILE_GRIDS.name, "b")
    old = rows_of(TILE_GRIDS, "b", tile_id=TILES).drop_columns(["tissue_fraction"])
    pq.write_table(old, path)
    found = ask(store, "select slide_id, count(*), count(tissue_fraction) from tile_grids group by all order by all")
    assert found == [("a", 3, 3), ("b", 3, 0)]


# ---- files that come and go


def test_new_files_appear_without_a_rebuild(store: Store) -> None:
    path = catalog.build(store)
    built = path.read_bytes()
    write_all(store, "a")
    assert counts(store) == FULL
    rebuilt = path.read_bytes()
    assert rebuilt != built, "the first file of a table needs new views"
    write_all(store, "b")
    assert counts(store) == {name: 2 * n for name, n in FULL.items()}
    assert path.read_bytes() == rebuilt, "a further one does not"


def test_a_table_whose_last_file_goes_is_empty_again(store: Store) -> None:
    write_all(store, "a")
    assert counts(store) == FULL
    store.path(EVALUATION_METRICS.name, "a").unlink()
    assert counts(store) == {**FULL, "evaluation_metrics": 0}


def test_retired_slides_vanish_from_all_views_but_slides(store: Store) -> None:
    write_all(store, "a")
    write_all(store, "b")
    write_slide(store, "b", "retired")
    assert counts(store) == {**FULL, "slides": 2}
    for name in set(TABLES) - {"slides"}:
        assert ask(store, f"select distinct slide_id from {name}") == [("a",)]
    assert ask(store, "select slide_id, status from slides order by 1") == [("a", "ready"), ("b", "retired")]
    write_slide(store, "b")
    assert counts(store) == {name: 2 * n for name, n in FULL.items()}


def test_parts_of_a_slide_that_is_not_registered_are_left_out(store: Store) -> None:
    write_all(store, "a")
    write_all(store, "b")
    store.path(SLIDES.name, "b").unlink()
    assert counts(store) == FULL


def test_drafts_are_not_read(store: Store) -> None:
    write_all(store, "a")
    (store.path(SLIDES.name, "a").parent / ".b.parquet.host.1.x.tmp").write_bytes(b"PAR1")
    (store.path(SLIDES.name, "a").parent / ".c.parquet").write_bytes(b"PAR1")
    assert counts(store) == FULL


def test_a_moved_data_root_still_answers(store: Store, tmp_path: Path) -> None:
    write_all(store, "a")
    assert counts(store) == FULL
    store.home.rename(tmp_path / "moved")
    assert counts(Store(tmp_path / "moved")) == FULL
    shutil.copytree(tmp_path / "moved", tmp_path / "copied")
    write_all(Store(tmp_path / "copied"), "b")
    assert counts(Store(tmp_path / "moved")) == FULL
    assert counts(Store(tmp_path / "copied"))["slides"] == 2


@pytest.mark.parametrize("name", ["it's ours", "lab [1]", "a*b", "with space", "µm {x}", "100%"])
def test_a_data_root_of_any_name(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / name)
    write_all(store, "a")
    assert counts(store) == FULL


def test_a_relative_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(Store(Path("root")), "a")
    catalog.build(Store(Path("root")))
    monkeypatch.chdir("/")
    assert counts(Store(tmp_path / "root")) == FULL


# ---- reading and writing at once


def test_an_open_reader_in_this_process_does_not_hide_new_files(store: Store) -> None:
    reader = catalog.query(store, "select * from slides")
    write_all(store, "a")
    assert counts(store) == FULL
    assert reader.fetchall() == []


READER = """
import sys
from pathlib import Path
from stpath_assets.catalog.catalog import connect
from stpath_assets.storage import Store

connection = connect(Store(Path(sys.argv[1])))
count = "select count(*) from tile_grids"
print(connection.sql(count).fetchone()[0], flush=True)
sys.stdin.readline()
print(connection.sql(count).fetchone()[0], flush=True)
"""


def test_a_reader_in_another_process_keeps_reading_through_rebuilds(store: Store) -> None:
    write_all(store, "a")
    command = [sys.executable, "-c", READER, str(store.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "3\n"
        for slide_id in ("b", "c"):
            write_all(store, slide_id)
            catalog.build(store)
        assert counts(store)["tile_grids"] == 9
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "9\n", "its views see new files of tables that it knew"
    assert reader.returncode == 0


def test_a_failed_rebuild_leaves_the_old_catalog(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(store, "a")
    before = catalog.build(store).read_bytes()

    def fail(*_: object) -> str:
        raise RuntimeError("no view")

    monkeypatch.setattr("stpath_assets.catalog.catalog.view_sql", fail)
    with pytest.raises(RuntimeError, match="no view"):
        catalog.build(store)
    assert (store.home / "catalog.duckdb").read_bytes() == before
    assert [p.name for p in store.home.iterdir() if p.name.startswith(".")] == []


def test_a_data_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        catalog.query(Store(tmp_path / "root"), "select 1")


# ---- what may be asked


WRITES = [
    "drop view slides",
    "create table x (a int)",
    "create or replace view slides as select 1",
    "insert into slides select * from slides",
    "update slides set mpp = 1",
    "delete from slides",
    "copy slides to 'x.csv'",
    "attach 'x.db'",
    "export database 'x'",
    "set memory_limit = '1GB'",
    "install httpfs",
    "load httpfs",
    "call pragma_version()",
    "vacuum",
    "checkpoint",
    "begin",
]


@pytest.mark.parametrize("sql", WRITES)
def test_writing_is_refused_in_one_line(
    store: Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(store, "a")
    monkeypatch.chdir(tmp_path)
    before = catalog.build(store).read_bytes()
    with pytest.raises(
        QueryError, match=r"the catalog is read-only: [A-Z_]+ statements are refused; use SELECT"
    ) as error:
        catalog.query(store, sql)
    assert "\n" not in str(error.value)
    assert (store.home / "catalog.duckdb").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "^not SQL: Parser Error: syntax error at or near"),
        ("", "^give one SQL statement, not 0$"),
        ("-- nothing", "^give one SQL statement, not 0$"),
        ("select 1; drop view slides", "^give one SQL statement, not 2$"),
        ("select nope from slides", 'Referenced column "nope" not found'),
        ("select * from nope", "Table with name nope does not exist"),
        ("select sum(slide_id) from slides", "No function matches"),
    ],
)
def test_a_wrong_query_is_one_line(store: Store, sql: str, message: str) -> None:
    write_all(store, "a")
    with pytest.raises(QueryError, match=message) as error:
        catalog.query(store, sql)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sql",
    [
        "from slides",
        "with s as (select slide_id from slides) select * from s",
        "describe slides",
        "summarize slides",
        "show tables",
        "explain select * from slides",
        "values (1)",
        "select 1;",
    ],
)
def test_reading_in_any_form_is_answered(store: Store, sql: str) -> None:
    write_all(store, "a")
    assert len(ask(store, sql)) > 0


def test_a_damaged_catalog_is_a_one_line_error(store: Store) -> None:
    write_all(store, "a")
    catalog.build(store).write_bytes(b"not a database" * 1000)
    with pytest.raises(QueryError) as error:
        catalog.query(store, "select 1")
    assert "catalog.duckdb" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_file_is_duckdbs_own(store: Store) -> None:
    """Any DuckDB client reads it, without this package."""
    write_all(store, "a")
    with duckdb.connect(str(catalog.build(store)), read_only=True) as connection:
        assert connection.execute("select count(*) from stpath_predictions").fetchone() == (6,)
        polars = connection.sql(
            "select gene, avg(expression_log1p) m from stpath_predictions group by 1 order by 1"
        ).pl()
    assert polars["gene"].to_list() == GENES
    np.testing.assert_allclose(polars["m"].to_list(), EXPRESSION.mean(0), rtol=1e-6)
