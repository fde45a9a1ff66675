"""The one door to the tables: reads and writes a slide's part of a table, and says what it was made from.

    with store.stage("a", fingerprint) as stage:
        stage.write("gigapath_features", rows)
        stage.write("gigapath_throughput", took)

A part is a complete, immutable Parquet file, or a row of the lake's metadata. It is written beside, synced and renamed, and then
registered in one transaction that takes the slide's earlier part out: a reader sees the one or the other, and of several tables
of a stage all or none.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stpath_assets.errors import SlideError, StorageError
from stpath_assets.settings import Settings
from stpath_assets.storage import schema
from stpath_assets.storage.by_gene import (
    FACTS,
    SUMMARY,
    ByGene,
    read_parquet,
    tables_of_blocks,
    to_by_gene,
    write_parquet,
)
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.home import Home
from stpath_assets.storage.lake import NAME, Cursor, Lake, quoted
from stpath_assets.storage.locks import lock
from stpath_assets.storage.objects import Objects
from stpath_assets.tables import LINEAGE, SLIDES, TABLES, Table

SLIDE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")
CREATE_WAIT_S = 600.0
_PARTS = f"{NAME}.parts"
_LINEAGE = ", ".join(f.name for f in LINEAGE.schema)


@dataclass(frozen=True)
class Made:
    """What bringing a part up to date came to: its fingerprint, whether it had to be made, what to tell the user."""

    fingerprint: Fingerprint
    made: bool
    notes: tuple[str, ...] = ()


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


@dataclass
class _Draft:
    """A part of a stage that is not yet registered: rows of an inline table, or a finished file."""

    spec: Table
    rows: pa.Table | None = None
    file: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    row_count: int = 0
    summary: Mapping[str, Any] | None = None


class Store:
    """The tables under one data root, which is a folder or a `Home`."""

    def __init__(self, home: Path | Home) -> None:
        self.place = home if isinstance(home, Home) else Home(Path(home))
        self.home = self.place.root
        self.lake = Lake(self.place)
        self.objects = Objects(self.place)
        self._is_open = False

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """The tables of the data root that the settings name."""
        return cls(Home.of(settings))

    def create(self) -> None:
        """Makes the data root and its lake where there are none, and takes in the tables of version 0.1.

        Raises `StorageError` where that is not possible.
        """
        from stpath_assets.storage import takeover

        if self._is_open:
            return
        self.place.create()
        with lock(self.home / "locks" / "create.lock", CREATE_WAIT_S, f"{self.home}: its lake"):
            self._require_metadata()
            is_new = not self.place.sqlite.exists()
            if is_new and not self.place.on_postgres:
                # Made here, so that nobody else may read it; SQLite's other files take its mode over.
                self.place.sqlite.touch(mode=0o600)
            for step in (schema.bring_up, schema.complete):
                self.lake.transact(lambda cursor, step=step: step(cursor, self.place.name))  # type: ignore[misc]
            if is_new and not self.place.on_postgres:
                with self.lake.alone():
                    schema.keep_few_statistics(self.place.sqlite)
            self._is_open = True
            takeover.take_over(self)

    def open(self) -> None:
        """Raises `StorageError` where there is no lake. Makes nothing but what a newer program adds to one."""
        from stpath_assets.storage import takeover

        if self._is_open:
            return
        if not self.home.is_dir():
            raise StorageError(
                f"{self.home}: no such data root; check --home or STPATH_HOME, or add a slide: stpath-assets add SLIDE"
            )
        if not self.place.on_postgres and not self.place.sqlite.exists():
            self._require_metadata()
            if not takeover.is_old(self.home):
                raise StorageError(f"{self.home}: holds no slides yet; add one: stpath-assets add SLIDE")
            self.create()
            return
        self._require_metadata()
        with self.lake.reading() as cursor:
            up = schema.is_up(cursor, self.place.name)
        if (not up or takeover.is_unfinished(self.home)) and self.place.is_writable:
            self.create()
        self._is_open = True

    def _require_metadata(self) -> None:
        """Raises `StorageError` where parts lie under the root and their metadata is missing or empty: a new lake in its place
        would know none of them.
        """
        sqlite = self.place.sqlite
        beside = sqlite.with_name(f"{sqlite.name}-wal")
        if self.place.on_postgres or any(p.exists() and p.stat().st_size for p in (sqlite, beside)):
            return
        if any(key.startswith("parts/") and key.endswith(".parquet") for key, _, _ in self.objects.listing()):
            raise StorageError(
                f"{sqlite}: is {'empty' if sqlite.exists() else 'missing'}, and the parts in {self.place.tables_path} need it; "
                "restore it from a backup (docs/operations.md)"
            )

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one reading statement over the lake. Raises `StorageError` where there is none."""
        self.open()
        return self.lake.rows(sql, values)

    # Reading

    def slide_ids(self, table: str) -> list[str]:
        """The slides that have a part of the table, sorted."""
        if table in (SLIDES.name, LINEAGE.name):
            found = self.rows(f"select distinct slide_id from {_PARTS}.{table} order by 1")
        else:
            found = self.rows(f"select slide_id from {_PARTS}.lineage where table_name = ? order by 1", [table])
        return [s for (s,) in found]

    def parts(self, slide_id: str | None = None) -> list[Part]:
        """What is stored, of all slides or one, by slide and table."""
        only, values = ("", []) if slide_id is None else (" where slide_id = ?", [slide_id])
        found = self.rows(f"select {Part.COLUMNS} from {_PARTS}.lineage{only} order by slide_id, table_name", values)
        return [Part(*row) for row in found]

    def part(self, table: str, slide_id: str) -> Part | None:
        """A slide's stored part, or None; raises `StorageError` for a slide_id that is not one."""
        _check_slide_id(slide_id)
        where = "where slide_id = ? and table_name = ?"
        found = self.rows(f"select {Part.COLUMNS} from {_PARTS}.lineage {where}", [slide_id, table])
        return Part(*found[0]) if found else None

    def path(self, table: str, slide_id: str) -> Path:
        """The file that holds a slide's part, where tables lie in a folder; raises `StorageError` where there is none."""
        part = self.part(table, slide_id)
        if part is None or part.file is None:
            raise _absent(table, slide_id)
        return self.objects.local(part.file)

    def read(self, table: str, slide_id: str, columns: list[str] | None = None) -> pa.Table:
        """A slide's part as stored (by-gene tables: see `read_by_gene`).

        Raises `StorageError` where there is none or it is damaged.
        """
        spec = TABLES[table]
        if spec.inline:
            return self._read_inline(spec, slide_id, columns)
        with self._opened(table, slide_id) as (file, part):
            return read_parquet(file, columns, self._shared(part))

    def read_by_gene(self, table: str, slide_id: str, genes: Sequence[str] | None = None) -> ByGene:
        """A slide's part of a by-gene table, all genes or those of `genes` that it has, in stored order."""
        spec = TABLES[table]
        assert spec.value is not None
        wanted = None
        if genes is not None:
            wanted = pc.field("gene").isin(pa.array(genes, pa.string())) | pc.field("gene").is_null()
        with self._opened(table, slide_id) as (file, part):
            rows = read_parquet(file, [*spec.keys, "gene", spec.value], self._shared(part), wanted)
            return to_by_gene(spec, rows)

    def fingerprint(self, table: str, slide_id: str) -> Fingerprint | None:
        """What a slide's part was made from, or None where there is no part."""
        facts = self._lineage("facts", table, slide_id)
        return None if facts is None else Fingerprint(json.loads(facts))

    def facts(self, table: str) -> dict[str, Fingerprint]:
        """What every slide's part of a table was made from."""
        found = self.rows(f"select slide_id, facts from {_PARTS}.lineage where table_name = ?", [table])
        return {slide_id: Fingerprint(json.loads(facts)) for slide_id, facts in found}

    def summary(self, table: str, slide_id: str) -> dict[str, Any]:
        """The summary that a slide's part was stored with, empty if with none."""
        if self.part(table, slide_id) is None:
            raise _absent(table, slide_id)
        return dict(json.loads(self._lineage("summary", table, slide_id) or "{}"))

    def require(self, table: str, slide_id: str) -> Fingerprint:
        """As `fingerprint`, but raises `StorageError` where there is no part."""
        stored = self.fingerprint(table, slide_id)
        if stored is None:
            raise _absent(table, slide_id)
        return stored

    def is_current(self, table: str, slide_id: str, fingerprint: Fingerprint) -> bool:
        """Whether the stored part is what would be made now. One whose file is gone, cut off or damaged is not.

        A finished file of this fingerprint that is not registered, since the run that made it was killed or the lake's
        database was gone, is registered now.
        """
        part = self.part(table, slide_id)
        if part is not None and part.digest == fingerprint.digest and self.is_whole(part):
            return True
        return self._adopt(TABLES[table], slide_id, fingerprint)

    def is_whole(self, part: Part) -> bool:
        """Whether a part's file is there in its size, and nobody has found it damaged; its content is not read."""
        if part.damaged is not None:
            return False
        return part.file is None or self.objects.size(part.file) == part.size_bytes

    def row_count(self, table: str, slide_id: str) -> int:
        """The number of rows that the part has in its view; 0 where there is none."""
        part = self.part(table, slide_id)
        return 0 if part is None else part.row_count

    def verify(self, part: Part) -> str | None:
        """What is wrong with a part's file, or None: it is gone, or not what was written. Reads all of it."""
        if part.file is None:
            return None
        try:
            found = self.objects.sha256(part.file)
        except FileNotFoundError:
            return "its file is gone"
        except OSError as e:
            return f"its file cannot be read ({e.strerror or e})"
        return None if found == part.sha256 else "its file is damaged: its SHA-256 is not that of what was written"

    def mark_damaged(self, part: Part, why: str) -> None:
        """Keeps that a part's file is damaged: all parts in it count as not there, and the next run makes them again."""
        if not self.place.is_writable:
            return
        self.lake.transact(
            lambda c: c.execute(
                f"update {_PARTS}.lineage set damaged = ? where file = ? and sha256 = ?",
                [why, part.file, part.sha256],
            )
        )

    # Writing

    def write(
        self,
        table: str,
        slide_id: str,
        rows: pa.Table,
        fingerprint: Fingerprint,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Stores a slide's part of a table that is stored row by row, in place of the one before.

        `summary` holds JSON values that say how the rows came about; it is no part of what they were made from.
        """
        with self.stage(slide_id, fingerprint) as stage:
            stage.write(table, rows, summary)

    def write_by_gene(
        self,
        table: str,
        slide_id: str,
        keys: dict[str, npt.NDArray],
        blocks: Iterable[tuple[Sequence[str], npt.NDArray]],
        fingerprint: Fingerprint,
        **constants: str,
    ) -> None:
        """Stores a slide's part of a by-gene table from blocks of (genes, values (N, genes)), one in memory at a time.

        Genes must come in ascending order over all blocks, each once. `constants` fills the remaining
        columns.
        """
        with self.stage(slide_id, fingerprint) as stage:
            stage.write_by_gene(table, keys, blocks, **constants)

    @contextmanager
    def stage(self, slide_id: str, fingerprint: Fingerprint) -> Iterator["StageWriter"]:
        """Collects the parts of one stage and registers them in one transaction at the end of the block.

        Raises `SlideError` where the slide was retired or became another scan meanwhile; nothing is stored then.
        """
        _check_slide_id(slide_id)
        self.create()
        writer = StageWriter(self, slide_id, fingerprint)
        yield writer
        self._commit(writer)

    def remove(self, tables: Sequence[str], slide_id: str) -> None:
        """Takes a slide's parts of some tables out, if there are any."""
        there = [p for p in self.parts(slide_id) if p.table in tables]
        self._discard_broken(there)
        if there:
            self.lake.transact(lambda cursor: _take_out(cursor, slide_id, [p.table for p in there]))

    # The rest

    def _commit(self, writer: "StageWriter") -> None:
        """Registers the parts of a stage in one transaction."""
        replaced = {d.spec.name for d in writer.drafts} | set(writer.gone)
        self._discard_broken([p for p in self.parts(writer.slide_id) if p.table in replaced])
        self.lake.transact(lambda cursor: _register(cursor, self.objects, writer))

    def _discard_broken(self, parts: Sequence[Part]) -> None:
        """Takes files out of the lake that cannot be read: to take a slide's rows out of a file, DuckLake must read it.

        A merged file goes whole: its other slides' parts count as damaged, too.
        """
        for part in parts:
            why = (
                part.damaged
                or (None if self.is_whole(part) else "its file is gone or cut off")
                or self._seen_broken(part)
            )
            if part.file is not None and why is not None:
                self.mark_damaged(part, why)
                self.lake.transact(partial(discard_file, key=part.file))

    def _seen_broken(self, part: Part) -> str | None:
        state = None if part.file is None else self.objects.state(part.file)
        return None if (state, part.sha256) in _verified else self.verify(part)

    def _read_inline(self, spec: Table, slide_id: str, columns: list[str] | None) -> pa.Table:
        self.open()
        names = columns or [f.name for f in spec.schema]
        with self.lake.reading() as cursor:
            query = f"select {', '.join(names)} from {_PARTS}.{spec.name} where slide_id = ?"
            rows = cursor.execute(query, [slide_id]).to_arrow_table()
        if rows.num_rows == 0:
            raise _absent(spec.name, slide_id)
        return rows.cast(pa.schema([spec.schema.field(n) for n in names]))

    def _lineage(self, column: str, table: str, slide_id: str) -> str | None:
        _check_slide_id(slide_id)
        where = "where slide_id = ? and table_name = ?"
        found = self.rows(f"select {column} from {_PARTS}.lineage {where}", [slide_id, table])
        return found[0][0] if found else None

    @contextmanager
    def _opened(self, table: str, slide_id: str) -> Iterator[tuple[Any, Part]]:
        """A part's file, verified. What is found damaged is marked so."""
        part = self.part(table, slide_id)
        if part is None or part.file is None:
            raise _absent(table, slide_id)
        if part.damaged:
            raise _damaged(part, part.damaged)
        state = self.objects.state(part.file)
        if state is None or (state, part.sha256) not in _verified:
            why = self.verify(part)
            if why is not None:
                if self.objects.exists(part.file):  # one that is gone may come back, as with a mount
                    self.mark_damaged(part, why)
                raise _damaged(part, why)
            _verified.add((state, part.sha256))
        try:
            with self.objects.open(part.file) as file:
                yield file, part
        except (pa.ArrowException, OSError) as e:
            raise _damaged(part, f"its file cannot be read ({type(e).__name__})") from e

    def _shared(self, part: Part) -> str | None:
        """The slide to pick out of a file that `maintain` has merged, None for a file of its own."""
        return None if part.file is None or f"/{part.slide_id}/" in part.file else part.slide_id

    def _adopt(self, spec: Table, slide_id: str, fingerprint: Fingerprint) -> bool:
        """Registers a finished file of a fingerprint that the lake does not know yet; whether there was one."""
        key = part_key(spec.name, slide_id, fingerprint.digest)
        if spec.inline or not self.place.is_writable or not self.objects.exists(key) or _is_known(self.lake, key):
            return False
        try:
            with self.objects.open(key) as file:
                metadata = pq.read_schema(file).metadata or {}
                rows = read_parquet(file)
            if metadata.get(FACTS) != fingerprint.to_json().encode() or pc.unique(rows["slide_id"]).to_pylist() != [
                slide_id
            ]:
                return False
        except (pa.ArrowException, OSError, ValueError):
            return False
        writer = StageWriter(self, slide_id, fingerprint)
        writer.add_file(spec, key, _view_rows(spec, rows), json.loads(metadata.get(SUMMARY, b"null")))
        self._commit(writer)
        return True


class StageWriter:
    """What `Store.stage` yields: takes the parts of one stage."""

    def __init__(self, store: Store, slide_id: str, fingerprint: Fingerprint) -> None:
        self._objects, self._lake = store.objects, store.lake
        self.slide_id, self.fingerprint = slide_id, fingerprint
        self.drafts: list[_Draft] = []
        self.gone: list[str] = []

    def write(self, table: str, rows: pa.Table, summary: Mapping[str, Any] | None = None) -> None:
        """Takes the rows of a table."""
        spec = TABLES[table]
        if spec.inline:
            self.drafts.append(_Draft(spec, rows.cast(spec.schema), row_count=rows.num_rows, summary=summary))
            return
        key = self._new_key(spec)
        with self._objects.draft(key) as path:
            write_parquet(path, spec, [rows], self.fingerprint, summary)
        self.add_file(spec, key, rows.num_rows, summary)

    def write_by_gene(
        self,
        table: str,
        keys: dict[str, npt.NDArray],
        blocks: Iterable[tuple[Sequence[str], npt.NDArray]],
        **constants: str,
    ) -> None:
        """Takes a by-gene part; as `Store.write_by_gene`."""
        spec = TABLES[table]
        key = self._new_key(spec)
        with self._objects.draft(key) as path:
            rows = write_parquet(
                path, spec, tables_of_blocks(spec, self.slide_id, keys, blocks, constants), self.fingerprint
            )
        self.add_file(spec, key, (rows - 1) * len(next(iter(keys.values()))), None)

    def remove(self, table: str) -> None:
        """Takes the slide's earlier part of a table out, with nothing in its place."""
        self.gone.append(table)

    def add_file(self, spec: Table, key: str, row_count: int, summary: Mapping[str, Any] | None) -> None:
        """Takes a finished file."""
        size = self._objects.size(key)
        self.drafts.append(_Draft(spec, None, key, self._objects.sha256(key), size, row_count, summary))

    def _new_key(self, spec: Table) -> str:
        key = part_key(spec.name, self.slide_id, self.fingerprint.digest)
        if self._objects.exists(key) or _is_known(self._lake, key):
            # Made before from the same, and perhaps of a kept snapshot: no file is ever replaced, nor its name used again,
            # for it goes with that snapshot.
            key = part_key(spec.name, self.slide_id, f"{self.fingerprint.digest}-{uuid.uuid4().hex[:8]}")
        return key


_verified: set[tuple[Any, str | None]] = set()


def part_key(table: str, slide_id: str, digest: str) -> str:
    """Where a slide's part belongs, relative to the tables' place."""
    return f"parts/{table}/{slide_id}/{digest}.parquet"


def _register(cursor: Cursor, objects: Objects, writer: StageWriter) -> None:
    """The transaction of a stage's write."""
    slide_id, fingerprint = writer.slide_id, writer.fingerprint
    _check_slide(cursor, slide_id, fingerprint)
    written = [d.spec.name for d in writer.drafts]
    earlier = cursor.execute(f"select table_name, file from {_PARTS}.lineage where slide_id = ?", [slide_id]).fetchall()
    if {d.file for d in writer.drafts if d.file} & {file for _, file in earlier}:
        return  # a commit whose answer was lost is tried again; a file registered twice would go with the first
    _take_out(cursor, slide_id, [t for t, _ in earlier if t in (*written, *writer.gone)])
    now = datetime.now(UTC)
    for draft in writer.drafts:
        if draft.rows is not None:
            insert_rows(cursor, draft.spec, draft.rows)
        elif draft.file is not None:
            add_files(cursor, draft.spec.name, [objects.where(draft.file)])
        summary = None if draft.summary is None else json.dumps(draft.summary, allow_nan=False)
        cursor.execute(
            f"insert into {_PARTS}.lineage ({_LINEAGE}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [slide_id, draft.spec.name, fingerprint.digest, draft.file, draft.sha256, draft.size_bytes, draft.row_count,
             now, None, summary, fingerprint.to_json()],
        )  # fmt: skip


