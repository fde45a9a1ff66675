"""The lake's tables and views, made from `tables`: schema `parts` holds the stored tables, schema `main` the views.

The view of a by-gene table turns its lists into rows. Every view except those of the register leaves retired slides out. Views
that are computed from others are in `catalog.views`.
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from stpath_assets.errors import StorageError
from stpath_assets.storage.lake import NAME, Cursor, quote
from stpath_assets.tables import FINGERPRINTS, LINEAGE, PART_TABLES, SLIDES, TABLES, Table

LAYOUT = 2
"""Version of the lake's layout. A lake with a newer layout is refused; the first writer upgrades an older one."""

INLINE_ROWS = 2000
"""Inserts of up to this many rows are kept in the metadata. Files are registered as files, whatever their size."""

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "float": "FLOAT",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}
ABOUT = f"{NAME}.parts.about"
_FINGERPRINTS = f"select digest, any_value(facts) as facts from parts.{FINGERPRINTS.name} group by digest"
"""One row per fingerprint: two writers may each have stored the same one."""


def bring_up(cursor: Cursor, home: str) -> bool:
    """Create missing tables and columns of the lake, and return whether none was missing.

    Raises `StorageError` if the lake was written by a newer version.
    """
    about = read_about(cursor)
    check_layout(about, home)
    if about.items() >= _wanted().items():
        return True
    if not about:
        # Keep nothing of file tables in the metadata, least of all deleted rows: a file goes when it has no rows left.
        cursor.execute(f"call {NAME}.set_option('data_inlining_row_limit', 0)")
    cursor.execute(f"create schema if not exists {NAME}.parts")
    cursor.execute(f"create table if not exists {ABOUT} (key varchar, value varchar)")
    for table in TABLES.values():
        _bring_up_table(cursor, table)
    return False


def complete(cursor: Cursor, home: str) -> None:
    """Create views and table options, after which the lake is up to date. DuckLake accepts options only for committed tables."""
    if is_up(cursor, home):
        return
    for table in TABLES.values():
        if not table.extended:
            create_view(cursor, table.name, table.row, view_sql(table))
    for name in (*(t.name for t in TABLES.values() if t.inline), "about"):
        said = f"schema => 'parts', table_name => {quote(name)}"
        cursor.execute(f"call {NAME}.set_option('data_inlining_row_limit', {INLINE_ROWS}, {said})")
    if "facts" in _columns(cursor, LINEAGE):
        _move_facts(cursor)
    cursor.execute(f"delete from {ABOUT}")
    cursor.executemany(f"insert into {ABOUT} values (?, ?)", list(_wanted().items()))


def create_view(cursor: Cursor, name: str, row: str, sql: str) -> None:
    """Create or replace a view, with what one row is as its comment."""
    cursor.execute(f"create or replace view {NAME}.main.{name} as {sql}")
    cursor.execute(f"comment on view {NAME}.main.{name} is {quote(f'one row is {row}')}")


def say_empty(cursor: Cursor) -> None:
    """Write statistics of tables that have none, because nothing was ever stored in them. DuckLake keeps a table's statistics for
    the next query, but asks for missing ones eight times in each: 10 ms for each table without rows.

    Runs in a transaction on the metadata alone, because a transaction writes only one database.
    """
    meta = f"__ducklake_metadata_{NAME}"
    cursor.execute(
        f"insert into {meta}.ducklake_table_stats (table_id, record_count, next_row_id, file_size_bytes) "
        f"select table_id, 0, 0, 0 from {meta}.ducklake_table where end_snapshot is null "
        f"and table_id not in (select table_id from {meta}.ducklake_table_stats)"
    )


def _move_facts(cursor: Cursor) -> None:
    """Upgrade a lake of layout 1, whose lineage held the facts, so that each look at lineage read them all."""
    lineage, fingerprints = (f"{NAME}.parts.{t.name}" for t in (LINEAGE, FINGERPRINTS))
    facts = cursor.execute(f"select distinct digest, facts from {lineage}").fetchall()
    for start in range(0, len(facts), INLINE_ROWS):
        rows = pa.Table.from_pylist([{"digest": d, "facts": f} for d, f in facts[start : start + INLINE_ROWS]])
        cursor.register("stpath_rows", rows)
        cursor.execute(f"insert into {fingerprints} select digest, facts from stpath_rows")
        cursor.unregister("stpath_rows")
    cursor.execute(f"alter table {lineage} drop column facts")


def keep_few_statistics(sqlite: Path) -> None:
    """Make lake.sqlite keep a file's statistics of slide_id only, the first column of every table.

    DuckLake reads all statistics for each filter, because its SQLite scanner pushes no filter down. With statistics of every
    column, a commit at 5,000 slides took 1.7 times as long, and a query of one slide 2.4 times. Every file holds all genes,
    so statistics of other columns exclude no file.
    """
    with closing(sqlite3.connect(sqlite, timeout=60)) as database, database:
        database.execute(
            "create trigger if not exists stpath_few_statistics before insert on ducklake_file_column_stats "
            "when new.column_id <> 1 begin select raise(ignore); end"
        )


