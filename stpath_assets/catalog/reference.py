"""The reference of the catalog: every table, view and macro with its columns, as text for a terminal and as docs/schema.md."""

import difflib
import textwrap
from collections.abc import Iterator

from stpath_assets.catalog.views import Documented, documented
from stpath_assets.errors import QueryError

_HEAD = """# Schema

Written by `python -m stpath_assets.catalog.reference > docs/schema.md`; `stpath-assets sql --schema` prints the same, and the
view `documentation` has it in SQL. Tables are written by stages and imports, views and macros are computed when they are read.
[queries.md](queries.md) shows them at work.

Each table is a view of the lake, in its schema `main`, and a table of its schema `parts`. What is stored in files is in
Parquet, `tables/parts/<table>/<slide_id>/<digest>.parquet`; small tables are kept in the lake's metadata. A macro is called in
FROM: `from hotspots('slide_1', 'ERBB2')`. Slides that are retired are left out, except in `slides`, `cohort` and the register's
own tables."""


def find(name: str | None) -> list[Documented]:
    """Return one table, view or macro, or all. Raises `QueryError` with the nearest names if there is none of the name."""
    everything = documented()
    found = [d for d in everything if name is None or d.name == name]
    if not found:
        near = difflib.get_close_matches(str(name), [d.name for d in everything], 3, 0.5)
        raise QueryError(
            f"{name}: there is no such view; {'did you mean ' + ' or '.join(near) if near else 'SHOW TABLES lists them'}"
        )
    return found


def to_text(name: str | None = None, width: int = 80) -> str:
    """Return the reference as plain text of a width."""
    return "\n\n".join("\n".join(_text_of(d, width)) for d in find(name))


def overview(width: int = 80) -> str:
    """Return one line for each table, view and macro: how it is called, and what one row is."""
    everything = documented()
    longest = max(len(d.call) for d in everything) + 2
    return "\n".join(
        textwrap.fill(d.row, width, initial_indent=d.call.ljust(longest), subsequent_indent=" " * longest)
        for d in everything
    )


def _text_of(d: Documented, width: int) -> Iterator[str]:
    yield textwrap.fill(f"{d.call}: one row is {d.row}", width, subsequent_indent="  ")
    lines = [*((n, "parameter", m) for n, _, m in d.parameters), *d.columns]
    names, types = (max(len(line[i]) for line in lines) for i in (0, 1))
    for column, type_, meaning in lines:
        lead = f"  {column.ljust(names)}  {type_.ljust(types)}  "
        yield textwrap.fill(
            meaning.replace("`", ""), max(width, len(lead) + 20), initial_indent=lead, subsequent_indent=" " * len(lead)
        )


def to_markdown() -> str:
    """Return the reference as Markdown, the content of docs/schema.md."""
    everything = documented()
    lines = [_HEAD]
    for kind, title in (("table", "Tables"), ("view", "Views"), ("macro", "Macros")):
        lines += ["", f"## {title}"]
        for d in everything:
            if d.kind == kind:
                lines += ["", *_markdown_of(d)]
    return "\n".join(lines)


def _markdown_of(d: Documented) -> Iterator[str]:
    yield f"### {d.name}"
    yield ""
    if d.kind == "macro":
        yield f"`from {d.call}`"
        yield ""
    yield f"One row is {d.row}."
    yield ""
    for line in _storage_of(d):
        yield line
        yield ""
    yield "| column | type | meaning |"
    yield "|---|---|---|"
    for column, type_, meaning in (*((n, "parameter", m) for n, _, m in d.parameters), *d.columns):
        yield f"| `{column}` | {type_} | {meaning} |"


def _storage_of(d: Documented) -> Iterator[str]:
    """Yield sentences on how a table is stored."""
    table = d.table
    if table is None:
        return
    if d.kind == "view":
        yield (
            f"Stored are the columns up to `{table.schema.names[-1]}`; the others are computed."
            if len(table.schema) < len(d.columns)
            else "Stored, and shown only as far as it is current."
        )
    if table.inline:
        yield "Kept in the lake's metadata; large imports in a file of the lake."
    if table.by_gene:
        lists = ", ".join(f"`{name}`" for name in (*table.keys, table.value) if name)
        yield (
            f"Stored by gene: {lists} are lists. The first row of a file has `gene` NULL and holds the keys "
            f"({', '.join(f'`{k}`' for k in table.keys)}); each further row is a gene, in ascending order, with its "
            f"`{table.value}` in the order of the keys. The view turns them into rows."
        )
    if table.section:
        yield f"A file has such rows for each `{table.section}`, one after another."
    if table.and_of:
        yield f"The view shows the rows of {' and '.join(f'`{t.name}`' for t in table.and_of)}, too."


if __name__ == "__main__":
    print(to_markdown())