def discard_file(cursor: Cursor, key: str) -> None:
    """Ends a data file in the lake's metadata without reading it, as DuckLake's specification has a deletion: a snapshot, what it
    changed, and the file's last snapshot. Runs in a transaction on the metadata alone.
    """
    meta = f"__ducklake_metadata_{NAME}"
    _, table, path = key.split("/", 2)
    found = cursor.execute(
        f"select f.data_file_id, f.table_id from {meta}.ducklake_data_file f join {meta}.ducklake_table t using (table_id) "
        "where t.table_name = ? and f.path = ? and f.end_snapshot is null",
        [table, path],
    ).fetchall()
    if not found:
        return
    file_id, table_id = found[0]
    (snapshot,) = cursor.execute(f"select max(snapshot_id) + 1 from {meta}.ducklake_snapshot").fetchall()[0]
    cursor.execute(
        f"insert into {meta}.ducklake_snapshot (snapshot_id, snapshot_time, schema_version, next_catalog_id, next_file_id) "
        f"select {snapshot}, now(), schema_version, next_catalog_id, next_file_id from {meta}.ducklake_snapshot "
        f"where snapshot_id = {snapshot - 1}"
    )
    cursor.execute(
        f"insert into {meta}.ducklake_snapshot_changes (snapshot_id, changes_made) values (?, ?)",
        [snapshot, f"deleted_from_table:{table_id}"],
    )
    cursor.execute(f"update {meta}.ducklake_data_file set end_snapshot = {snapshot} where data_file_id = {file_id}")
    cursor.execute(
        f"update {meta}.ducklake_delete_file set end_snapshot = {snapshot} "
        f"where data_file_id = {file_id} and end_snapshot is null"
    )