def is_up(cursor: Cursor, home: str) -> bool:
    """Return whether the lake is up to date with this program. Raises `StorageError` if a newer version wrote it."""
    about = read_about(cursor)
    check_layout(about, home)
    return about.items() >= _wanted().items()


def read_about(cursor: Cursor) -> dict[str, str]:
    """Return the lake's own metadata; empty for a new lake."""
    try:
        return dict(cursor.execute(f"select key, value from {ABOUT}").fetchall())
    except duckdb.CatalogException:
        return {}


def check_layout(about: dict[str, str], home: str) -> None:
    """Raise `StorageError` if a newer version wrote the lake."""
    if int(about.get("layout", LAYOUT)) > LAYOUT:
        raise StorageError(
            f"{home}: was written by a newer version (layout {about['layout']}, this one knows {LAYOUT}); "
            "upgrade: pip install --upgrade stpath-assets"
        )


def view_sql(table: Table) -> str:
    """Return the query of a table's view. It does not name the lake, so the lake can be attached under any name."""
    stored = f"parts.{table.name}"
    if table is FINGERPRINTS:
        return _FINGERPRINTS
    if table.looked_up:
        looked_up = ", ".join(f"f.{f.name}" for f in table.looked_up)
        return f"select p.*, {looked_up} from {stored} p left join ({_FINGERPRINTS}) f using (digest)"
    if table.by_gene:
        names = [f.name for f in table.schema]
        return rows_of_genes((table, *table.and_of), names)
    of_slides = f" where {_LIVE}" if table.name in PART_TABLES else ""
    # DuckLake has no fixed-size lists.
    fixed = [f"{f.name}::{sql_type(f.type)} as {f.name}" for f in table.schema if pa.types.is_fixed_size_list(f.type)]
    columns = f"* replace ({', '.join(fixed)})" if fixed else "*"
    if table.leading:
        columns = ", ".join(f.name for f in table.view_columns())
    rows = " union all by name ".join(f"select {columns} from parts.{t.name}" for t in (table, *table.and_of))
    return f"select * from ({rows}){of_slides}" if table.and_of else f"{rows}{of_slides}"


def rows_of_genes(tables: Sequence[Table], names: Sequence[str], where: str = "gene is not null") -> str:
    """Return the query of the rows of by-gene tables together, of slides that are ready, with these columns. All tables must have
    them, and the same value. `where` is the condition on the stored row of a gene: a join of the values would come too late.
    """
    first = tables[0]
    keys = [n for n in names if n in first.keys]
    of_rows = [n for n in names if n not in keys]
    sections = [n for n in ("model",) if n in names]
    genes, heads = (
        " union all ".join(
            f"select {i} as of_table, {', '.join(columns)} from parts.{t.name} where {condition}"
            for i, t in enumerate(tables)
        )
        for columns, condition in ((of_rows, where), (["slide_id", *sections, *keys], "gene is null"))
    )
    # A key is looked up by its position in the list. In the joins, `concat` keeps DuckDB from looking up each slide_id of each
    # row group of the keys in a Bloom filter, which takes longer than all the rest; a condition on the slide must pass, though.
    same = " and ".join(
        ["p.slide_id = h.slide_id", "p.of_table = h.of_table", *(f"concat(p.{n}, '') = h.{n}" for n in sections)]
    )
    plain = ", ".join(f"p.{n}" for n in of_rows if n != first.value)
    return (
        f"select {', '.join(f'{n}[i] as {n}' if n in keys else n for n in names)} from ("
        f"select {', '.join([plain, *keys])}, unnest(p.{first.value}) as {first.value}, "
        f"generate_subscripts(p.{first.value}, 1) as i from ({genes}) p "
        f"join (select * from ({heads}) where concat(slide_id, '') in ({READY})) h on {same})"
    )


READY = f"select slide_id from parts.{SLIDES.name} where concat(status, '') = 'ready'"
"""Slides that are ready. For a plain condition, DuckLake would first search the file statistics of all tables."""
_LIVE = f"slide_id in ({READY})"


def sql_type(type_: Any) -> str:
    """Return the SQL type of a column in its view."""
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
    """Return the columns of a stored table in the lake."""
    found = cursor.execute(
        "select column_name from duckdb_columns() where database_name = ? and schema_name = 'parts' and table_name = ?",
        [NAME, table.name],
    )
    return {c for (c,) in found.fetchall()}


def _wanted() -> dict[str, str]:
    return {"layout": str(LAYOUT), "schema": _digest()}


def _digest() -> str:
    """Return a value that changes when tables or views do."""
    said = [f"{t.name}|{t.row}|{view_sql(t)}|{[(f.name, str(f.type)) for f in t.schema]}" for t in TABLES.values()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
