"""Prints the rows of a query: as a table that fits the terminal, or as csv, json, parquet or arrow.

A table shows the columns that fit, in their order, and names the others. Long texts and vectors are shortened.
"""

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from stpath_assets.errors import one_line

if TYPE_CHECKING:
    import pyarrow as pa

    from stpath_assets.catalog.sandbox import Result

FORMS = ("table", "csv", "json", "parquet", "arrow")

SHOWN = 100
"""Rows of a table that are shown."""

_WIDEST = (40, 28, 20, 14)
"""Widths to which texts are shortened, one after another, until all columns fit."""

_VECTOR = 3
"""Numbers of a vector that are shown."""

_NAME = 28
"""Width to which names of columns are shortened."""

_GAP = "  "


def print_result(result: "Result", form: str, *, wide: bool = False, width: int | None = None) -> None:
    """Print a query's rows as they come: one of `FORMS`; parquet and arrow (an IPC stream) are bytes.

    A table is cut to `width`, by default the terminal's, unless it is `wide`.
    """
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        for batch in result.batches():
            writer.writerows(_rows(batch))
    elif form == "json":
        _print_json(result)
    elif form in ("parquet", "arrow"):
        _print_bytes(result, form)
    else:
        rows, total = _first_rows(result)
        for line in table_lines(
            result.columns, rows, total, None if wide else width or shutil.get_terminal_size().columns
        ):
            print(line)


