"""The catalog in a notebook: views as Polars lazy frames, SQL as DuckDB relations.

    cat = sa.catalog()
    cat["expression_by_slide"].filter(pl.col("gene") == "ERBB2").select("slide_id", "z").collect()
    cat.sql("select * from hotspots('S1', 'ERBB2')").pl()

Both are lazy: conditions and columns reach the Parquet files. The connection is locked and read-only, as that of `sql`.
"""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from stpath_assets.catalog import sandbox
from stpath_assets.catalog.guard import check_statement, one_line
from stpath_assets.catalog.names import explain
from stpath_assets.catalog.query import attached, limits_of, own_tables, warn_of_names
from stpath_assets.catalog.views import MACROS, VIEWS, bring_up, create_temporary
from stpath_assets.errors import QueryError
from stpath_assets.settings import Settings, load_settings
from stpath_assets.storage import Store
from stpath_assets.tables import TABLES

if TYPE_CHECKING:
    import polars as pl


def open_catalog(home: str | Path | None = None, *, at: str | None = None) -> "Catalog":
    """Open the catalog of a data root: STPATH_HOME, unless `home` is given. `at` is a time of the past, as for `sql --at`.

    Raises `StorageError` if there is no lake.
    """
    return Catalog(load_settings(home), at)


class Catalog:
    """The views of a data root on a connection of its own. Each question sees the tables as they are then. Close it when done."""

    def __init__(self, settings: Settings, at: str | None = None) -> None:
        self._store, self._at = Store.of(settings), at
        has_views = bring_up(self._store)
        self._names: dict[str, set[str]] = {}
        self._temp = tempfile.TemporaryDirectory(prefix="stpath-sql-")
        self._connection = attached(self._store, at)
        if not has_views and at is None:
            create_temporary(self._connection)
        sandbox.lock(self._connection, [self._store.place.tables_path], [], limits_of(settings), Path(self._temp.name))

    @property
    def views(self) -> list[str]:
        """Names of the tables and views, and of your own tables."""
        named = {*TABLES, *(v.name for v in VIEWS.values() if v.sql is not None)}
        return sorted({*named, *own_tables(self._store)})

    def __getitem__(self, view: str) -> "pl.LazyFrame":
        """Return a view as a Polars lazy frame. Raises `KeyError` with the nearest names if there is none of the name."""
        if view not in self.views:
            raise KeyError(
                str(explain(QueryError(f"Table with name {view} does not exist"), "", own_tables(self._store)))
            )
        return self.sql(f'select * from "{view}"').pl(lazy=True)

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """Return one reading statement as a relation: `.pl()`, `.df()`, `.arrow()`, or further methods of DuckDB.

        The settings' limits of memory and threads hold, those of time and rows do not. `stale_slides`, which needs more than the
        lake, is not there. Raises `QueryError` for a wrong statement.
        """
        try:
            statement = check_statement(query)
        except QueryError as e:
            raise explain(e, query) from e
        if self._at is None:
            warn_of_names(self._store, statement, self._names)
        try:
            return self._connection.sql(statement)
        except duckdb.Error as e:
            raise explain(QueryError(one_line(str(e))), statement, own_tables(self._store)) from e

    def interrupt(self) -> None:
        """Stop the question that another thread asks just now; it raises there."""
        with suppress(duckdb.ConnectionException):  # closed since: there is nothing to stop
            self._connection.interrupt()

    def close(self) -> None:
        """Close the connection. Frames and relations of it cannot be computed afterwards."""
        self._connection.close()
        self._temp.cleanup()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        then = f" at {self._at}" if self._at else ""
        return f"<catalog {self._store.place.name}{then}: {len(self.views)} views, {len(MACROS)} macros>"
