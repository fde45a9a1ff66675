"""The lake's tables and views, made from `tables`: schema `parts` holds what is stored, schema `main` what is asked.

A by-gene table's view turns its lists into rows; every view but those of the register leaves retired slides out.
"""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from stpath_assets.errors import StorageError
from stpath_assets.storage.lake import NAME, Cursor, quoted
from stpath_assets.tables import FAILURES, LINEAGE, SLIDES, TABLES, Table

LAYOUT = 1
"""Version of the lake's layout. A lake of a newer one is refused; an older one is brought up by the first writer."""

INLINE_ROWS = 2000
"""Inserts of up to this many rows are kept in the metadata. Files are added as files, whatever their size."""

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "float": "FLOAT",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}
_ABOUT = f"{NAME}.parts.about"
_UNFILTERED = (SLIDES.name, LINEAGE.name, FAILURES.name)


def bring_up(cursor: Cursor, home: str) -> None:
    """Makes what the lake lacks: tables and columns. Raises `StorageError` for a lake of a newer program."""
    about = read_about(cursor)
    check_layout(about, home)
    if about == _wanted():
        return
    if not about:
        # Nothing of tables of files is kept in the metadata. Deleted rows least of all: a file goes when it has none left.
        cursor.execute(f"call {NAME}.set_option('data_inlining_row_limit', 0)")
    cursor.execute(f"create schema if not exists {NAME}.parts")
    cursor.execute(f"create table if not exists {_ABOUT} (key varchar, value varchar)")
    for table in TABLES.values():
        _bring_up_table(cursor, table)


def complete(cursor: Cursor, home: str) -> None:
    """Makes the views and options of tables; DuckLake takes options of committed tables only. Then the lake is up."""
    if is_up(cursor, home):
        return
    for table in TABLES.values():
        cursor.execute(f"create or replace view {NAME}.main.{table.name} as {view_sql(table)}")
        cursor.execute(f"comment on view {NAME}.main.{table.name} is {quoted(f'one row is {table.row}')}")
    for name in (*(t.name for t in TABLES.values() if t.inline), "about"):
        said = f"schema => 'parts', table_name => {quoted(name)}"
        cursor.execute(f"call {NAME}.set_option('data_inlining_row_limit', {INLINE_ROWS}, {said})")
    cursor.execute(f"delete from {_ABOUT}")
    cursor.executemany(f"insert into {_ABOUT} values (?, ?)", list(_wanted().items()))


def keep_few_statistics(sqlite: Path) -> None:
    """Lets lake.sqlite keep the statistics of a file's slide_id alone, the first column of every table.

    DuckLake reads all statistics for each filter, since its SQLite scanner passes no filter on: with those of every column, a
    commit at 5,000 slides took 1.7 times as long, and a query of one slide 2.4 times. Files hold all genes, so that other
    columns' statistics rule no file out.
    """
    with closing(sqlite3.connect(sqlite, timeout=60)) as database, database:
        database.execute(
            "create trigger if not exists stpath_few_statistics before insert on ducklake_file_column_stats "
            "when new.column_id <> 1 begin select raise(ignore); end"
        )


def is_up(cursor: Cursor, home: str) -> bool:
    """Whether the lake has all that this program asks of it. Raises `StorageError` for a lake of a newer one."""
    about = read_about(cursor)
    check_layout(about, home)
    return about == _wanted()


def read_about(cursor: Cursor) -> dict[str, str]:
    """What the lake says of itself; empty for a new one."""
    try:
        return dict(cursor.execute(f"select key, value from {_ABOUT}").fetchall())
    except duckdb.CatalogException:
        return {}


def check_layout(about: dict[str, str], home: str) -> None:
    """Raises `StorageError` for a lake that a newer program wrote."""
    if int(about.get("layout", LAYOUT)) > LAYOUT:
        raise StorageError(
            f"{home}: was written by a newer version (layout {about['layout']}, this one knows {LAYOUT}); "
            "upgrade: pip install --upgrade stpath-assets"
        )


def view_sql(table: Table) -> str:
    """The query of a table's view. Tables are named without the lake's name, so that it may be attached under any."""
    stored = f"parts.{table.name}"
    if not table.by_gene:
        # DuckLake has no lists of fixed length.
        fixed = [
            f"{f.name}::{sql_type(f.type)} as {f.name}" for f in table.schema if pa.types.is_fixed_size_list(f.type)
        ]
        columns = f"* replace ({', '.join(fixed)})" if fixed else "*"
        live = "" if table.name in _UNFILTERED else f" where {_LIVE}"
        return f"select {columns} from {stored}{live}"
    lists = {*table.keys, table.value}
    columns = ", ".join(
        f"unnest({'h' if f.name in table.keys else 'p'}.{f.name}) as {f.name}" if f.name in lists else f"p.{f.name}"
        for f in table.schema
    )
    return (
        f"with heads as (select slide_id, {', '.join(table.keys)} from {stored} where gene is null) "
        f"select {columns} from {stored} p join heads h using (slide_id) where p.gene is not null and p.{_LIVE}"
    )


_LIVE = f"slide_id in (select slide_id from parts.{SLIDES.name} where status = 'ready')"


def sql_type(type_: Any) -> str:
    """The SQL type of a column as its view shows it."""
    if pa.types.is_fixed_size_list(type_):
        return f"{sql_type(type_.value_type)}[{type_.list_size}]"
    if pa.types.is_list(type_):
        return f"{sql_type(type_.value_type)}[]"
    return _SQL_TYPES[str(type_)]


def _stored_type(type_: Any) -> str:
    if pa.types.is_fixed_size_list(type_):
        return f"{sql_type(type_.value_type)}[]"
    return sql_type(type_)


def _bring_up_table(cursor: Cursor, table: Table) -> None:
    name = f"{NAME}.parts.{table.name}"
    columns = ", ".join(f"{f.name} {_stored_type(f.type)}" for f in table.schema)
    cursor.execute(f"create table if not exists {name} ({columns})")
    there = {
        c
        for (c,) in cursor.execute(
            "select column_name from duckdb_columns() where database_name = ? and schema_name = 'parts' and table_name = ?",
            [NAME, table.name],
        ).fetchall()
    }
    for field in table.schema:
        if field.name not in there:
            cursor.execute(f"alter table {name} add column {field.name} {_stored_type(field.type)}")


def _wanted() -> dict[str, str]:
    return {"layout": str(LAYOUT), "schema": _digest()}


def _digest() -> str:
    """What changes when tables or views do."""
    said = [f"{t.name}|{t.row}|{view_sql(t)}|{[(f.name, str(f.type)) for f in t.schema]}" for t in TABLES.values()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
