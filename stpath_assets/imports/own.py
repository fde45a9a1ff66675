"""Imports a table of the user's own, such as clinical data: one row per patient or slide, with checked types.

It is stored as `own.NAME` in the lake, and shown by the view NAME. Another import of the same name replaces it.
"""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from stpath_assets.catalog.views import documented
from stpath_assets.errors import ImportFileError, one_line
from stpath_assets.imports.reading import Frame, check_patients, is_null, read_frame, slides_of, to_number
from stpath_assets.storage import Store
from stpath_assets.storage.extensions import OFFLINE
from stpath_assets.storage.lake import NAME, Cursor, quote
from stpath_assets.storage.schema import READY
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import OWN_TABLES

KEYS = ("patient_id", "slide_id")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MOSTLY = 0.8
"""A column is meant to hold numbers, or dates, if so large a share of its values are."""

_WORDS = {"int64": "whole number", "double": "number", "string": "text", "date32[day]": "date", "bool": "true or false"}
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False}


def import_table(
    store: Store, name: str, path: Path, by: str | None = None, text: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """Store a CSV or Parquet file as the table `name`, one row per `by`: `patient_id` or `slide_id`.
    Returns its columns with their types, and notes.

    A column of a CSV holds numbers, dates (2026-01-31) or true and false if all its values are; one in which most are, but not
    all, is an error, unless `text` names it. Empty, NA and the like are NULL. Raises `ImportFileError`; nothing is stored then.
    """
    _check_name(name)
    frame = read_frame(path)
    key = _key_of(frame, by)
    frame.refuse_twice([key])
    notes = _check_keys(store, frame, key)
    for column in text:
        if column not in frame.columns:
            raise ImportFileError(f"{path}: row 1: has no column {one_line(column)}, which --text names")
    rows = _typed(frame, {key, *text})
    store.create()
    store.lake.transact(lambda cursor: _store(cursor, name, key, rows, frame))
    return _described(rows), notes


def _described(rows: pa.Table) -> list[str]:
    """Return columns with their types, as own_tables has them."""
    return [f"{f.name} {_WORDS.get(str(f.type), str(f.type))}" for f in rows.schema]


def remove_table(store: Store, name: str) -> None:
    """Remove a table of the user's own. Raises `ImportFileError` if there is none of the name."""
    store.open()

    def work(cursor: Cursor) -> None:
        if not _is_there(cursor, name):
            raise ImportFileError(f"{one_line(name)}: there is no such table; select name from own_tables lists them")
        cursor.execute(f"drop view if exists {NAME}.main.{name}")
        cursor.execute(f"drop table {NAME}.own.{name}")
        cursor.execute(f"delete from {NAME}.parts.{OWN_TABLES.name} where concat(name, '') = ?", [name])

    store.lake.transact(work)


def _store(cursor: Cursor, name: str, key: str, rows: pa.Table, frame: Frame) -> None:
    cursor.execute(f"create schema if not exists {NAME}.own")
    cursor.register("stpath_own", rows)
    cursor.execute(f"create or replace table {NAME}.own.{name} as select * from stpath_own")
    cursor.unregister("stpath_own")
    live = f" where slide_id in ({READY})" if key == "slide_id" else ""
    cursor.execute(f"create or replace view {NAME}.main.{name} as select * from own.{name}{live}")
    row = f"one row is a {key.removesuffix('_id')}, from {frame.path.name}"
    cursor.execute(f"comment on view {NAME}.main.{name} is {quote(row)}")
    cursor.execute(f"delete from {NAME}.parts.{OWN_TABLES.name} where concat(name, '') = ?", [name])
    about = {
        "name": name, "key": key, "columns": _described(rows), "source": frame.path.name,
        "sha256": frame.sha256, "row_count": rows.num_rows, "imported_at": datetime.now(UTC),
    }  # fmt: skip
    insert_rows(cursor, OWN_TABLES, pa.Table.from_pylist([about], OWN_TABLES.schema))


def _is_there(cursor: Cursor, name: str) -> bool:
    query = f"select count(*) from {NAME}.parts.{OWN_TABLES.name} where concat(name, '') = ?"
    return bool(_NAME.fullmatch(name)) and cursor.execute(query, [name]).fetchall() != [(0,)]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ImportFileError(f"{one_line(name)}: is no name of a table; use a-z, 0-9 and _, first a letter")
    if name in {d.name for d in documented()}:
        raise ImportFileError(f"{name}: is a view of the catalog; choose another name")
    with duckdb.connect(config={**OFFLINE}) as connection:
        query = "select keyword_name from duckdb_keywords() where keyword_category = 'reserved'"
        reserved = connection.execute(query).fetchall()
    if (name,) in reserved:
        raise ImportFileError(f"{name}: is a word of SQL; choose another name")


def _key_of(frame: Frame, by: str | None) -> str:
    there = [k for k in KEYS if k in frame.columns]
    if by is not None and by not in there:
        frame.require([by], frame.names)
    if by is None and len(there) != 1:
        said = (
            "has both patient_id and slide_id; say which is the key: --by"
            if there
            else "needs a column patient_id or slide_id"
        )
        raise ImportFileError(f"{frame.path}: row 1: {said}")
    return by or there[0]


def _check_keys(store: Store, frame: Frame, key: str) -> list[str]:
    """Refuse slides that are not registered. Patients without slides are allowed, unless all are, and counted in a note."""
    if key == "slide_id":
        frame.refuse_unknown(key, slides_of(store), "registered slide", "stpath-assets status lists them")
        return []
    return check_patients(store, frame)


def _typed(frame: Frame, as_text: set[str]) -> pa.Table:
    if frame.path.suffix.lower() == ".parquet":
        columns = {n: pa.array(_as_text(v) if n in as_text else v) for n, v in frame.columns.items()}
        bad = [n for n, c in columns.items() if pa.types.is_nested(c.type) or pa.types.is_null(c.type)]
        if bad:
            raise ImportFileError(f"{frame.path}: column {one_line(bad[0])}: has no values, or lists; remove it")
        return pa.table(columns)
    return pa.table({n: _column(frame, n, n in as_text) for n in frame.columns})


def _as_text(values: list[Any]) -> list[str | None]:
    return [None if v is None else str(v) for v in values]


def _column(frame: Frame, name: str, is_text: bool) -> pa.Array:
    """Return a column of a CSV with the type of its values."""
    values = frame.columns[name]
    given = [(i, v.strip()) for i, v in enumerate(values) if not is_null(v)]
    if not is_text and given and not any(re.fullmatch(r"0\d+", v) for _, v in given):  # a leading zero is part of an id
        for what, parse, type_ in (
            ("number", _whole, pa.int64()), ("number", to_number, pa.float64()), ("date", _date, pa.date32()),
            ("true or false", lambda v: _BOOLEANS.get(v.lower()), pa.bool_()),
        ):  # fmt: skip
            parsed = {i: parse(v) for i, v in given}
            wrong = [i for i, p in parsed.items() if p is None]
            if not wrong:
                return pa.array([parsed.get(i) for i in range(len(values))], type_)
            if type_ != pa.int64() and len(given) > 2 and len(given) - len(wrong) >= _MOSTLY * len(given):
                said = one_line(values[wrong[0]])[:60]
                frame.fail(wrong[0], name, f"{said!r} is no {what}, as the others are; correct it, or --text {name}")
    return pa.array([None if is_null(v) else v.strip() for v in values], pa.string())


def _whole(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[+-]?[0-9]{1,18}", value) else None


def _date(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else None
    except ValueError:
        return None
