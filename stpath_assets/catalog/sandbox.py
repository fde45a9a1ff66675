"""Runs an SQL statement where it can do no harm: a connection that is locked, and limits of time, rows and memory.

Whether a statement may be run at all is decided in `guard`. What cannot be bounded within a process is said at `lock` and
`run`; `capped` bounds it for a process of its own, as the command line is.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import duckdb
import psutil
import pyarrow as pa

from stpath_assets.catalog.guard import one_line
from stpath_assets.errors import QueryError

T = TypeVar("T")

BATCH_ROWS = 8192
GRACE_S = 2.0
"""How long a statement may take to notice that it was interrupted."""


@dataclass(frozen=True)
class Limits:
    """What one statement may use."""

    memory: str = "4GB"
    """Memory of DuckDB's operators and of the columns that they pass on."""
    threads: int = 4
    """Threads of DuckDB."""
    seconds: float = 600.0
    """Time of running and fetching; the time between two fetches is not counted."""
    rows: int = 10_000_000
    """Rows of a result."""
    temp: str = "20GB"
    """Disk space for what does not fit in memory."""


def lock(
    connection: duckdb.DuckDBPyConnection, directories: Sequence[str], files: Sequence[str], limits: Limits, temp: Path
) -> None:
    """Takes away from a connection's whole instance what a statement could do outside the given folders and files.

    Attach the lake read-only, load extensions and make secrets before; `temp` is a private folder. There is no way back.

    What a locked DuckDB 1.5.5 still does, and what else stops it:
    COPY TO into `directories` and `files`, ATTACH of `files` for writing, DETACH, USE and CALL (`run` takes SELECT and EXPLAIN
    alone); postgres_scan and postgres_attach open connections where that extension is loaded, enable_logging with a file breaks
    the instance and ends the process with it, and the files under `directories` can be read as files, as can the metadata of
    SQLite, which stays readable without being named in `files` (only `guard` stops these).
    """
    temp.mkdir(parents=True, exist_ok=True)
    settings: dict[str, object] = {
        "python_enable_replacements": False,
        "python_scan_all_frames": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_unsigned_extensions": False,
        "allow_unredacted_secrets": False,
        "enable_logging": False,
        "temp_directory": str(temp.absolute()),
        "max_temp_directory_size": limits.temp,
        "memory_limit": limits.memory,
        "threads": limits.threads,
        "allowed_directories": list(directories),
        "allowed_paths": list(files),
        "enable_external_access": False,
        "lock_configuration": True,
    }
    for name, value in settings.items():
        connection.execute(f"set {name} = {_literal(value)}")


