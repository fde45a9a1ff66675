"""The catalog: DuckDB views over the Parquet files, and read-only SQL over them.

The Parquet files are the truth; `catalog.duckdb` holds views alone, is rebuilt beside and renamed into place. A reader of it
never blocks a writer, nor the other way round. Every view but `slides` leaves retired slides out.
"""

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from stpath_assets.errors import QueryError
from stpath_assets.storage import Store, atomic_file
from stpath_assets.tables import SLIDES, TABLES, Table

NAME = "catalog.duckdb"

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "float": "FLOAT",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}
_ATTEMPTS = 6
_NOT_OF_FILES = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException)

_LIVE = f"slide_id in (select slide_id from {SLIDES.name} where status = 'ready')"


def build(store: Store) -> Path:
    """Builds the catalog of a data root anew; a reader of the old one keeps it until it closes."""
    path = store.home / NAME
    with atomic_file(path) as draft:
        with duckdb.connect(str(draft)) as connection:
            for table in TABLES.values():
                connection.execute(view_sql(table, store.home))
                _comment(connection, table)
    return path


def view_sql(table: Table, home: Path) -> str:
    """The statement that makes a table's view: of its files, or without rows while there are none."""
    if not _has_files(table, home):
        columns = ", ".join(f"null::{_sql_type(f.type)} as {f.name}" for f in table.view_columns())
        return f"create view {table.name} as select {columns} where false"
    files = f"read_parquet({_quoted(_files(table, home))}, union_by_name = true)"
    if table.name == SLIDES.name:
        return f"create view {table.name} as select * from {files}"
    if not table.by_gene:
        # Parquet does not say that a list's length is fixed.
        fixed = [
            f"{f.name}::{_sql_type(f.type)} as {f.name}" for f in table.schema if pa.types.is_fixed_size_list(f.type)
        ]
        columns = f"* replace ({', '.join(fixed)})" if fixed else "*"
        return f"create view {table.name} as select {columns} from {files} where {_LIVE}"
    keys, lists = table.keys, {*table.keys, table.value}
    columns = ", ".join(
        f"unnest({'h' if f.name in keys else 'p'}.{f.name}) as {f.name}" if f.name in lists else f"p.{f.name}"
        for f in table.schema
    )
    return (
        f"create view {table.name} as with parts as (select * from {files} where {_LIVE}), "
        f"heads as (select slide_id, {', '.join(keys)} from parts where gene is null) "
        f"select {columns} from parts p join heads h using (slide_id) where p.gene is not null"
    )


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """Opens the catalog read-only, building it first where it is missing or out of date."""
    path = store.home / NAME
    if not path.exists():
        build(store)
    connection = _open(path)
    if not _is_right(connection, store.home):
        connection.close()
        build(store)
        connection = _open(path)
    return connection


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    # Attached, not connected to: DuckDB shares one instance a path in a process, so that a reader still open would have
    # the next one see the file that was there before a rebuild.
    connection = duckdb.connect()
    connection.execute(f"attach {_quoted(str(path))} as home (read_only)")
    connection.execute("use home")
    return connection


def query(store: Store, sql: str) -> duckdb.DuckDBPyRelation:
    """The result of one reading SQL statement over the catalog, computed.

    Raises `QueryError` for what is no SQL, reads unknown columns, is more than one statement, or would write.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as e:
        raise QueryError(f"not SQL: {_one_line(e)}") from e
    if len(statements) != 1:
        raise QueryError(f"give one SQL statement, not {len(statements)}")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError(
            f"the catalog is read-only: {statements[0].type.name} statements are refused; "
            "use SELECT, or --format to save a result"
        )
    for attempt in range(_ATTEMPTS):
        # DuckDB opens a file more than once by its name. One that a run replaces meanwhile reads as damaged, or, where both
        # have the same layout, half as the old and half as the new: what was read then is thrown away.
        before = _files_of(store)
        try:
            result = connect(store).sql(sql)
            result.execute()
        except duckdb.Error as e:
            if isinstance(e, _NOT_OF_FILES) or attempt + 1 == _ATTEMPTS:
                raise QueryError(_one_line(e)) from e
        else:
            after = _files_of(store)
            if all(after.get(path, state) == state for path, state in before.items()):
                return result
        time.sleep(0.05 * 2**attempt)
    raise QueryError("the tables were replaced faster than they could be read; ask again when runs are done")


def _files_of(store: Store) -> dict[str, tuple[int, int]]:
    """What tells each stored file from the one that replaces it: inode and time of change."""
    found = {}
    for name in TABLES:
        folder = store.home / "tables" / name
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    state = entry.stat()
                    found[entry.path] = (state.st_ino, state.st_mtime_ns)
    return found


def _is_right(connection: duckdb.DuckDBPyConnection, home: Path) -> bool:
    """Whether each view reads its table's files if and only if there are any: files come and go, roots are moved."""
    views = dict(connection.execute("select view_name, sql from duckdb_views() where not internal").fetchall())
    return all(
        t.name in views and (_quoted(_files(t, home)) in views[t.name]) == _has_files(t, home) for t in TABLES.values()
    )


def _comment(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    connection.execute(f"comment on view {table.name} is {_quoted(f'one row is {table.row}')}")
    for column in table.view_columns():
        description = column.metadata[b"description"].decode()
        connection.execute(f"comment on column {table.name}.{column.name} is {_quoted(description)}")


def _files(table: Table, home: Path) -> str:
    # Names that begin with a dot are none of ours. A folder's own name is no pattern.
    folder = re.sub(r"([\[*?])", r"[\1]", str((home / "tables" / table.name).absolute()))
    return f"{folder}/[!.]*.parquet"


def _has_files(table: Table, home: Path) -> bool:
    return any((home / "tables" / table.name).glob("[!.]*.parquet"))


def _sql_type(type_: Any) -> str:
    if pa.types.is_fixed_size_list(type_):
        return f"{_sql_type(type_.value_type)}[{type_.list_size}]"
    if pa.types.is_list(type_):
        return f"{_sql_type(type_.value_type)}[]"
    return _SQL_TYPES[str(type_)]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n\nLINE")[0].split())
