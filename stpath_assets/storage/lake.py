"""Connects to the lake: attaches DuckLake in this process, retries transactions, and turns errors into one line.

There is one DuckDB instance per process and data root. Each use has its own cursor, and so its own transaction. The tables are in
`schema`, writing them in `store`.
"""

import atexit
import os
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from stpath_assets.errors import StorageError, one_line, without_secrets
from stpath_assets.storage.extensions import OFFLINE, load_extensions
from stpath_assets.storage.home import Home
from stpath_assets.storage.locks import lock

T = TypeVar("T")
Cursor = duckdb.DuckDBPyConnection

NAME = "lake"
ATTEMPTS = 12
BUSY_MS = 10_000
COMMIT_WAIT_S = 120.0
_LINE = 18_061_926
"""Postgres's advisory lock for which writers of a lake wait."""


_CONFLICT = re.compile(
    r"conflict|database is locked|database schema has changed|could not serialize|deadlock|snapshot.*already exists"
    r"|unique constraint|duplicate key",
    re.I,
)
_LOST = re.compile(
    r"server closed the connection|could not connect|connection to server|terminating connection|connection refused"
    r"|no connection to the server|SSL connection|unable to connect to postgres",
    re.I,
)
_ATTACHING = re.compile(
    r"""\S+ Error: Failed to attach DuckLake MetaData .*? at path \+ "[^"]*"|Unable to connect to Postgres at "[^"]*": """,
    re.I,
)
_NONE = re.compile(r"DuckLake at metadata catalog .* does not exist", re.I)
_DAMAGED = re.compile(r"not a database|malformed|disk image|corrupt", re.I)
_IO = re.compile(r"disk I/O error", re.I)
_ROOM = 2**20
_FULL = re.compile(r"disk is full|no space left|disk full", re.I)
_READ_ONLY = re.compile(r"read-?only|permission denied", re.I)

_instances: dict[Home, "tuple[tuple[int, ...], Cursor]"] = {}
_kept: dict[tuple[Home, str], tuple[tuple[int, ...], Any]] = {}
_guard = threading.Lock()