@contextmanager
def capped(limits: Limits) -> Iterator[None]:
    """Bounds the memory of this whole process: what it has now, and twice `limits.memory` above.

    DuckDB's limit does not count what a function uses for one value, and constants are computed before there are limits:
    `select repeat('x', 4000000000)` takes 8 GB. With this, DuckDB is refused the memory and says so. For a process that does
    nothing else, since any other thread is refused memory too. Linux alone counts this; elsewhere nothing is bounded.
    """
    data = getattr(psutil.Process().memory_info(), "data", None)
    if data is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = data + 2 * _bytes(limits.memory)
    with_hard = most if before[1] == resource.RLIM_INFINITY else min(most, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (with_hard, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def run(
    connection: duckdb.DuckDBPyConnection, sql: str, limits: Limits, tables: Mapping[str, pa.Table] | None = None
) -> "Result":
    """Runs one checked statement on a cursor of its own. Raises `QueryError` for whatever is wrong with it or too much for it.

    `tables` are there beside the lake's views, by name.

    After `limits.seconds` the statement is interrupted. DuckDB does not look for that while it computes one value, a constant
    or a list's function above all (levenshtein of two long texts): such a statement is left behind after `GRACE_S` with its
    thread, and `connection` stays usable. The thread does not keep the process from ending.
    """
    # Closing a connection waits for its cursors, but not for a cursor's cursor whose parent is gone.
    cursor = connection.cursor().cursor()
    for name, table in (tables or {}).items():
        cursor.register(name, table)
    result = Result(cursor, limits)
    try:
        result.start(connection, sql)
    except BaseException:
        result.close()
        raise
    return result


class Result:
    """The rows of a statement, computed as they are fetched, once. Close it, or use it in a `with` statement."""

    columns: list[str]
    types: list[str]

    def __init__(self, cursor: duckdb.DuckDBPyConnection, limits: Limits) -> None:
        self._cursor: duckdb.DuckDBPyConnection | None = cursor
        self._limits = limits
        self._left_s = limits.seconds
        self._rows = 0

    def __enter__(self) -> "Result":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Runs the statement up to its first rows."""

        def work() -> Any:
            # A cursor does not take over what USE said.
            place = connection.execute("select current_database(), current_schema()").fetchone()
            cursor.execute("use " + ".".join('"' + part.replace('"', '""') + '"' for part in place or ()))
            _check_kind(cursor, sql)
            return cursor.execute(sql).description

        cursor = self._open()
        described = self._step(work) or []
        self.columns = [d[0] for d in described]
        self.types = [str(d[1]) for d in described]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow batches. Raises `QueryError` at the row, second or byte that is too much."""
        return self._batches(self._reader())

    def to_arrow(self) -> pa.Table:
        """All rows as one table. Raises `QueryError`."""
        reader = self._reader()
        return pa.Table.from_batches(list(self._batches(reader)), schema=reader.schema)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows as tuples. Raises `QueryError`."""
        cursor, rows = self._open(), []
        while got := self._step(lambda: cursor.fetchmany(BATCH_ROWS)):
            self._count(len(got))
            rows += got
        self.close()
        return rows

    def close(self) -> None:
        """Ends the statement. Does nothing where it was left behind: closing its cursor would wait for it."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            with suppress(duckdb.Error):
                cursor.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._cursor is None:
            raise QueryError("the result was closed or read before; run the statement again")
        return self._cursor

    def _reader(self) -> pa.RecordBatchReader:
        cursor = self._open()
        return self._step(lambda: cursor.to_arrow_reader(BATCH_ROWS))

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while (batch := self._step(lambda: next(reader, None))) is not None:
            self._count(batch.num_rows)
            yield batch
        self.close()

    def _count(self, rows: int) -> None:
        self._rows += rows
        if self._rows > self._limits.rows:
            self.close()
            raise QueryError(
                f"the result has more than {self._limits.rows:,} rows; add a LIMIT, or raise STPATH_SQL_ROWS"
            )

    def _step(self, work: Callable[[], T]) -> T:
        """Does a piece of work in a thread, so that one which does not heed its interruption can be left behind."""
        done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def attempt() -> None:
            try:
                done.put((work(), None))
            except BaseException as e:
                done.put((None, e))

        began = time.monotonic()
        cursor = self._open()
        threading.Thread(target=attempt, name="stpath-sql", daemon=True).start()
        try:
            value, error = done.get(timeout=max(self._left_s, 0.001))
        except Empty:
            self._stop(cursor, done)
            raise QueryError(_too_long(self._limits)) from None
        except BaseException:
            self._stop(cursor, done)
            raise
        self._left_s -= time.monotonic() - began
        if error is not None:
            self.close()
            raise _told(error, self._limits) from error
        return value  # type: ignore[return-value]

    def _stop(self, cursor: duckdb.DuckDBPyConnection, done: SimpleQueue[Any]) -> None:
        cursor.interrupt()
        try:
            done.get(timeout=GRACE_S)
        except Empty:
            self._cursor = None
        self.close()


def _check_kind(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuses what DuckDB calls neither SELECT nor EXPLAIN; the types that a PIVOT makes first come without a text."""
    *before, last = cursor.extract_statements(sql) or cursor.extract_statements("begin")
    kind = last.type
    if any(s.type != duckdb.StatementType.CREATE or s.query for s in before):
        raise QueryError("give one SQL statement")
    analyzes = kind == duckdb.StatementType.EXPLAIN and re.search(r"\banaly[sz]e\b", sql, re.I)
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN) or analyzes:
        raise QueryError("the lake is read-only; use SELECT, or EXPLAIN without ANALYZE")


def _told(error: BaseException, limits: Limits) -> BaseException:
    """What DuckDB or Arrow says, as a `QueryError`; anything else as it is."""
    said = str(error)
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException) or "Out of Memory Error" in said:
        return QueryError(
            f"the statement needs more than {limits.memory} of memory and {limits.temp} of disk; "
            "read fewer rows or columns, or raise STPATH_SQL_MEMORY"
        )
    if isinstance(error, duckdb.InterruptException) or "INTERRUPT Error" in said:
        return QueryError("the statement was interrupted; run it again")
    if isinstance(error, duckdb.Error | pa.ArrowException | OSError | UnicodeError):
        return QueryError(one_line(said))
    return error


def _too_long(limits: Limits) -> str:
    return f"the statement took more than {limits.seconds:g} s; read less of the lake, or raise STPATH_SQL_SECONDS"


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_literal(v) for v in value)}]"
    return "'" + str(value).replace("'", "''") + "'"


def _bytes(size: str) -> int:
    """A size such as 4GB, as DuckDB reads it. Raises `QueryError` for another text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", size.upper())
    if not found:
        raise QueryError(f"{one_line(size, 80)} is not a size; write one such as 4GB")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " KMGT".index(found[2] or " "))