def _take_out(cursor: Cursor, slide_id: str, tables: Sequence[str]) -> None:
    for table in tables:
        cursor.execute(f"delete from {_PARTS}.{table} where slide_id = ?", [slide_id])
    if tables:
        marks = ", ".join("?" * len(tables))
        cursor.execute(
            f"delete from {_PARTS}.lineage where slide_id = ? and table_name in ({marks})", [slide_id, *tables]
        )


def insert_rows(cursor: Cursor, spec: Table, rows: pa.Table) -> None:
    """Inserts rows into an inline table."""
    cursor.register("stpath_rows", rows)
    names = ", ".join(f.name for f in spec.schema)
    cursor.execute(f"insert into {_PARTS}.{spec.name} ({names}) select {names} from stpath_rows")
    cursor.unregister("stpath_rows")


def add_files(cursor: Cursor, table: str, files: Sequence[str]) -> None:
    """Registers finished files. DuckLake keeps those under its data path by their relative path: the root can be moved."""
    listed = ", ".join(quoted(f) for f in files)
    cursor.execute(
        f"call ducklake_add_data_files({quoted(NAME)}, {quoted(table)}, [{listed}], schema => 'parts', allow_missing => true)"
    )


def _check_slide(cursor: Cursor, slide_id: str, fingerprint: Fingerprint) -> None:
    """Raises `SlideError` where the registered slide is no longer the one that the parts were made from."""
    found = cursor.execute(f"select status, sha256 from {_PARTS}.slides where slide_id = ?", [slide_id]).fetchall()
    if not found:
        return
    status, sha256 = found[0]
    if status != "ready":
        raise SlideError(
            f"{slide_id}: was {status} while it was worked on; nothing was stored, add it again to bring it back"
        )
    if fingerprint.facts.get("slide_sha256", sha256) != sha256:
        raise SlideError(f"{slide_id}: became another scan while it was worked on; nothing was stored, run it again")


