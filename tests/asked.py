"""Asks the catalog of a data root, as `stpath-assets sql` does."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from stpath_assets.catalog import query
from stpath_assets.settings import load_settings


def ask(home: Path, sql: str, at: str | None = None) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with query(load_settings(home), sql, at) as result:
        return result.fetchall()


def ask_arrow(home: Path, sql: str) -> pa.Table:
    """The rows of a query as an Arrow table."""
    with query(load_settings(home), sql) as result:
        return result.to_arrow()
