"""Runs an SQL statement without side effects: on a locked connection, with limits of time, rows and memory.

`guard` decides whether a statement may be run at all. `lock` and `run` document what cannot be limited within a process. `capped`
limits it for a whole process, such as the command line.
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
"""How long a statement may take to react to its interruption."""


@dataclass(frozen=True)
class Limits:
    """Limits of one statement."""

    memory: str = "4GB"
    """Memory of DuckDB's operators and of the columns between them."""
    threads: int = 4
    """DuckDB's threads."""
    seconds: float = 600.0
    """Seconds for running and fetching. The time between two fetches does not count."""
    rows: int = 10_000_000
    """Maximum rows of a result."""
    temp: str = "20GB"
    """Disk space for data that do not fit in memory."""


def lock(
    connection: duckdb.DuckDBPyConnection, directories: Sequence[str], files: Sequence[str], limits: Limits, temp: Path
) -> None:
    """Lock a connection's whole instance, so that statements cannot reach anything outside the given folders and files.

    Before this, attach the lake read-only, load extensions and create secrets. `temp` is a private folder. Locking cannot be
    undone.

    A locked DuckDB 1.5.5 still allows the following. `run` accepts only SELECT and EXPLAIN, which stops COPY TO into
    `directories` and `files`, ATTACH of `files` for writing, DETACH, USE and CALL. Only `guard` stops the rest: postgres_scan
    and postgres_attach open connections if that extension is loaded; enable_logging with a file breaks the instance, and with
    it the process; the files under `directories` can be read as files; and so can SQLite's metadata, even though `files` does
    not name it.
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
def cap_memory(limits: Limits) -> Iterator[None]:
    """Limit the memory of this whole process to its present memory plus twice `limits.memory`.

    DuckDB's own limit does not count the memory of a single value, and constants are computed before limits apply: `select
    repeat('x', 4000000000)` takes 8 GB. With this limit, DuckDB is refused the memory and reports it. Only for a process that
    does nothing else, because all its threads share the limit. Only Linux counts this memory; on other systems nothing is
    limited.
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
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    limits: Limits,
    tables: Mapping[str, pa.Table] | None = None,
    prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> "Result":
    """Run one checked statement on a cursor of its own. Raises `QueryError` if it is wrong or exceeds a limit.

    `tables` are available to it by name, in addition to the lake's views. `prepare` is called with the cursor first.

    After `limits.seconds` the statement is interrupted. DuckDB does not check for interruption while it computes one value,
    for example a constant or a list function (levenshtein of two long texts). Such a statement is abandoned with its thread
    after `GRACE_S`, and `connection` stays usable. The thread does not keep the process from ending.
    """
    # Closing a connection waits for its cursors, but not for the cursor of a closed cursor.
    cursor = connection.cursor().cursor()
    for name, table in (tables or {}).items():
        cursor.register(name, table)
    result = Result(cursor, limits)
    try:
        result.start(connection, sql, prepare)
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

    def start(
        self,
        connection: duckdb.DuckDBPyConnection,
        sql: str,
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> None:
        """Run the statement up to its first rows."""

        def work() -> Any:
            # A cursor does not inherit the result of USE.
            place = connection.execute("select current_database(), current_schema()").fetchone()
            cursor.execute("use " + ".".join('"' + part.replace('"', '""') + '"' for part in place or ()))
            if prepare is not None:
                prepare(cursor)
            _check_kind(cursor, sql)
            return cursor.execute(sql).description

        cursor = self._open()
        described = self._step(work) or []
        self.columns = [d[0] for d in described]
        self.types = [str(d[1]) for d in described]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow batches, at least one, which is empty if there is no row.

        Raises `QueryError` when a limit of rows, seconds or bytes is exceeded.
        """
        return self._batches(self._reader())

    def to_arrow(self) -> pa.Table:
        """Return all rows as one table. Raises `QueryError`."""
        reader = self._reader()
        return pa.Table.from_batches(list(self._batches(reader)), schema=reader.schema)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows as tuples. Raises `QueryError`."""
        cursor, rows = self._open(), []
        while got := self._step(lambda: cursor.fetchmany(BATCH_ROWS)):
            self._count(len(got))
            rows += got
        self.close()
        return rows

    def close(self) -> None:
        """End the statement. Does nothing if the statement was abandoned, because closing its cursor would wait for it."""
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
        any_yet = False
        while (batch := self._step(lambda: next(reader, None))) is not None:
            self._count(batch.num_rows)
            any_yet = True
            yield batch
        if not any_yet:
            yield pa.RecordBatch.from_pylist([], reader.schema)
        self.close()

    def _count(self, rows: int) -> None:
        self._rows += rows
        if self._rows > self._limits.rows:
            self.close()
            raise QueryError(
                f"the result has more than {self._limits.rows:,} rows; add a LIMIT, or raise STPATH_SQL_ROWS"
            )

    def _step(self, work: Callable[[], T]) -> T:
        """Run a piece of work in a thread, so that it can be abandoned if it does not react to its interruption."""
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
    """Refuse statements that DuckDB calls neither SELECT nor EXPLAIN. The types that a PIVOT creates first have no text."""
    *before, last = cursor.extract_statements(sql) or cursor.extract_statements("begin")
    kind = last.type
    if any(s.type != duckdb.StatementType.CREATE or s.query for s in before):
        raise QueryError("give one SQL statement")
    analyzes = kind == duckdb.StatementType.EXPLAIN and re.search(r"\banaly[sz]e\b", sql, re.I)
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN) or analyzes:
        raise QueryError("the lake is read-only; use SELECT, or EXPLAIN without ANALYZE")


def _told(error: BaseException, limits: Limits) -> BaseException:
    """Convert an error of DuckDB or Arrow to `QueryError`; return any other error as it is."""
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
    """Return a size such as 4GB in bytes, as DuckDB reads it. Raises `QueryError` for any other text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", size.upper())
    if not found:
        raise QueryError(f"{one_line(size, 80)} is not a size; write one such as 4GB")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " KMGT".index(found[2] or " "))