def _is_known(lake: Lake, key: str) -> bool:
    """Whether a file is, or was in a kept snapshot, part of the lake: DuckLake would remove it with that snapshot."""
    _, table, rest = key.split("/", 2)
    meta = f"__ducklake_metadata_{NAME}"
    files = f"{meta}.ducklake_data_file f join {meta}.ducklake_table t using (table_id)"
    named = lake.rows(f"select count(*) from {files} where t.table_name = ? and f.path = ?", [table, rest])
    waiting = f"{meta}.ducklake_files_scheduled_for_deletion"
    leaving = lake.rows(f"select count(*) from {waiting} where path like ?", [f"%{rest}"])
    return any(n for (n,) in named + leaving)


def _view_rows(spec: Table, rows: pa.Table) -> int:
    """How many rows stored rows have in their view."""
    if not spec.by_gene:
        return int(rows.num_rows)
    part = to_by_gene(spec, rows)
    return int(part.values.size)


def _check_slide_id(slide_id: str) -> None:
    if not SLIDE_ID.fullmatch(slide_id):
        raise StorageError(
            f"{slide_id!r} is no slide_id: letters, digits, '_', '.', '-', at most 120, first a letter or digit, no '..'"
        )


def _absent(table: str, slide_id: str) -> StorageError:
    return StorageError(f"{slide_id}: has no {table} yet; run: stpath-assets run {slide_id}")


def _damaged(part: Part, why: str) -> StorageError:
    return StorageError(f"{part.slide_id}: {part.table}: {why}; make it again: stpath-assets run {part.slide_id}")
