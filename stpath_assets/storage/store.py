"""Reads and writes slides' parts of tables, with what they were made from. The only access to the tables.

    with store.stage("a", fingerprint) as stage:
        stage.write("gigapath_features", rows)
        stage.write("gigapath_throughput", took)

A part is a complete, immutable Parquet file, or a row of the lake's metadata. It is written to a temporary file, synced and
renamed, and then registered in one transaction that removes the slide's earlier part. A reader sees either the old or the new
part, and all or none of the tables of a stage.
"""

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stpath_assets.errors import StorageError
from stpath_assets.settings import Settings
from stpath_assets.storage import schema
from stpath_assets.storage.by_gene import (
    FACTS,
    SUMMARY,
    ByGene,
    blocks_of,
    columns_of,
    mine_of,
    read_genes,
    read_parquet,
    to_by_gene,
)
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.home import Home
from stpath_assets.storage.lake import NAME, Cursor, Lake, quote
from stpath_assets.storage.locks import lock
from stpath_assets.storage.objects import Objects
from stpath_assets.storage.part import OF_PART, OF_SLIDE, Part, check_slide_id, part_key, parts_where
from stpath_assets.storage.stage import Sections, StageWriter, discard_file, is_known, register, take_out
from stpath_assets.tables import FINGERPRINTS, LINEAGE, SLIDES, TABLES, Table

CREATE_WAIT_S = 600.0
_PARTS = f"{NAME}.parts"
_LINEAGE = f"{_PARTS}.{LINEAGE.name}"
_FINGERPRINTS = f"{_PARTS}.{FINGERPRINTS.name}"


@dataclass(frozen=True)
class Outcome:
    """The result of bringing a part up to date: its fingerprint, whether it was made now, and notes for the user."""

    fingerprint: Fingerprint
    recomputed: bool
    notes: tuple[str, ...] = ()


