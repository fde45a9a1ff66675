"""A slide's stored part of a table: its row of `lineage`, and the location of its file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stpath_assets.errors import StorageError
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.tables import LINEAGE

SLIDE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")

OF_SLIDE = "concat(slide_id, '') = ?"
"""Condition on the slide for a table that is kept in the metadata. For a plain `slide_id = ?`, DuckLake would first search
the file statistics of all tables.
"""

OF_PART = "concat(slide_id, '/', table_name)"
"""The key of a row of `lineage`, as one expression for the same reason."""


@dataclass(frozen=True)
class Part:
    """A stored part: a row of `lineage`, whose columns have descriptions. `file` is a key of `Objects`."""

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
    """Return the stored parts that match a condition on `lineage`, by slide and table."""
    query = f"select {Part.COLUMNS} from {NAME}.parts.{LINEAGE.name} where {where} order by slide_id, table_name"
    return [Part(*row) for row in cursor.execute(query, list(values)).fetchall()]


def part_key(table: str, slide_id: str, digest: str) -> str:
    """Return the key of a slide's part, relative to the tables' location."""
    return f"parts/{table}/{slide_id}/{digest}.parquet"


def check_slide_id(slide_id: str) -> None:
    """Raise `StorageError` if a text is not a valid slide_id."""
    if not SLIDE_ID.fullmatch(slide_id):
        raise StorageError(
            f"{slide_id!r} is not a slide_id: letters, digits, '_', '.', '-', at most 120, first a letter or digit, no '..'"
        )
