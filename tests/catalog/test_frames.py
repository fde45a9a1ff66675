"""The catalog in a notebook: Polars and DuckDB read what `sql` reads, lazily, and nothing else."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

import stpath_assets as sa
from stpath_assets.errors import QueryError, StorageError
from stpath_assets.storage import Store
from tests.asked import ask
from tests.catalog.cohorts import make


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("frames") / "root")
    make(store)
    return store.home


def test_a_view_is_a_lazy_frame_whose_conditions_reach_the_files(home: Path) -> None:
    with sa.catalog(home) as cat:
        lazy = (
            cat["tile_expression"]
            .filter((pl.col("gene") == "ERBB2") & (pl.col("slide_id") == "a"))
            .select("tile_id", "expression_log1p")
        )
        assert isinstance(lazy, pl.LazyFrame)
        plan = lazy.explain()
        assert "PYTHON SCAN" in plan
        assert 'SELECTION: (col("gene") == "ERBB2")' in plan
        found = sorted(lazy.collect().rows())
    assert found == ask(
        home,
        "select tile_id, expression_log1p from tile_expression where gene = 'ERBB2' and slide_id = 'a' order by all",
    )


def test_sql_is_a_relation(home: Path) -> None:
    with sa.catalog(home) as cat:
        relation = cat.sql("select * from hotspots('a', 'ERBB2')")
        assert isinstance(relation, duckdb.DuckDBPyRelation)
        assert relation.limit(3).pl().height == 3
        assert relation.df()["gi_z"].is_monotonic_decreasing
        assert cat.sql("select count(*) from slides").fetchone() == (5,)


def test_it_reads_the_lake_and_nothing_else(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    with sa.catalog(home) as cat:
        for query in (f"from '{tmp_path}/x.csv'", "drop view slides", f"copy slides to '{tmp_path}/y.csv'", "selekt"):
            with pytest.raises(QueryError) as error:
                cat.sql(query)
            assert "\n" not in str(error.value)
        with pytest.raises(duckdb.Error):
            cat.sql("select * from slides").write_csv(f"{tmp_path}/y.csv")
        assert not (tmp_path / "y.csv").exists()


def test_names_are_told(home: Path) -> None:
    with sa.catalog(home) as cat:
        assert repr(cat) == f"<catalog {home}/lake.sqlite: {len(cat.views)} views, 9 macros>"
        assert {"slides", "expression_by_slide", "cohort"} <= set(cat.views)
        with pytest.raises(KeyError, match="there is no view slidez; did you mean slides"):
            cat["slidez"]
        with pytest.raises(QueryError, match="did you mean organ"):
            cat.sql("select organn from slides")
        with pytest.raises(QueryError, match="did you mean ERBB2"):
            cat.sql("select * from tile_expression where gene = 'erbb2'")
    with pytest.raises(StorageError, match="no such data root"):
        sa.catalog(home / "nothing")


def test_every_view_is_a_frame(home: Path) -> None:
    with sa.catalog(home) as cat:
        for name in cat.views:
            assert cat[name].collect_schema().names()


def test_each_question_sees_the_tables_as_they_are_then(home: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    make(store)
    with sa.catalog(store.home) as cat:
        frame = cat["slides"]
        assert frame.collect().height == 5
        store.lake.transact(lambda c: c.execute("delete from lake.parts.slides where slide_id = 'a'"))
        assert cat["slides"].collect().height == 4