class Store:
    """The tables of one data root, which is a folder or a `Home`."""

    def __init__(self, home: Path | Home) -> None:
        self.place = home if isinstance(home, Home) else Home(Path(home))
        self.home = self.place.root
        self.lake = Lake(self.place)
        self.objects = Objects(self.place)
        self._is_open = False

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """Return the tables of the data root in the settings."""
        return cls(Home.of(settings))

    def create(self) -> None:
        """Create the data root and its lake if they do not exist, and import the tables of version 0.1.

        Raises `StorageError` if that is not possible.
        """
        from stpath_assets.storage import takeover

        if self._is_open:
            return
        self.place.create()
        with lock(self.home / "locks" / "create.lock", CREATE_WAIT_S, f"{self.home}: its lake"):
            self._require_metadata()
            if not self.place.on_postgres and not self.place.sqlite.exists():
                # Created here so that only this user can read it. SQLite's other files inherit its mode.
                self.place.sqlite.touch(mode=0o600)
            self.lake.make()
            if not self.lake.transact(lambda cursor: schema.bring_up(cursor, self.place.name)):
                if not self.place.on_postgres:
                    with self.lake.alone():
                        schema.keep_few_statistics(self.place.sqlite)
                self.lake.transact(schema.say_empty)
                # Last, so that it starts again if it is killed before.
                self.lake.transact(lambda cursor: schema.complete(cursor, self.place.name))
            self._is_open = True
            takeover.take_over(self)

    def is_there(self) -> bool:
        """Return whether the data root has a lake, or tables of an earlier version, without creating anything."""
        from stpath_assets.storage import takeover

        return self.home.is_dir() and (
            self.place.on_postgres or self.place.sqlite.exists() or takeover.is_old(self.home)
        )

    def open(self) -> None:
        """Raise `StorageError` if there is no lake. Creates nothing except what a newer version adds to a lake."""
        from stpath_assets.storage import takeover

        stamp = self.lake.stamp
        if self._is_open or (stamp is not None and _up.get(self.place) == stamp):
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
        _up[self.place] = stamp

    def _require_metadata(self) -> None:
        """Raise `StorageError` if there are parts under the root, but their metadata is missing or empty. A new lake would
        know none of them.
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
        """Return the rows of one reading statement over the lake. Raises `StorageError` if there is no lake."""
        self.open()
        return self.lake.rows(sql, values)

    # Reading

    def slide_ids(self, table: str) -> list[str]:
        """Return the slides that have a part of the table, sorted."""
        if table in (SLIDES.name, LINEAGE.name):
            found = self.rows(f"select distinct slide_id from {_PARTS}.{table} order by 1")
        else:
            found = self.rows(f"select slide_id from {_LINEAGE} where table_name = ? order by 1", [table])
        return [s for (s,) in found]

    def parts(self, slide_id: str | None = None) -> list[Part]:
        """Return the stored parts of all slides or one, by slide and table."""
        if slide_id is not None:
            return self._parts(OF_SLIDE, slide_id)
        self.open()
        found: list[Part] = self.lake.remember("parts", lambda cursor: parts_where(cursor, "true"))
        return list(found)

    def part(self, table: str, slide_id: str) -> Part | None:
        """Return a slide's stored part, or None. Raises `StorageError` for an invalid slide_id."""
        check_slide_id(slide_id)
        self.open()
        kept: list[Part] | None = self.lake.recall("parts")
        found = self._parts(OF_SLIDE, slide_id) if kept is None else kept
        return next((p for p in found if p.slide_id == slide_id and p.table == table), None)

    def path(self, table: str, slide_id: str) -> Path:
        """Return the file of a slide's part, for tables in a folder. Raises `StorageError` if there is none."""
        part = self.part(table, slide_id)
        if part is None or part.file is None:
            raise _absent(table, slide_id)
        return self.objects.local(part.file)

    def read(self, table: str, slide_id: str, columns: list[str] | None = None) -> pa.Table:
        """Return a slide's part as stored (for by-gene tables see `read_by_gene`).

        Raises `StorageError` if it does not exist or is damaged.
        """
        spec = TABLES[table]
        if spec.inline:
            return self._read_inline(spec, slide_id, columns)
        with self._opened(table, slide_id) as (file, part):
            return read_parquet(file, columns, self._shared(part))

    def read_by_gene(
        self, table: str, slide_id: str, genes: Sequence[str] | None = None, section: str | None = None
    ) -> ByGene:
        """Return a slide's part of a by-gene table, with all genes or the existing ones of `genes`, in stored order.

        `section` says which of the part's sections, for a table that has them.
        """
        spec = TABLES[table]
        with self._opened(table, slide_id) as (file, part):
            mine = mine_of(spec, self._shared(part), section)
            if genes is not None:
                return read_genes(spec, file, mine, genes)
            return to_by_gene(spec, read_parquet(file, columns_of(spec), filters=mine))

    def read_blocks(self, table: str, slide_id: str, section: str | None = None) -> Iterator[ByGene]:
        """Yield a slide's part of a by-gene table, some genes at a time in stored order, to save memory."""
        spec = TABLES[table]
        with self._opened(table, slide_id) as (file, part):
            yield from blocks_of(spec, file, mine_of(spec, self._shared(part), section))

    def fingerprint(self, table: str, slide_id: str) -> Fingerprint | None:
        """Return what a slide's part was made from, or None if there is no part."""
        check_slide_id(slide_id)
        query = f"select facts from {_LINEAGE} join {_FINGERPRINTS} using (digest) where {OF_PART} = ?"
        found = self.rows(query, [f"{slide_id}/{table}"])
        return Fingerprint(json.loads(found[0][0])) if found else None

    def facts(self, table: str) -> dict[str, str]:
        """Return what every slide's part of a table was made from, in canonical JSON."""
        # No parameters: with the first one in a process, DuckDB imports pandas, which takes longer than the query.
        return dict(self.rows(
            f"select slide_id, facts from {_LINEAGE} join {_FINGERPRINTS} using (digest) where table_name = {quote(table)}"
        ))  # fmt: skip

    def summary(self, table: str, slide_id: str) -> dict[str, Any]:
        """Return the summary stored with a slide's part, or an empty one."""
        found = self.rows(f"select summary from {_LINEAGE} where {OF_PART} = ?", [f"{slide_id}/{table}"])
        if not found:
            raise _absent(table, slide_id)
        return dict(json.loads(found[0][0] or "{}"))

    def require(self, table: str, slide_id: str) -> Fingerprint:
        """Return the fingerprint of a slide's part. Raises `StorageError` if there is no part."""
        stored = self.fingerprint(table, slide_id)
        if stored is None:
            raise _absent(table, slide_id)
        return stored

    def is_current(self, table: str, slide_id: str, fingerprint: Fingerprint) -> bool:
        """Return whether the stored part is up to date. A part whose file is missing, truncated or damaged is not.

        If a finished file with this fingerprint is not registered, because the run was killed or the lake's database was
        lost, it is registered now.
        """
        part = self.part(table, slide_id)
        if part is not None and part.digest == fingerprint.digest and self.is_whole(part):
            return True
        return self._adopt(TABLES[table], slide_id, fingerprint)

    def is_whole(self, part: Part) -> bool:
        """Return whether a part's file exists with its size and is not known as damaged. Does not read its content."""
        if part.damaged is not None:
            return False
        return part.file is None or self.objects.size(part.file) == part.size_bytes

    def row_count(self, table: str, slide_id: str) -> int:
        """Return the number of the part's rows in its view; 0 if there is no part."""
        part = self.part(table, slide_id)
        return 0 if part is None else part.row_count

    def verify(self, part: Part) -> str | None:
        """Return what is wrong with a part's file, or None. It may be missing, or differ from what was written. Reads all of
        it.
        """
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
        """Record that a part's file is damaged. All its parts then count as missing, and the next run makes them again."""
        if not self.place.is_writable:
            return
        self.lake.transact(
            lambda c: c.execute(
                f"update {_LINEAGE} set damaged = ? where file = ? and sha256 = ?",
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
        """Store a slide's part of a row-wise table in place of the earlier one.

        `summary` holds JSON values on how the rows came about. It is not part of the fingerprint.
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
        """Store a slide's part of a by-gene table from blocks of (genes, values (N, genes)), one in memory at a time.

        Genes must be in ascending order over all blocks, without duplicates. `constants` fills the remaining columns.
        """
        with self.stage(slide_id, fingerprint) as stage:
            stage.write_by_gene(table, keys, blocks, **constants)

    def write_sections(
        self,
        table: str,
        slide_id: str,
        sections: Sections,
        fingerprint: Fingerprint,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a slide's part of a by-gene table that has sections: keys and blocks of each, as for `write_by_gene`."""
        with self.stage(slide_id, fingerprint) as stage:
            stage.write_sections(table, sections, summary)

    @contextmanager
    def stage(self, slide_id: str, fingerprint: Fingerprint) -> Iterator[StageWriter]:
        """Collect the parts of one stage, and register them in one transaction at the end of the block.

        Raises `SlideError` if the slide was retired or became another scan in the meantime; nothing is stored then.
        """
        check_slide_id(slide_id)
        self.create()
        writer = StageWriter(self.objects, self.lake, slide_id, fingerprint)
        yield writer
        self._commit(writer)

    def remove(self, tables: Sequence[str], slide_id: str) -> None:
        """Remove a slide's parts of some tables, if they exist."""
        if any(p.table in tables for p in self.parts(slide_id)):
            self._replacing(slide_id, tables, lambda cursor, earlier: take_out(
                cursor, slide_id, [p.table for p in earlier if p.table in tables]
            ))  # fmt: skip

    # The rest

    def _parts(self, where: str, *values: str) -> list[Part]:
        self.open()
        return self.lake.read(lambda cursor: parts_where(cursor, where, values))

    def _commit(self, writer: StageWriter) -> None:
        """Register the parts of a stage in one transaction."""
        self._replacing(
            writer.slide_id, writer.replaced, lambda cursor, earlier: register(cursor, self.objects, writer, earlier)
        )

    def _replacing(self, slide_id: str, tables: Container[str], work: Callable[[Cursor, list[Part]], None]) -> None:
        """Run a transaction that removes parts of some tables of a slide. It receives all parts of the slide.

        To remove a slide's rows from a file, DuckLake must read the file. A file that cannot be read is first removed from
        the lake as a whole. If it is a merged file, the parts of its other slides then count as damaged too.
        """
        discarded = set[str | None]()

        def attempt(cursor: Cursor) -> list[tuple[Part, str]]:
            earlier = parts_where(cursor, OF_SLIDE, [slide_id])
            suspects = [p for p in earlier if p.table in tables and p.file not in {None, *discarded}]
            broken = [(p, why) for p in suspects if (why := self._broken(p)) is not None]
            if not broken:
                work(cursor, earlier)
            return broken

        while broken := self.lake.transact(attempt):
            for part, why in broken:
                self.mark_damaged(part, why)
                self.lake.transact(partial(discard_file, key=str(part.file)))
                discarded.add(part.file)

    def _broken(self, part: Part) -> str | None:
        """Return why a part's file cannot be read, or None. Reads its content if that was not done yet."""
        if part.damaged is not None:
            return part.damaged
        if not self.is_whole(part):
            return "its file is gone or cut off"
        state = None if part.file is None else self.objects.state(part.file)
        return None if (state, part.sha256) in _verified else self.verify(part)

    def _read_inline(self, spec: Table, slide_id: str, columns: list[str] | None) -> pa.Table:
        self.open()
        names = columns or [f.name for f in spec.schema]
        with self.lake.reading() as cursor:
            query = f"select {', '.join(names)} from {_PARTS}.{spec.name} where {OF_SLIDE}"
            rows = cursor.execute(query, [slide_id]).to_arrow_table()
        if rows.num_rows == 0:
            raise _absent(spec.name, slide_id)
        return rows.cast(pa.schema([spec.schema.field(n) for n in names]))

    @contextmanager
    def _opened(self, table: str, slide_id: str) -> Iterator[tuple[Any, Part]]:
        """Open a part's file and verify it. A damaged file is marked as damaged."""
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
        """Return the slide_id for a file that `maintain` has merged, or None for a file of one slide."""
        return None if part.file is None or f"/{part.slide_id}/" in part.file else part.slide_id

    def _adopt(self, spec: Table, slide_id: str, fingerprint: Fingerprint) -> bool:
        """Register a finished file of a fingerprint that the lake does not know yet. Returns whether there was one."""
        key = part_key(spec.name, slide_id, fingerprint.digest)
        if spec.inline or not self.place.is_writable or not self.objects.exists(key) or is_known(self.lake, key):
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
        writer = StageWriter(self.objects, self.lake, slide_id, fingerprint)
        writer.add_file(spec, key, _view_rows(spec, rows), json.loads(metadata.get(SUMMARY, b"null")))
        self._commit(writer)
        return True


_up: dict[Home, tuple[int, ...] | None] = {}
"""Lakes that this process has found to be up to date, with their state then, to avoid checking again."""

_verified: set[tuple[Any, str | None]] = set()


def _view_rows(spec: Table, rows: pa.Table) -> int:
    """Return how many rows stored rows have in their view."""
    if not spec.by_gene:
        return int(rows.num_rows)
    return int(pc.sum(pc.list_value_length(rows[spec.value])).as_py() or 0)


def _absent(table: str, slide_id: str) -> StorageError:
    return StorageError(f"{slide_id}: has no {table} yet; run: stpath-assets run {slide_id}")


def _damaged(part: Part, why: str) -> StorageError:
    return StorageError(f"{part.slide_id}: {part.table}: {why}; make it again: stpath-assets run {part.slide_id}")
