"""Runs reading SQL over the lake: checked, locked and streamed, on the present or a past state.

Which statements are allowed is decided in `guard`, what a connection can reach in `sandbox`. Showing the result is the
caller's task.
"""

import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from stpath_assets.catalog import sandbox
from stpath_assets.catalog.guard import check_statement
from stpath_assets.catalog.names import explain, unknown_names
from stpath_assets.catalog.sandbox import Limits, Result
from stpath_assets.catalog.views import STALE_SLIDES, bring_up, create_temporary
from stpath_assets.errors import QueryError
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME, attach, to_error
from stpath_assets.tables import OWN_TABLES

_NO_SNAPSHOT = re.compile(r"snapshot", re.IGNORECASE)


@contextmanager
def query(settings: Settings, sql: str, at: str | None = None) -> Iterator[Result]:
    """Run one reading SQL statement over the catalog. The result streams inside the `with` block.

    `at` is a time such as `2026-11-01` or `2026-11-01 12:00`, for the state of the tables at that time. The view
    `stale_slides` is computed if the query names it. Raises `QueryError` if the text is not SQL, reads unknown columns, is
    more than one statement, names only genes that do not exist, would write or reach outside the lake, or exceeds a
    limit of the settings. Warns of a name that does not exist, if others do.
    """
    store = Store.of(settings)
    try:
        statement = check_statement(sql)
    except QueryError as e:
        raise explain(e, sql) from e
    has_views = bring_up(store)
    if at is None:
        warn_of_names(store, statement)
    with tempfile.TemporaryDirectory(prefix="stpath-sql-") as temp:
        connection = attached(store, at)
        try:
            limits = limits_of(settings)
            # The attached metadata stays readable, but naming its files here would let COPY write them.
            sandbox.lock(connection, [store.place.tables_path], [], limits, Path(temp))
            try:
                prepare = None if has_views or at is not None else create_temporary
                tables = _computed(statement, store, settings)
                result = sandbox.run(connection, statement, limits, tables, prepare)
            except QueryError as e:
                raise explain(e, statement, own_tables(store)) from e
            with result:
                yield result
        finally:
            connection.close()


def warn_of_names(store: Store, statement: str, known: dict[str, set[str]] | None = None) -> None:
    """Warn of genes, slides and sets that a statement names and that do not exist. Raises `QueryError` if only such genes are.

    `known` keeps names from one statement to the next.
    """
    said, in_vain = unknown_names(store, statement, known)
    if in_vain:
        raise QueryError("; ".join(said))
    for line in said:
        warnings.warn(line, stacklevel=3)


def own_tables(store: Store) -> list[str]:
    """Return the names of the user's own tables."""
    return [name for (name,) in store.rows(f"select name from {NAME}.parts.{OWN_TABLES.name} order by 1")]


def limits_of(settings: Settings) -> Limits:
    """Return the limits of a query from the settings."""
    return Limits(settings.sql_memory, settings.sql_threads, settings.sql_seconds, settings.sql_rows)


def attached(store: Store, at: str | None) -> duckdb.DuckDBPyConnection:
    """Return a new connection to the lake, as it is or was at a time. Raises `QueryError` if there was no state then."""
    try:
        connection = attach(store.place, read_only=True, at=at)
        # Parts never change, so their footers can be kept from one question to the next.
        connection.execute("set parquet_metadata_cache = true")
        return connection
    except duckdb.Error as e:
        if (
            at is not None
            and not isinstance(e, duckdb.IOException)
            and (_NO_SNAPSHOT.search(str(e)) or "timestamp" in str(e))
        ):
            raise QueryError(
                f"--at {at!r}: the lake has no state of that time; give a time like 2026-11-01 12:00"
            ) from e
        raise to_error(e, store.place) from e


def _computed(statement: str, store: Store, settings: Settings) -> dict[str, pa.Table]:
    """Compute the view `stale_slides` if a statement names it."""
    if STALE_SLIDES.name not in statement.lower():
        return {}
    from stpath_assets.stages import Plan, stale_slides

    return {STALE_SLIDES.name: stale_slides(store, Plan(settings))}


def attach_lines(store: Store) -> str:
    """Return the lines that open the lake in DuckDB's shell, Python, R and DBeaver."""
    bring_up(store)
    home = store.place
    metadata = f"postgres:{home.name}" if home.on_postgres else f"sqlite:{home.sqlite.absolute()}"
    scanner = "postgres" if home.on_postgres else "sqlite"
    sql = f"attach 'ducklake:{metadata}' as lake (data_path '{home.tables_path}', override_data_path true, read_only);"
    return f"""-- DuckDB {duckdb.__version__}, any client; the extensions once: install ducklake; install {scanner};
{sql}
use lake.main;
show tables;
select * from documentation;

# Python
import duckdb
lake = duckdb.connect()
lake.execute("{sql}")
lake.execute("use lake.main")
lake.sql("select * from slides")

# R
con <- DBI::dbConnect(duckdb::duckdb())
DBI::dbExecute(con, "{sql}")
DBI::dbExecute(con, "use lake.main")
DBI::dbGetQuery(con, "select * from slides")

-- DBeaver: a new connection of the driver DuckDB to :memory:, and the two lines above as its bootstrap queries
"""
