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
from stpath_assets.tables import FINGERPRINTS, LINEAGE, PART_TABLES, SLIDES, TABLES, Table

LAYOUT = 2
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
_FINGERPRINTS = f"select digest, any_value(facts) as facts from parts.{FINGERPRINTS.name} group by digest"
"""One row a fingerprint: two writers of the same may each have kept it."""


def bring_up(cursor: Cursor, home: str) -> bool:
    """Makes what the lake lacks, tables and columns, and says whether it lacked nothing.

    Raises `StorageError` for a lake of a newer program.
    """
    about = read_about(cursor)
    check_layout(about, home)
    if about == _wanted():
        return True
    if not about:
        # Nothing of tables of files is kept in the metadata. Deleted rows least of all: a file goes when it has none left.
        cursor.execute(f"call {NAME}.set_option('data_inlining_row_limit', 0)")
    cursor.execute(f"create schema if not exists {NAME}.parts")
    cursor.execute(f"create table if not exists {_ABOUT} (key varchar, value varchar)")
    for table in TABLES.values():
        _bring_up_table(cursor, table)
    return False


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
    if "facts" in _columns(cursor, LINEAGE):
        _move_facts(cursor)
    cursor.execute(f"delete from {_ABOUT}")
    cursor.executemany(f"insert into {_ABOUT} values (?, ?)", list(_wanted().items()))


def _move_facts(cursor: Cursor) -> None:
    """Brings a lake of layout 1 up, whose lineage held the facts: each look at lineage read them all."""
    lineage, fingerprints = (f"{NAME}.parts.{t.name}" for t in (LINEAGE, FINGERPRINTS))
    facts = cursor.execute(f"select distinct digest, facts from {lineage}").fetchall()
    for start in range(0, len(facts), INLINE_ROWS):
        rows = pa.Table.from_pylist([{"digest": d, "facts": f} for d, f in facts[start : start + INLINE_ROWS]])
        cursor.register("stpath_rows", rows)
        cursor.execute(f"insert into {fingerprints} select digest, facts from stpath_rows")
        cursor.unregister("stpath_rows")
    cursor.execute(f"alter table {lineage} drop column facts")


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
    if table is FINGERPRINTS:
        return _FINGERPRINTS
    if table.looked_up:
        looked_up = ", ".join(f"f.{f.name}" for f in table.looked_up)
        return f"select p.*, {looked_up} from {stored} p left join ({_FINGERPRINTS}) f using (digest)"
    if not table.by_gene:
        # DuckLake has no lists of fixed length.
        fixed = [
            f"{f.name}::{sql_type(f.type)} as {f.name}" for f in table.schema if pa.types.is_fixed_size_list(f.type)
        ]
        columns = f"* replace ({', '.join(fixed)})" if fixed else "*"
        live = f" where {_LIVE}" if table.name in PART_TABLES else ""
        return f"select {columns} from {stored}{live}"
    # A key is looked up by its place in the list: where a query does not ask for it, it is not read at all.
    keys = ", ".join(table.keys)
    columns = ", ".join(f"{f.name}[i] as {f.name}" if f.name in table.keys else f.name for f in table.schema)
    plain = ", ".join(f"p.{f.name}" for f in table.schema if f.name not in {*table.keys, table.value})
    return (
        f"with heads as (select slide_id, {keys} from {stored} where gene is null) select {columns} from ("
        f"select {plain}, {keys}, unnest(p.{table.value}) as {table.value}, generate_subscripts(p.{table.value}, 1) as i "
        f"from (select {', '.join(f.name for f in table.schema if f.name not in table.keys)} from {stored} "
        f"where gene is not null and {_LIVE}) p left join heads using (slide_id))"
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
    there = _columns(cursor, table)
    for field in table.schema:
        if field.name not in there:
            cursor.execute(f"alter table {name} add column {field.name} {_stored_type(field.type)}")


def _columns(cursor: Cursor, table: Table) -> set[str]:
    """The columns that a stored table has in the lake."""
    found = cursor.execute(
        "select column_name from duckdb_columns() where database_name = ? and schema_name = 'parts' and table_name = ?",
        [NAME, table.name],
    )
    return {c for (c,) in found.fetchall()}


def _wanted() -> dict[str, str]:
    return {"layout": str(LAYOUT), "schema": _digest()}


def _digest() -> str:
    """What changes when tables or views do."""
    said = [f"{t.name}|{t.row}|{view_sql(t)}|{[(f.name, str(f.type)) for f in t.schema]}" for t in TABLES.values()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