class Lake:
    """The lake of a data root. Nothing is opened before the first use."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def make(self) -> None:
        """Create the lake if it does not exist."""
        try:
            self.cursor().close()
        except StorageError as e:
            if not _NONE.search(str(e.__cause__)):
                raise
            try:
                attach(self.home, read_only=False, create=True).close()
            except duckdb.Error as again:
                raise to_error(again, self.home) from again

    @property
    def stamp(self) -> tuple[int, ...] | None:
        """Return a value that changes with every commit, or None for a server, whose commits are not visible here."""
        return None if self.home.on_postgres else _stamp(self.home.sqlite)

    def cursor(self) -> Cursor:
        """Return a cursor with the lake attached and current. Raises `StorageError` if it cannot be opened."""
        state = _state(self.home)
        with _guard:
            known = _instances.get(self.home)
            if known is None or known[0] != state or not self._answers(known[1]):
                _forget(self.home)
                try:
                    connection = attach(self.home, read_only=not self.home.is_writable)
                except duckdb.Error as e:
                    raise to_error(e, self.home) from e
                known = _instances[self.home] = (_state(self.home), connection)
            return known[1].cursor()

    @contextmanager
    def reading(self, attempts: int = ATTEMPTS) -> Iterator[Cursor]:
        """Yield one snapshot of all tables. DuckDB's errors become `StorageError`; a lost server is retried."""
        with self._opened(attempts) as cursor:
            try:
                cursor.begin()
                yield cursor
            except duckdb.Error as e:
                raise to_error(e, self.home) from e
            finally:
                with suppress(duckdb.Error):
                    cursor.rollback()

    def _opened(self, attempts: int) -> Cursor:
        for attempt in range(attempts):
            try:
                return self.cursor()
            except StorageError as e:
                if attempt + 1 == attempts or not self._again(e.__cause__, attempt):
                    raise
        raise AssertionError("unreachable")

    def _answers(self, connection: Cursor) -> bool:
        """Return whether a connection still works: a restarted server has dropped its connections."""
        if not self.home.on_postgres:
            return True
        try:
            with connection.cursor() as probe:
                probe.execute(_ask("select 1"))
        except duckdb.Error:
            return False
        return True

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one reading statement."""
        return self.read(lambda cursor: cursor.execute(sql, list(values)).fetchall())

    def read(self, work: Callable[[Cursor], T]) -> T:
        """Return the result of `work` on one snapshot of all tables. A lost server is retried."""
        for attempt in range(ATTEMPTS):
            try:
                with _interrupts(), self.reading(attempts=1) as cursor:
                    return work(cursor)
            except StorageError as e:
                if not self._again(e.__cause__, attempt):
                    raise
        raise AssertionError("unreachable")

    def remember(self, name: str, work: Callable[[Cursor], T]) -> T:
        """Return the result of `work`, which is kept under a name until anyone commits. Asking for the snapshot takes 3 ms, where
        reading a table takes 10 to 20.
        """

        def look(cursor: Cursor) -> T:
            now = self._snapshot(cursor)
            kept = _kept.get((self.home, name))
            if kept is None or kept[0] != now:
                kept = _kept[self.home, name] = (now, work(cursor))
            result: T = kept[1]
            return result

        return self.read(look)

    def recall(self, name: str) -> Any:
        """Return what `remember` has kept under a name, or None if there is nothing or it is no longer current."""
        kept = _kept.get((self.home, name))
        return kept[1] if kept is not None and kept[0] == self.read(self._snapshot) else None

    def _snapshot(self, cursor: Cursor) -> tuple[int, ...]:
        """Return what identifies the current snapshot of this lake."""
        ((number,),) = cursor.execute(f"select id from ducklake_current_snapshot('{NAME}')").fetchall()
        return (*_state(self.home), int(number))

    def transact(self, work: Callable[[Cursor], T]) -> T:
        """Run `work` in one transaction and commit it. Retried if another writer was first or the server was lost.

        `work` may run more than once. Raises `StorageError`, one line; nothing is changed then.
        """
        for attempt in range(ATTEMPTS):
            try:
                with _interrupts(), self._turn(), self.cursor() as cursor:
                    cursor.begin()
                    try:
                        result = work(cursor)
                        cursor.commit()
                    except BaseException:
                        with suppress(duckdb.Error):
                            cursor.rollback()
                        raise
                    return result
            except (duckdb.Error, StorageError) as e:
                cause = e if isinstance(e, duckdb.Error) else e.__cause__
                if self._again(cause, attempt):
                    continue
                if isinstance(e, StorageError):
                    raise
                raise to_error(e, self.home) from e
        raise AssertionError("unreachable")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep writers out while another library than DuckDB uses lake.sqlite, and close this process's connection first.

        Within a process, the two libraries do not see each other's locks, and closing a file releases all locks that the
        process has on it.
        """
        with self._turn():
            with _guard:
                _forget(self.home)
            yield

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let writers wait in line: SQLite allows only one, and on a server two first parts of one slide would both be stored."""
        if not self.home.on_postgres:
            with lock(self.home.root / "locks" / "commit.lock", COMMIT_WAIT_S, "the lake"):
                yield
            return
        with self.cursor() as holder:
            holder.begin()
            try:
                limit = f"set_config('lock_timeout', '{COMMIT_WAIT_S * 1000:.0f}', true)"
                holder.execute(_ask(f"select {limit}, pg_advisory_xact_lock({_LINE})::text"))
            except duckdb.Error as e:
                if "lock timeout" not in str(e):
                    raise
                raise StorageError(
                    f"{self.home.name}: another program has held it for more than {COMMIT_WAIT_S:g} s; wait for it, or end it"
                ) from None
            try:
                yield
            finally:
                with suppress(duckdb.Error):
                    holder.rollback()

    def _again(self, error: BaseException | None, attempt: int) -> bool:
        """Return whether to retry, after waiting."""
        if not isinstance(error, duckdb.Error) or attempt + 1 == ATTEMPTS:
            return False
        lost = self.home.on_postgres and _LOST.search(str(error))
        if not lost and not _CONFLICT.search(str(error)):
            return False
        if lost:
            with _guard:
                _forget(self.home)
        time.sleep(min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1))
        return True


def attach(home: Home, *, read_only: bool, at: str | None = None, create: bool = False) -> Cursor:
    """Return a new DuckDB instance with the lake attached as `lake` and `lake.main` current. `at` is a time of the past.

    A missing lake is created only with `create`: reading an empty database must not create a lake in it.

    The metadata of a read-only root is copied first, because SQLite cannot read a database in WAL mode that it cannot write.
    """
    # Postgres's scanner needs a secret storage. A folder that does not exist holds no secrets.
    secrets = {"allow_persistent_secrets": "true", "secret_directory": os.devnull} if home.on_postgres else {}
    # Metadata are small: a second DuckDB thread doubles the time of each read. A catalog query sets its own threads.
    connection = duckdb.connect(config=OFFLINE | secrets | {"threads": "1"})
    try:
        scanner = "postgres_scanner" if home.on_postgres else "sqlite_scanner"
        load_extensions(connection, scanner, "ducklake", *(["httpfs"] if home.on_object_store else []))
        if home.on_object_store:
            connection.execute(_object_store_secret())
        metadata, options = _metadata(home)
        options |= {"data_path": quote(home.tables_path), "override_data_path": "true"}
        if not create:
            options["create_if_not_exists"] = "false"
        if at is not None:
            options["snapshot_time"] = quote(at)
        elif read_only:
            options["read_only"] = ""
        said = ", ".join(f"{k} {v}".strip() for k, v in options.items())
        connection.execute(f"attach {quote(f'ducklake:{metadata}')} as {NAME} ({said})")
        connection.execute(f"use {NAME}.main")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _interrupts() -> Iterator[None]:
    """Raise Ctrl-C as what it is. DuckDB makes a plain error of it, which would count as that of a slide."""
    try:
        yield
    except RuntimeError as e:
        if "interrupted" in str(e).lower():
            raise KeyboardInterrupt from e
        raise


def _ask(sql: str) -> str:
    """Return a statement that DuckDB passes on to Postgres."""
    return f"select * from postgres_query('__ducklake_metadata_{NAME}', {quote(sql)})"


def quote(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def to_error(error: duckdb.Error, home: Home) -> StorageError:
    """Return a DuckDB error as a one-line `StorageError`: which lake, what is wrong, and what to do."""
    whole = one_line(without_secrets(str(error)))
    said = _ATTACHING.sub("", whole).strip()[:300]
    if _IO.search(whole) and shutil.disk_usage(home.root).free < _ROOM:
        whole += ": disk is full"  # SQLite does not report this for the files next to its database
    for pattern, what in (
        (_NONE, f"{home.name}: holds no slides yet; add one: stpath-assets add SLIDE"),
        (_FULL, f"{home.root}: cannot be written, the disk is full; free some room and run again"),
        (_LOST, f"{home.name}: the lake's database cannot be reached; start it, or check STPATH_LAKE ({said[:200]})"),
        (_DAMAGED, f"{home.name}: is damaged ({said[:120]}); restore it from a backup (docs/operations.md)"),
        (_CONFLICT, f"{home.name}: another program holds it; try again when it is done ({said[:120]})"),
        (_READ_ONLY, f"{home.name}: cannot be written ({said[:120]}); give yourself the right to"),
    ):
        if pattern.search(whole):
            return StorageError(what)
    return StorageError(f"{home.name}: {said}")


def _metadata(home: Home) -> tuple[str, dict[str, str]]:
    """Return what DuckLake attaches to, and the options."""
    if home.lake is not None:
        return f"postgres:{home.lake}", {}
    if home.is_writable or not home.sqlite.exists():
        return f"sqlite:{home.sqlite.absolute()}", {
            "meta_journal_mode": "'WAL'",
            "meta_busy_timeout": str(BUSY_MS),
        }
    return f"sqlite:{_copied(home.sqlite)}", {}


def _copied(sqlite: Path) -> Path:
    """Return a copy of the metadata in a private folder that is removed with the process; the same until someone commits."""
    known = _latest.get(sqlite)
    if known is not None and known[0] == _stamp(sqlite) and known[1].exists():
        return known[1]
    folder = Path(tempfile.mkdtemp(prefix="stpath-lake-"))
    _copies.append(folder)
    for _ in range(ATTEMPTS):
        before = _stamp(sqlite)
        for name in (sqlite.name, f"{sqlite.name}-wal"):
            (folder / name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(sqlite.with_name(name), folder / name)
        if _stamp(sqlite) == before:  # no write in the meantime
            break
    while len(_copies) > _KEPT_COPIES:
        shutil.rmtree(_copies.pop(0), ignore_errors=True)
    _latest[sqlite] = before, folder / sqlite.name
    return folder / sqlite.name


def _stamp(sqlite: Path) -> tuple[int, ...]:
    """Return a value that changes with every commit."""
    stamp = list[int]()
    for name in (sqlite.name, f"{sqlite.name}-wal"):
        with suppress(FileNotFoundError):
            stat = sqlite.with_name(name).stat()
            stamp += [stat.st_ino, stat.st_size, stat.st_mtime_ns]
    return tuple(stamp)


_latest: dict[Path, tuple[tuple[int, ...], Path]] = {}
_copies: list[Path] = []
_KEPT_COPIES = 2
"""The latest copy, and one that a query of another thread may still read."""


@atexit.register
def _remove_copies() -> None:
    for folder in _copies:
        shutil.rmtree(folder, ignore_errors=True)


def _object_store_secret() -> str:
    """Return the statement that gives DuckDB the AWS credentials of the environment."""
    env = os.environ
    given = {
        "key_id": env.get("AWS_ACCESS_KEY_ID"),
        "secret": env.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": env.get("AWS_SESSION_TOKEN"),
        "region": env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"),
    }
    said = [f"{k} {quote(v)}" for k, v in given.items() if v]
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.rstrip("/").rpartition("://")
        said += [f"endpoint {quote(host)}", "url_style 'path'", f"use_ssl {'false' if scheme == 'http' else 'true'}"]
    return f"create secret stpath_tables (type s3{''.join(f', {s}' for s in said)})"


def _state(home: Home) -> tuple[int, ...]:
    """Return what identifies a lake (against one made anew under the same path) and this process (against its parent)."""
    if home.on_postgres:
        return (os.getpid(),)
    try:
        stat = home.sqlite.stat()
    except FileNotFoundError:
        return (os.getpid(), 0, 0)
    read_only = () if home.is_writable else _stamp(home.sqlite)  # a copy is read, and others may write the original
    return (os.getpid(), stat.st_ino, stat.st_dev, *read_only)


def _forget(home: Home) -> None:
    """Close a cached instance. One of the parent process is left alone, because its threads do not exist here."""
    known = _instances.pop(home, None)
    if known is not None and known[0][0] == os.getpid():
        with suppress(duckdb.Error):
            known[1].close()
