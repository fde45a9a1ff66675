"""A slide's stored part of a table: what the lake knows of it, and where its file belongs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stpath_assets.errors import StorageError
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.tables import LINEAGE

SLIDE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")

OF_SLIDE = "concat(slide_id, '') = ?"
"""Condition on the slide of a table that is kept in the metadata. DuckLake would first look a bare `slide_id = ?` up in the
statistics of all files of all tables, of which such a table has none.
"""

OF_PART = "concat(slide_id, '/', table_name)"
"""What tells a row of `lineage` from the others; one expression, for the same reason."""


@dataclass(frozen=True)
class Part:
    """A stored part: a row of `lineage`, whose columns say what is what. `file` is a key of `Objects`."""

    slide_id: str
    table: str
    digest: str
    file: str | None
    sha256: str | None
    size_bytes: int | None
    row_count: int
    damaged: str | None

    COLUMNS = "slide_id, table_name, digest, file, sha256, size_bytes, row_count, damaged"


def parts_where(cursor: Cursor, where: str, values: Sequence[Any] = ()) -> list[Part]:
    """The stored parts that a condition on `lineage` chooses, by slide and table."""
    query = f"select {Part.COLUMNS} from {NAME}.parts.{LINEAGE.name} where {where} order by slide_id, table_name"
    return [Part(*row) for row in cursor.execute(query, list(values)).fetchall()]


def part_key(table: str, slide_id: str, digest: str) -> str:
    """Where a slide's part belongs, relative to the tables' place."""
    return f"parts/{table}/{slide_id}/{digest}.parquet"


def check_slide_id(slide_id: str) -> None:
    """Raises `StorageError` for what is no slide_id."""
    if not SLIDE_ID.fullmatch(slide_id):
        raise StorageError(
            f"{slide_id!r} is no slide_id: letters, digits, '_', '.', '-', at most 120, first a letter or digit, no '..'"
        )