def table_lines(names: Sequence[str], rows: Sequence[Sequence[Any]], total: int, width: int | None) -> list[str]:
    """Return a table as lines of at most `width` cells, None for any: its first rows, of `total` in all.

    A single row that does not fit is written a line a column.
    """
    names = [one_line(n) for n in names]
    if width is not None:
        names = [_shortened(n, min(_NAME, width // 2)) for n in names]
    if width is not None and len(rows) == 1 and _width(names, _columns(rows, names, _WIDEST[0])) > width:
        return [*_standing(names, rows[0], width), *_last_line(total, len(rows))]
    empty = [i for i, _ in enumerate(names) if rows and all(r[i] is None for r in rows)]
    for widest in (None,) if width is None else _WIDEST:
        kept = list(range(len(names)))
        columns = _columns(rows, names, widest)
        if width is None or _width(names, columns) <= width:
            break
        kept = [i for i in kept if i not in empty] or kept
        if _width([names[i] for i in kept], [columns[i] for i in kept]) <= width:
            break
    while width is not None and len(kept) > 1 and _width([names[i] for i in kept], [columns[i] for i in kept]) > width:
        kept.pop()
    right = [_is_number(rows, i) for i in kept]
    shown = [[names[i], *columns[i]] for i in kept]
    sizes = [max(map(cell_len, column)) for column in shown]
    if width is not None:
        sizes[-1] = min(sizes[-1], max(1, width - sum(sizes[:-1]) - len(_GAP) * (len(sizes) - 1)))
    lines = [
        _GAP.join(_put(cell, size, is_right) for cell, size, is_right in zip(line, sizes, right, strict=True)).rstrip()
        for line in zip(*shown, strict=True)
    ]
    lines.insert(1, _GAP.join("─" * size for size in sizes))
    left = [names[i] for i in range(len(names)) if i not in kept and i not in empty]
    null = [names[i] for i in empty if i not in kept]
    notes = []
    if left:
        notes += _wrapped(
            f"{len(left)} more column{'s' * (len(left) > 1)} (--wide shows all): {', '.join(left)}", width
        )
    if null:
        notes += _wrapped(f"NULL in {'all rows' if total > 1 else 'the row'}: {', '.join(null)}", width)
    return [*lines, *notes, *_last_line(total, len(rows))]


def cell(value: Any, widest: int | None) -> str:
    """Return a value as it stands in a table, in at most `widest` cells if given."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if widest is not None else repr(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, int | date):
        return str(value)
    if isinstance(value, list):
        return _vector(value, widest)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return text if widest is None else _shortened(text, widest)


def _vector(values: list[Any], widest: int | None) -> str:
    """Return a list: all of a short one, else as many first values as fit and how many there are."""
    said = [f"{v:.3g}" if isinstance(v, float) else cell(v, widest) for v in values[: 2 * _VECTOR]]
    if len(values) <= len(said):
        text = f"[{', '.join(said)}]"
        return text if widest is None else _shortened(text, widest)
    for n in range(_VECTOR, -1, -1):
        text = f"[{', '.join([*said[:n], f'… {len(values):,} values'])}]"
        if widest is None or cell_len(text) <= widest:
            return text
    return _shortened(text, widest or 0)


def _shortened(text: str, widest: int) -> str:
    """Return a text in at most so many cells. Of a path the end stays, of a digest the start, of another text both."""
    if cell_len(text) <= widest:
        return text
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return f"{text[:8]}…"
    if "/" in text and " " not in text:
        tail = text[-(widest - 1) :]
        while cell_len(tail) > widest - 1:
            tail = tail[1:]
        return f"…{tail}"
    return f"{set_cell_size(text, widest - 1).rstrip()}…"


def _columns(rows: Sequence[Sequence[Any]], names: Sequence[str], widest: int | None) -> list[list[str]]:
    return [[cell(row[i], widest) for row in rows] for i in range(len(names))]


def _width(names: Sequence[str], columns: Sequence[Sequence[str]]) -> int:
    sizes = [max(map(cell_len, (name, *column))) for name, column in zip(names, columns, strict=True)]
    return sum(sizes) + len(_GAP) * (len(sizes) - 1)


def _put(text: str, size: int, right: bool) -> str:
    if cell_len(text) > size:
        text = _shortened(text, size)
    space = " " * (size - cell_len(text))
    return f"{space}{text}" if right else f"{text}{space}"


def _is_number(rows: Sequence[Sequence[Any]], i: int) -> bool:
    values = [row[i] for row in rows if row[i] is not None]
    return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _standing(names: Sequence[str], row: Sequence[Any], width: int) -> list[str]:
    size = max(map(cell_len, names))
    room = width - size - len(_GAP)
    return [f"{_put(name, size, False)}{_GAP}{cell(value, room)}" for name, value in zip(names, row, strict=True)]


def _last_line(total: int, shown: int) -> list[str]:
    if total > shown:
        return [f"{total:,} rows, the first {shown} shown; --format csv prints all"]
    return [f"{total:,} row{'s' * (total != 1)}"]


def _wrapped(text: str, width: int | None) -> list[str]:
    """Return a text as lines of at most `width` cells; `textwrap` would count characters."""
    lines = [""]
    for word in text.split(" "):
        if width is not None and cell_len(lines[-1]) + 1 + cell_len(word) > width and lines[-1].strip():
            lines.append(" ")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _first_rows(result: "Result") -> tuple[list[tuple[Any, ...]], int]:
    """Return the first rows, and the number of all."""
    kept, total = list[tuple[Any, ...]](), 0
    for batch in result.batches():
        if len(kept) < SHOWN:
            kept += _rows(batch.slice(0, SHOWN - len(kept)))
        total += batch.num_rows
    return kept, total


def _print_json(result: "Result") -> None:
    lead = "["
    for batch in result.batches():
        for row in _rows(batch):
            named = dict(zip(result.columns, row, strict=True))
            print(lead, json.dumps(named, default=str, ensure_ascii=False), sep="\n ", end="")
            lead = ","
    print("[]" if lead == "[" else "\n]")


def _rows(batch: "pa.RecordBatch") -> list[tuple[Any, ...]]:
    """Return the rows of a batch as Python values. Whole numbers that Arrow holds as decimals become integers again."""
    columns = [c.to_pylist() for c in batch.columns]
    for i, field in enumerate(batch.schema):
        if str(field.type).startswith("decimal") and field.type.scale == 0:
            columns[i] = [None if v is None else int(v) for v in columns[i]]
    return list(zip(*columns, strict=True))


def _print_bytes(result: "Result", form: str) -> None:
    """Print Parquet, or an IPC stream of Arrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened: Callable[[Any, Any], Any] = (
        pa.ipc.new_stream if form == "arrow" else lambda b, s: pq.ParquetWriter(b, s, compression="zstd")
    )
    with io.BytesIO() as buffer:
        writer = None
        for batch in result.batches():
            writer = writer or opened(buffer, batch.schema)
            writer.write_batch(batch)
            _pour(buffer)
        assert writer is not None, "a result has at least one batch, empty or not"
        writer.close()
        _pour(buffer)
    sys.stdout.buffer.flush()


def _pour(buffer: io.BytesIO) -> None:
    sys.stdout.buffer.write(buffer.getvalue())
    buffer.seek(0)
    buffer.truncate()
