"""Reads a file of rows to import, CSV or Parquet, and checks its columns. Each error names file, row and column.

Row numbers are those of the file: the header of a CSV is row 1.
"""

import csv
import difflib
import gzip
import io
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from stpath_assets.errors import ImportFileError, one_line
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import sha256_of_file

MAX_BYTES = 2 << 30
"""Larger files are refused: they are no table of rows to import."""

NULLS = frozenset({"", "na", "n/a", "nan", "null", "none", "."})
"""Texts of a CSV, in lower case, that mean that a value is missing."""


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Frame:
    """The rows of a file: values by column, text or None for a CSV. `first` is the file's number of the first row."""

    path: Path
    columns: dict[str, list[Any]]
    first: int

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return list(self.columns)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), []))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return sha256_of_file(self.path)

    def fail(self, i: int, column: str, what: str) -> NoReturn:
        """Raise the error that a value is wrong."""
        raise ImportFileError(f"{self.path}: row {i + self.first}, column {one_line(column)}: {what}")

    def require(self, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Raise `ImportFileError` if a column is missing, or one is there that means nothing."""
        for name in needed:
            if name not in self.columns:
                self._no_column(name)
        unknown = [n for n in self.columns if n not in needed and n not in optional]
        if unknown:
            allowed = ", ".join((*needed, *optional))
            raise ImportFileError(
                f"{self.path}: row 1: unknown column {one_line(unknown[0])}; the columns are {allowed}"
            )

    def _no_column(self, name: str) -> NoReturn:
        near = difflib.get_close_matches(name, self.names, 1, 0.6)
        has = f"is {one_line(near[0])} meant? Rename it" if near else f"it has {one_line(', '.join(self.names))[:200]}"
        raise ImportFileError(f"{self.path}: row 1: has no column {name}; {has}")

    def texts(self, column: str) -> list[str]:
        """Return the values of a column as text. Raises `ImportFileError` for a missing one."""
        values = []
        for i, value in enumerate(self.columns[column]):
            text = "" if value is None else str(value).strip()
            if not text:
                self.fail(i, column, "is empty; fill it in, or remove the row")
            values.append(text)
        return values

    def numbers(
        self, column: str, low: float = -math.inf, high: float = math.inf, *, nullable: bool = False
    ) -> list[float | None]:
        """Return the values of a column as numbers from `low` to `high`. Raises `ImportFileError` for any other."""
        values = list[float | None]()
        for i, value in enumerate(self.columns[column]):
            if is_null(value):
                if not nullable:
                    self.fail(i, column, "is empty; fill it in, or remove the row")
                values.append(None)
                continue
            number = to_number(value)
            if number is None or not math.isfinite(number):
                self.fail(i, column, f"{one_line(str(value))[:60]!r} is no number; correct it")
            if not low <= number <= high:
                self.fail(i, column, f"{number:g} is not {_range(low, high)}; correct it")
            values.append(number)
        return values

    def refuse_twice(self, keys: Sequence[str]) -> None:
        """Raise `ImportFileError` if two rows have the same values in these columns."""
        seen: dict[tuple[str, ...], int] = {}
        for i, key in enumerate(zip(*(map(str, self.columns[k]) for k in keys), strict=True)):
            before = seen.setdefault(key, i)
            if before != i:
                said = one_line(" ".join(key))
                self.fail(i, ", ".join(keys), f"{said} stands in row {before + self.first} as well; keep one")

    def refuse_unknown(self, column: str, known: Collection[str], what: str, todo: str) -> None:
        """Raise `ImportFileError` if a value of a column is not known."""
        for i, value in enumerate(self.texts(column)):
            if value not in known:
                near = difflib.get_close_matches(value, list(known), 1, 0.7)
                self.fail(i, column, f"{one_line(value)} is no {what}; {f'is {near[0]} meant?' if near else todo}")


def read_frame(path: Path) -> Frame:
    """Read .parquet, or .csv, .tsv or .txt, also compressed with gzip; the separator is found.

    Raises `ImportFileError` if the file is missing, is neither, or has rows of different lengths.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImportFileError(f"{path}: is larger than {MAX_BYTES >> 30} GB; import it in pieces")
        frame = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except OSError as e:
        raise ImportFileError(f"{path}: cannot be read ({e.strerror or one_line(str(e))}); check the path") from e
    if frame.n == 0:
        raise ImportFileError(f"{path}: has no rows")
    return frame


def is_null(value: Any) -> bool:
    """Return whether a value means that there is none."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip().lower() in NULLS


def to_number(value: Any) -> float | None:
    """Return a value as a number, or None if it is none; Python itself would take `1_000`, too."""
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value.strip())):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def slides_of(store: Store) -> set[str]:
    """Return the slides that are ready."""
    return {row.slide_id for row in Registry(store).all() if row.status == "ready"}


def check_patients(store: Store, frame: Frame) -> list[str]:
    """Return a note that counts patients without a slide. Raises `ImportFileError` if no patient has one."""
    known = {row.patient_id for row in Registry(store).all()}
    given = list(dict.fromkeys(frame.texts("patient_id")))
    without = [p for p in given if p not in known]
    if len(without) == len(given):
        others = ", as all others," if len(given) > 1 else ""
        frame.fail(
            0, "patient_id", f"{one_line(given[0])}{others} is no patient of a slide; give slides theirs: add --patient"
        )
    return [f"{len(without)} of {len(given)} patients have no slide, such as {one_line(without[0])}"] if without else []


def _read_parquet(path: Path) -> Frame:
    try:
        table = pq.read_table(path, partitioning=None)
        return Frame(path, {n: table[n].to_pylist() for n in _once(path, table.column_names)}, 1)
    except (pa.ArrowException, ValueError) as e:
        raise ImportFileError(f"{path}: is no Parquet file ({one_line(str(e))[:120]}); write it again") from e


def _read_csv(path: Path) -> Frame:
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as e:
        raise ImportFileError(f"{path}: is not text in UTF-8 ({one_line(str(e))[:80]}); save it as CSV in UTF-8") from e
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = _once(path, [name.strip() for name in next(rows, [])])
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for number, cells in enumerate(rows, 2):
            if len(cells) != len(names):
                raise ImportFileError(
                    f"{path}: row {number}: has {len(cells)} values for {len(names)} columns; correct it"
                )
            for name, value in zip(names, cells, strict=True):
                columns[name].append(value)
    except csv.Error as e:
        raise ImportFileError(f"{path}: row {rows.line_num}: is not CSV ({e}); correct it") from e
    return Frame(path, columns, 2)


def _once(path: Path, names: Sequence[str]) -> list[str]:
    for i, name in enumerate(names):
        if not name:
            raise ImportFileError(f"{path}: row 1: column {i + 1} has no name; give it one")
        if name in names[:i]:
            raise ImportFileError(f"{path}: row 1: has two columns {one_line(name)}; remove one")
    return list(names)


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"from {low:g} to {high:g}"
