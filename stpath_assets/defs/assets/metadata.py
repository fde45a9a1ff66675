"""What the UI shows of a slide's part. Small: numbers under stable names, which the UI plots, and pictures of up to 50 KB."""

from typing import Any

import dagster as dg

from stpath_assets.storage import Outcome, Store
from stpath_assets.tables import SLIDES, Table


def metadata_of(
    store: Store, table: Table, slide_id: str, made: Outcome, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return every asset's metadata of a slide's part: rows, path, size, notes, and what `more` adds."""
    part = store.part(table.name, slide_id)
    where = (
        {}
        if part is None or part.file is None
        else {"dagster/uri": store.objects.where(part.file), "size_bytes": part.size_bytes}
    )
    return {
        "dagster/partition_row_count": 1 if table is SLIDES else (0 if part is None else part.row_count),
        **where,
        "made": made.recomputed,
        # As text: notes may hold names from files, and markdown would let those draw in the page.
        **({"notes": dg.MetadataValue.text("\n".join(made.notes))} if made.notes else {}),
        **(more or {}),
    }


def picture(data_uri: str, alt: str) -> dg.MarkdownMetadataValue:
    """Return a small picture as metadata."""
    plain = "".join(c if c.isalnum() or c in " _.-" else "_" for c in alt)
    return dg.MetadataValue.md(f"![{plain}]({data_uri})")


def is_picture(value: dg.MetadataValue) -> bool:
    """Return whether metadata is a picture of `picture`."""
    return isinstance(value, dg.MarkdownMetadataValue) and str(value.value).startswith("![")
