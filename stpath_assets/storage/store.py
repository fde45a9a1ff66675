"""The one door to the tables: reads and writes a slide's part of a table, and says what it was made from.

    with store.stage("a", fingerprint) as stage:
        stage.write("gigapath_features", rows)
        stage.write("gigapath_throughput", took)

A part is a complete, immutable Parquet file, or a row of the lake's metadata. It is written beside, synced and renamed, and then
registered in one transaction that takes the slide's earlier part out: a reader sees the one or the other, and of several tables
of a stage all or none.
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
from stpath_assets.storage.by_gene import FACTS, SUMMARY, ByGene, read_parquet, to_by_gene
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.home import Home
from stpath_assets.storage.lake import NAME, Cursor, Lake, quoted
from stpath_assets.storage.locks import lock
from stpath_assets.storage.objects import Objects
from stpath_assets.storage.part import OF_PART, OF_SLIDE, Part, check_slide_id, part_key, parts_where
from stpath_assets.storage.stage import StageWriter, discard_file, is_known, register, take_out
from stpath_assets.tables import FINGERPRINTS, LINEAGE, SLIDES, TABLES, Table

CREATE_WAIT_S = 600.0
_PARTS = f"{NAME}.parts"
_LINEAGE = f"{_PARTS}.{LINEAGE.name}"
_FINGERPRINTS = f"{_PARTS}.{FINGERPRINTS.name}"


@dataclass(frozen=True)
class Made:
    """What bringing a part up to date came to: its fingerprint, whether it had to be made, what to tell the user."""

    fingerprint: Fingerprint
    made: bool
    notes: tuple[str, ...] = ()


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
            if not self.place.on_postgres and not self.place.sqlite.exists():
                # Made here, so that nobody else may read it; SQLite's other files take its mode over.
                self.place.sqlite.touch(mode=0o600)
            self.lake.make()
            if not self.lake.transact(lambda cursor: schema.bring_up(cursor, self.place.name)):
                if not self.place.on_postgres:
                    with self.lake.alone():
                        schema.keep_few_statistics(self.place.sqlite)
                # Last: what is killed before it is begun anew.
                self.lake.transact(lambda cursor: schema.complete(cursor, self.place.name))
            self._is_open = True
            takeover.take_over(self)

    def open(self) -> None:
        """Raises `StorageError` where there is no lake. Makes nothing but what a newer program adds to one."""
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
            found = self.rows(f"select slide_id from {_LINEAGE} where table_name = ? order by 1", [table])
        return [s for (s,) in found]

    def parts(self, slide_id: str | None = None) -> list[Part]:
        """What is stored, of all slides or one, by slide and table."""
        return self._parts("true") if slide_id is None else self._parts(OF_SLIDE, slide_id)

    def part(self, table: str, slide_id: str) -> Part | None:
        """A slide's stored part, or None; raises `StorageError` for a slide_id that is not one."""
        check_slide_id(slide_id)
        return next((p for p in self._parts(OF_SLIDE, slide_id) if p.table == table), None)

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
        check_slide_id(slide_id)
        query = f"select facts from {_LINEAGE} join {_FINGERPRINTS} using (digest) where {OF_PART} = ?"
        found = self.rows(query, [f"{slide_id}/{table}"])
        return Fingerprint(json.loads(found[0][0])) if found else None

    def facts(self, table: str) -> dict[str, str]:
        """What every slide's part of a table was made from, in canonical JSON."""
        # No values: DuckDB imports pandas with the first of a process, which takes longer than the query.
        return dict(self.rows(
            f"select slide_id, facts from {_LINEAGE} join {_FINGERPRINTS} using (digest) where table_name = {quoted(table)}"
        ))  # fmt: skip

    def summary(self, table: str, slide_id: str) -> dict[str, Any]:
        """The summary that a slide's part was stored with, empty if with none."""
        found = self.rows(f"select summary from {_LINEAGE} where {OF_PART} = ?", [f"{slide_id}/{table}"])
        if not found:
            raise _absent(table, slide_id)
        return dict(json.loads(found[0][0] or "{}"))

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
    def stage(self, slide_id: str, fingerprint: Fingerprint) -> Iterator[StageWriter]:
        """Collects the parts of one stage and registers them in one transaction at the end of the block.

        Raises `SlideError` where the slide was retired or became another scan meanwhile; nothing is stored then.
        """
        check_slide_id(slide_id)
        self.create()
        writer = StageWriter(self.objects, self.lake, slide_id, fingerprint)
        yield writer
        self._commit(writer)

    def remove(self, tables: Sequence[str], slide_id: str) -> None:
        """Takes a slide's parts of some tables out, if there are any."""
        if any(p.table in tables for p in self.parts(slide_id)):
            self._replacing(slide_id, tables, lambda cursor, earlier: take_out(
                cursor, slide_id, [p.table for p in earlier if p.table in tables]
            ))  # fmt: skip

    # The rest

    def _parts(self, where: str, *values: str) -> list[Part]:
        self.open()
        return self.lake.read(lambda cursor: parts_where(cursor, where, values))

    def _commit(self, writer: StageWriter) -> None:
        """Registers the parts of a stage in one transaction."""
        self._replacing(
            writer.slide_id, writer.replaced, lambda cursor, earlier: register(cursor, self.objects, writer, earlier)
        )

    def _replacing(self, slide_id: str, tables: Container[str], work: Callable[[Cursor, list[Part]], None]) -> None:
        """Runs a transaction that takes out parts of some tables of a slide; it is told all that the slide has.

        To take a slide's rows out of a file, DuckLake must read it. So one that cannot be read is first taken out of the lake as
        a whole; of a merged one, the other slides' parts then count as damaged, too.
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
        """Why a part's file cannot be read, or None; its content is read where it was not yet."""
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
"""Lakes that this process has found to be up, as they stood: who asks again need not look."""

_verified: set[tuple[Any, str | None]] = set()


def _view_rows(spec: Table, rows: pa.Table) -> int:
    """How many rows stored rows have in their view."""
    if not spec.by_gene:
        return int(rows.num_rows)
    part = to_by_gene(spec, rows)
    return int(part.values.size)


def _absent(table: str, slide_id: str) -> StorageError:
    return StorageError(f"{slide_id}: has no {table} yet; run: stpath-assets run {slide_id}")


def _damaged(part: Part, why: str) -> StorageError:
    return StorageError(f"{part.slide_id}: {part.table}: {why}; make it again: stpath-assets run {part.slide_id}")
