"""The catalog: views with the columns that `tables` says, over the parts of the lake, and nothing but reading."""

import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stpath_assets.catalog import attach_lines, query
from stpath_assets.catalog.views import VIEWS
from stpath_assets.errors import QueryError, StorageError
from stpath_assets.settings import load_settings
from stpath_assets.storage import Store
from stpath_assets.storage.extensions import OFFLINE, load_extensions
from stpath_assets.storage.fingerprint import start
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import (
    CONTEXT_PREDICTIONS,
    EVALUATION_METRICS,
    EXPRESSION_BY_SLIDE,
    GENE_MATCHES,
    GIGAPATH_FEATURES,
    GIGAPATH_THROUGHPUT,
    IMPORTED_BY_SLIDE,
    IMPORTED_MODELS,
    IMPORTED_PREDICTIONS,
    MODEL_COMPARISON,
    PART_TABLES,
    PREDICTION_ERRORS,
    REFERENCE_PREDICTIONS,
    SLIDES,
    SPOT_EXPRESSION,
    SPOT_REGISTRATION,
    STPATH_PREDICTIONS,
    TABLES,
    TILE_GRIDS,
    Table,
)
from tests import asked

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
    pa.list_(pa.float32()): "FLOAT[]",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A data root with one slide. Not to be changed by a test."""
    store = Store(tmp_path_factory.mktemp("filled") / "root")
    write_all(store, "a")
    return store


@pytest.fixture
def store(empty_store: Store) -> Store:
    return empty_store


def rows_of(table: Table, slide_id: str, **columns: Sequence[Any]) -> pa.Table:
    """Rows with the given columns; any other is 0, an empty text or an empty list."""
    n = len(next(iter(columns.values())))
    empty: dict[pa.DataType, Any] = {
        pa.string(): "", pa.list_(pa.string()): [], pa.timestamp("us", tz="UTC"): datetime(2026, 1, 1, tzinfo=UTC),
        pa.list_(pa.float32(), 1536): [0.0] * 1536, pa.list_(pa.float32()): [0.0],
    }  # fmt: skip
    values = {f.name: columns.get(f.name, [empty.get(f.type, 0)] * n) for f in table.schema}
    values["slide_id"] = [slide_id] * n
    return pa.table([pa.array(values[f.name], f.type) for f in table.schema], schema=table.schema)


def write_slide(store: Store, slide_id: str, status: str = "ready") -> None:
    store.create()
    row = rows_of(SLIDES, slide_id, status=[status], sha256=["0" * 64])

    def work(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("delete from lake.parts.slides where slide_id = ?", [slide_id])
        insert_rows(cursor, SLIDES, row)

    store.lake.transact(work)


def write_all(store: Store, slide_id: str, status: str = "ready") -> None:
    """A small part of every table."""
    write_slide(store, slide_id, status)
    tiles = {"tile_id": np.array(TILES, object)}
    spots = {"spot_id": np.array(["1x1", "2x1"], object), "x_px": np.array([10.0, 20]), "y_px": np.array([5.0, 6])}
    with store.stage(slide_id, FACTS) as stage:
        stage.write(TILE_GRIDS.name, rows_of(TILE_GRIDS, slide_id, tile_id=TILES, x_px=[0.0, 224.0, 0.0]))
        stage.write(GIGAPATH_FEATURES.name, rows_of(GIGAPATH_FEATURES, slide_id, tile_id=TILES))
        stage.write(GIGAPATH_THROUGHPUT.name, rows_of(GIGAPATH_THROUGHPUT, slide_id, encoder=["demo"]))
        stage.write_by_gene(STPATH_PREDICTIONS.name, tiles, [(GENES, EXPRESSION)], model="stpath-demo")
        by = {"tile_id": tiles["tile_id"], "distance_to_training": np.array([1.0, 2.0, 3.0], np.float32)}
        fitted = {name: (by, [(GENES, EXPRESSION + 10)]) for name in ("knn:r", "ridge:r")}
        stage.write_sections(REFERENCE_PREDICTIONS.name, fitted)
        known = {"tile_id": tiles["tile_id"], "is_context": np.array([1, 0, 0], np.int32)}
        stage.write_sections(CONTEXT_PREDICTIONS.name, {"interpolation_only": (known, [(GENES, EXPRESSION)])})
        placed = {"tile_id": tiles["tile_id"], "center_x_px": np.arange(3.0), "center_y_px": np.arange(3.0)}
        stage.write_sections(IMPORTED_PREDICTIONS.name, {"other": (placed, [(GENES, EXPRESSION + 20)])})
        stage.write(IMPORTED_BY_SLIDE.name, rows_of(IMPORTED_BY_SLIDE, slide_id, gene=GENES, model=["other"] * 2))
        stage.write(IMPORTED_MODELS.name, rows_of(IMPORTED_MODELS, slide_id, model=["other"]))
        stage.write_by_gene(SPOT_EXPRESSION.name, spots, [(GENES, COUNTS)])
        stage.write(SPOT_REGISTRATION.name, rows_of(SPOT_REGISTRATION, slide_id, verdict=["ok"]))
        stage.write(EVALUATION_METRICS.name, rows_of(EVALUATION_METRICS, slide_id, gene=GENES))
        stage.write(MODEL_COMPARISON.name, rows_of(MODEL_COMPARISON, slide_id, gene=GENES))
        stage.write(EXPRESSION_BY_SLIDE.name, rows_of(EXPRESSION_BY_SLIDE, slide_id, gene=GENES))
        stage.write(PREDICTION_ERRORS.name, rows_of(PREDICTION_ERRORS, slide_id, gene=GENES))
        stage.write(GENE_MATCHES.name, rows_of(GENE_MATCHES, slide_id, gene=GENES))


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return asked.ask(store.home, sql)


def counts(store: Store) -> dict[str, int]:
    sql = " union all ".join(f"select '{name}', count(*) from {name}" for name in TABLES)
    return dict(ask(store, sql))


FULL = {
    "slides": 1,
    "tile_grids": 3,
    "gigapath_features": 3,
    "gigapath_throughput": 1,
    "stpath_predictions": 6 + 12 + 6,
    "reference_models": 0,
    "reference_predictions": 12,
    "context_predictions": 6,
    "imported_predictions": 6,
    "imported_models": 1,
    "imported_by_slide": 2,
    "expression_by_slide": 2 + 2,
    "spot_expression": 4,
    "spot_registration": 1,
    "evaluation_metrics": 2,
    "model_comparison": 2,
    "gene_matches": 2,
    "prediction_errors": 2,
    "gene_sets": 0,
    "tile_domain": 0,
    "tile_cell_types": 0,
    "bulk_expression": 0,
    "own_tables": 0,
    "lineage": 16,
    "fingerprints": 1,
    "failures": 0,
    "quarantine": 0,
}


# ---- what the views hold


@pytest.mark.parametrize("name", [t for t in TABLES if t not in VIEWS])
def test_a_view_has_exactly_the_columns_of_its_table(filled: Store, name: str) -> None:
    described = [(row[0], row[1]) for row in ask(filled, f"describe {name}")]
    assert described == [(f.name, SQL_TYPES[f.type]) for f in TABLES[name].view_columns()]


def test_there_are_no_other_views(store: Store) -> None:
    assert {row[0] for row in ask(store, "show tables")} == {*TABLES, *VIEWS} - {"stale_slides"}


@pytest.mark.parametrize("name", VIEWS)
def test_a_computed_view_has_exactly_its_columns(filled: Store, name: str) -> None:
    described = [(row[0], row[1]) for row in ask(filled, f"describe {name}")]
    assert described == [(f.name, SQL_TYPES[f.type]) for f in VIEWS[name].columns]


def test_an_empty_data_root_answers_with_no_rows(store: Store) -> None:
    assert counts(store) == dict.fromkeys(TABLES, 0)
    assert ask(store, "select t.tile_id from tile_grids t join slides using (slide_id)") == []


def test_tables_stored_by_gene_are_a_row_a_value(store: Store) -> None:
    write_all(store, "a")
    sql = "select tile_id, gene, expression_log1p, model from stpath_predictions order by model desc, gene, tile_id"
    assert ask(store, sql) == [
        (t, g, float(EXPRESSION[i, j]) + more, model)
        for model, more in (("stpath-demo", 0), ("ridge:r", 10), ("other", 20), ("knn:r", 10))
        for j, g in enumerate(GENES)
        for i, t in enumerate(TILES)
    ]
    far = "select distinct tile_id, distance_to_training from reference_predictions order by 1"
    assert ask(store, far) == list(zip(TILES, (1.0, 2.0, 3.0), strict=True))
    measured = ask(store, "select spot_id, x_px, y_px, gene, count from spot_expression order by gene, spot_id")
    spots = [("1x1", 10.0, 5.0), ("2x1", 20.0, 6.0)]
    assert measured == [(*s, g, int(COUNTS[i, j])) for j, g in enumerate(GENES) for i, s in enumerate(spots)]


def test_every_slide_at_once(store: Store) -> None:
    for slide_id in ("a", "b", "c"):
        write_all(store, slide_id)
    assert counts(store) == {name: 3 * n for name, n in FULL.items()} | {"fingerprints": 1}
    per_slide = "select slide_id, count(*), count(distinct tile_id) from stpath_predictions group by all order by all"
    assert ask(store, per_slide) == [(s, 24, 3) for s in ("a", "b", "c")]


def test_every_view_is_described(store: Store) -> None:
    views = dict(ask(store, "select view_name, comment from duckdb_views() where database_name = 'lake'"))
    described = {t.name: t.row for t in TABLES.values()} | {v.name: v.row for v in VIEWS.values() if v.sql}
    assert views == {name: f"one row is {row}" for name, row in described.items()}


def test_what_a_part_was_made_from_is_in_sql(store: Store) -> None:
    write_all(store, "a")
    found = ask(store, "select table_name, digest, facts->>'slide_sha256', row_count from lineage order by 1")
    assert [(t, d, sha) for t, d, sha, _ in found] == [(t, FACTS.digest, "0" * 64) for t in sorted(PART_TABLES)]
    # The views show those of other models, too.
    stored = FULL | {"stpath_predictions": 6, "expression_by_slide": 2}
    assert {t: n for t, _, _, n in found} == {t: stored[t] for t, _, _, _ in found}


# ---- parts that come and go


def test_a_table_whose_last_part_goes_is_empty_again(store: Store) -> None:
    write_all(store, "a")
    assert counts(store) == FULL
    store.remove([EVALUATION_METRICS.name], "a")
    assert counts(store) == {**FULL, "evaluation_metrics": 0, "lineage": 15}


def test_an_earlier_state_can_be_asked(store: Store) -> None:
    write_all(store, "a")
    (at,) = ask(store, "select max(made_at)::varchar from lineage")[0]
    time.sleep(0.01)
    write_all(store, "b")
    assert ask(store, "select count(*) from slides") == [(2,)]
    then = (datetime.fromisoformat(at) + timedelta(milliseconds=200)).isoformat()
    assert asked.ask(store.home, "select slide_id from slides order by 1", at=then) in ([("a",)], [("a",), ("b",)])
    with pytest.raises(QueryError, match="--at '1999-01-01'"):
        asked.ask(store.home, "select 1", at="1999-01-01")


def test_retired_slides_vanish_from_all_views_but_slides(store: Store) -> None:
    write_all(store, "a")
    write_all(store, "b")
    write_slide(store, "b", "retired")
    assert counts(store) == {**FULL, "slides": 2, "lineage": 32}
    for name in PART_TABLES:
        assert ask(store, f"select distinct slide_id from {name}") == [("a",)]
    assert ask(store, "select slide_id, status from slides order by 1") == [("a", "ready"), ("b", "retired")]
    write_slide(store, "b")
    assert counts(store) == {name: 2 * n for name, n in FULL.items()} | {"fingerprints": 1}


def test_parts_of_a_slide_that_is_not_registered_are_left_out(store: Store) -> None:
    write_all(store, "a")
    write_all(store, "b")
    store.lake.transact(lambda c: c.execute("delete from lake.parts.slides where slide_id = 'b'"))
    assert counts(store) == {**FULL, "lineage": 32}


def test_files_that_are_put_beside_are_not_read(store: Store) -> None:
    write_all(store, "a")
    path = store.path(TILE_GRIDS.name, "a")
    shutil.copy(path, path.with_name("backup.parquet"))
    (path.parent / ".b.parquet.host.1.x.tmp").write_bytes(b"PAR1")
    (store.home / "tables" / "parts" / "slides").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": [1]}), store.home / "tables" / "parts" / "slides" / "foreign.parquet")
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
    monkeypatch.chdir("/")
    assert counts(Store(tmp_path / "root")) == FULL


# ---- reading and writing at once


def test_an_open_reader_keeps_its_state_and_the_next_sees_what_is_new(store: Store) -> None:
    with query(load_settings(store.home), "select * from slides") as reader:
        write_all(store, "a")
        assert counts(store) == FULL
        assert reader.fetchall() == []


def test_a_place_that_is_no_data_root(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such data root"):
        asked.ask(tmp_path / "root", "select 1")
    assert not (tmp_path / "root").exists()
    (tmp_path / "root").mkdir()
    with pytest.raises(StorageError, match="holds no slides yet"):
        asked.ask(tmp_path / "root", "select 1")
    assert list((tmp_path / "root").iterdir()) == []


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
    filled: Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError) as error:
        ask(filled, sql)
    assert "\n" not in str(error.value)
    assert counts(filled) == FULL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "^not SQL: syntax error at or near"),
        ("", "^give one SQL statement, not 0$"),
        ("-- nothing", "^give one SQL statement, not 0$"),
        ("select 1; drop view slides", "read-only: SELECT, DROP is refused"),
        ("select nope from slides", "^there is no column nope; sql --schema lists those of slides$"),
        ("select * from nope", "^there is no view nope; SHOW TABLES lists them$"),
        ("select sum(slide_id) from slides", "No function matches"),
    ],
)
def test_a_wrong_query_is_one_line(filled: Store, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as error:
        ask(filled, sql)
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
def test_reading_in_any_form_is_answered(filled: Store, sql: str) -> None:
    assert len(ask(filled, sql)) > 0


def test_a_damaged_lake_is_a_one_line_error(store: Store) -> None:
    write_all(store, "a")
    copy = store.home.with_name("copy")
    copy.mkdir()
    (copy / "lake.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match=r"is damaged .* restore it from a backup") as error:
        asked.ask(copy, "select 1")
    assert "lake.sqlite" in str(error.value)
    assert "\n" not in str(error.value)


def test_any_duckdb_client_opens_the_lake(store: Store, tmp_path: Path) -> None:
    """By the line that `sql --attach` prints, without this package; in a folder that was moved as well."""
    write_all(store, "a")
    store.home.rename(tmp_path / "moved")
    line = next(x for x in attach_lines(Store(tmp_path / "moved")).splitlines() if x.startswith("attach"))
    with duckdb.connect(config=OFFLINE) as connection:
        load_extensions(connection, "sqlite_scanner", "ducklake")
        connection.execute(line)
        connection.execute("use lake.main")
        assert connection.execute("select count(*) from stpath_predictions").fetchone() == (24,)
        assert connection.execute("select count(*) from gene_map('a', 'ERBB2')").fetchone() == (12,)
        polars = connection.sql(
            "select gene, avg(expression_log1p) m from stpath_predictions where model = 'stpath-demo' group by 1 order by 1"
        ).pl()
    assert polars["gene"].to_list() == GENES
    np.testing.assert_allclose(polars["m"].to_list(), EXPRESSION.mean(0), rtol=1e-6)
