"""Writes the parts of a stage, and registers them in one transaction.

`StageWriter` writes a part to a temporary file, syncs and renames it. `register` then replaces the slide's earlier part, in the
caller's transaction. A reader sees either the old or the new part, and all or none of the tables of a stage.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import SlideError
from stpath_assets.storage.by_gene import tables_of_blocks, write_parquet
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import NAME, Cursor, Lake, quote
from stpath_assets.storage.objects import Objects
from stpath_assets.storage.part import OF_PART, OF_SLIDE, Part, part_key
from stpath_assets.tables import FINGERPRINTS, LINEAGE, SLIDES, TABLES, Table

_PARTS = f"{NAME}.parts"

Sections = Mapping[str, tuple[dict[str, npt.NDArray], Iterable[tuple[Sequence[str], npt.NDArray]]]]
"""Keys and blocks of genes of each section of a by-gene part."""


@dataclass
class Draft:
    """A part of a stage that is not yet registered: rows of an inline table, or a finished file."""

    spec: Table
    rows: pa.Table | None = None
    file: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    row_count: int = 0
    summary: Mapping[str, Any] | None = None


class StageWriter:
    """The object that `Store.stage` yields. It collects the parts of one stage."""

    def __init__(self, objects: Objects, lake: Lake, slide_id: str, fingerprint: Fingerprint) -> None:
        self._objects, self._lake = objects, lake
        self.slide_id, self.fingerprint = slide_id, fingerprint
        self.drafts: list[Draft] = []
        self.gone: list[str] = []

    @property
    def replaced(self) -> set[str]:
        """Return the tables whose earlier part is replaced."""
        return {d.spec.name for d in self.drafts} | set(self.gone)

    def write(self, table: str, rows: pa.Table, summary: Mapping[str, Any] | None = None) -> None:
        """Add the rows of a table."""
        spec = TABLES[table]
        if spec.inline:
            self.drafts.append(Draft(spec, rows.cast(spec.schema), row_count=rows.num_rows, summary=summary))
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
        """Add a by-gene part; see `Store.write_by_gene`."""
        tables = tables_of_blocks(TABLES[table], self.slide_id, keys, blocks, constants)
        self._write_sections(table, [(tables, _length(keys))])

    def write_sections(
        self,
        table: str,
        sections: Sections,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a by-gene part that has sections: keys and blocks of each."""
        spec = TABLES[table]
        assert spec.section is not None
        named = {
            name: (tables_of_blocks(spec, self.slide_id, keys, blocks, {spec.section: name}), _length(keys))
            for name, (keys, blocks) in sections.items()
        }
        self._write_sections(table, list(named.values()), summary)

    def _write_sections(
        self,
        table: str,
        sections: Sequence[tuple[Iterable[pa.Table], int]],
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Write sections, each with its number of keys. The first row of each holds the keys; the others are genes."""
        spec, rows = TABLES[table], 0

        def counted() -> Iterator[pa.Table]:
            nonlocal rows
            for tables, keys in sections:
                rows -= keys
                for one in tables:
                    rows += one.num_rows * keys
                    yield one

        key = self._new_key(spec)
        with self._objects.draft(key) as path:
            write_parquet(path, spec, counted(), self.fingerprint, summary)
        self.add_file(spec, key, rows, summary)

    def remove(self, table: str) -> None:
        """Remove the slide's earlier part of a table, without a new one."""
        self.gone.append(table)

    def add_file(self, spec: Table, key: str, row_count: int, summary: Mapping[str, Any] | None) -> None:
        """Add a finished file."""
        size = self._objects.size(key)
        self.drafts.append(Draft(spec, None, key, self._objects.sha256(key), size, row_count, summary))

    def _new_key(self, spec: Table) -> str:
        key = part_key(spec.name, self.slide_id, self.fingerprint.digest)
        if self._objects.exists(key) or is_known(self._lake, key):
            # The same part was made before, and a kept snapshot may use its file. No file is ever replaced, nor its name reused,
            # because the name goes with that snapshot.
            key = part_key(spec.name, self.slide_id, f"{self.fingerprint.digest}-{uuid.uuid4().hex[:8]}")
        return key


def _length(keys: Mapping[str, npt.NDArray]) -> int:
    return len(next(iter(keys.values())))


def register(cursor: Cursor, objects: Objects, writer: StageWriter, earlier: Sequence[Part]) -> None:
    """Register the parts of a stage in place of the slide's `earlier` ones.

    Raises `SlideError` if the slide was retired or became another scan in the meantime.
    """
    slide_id, fingerprint = writer.slide_id, writer.fingerprint
    _check_slide(cursor, slide_id, fingerprint)
    if {d.file for d in writer.drafts if d.file} & {p.file for p in earlier}:
        return  # a commit whose answer was lost is tried again; a file registered twice would go with the first
    take_out(cursor, slide_id, [p.table for p in earlier if p.table in writer.replaced])
    now, lineage = datetime.now(UTC), []
    for draft in writer.drafts:
        if draft.rows is not None:
            insert_rows(cursor, draft.spec, draft.rows)
        elif draft.file is not None:
            add_files(cursor, draft.spec.name, [objects.where(draft.file)])
        lineage.append({
            "slide_id": slide_id, "table_name": draft.spec.name, "digest": fingerprint.digest, "file": draft.file,
            "sha256": draft.sha256, "size_bytes": draft.size_bytes, "row_count": draft.row_count, "made_at": now,
            "damaged": None,
            "summary": None if draft.summary is None else json.dumps(draft.summary, allow_nan=False),
        })  # fmt: skip
    add_lineage(cursor, lineage, [fingerprint])


def take_out(cursor: Cursor, slide_id: str, tables: Sequence[str]) -> None:
    """Remove a slide's parts of some tables."""
    for table in tables:
        where = OF_SLIDE if TABLES[table].inline else "slide_id = ?"
        cursor.execute(f"delete from {_PARTS}.{table} where {where}", [slide_id])
    if tables:
        marks = ", ".join("?" * len(tables))
        cursor.execute(
            f"delete from {_PARTS}.{LINEAGE.name} where {OF_PART} in ({marks})",
            [f"{slide_id}/{table}" for table in tables],
        )


def add_lineage(cursor: Cursor, lineage: Sequence[Mapping[str, Any]], fingerprints: Iterable[Fingerprint]) -> None:
    """Add rows of `lineage`, and the facts of their fingerprints."""
    if lineage:
        facts = [{"digest": f.digest, "facts": f.to_json()} for f in fingerprints]
        insert_rows(cursor, LINEAGE, pa.Table.from_pylist(list(lineage), LINEAGE.schema))
        insert_rows(cursor, FINGERPRINTS, pa.Table.from_pylist(facts, FINGERPRINTS.schema))


def insert_rows(cursor: Cursor, spec: Table, rows: pa.Table) -> None:
    """Insert rows into an inline table."""
    cursor.register("stpath_rows", rows)
    names = ", ".join(f.name for f in spec.schema)
    cursor.execute(f"insert into {_PARTS}.{spec.name} ({names}) select {names} from stpath_rows")
    cursor.unregister("stpath_rows")


def add_files(cursor: Cursor, table: str, files: Sequence[str]) -> None:
    """Register finished files. DuckLake stores relative paths for files under its data path, so the root can be moved."""
    listed = ", ".join(quote(f) for f in files)
    cursor.execute(
        f"call ducklake_add_data_files({quote(NAME)}, {quote(table)}, [{listed}], schema => 'parts', allow_missing => true)"
    )


def discard_file(cursor: Cursor, key: str) -> None:
    """End a data file in the lake's metadata without reading it, as DuckLake's specification defines a deletion: a new
    snapshot, its changes, and the file's last snapshot. Runs in a transaction on the metadata alone.
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


def is_known(lake: Lake, key: str) -> bool:
    """Return whether a file belongs to the lake or to a kept snapshot. DuckLake would remove it with that snapshot."""
    _, table, rest = key.split("/", 2)
    meta = f"__ducklake_metadata_{NAME}"
    files = f"{meta}.ducklake_data_file f join {meta}.ducklake_table t using (table_id)"
    named = lake.rows(f"select count(*) from {files} where t.table_name = ? and f.path = ?", [table, rest])
    waiting = f"{meta}.ducklake_files_scheduled_for_deletion"
    leaving = lake.rows(f"select count(*) from {waiting} where path like ?", [f"%{rest}"])
    return any(n for (n,) in named + leaving)


def _check_slide(cursor: Cursor, slide_id: str, fingerprint: Fingerprint) -> None:
    """Raise `SlideError` if the registered slide is no longer the one from which the parts were made."""
    query = f"select status, sha256 from {_PARTS}.{SLIDES.name} where {OF_SLIDE}"
    found = cursor.execute(query, [slide_id]).fetchall()
    if not found:
        return
    status, sha256 = found[0]
    if status != "ready":
        raise SlideError(f"{slide_id}: was {status} during the work; nothing was stored, add it again to bring it back")
    if fingerprint.facts.get("slide_sha256", sha256) != sha256:
        raise SlideError(f"{slide_id}: became another scan during the work; nothing was stored, run it again")
