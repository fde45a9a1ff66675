"""Keeps the lake small and fast: merges small parts, expires old snapshots, removes unused files.

One part per slide suits runs, which replace parts, and queries of one slide. A query of one gene over a cohort would open all
parts. So small parts of neighbouring slides are merged into files of about 64 MB, sorted by gene and then slide, from which
such a query reads one row group each. A slide's rows are still found by the file's statistics. A run replaces them by marking
them as deleted in the merged file and adding a separate part. The next merge removes deleted rows for good.
"""

import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from stpath_assets.progress import track
from stpath_assets.storage.by_gene import read_parquet, write_parquet
from stpath_assets.storage.files import writer_is_gone
from stpath_assets.storage.lake import COMMIT_WAIT_S, NAME, Cursor
from stpath_assets.storage.locks import lock
from stpath_assets.storage.part import Part
from stpath_assets.storage.stage import add_files
from stpath_assets.storage.store import Store
from stpath_assets.tables import FINGERPRINTS, LINEAGE, REFERENCE_MODELS, TABLES, Table

MERGED_BYTES = 64 * 2**20
"""Target size of merged files."""

SMALL_BYTES = MERGED_BYTES // 2
"""Larger files are not merged: reading one gene from them costs no more than from their share of a merged file."""

LEAST_PARTS = 8
"""Minimum number of small files that is worth a merge."""

GRACE = timedelta(hours=1)
"""How long a file stays after the last snapshot that uses it, because a query may still read it."""

ORPHAN_AGE = timedelta(days=1)
"""Age from which a file unknown to the lake is removed. A run may be about to register a younger one."""

MERGED = "_merged"
"""Folder of merged files. No slide_id begins with this character."""

MERGED_ROWS = 256
"""Least rows of genes per row group of a merged file: more would read too much for one gene, fewer make a query for the keys,
which looks at each row group, take longer.
"""

HEADS = 8
"""Keys of so many slides per row group of a merged file, so that a query for one slide reads few others'."""

_WAIT_S = 5.0


@dataclass(frozen=True)
class Maintained:
    """The result of maintenance: files merged and their new files, snapshots expired, files and bytes removed."""

    merged: int
    into: int
    expired: int
    removed: int
    removed_bytes: int


def maintain(store: Store, keep: timedelta, grace: timedelta = GRACE, orphan_age: timedelta = ORPHAN_AGE) -> Maintained:
    """Merge small parts, expire snapshots older than `keep`, and remove files that no snapshot uses.

    Safe next to readers and writers. Raises `StorageError` if another maintenance is running.
    """
    store.open()
    with lock(store.home / "locks" / "maintain.lock", _WAIT_S, "maintenance"):
        merged, into = merge(store)
        _forget_fingerprints(store)
        expired = expire(store, keep)
        removed, size = clean(store, grace, orphan_age)
        _forget_rows(store)
        _shrink(store)
    return Maintained(merged, into, expired, removed, size)


def merge(store: Store) -> tuple[int, int]:
    """Merge small files of each table. Returns how many files were merged, and into how many."""
    groups = [(t, g) for t in TABLES.values() if not t.inline for g in _groups(store, t)]
    merged = into = 0
    for table, group in track(groups, "merging parts", len(groups)):
        if _merge_group(store, table, group):
            merged += len({p.file for p in group})
            into += 1
    return merged, into


def expire(store: Store, keep: timedelta) -> int:
    """Expire snapshots older than `keep`, except the last one. Returns their number."""
    before = (datetime.now(UTC) - keep).isoformat()
    forgotten = store.lake.transact(
        lambda c: c.execute(
            f"select count(*) from ducklake_expire_snapshots('{NAME}', older_than => '{before}'::timestamptz)"
        ).fetchall()
    )
    return int(forgotten[0][0])


def clean(store: Store, grace: timedelta, orphan_age: timedelta) -> tuple[int, int]:
    """Remove files that no snapshot uses. Returns their number and bytes."""
    sizes = {key: size for key, size, _ in store.objects.listing()}
    until = (datetime.now(UTC) - grace).isoformat()
    store.lake.transact(
        lambda c: c.execute(
            f"call ducklake_cleanup_old_files('{NAME}', older_than => '{until}'::timestamptz)"
        ).fetchall()
    )
    oldest = time.time() - orphan_age.total_seconds()

    def remove_orphans(_cursor: Cursor) -> None:
        # In a writer's turn, so that no file is registered between the check and its removal.
        for key, _, changed in list(find_unknown(store)):
            if changed < oldest:
                store.objects.remove(key)

    store.lake.transact(remove_orphans)
    gone = sizes.keys() - {key for key, _, _ in store.objects.listing()}
    return len(gone), sum(sizes[key] for key in gone)


def find_unknown(store: Store) -> Iterator[tuple[str, int, float]]:
    """Yield files among the tables that the lake does not know: key, bytes and modification time. Skips drafts in progress."""
    known = known_files(store)
    for key, size, changed in store.objects.listing():
        name = key.rpartition("/")[2]
        being_written = name.endswith(".tmp") and writer_is_gone(store.objects.local(key)) is False
        if key not in known and not being_written:
            yield key, size, changed


def known_files(store: Store) -> set[str]:
    """Return the keys of all files that a snapshot uses, or that are scheduled for removal, of parts without rows, whose files
    DuckLake does not register, and of fitted predictors.
    """
    meta = f"__ducklake_metadata_{NAME}"
    found = store.lake.rows(
        f"with files as (select table_id, path, path_is_relative from {meta}.ducklake_data_file union all "
        f"select table_id, path, path_is_relative from {meta}.ducklake_delete_file) "
        "select case when f.path_is_relative then s.path || t.path || f.path else f.path end from files f "
        f"join {meta}.ducklake_table t using (table_id) join {meta}.ducklake_schema s using (schema_id) "
        f"union all select path from {meta}.ducklake_files_scheduled_for_deletion "
        f"union all select file from {NAME}.parts.{LINEAGE.name} where row_count = 0 and file is not null "
        f"union all select file from {NAME}.parts.{REFERENCE_MODELS.name}"
    )
    return {str(path).removeprefix(store.place.tables_path) for (path,) in found}


def _groups(store: Store, table: Table) -> list[list[Part]]:
    """Yield groups of small files of neighbouring slides, one group per merged file. A file comes with all its parts."""
    files: dict[str, list[Part]] = {}
    for part in store.parts():
        if part.table == table.name and part.file is not None:
            files.setdefault(part.file, []).append(part)
    small = [ps for ps in files.values() if (ps[0].size_bytes or 0) < SMALL_BYTES and all(map(store.is_whole, ps))]
    groups, group, size = [], list[list[Part]](), 0
    for parts in sorted(small, key=lambda ps: ps[0].slide_id):
        group.append(parts)
        size += parts[0].size_bytes or 0
        if size >= MERGED_BYTES:
            groups.append(group)
            group, size = [], 0
    groups.append(group)
    return [[p for parts in g for p in parts] for g in groups if len(g) >= LEAST_PARTS]


def _merge_group(store: Store, table: Table, group: Sequence[Part]) -> bool:
    """Merge the files of some parts. Returns False if one of them was replaced, or found damaged, in the meantime."""
    rows = []
    for file in dict.fromkeys(p.file for p in group):
        mine = [p for p in group if p.file == file]
        if any(store.verify(p) for p in mine[:1]):
            return False
        with store.objects.open(str(file)) as opened:
            wanted = pc.field("slide_id").isin([p.slide_id for p in mine])
            rows.append(read_parquet(opened, filters=wanted))
    slides = len({p.slide_id for p in group})
    key = f"parts/{table.name}/{MERGED}/{uuid.uuid4().hex}.parquet"
    with store.objects.draft(key) as path:
        write_parquet(path, table, _sorted(table, _together(table, rows)), None, row_group=max(MERGED_ROWS, slides))
    sha256, size = store.objects.sha256(key), store.objects.size(key)
    expected = {(p.slide_id, p.digest, p.file) for p in group}

    def work(cursor: Cursor) -> bool:
        lineage = f"{NAME}.parts.lineage"
        marks = ", ".join("?" * len(group))
        ids = [p.slide_id for p in group]
        where = f"table_name = ? and slide_id in ({marks})"
        found = cursor.execute(
            f"select slide_id, digest, file from {lineage} where {where}", [table.name, *ids]
        ).fetchall()
        if set(found) != expected:
            return False
        cursor.execute(f"delete from {NAME}.parts.{table.name} where slide_id in ({marks})", ids)
        add_files(cursor, table.name, [store.objects.where(key)])
        values = [key, sha256, size, table.name, *ids]
        cursor.execute(f"update {lineage} set file = ?, sha256 = ?, size_bytes = ? where {where}", values)
        return True

    done = store.lake.transact(work)
    # If the answer to a commit was lost, the retry finds its own work.
    if not done and key not in known_files(store):
        store.objects.remove(key)
    return done


def _together(table: Table, rows: Sequence[pa.Table]) -> pa.Table:
    """Concatenate rows of several files. Columns that an earlier version did not store are NULL."""
    together = pa.concat_tables([table.schema.empty_table(), *rows], promote_options="default")
    return together.select(table.schema.names)


def _sorted(table: Table, rows: pa.Table) -> Iterator[pa.Table]:
    """Sort rows for a merged file: for by-gene tables the keys of all slides, then gene by gene."""
    if not table.by_gene:
        keys = (
            [("gene", "ascending"), ("slide_id", "ascending")]
            if "gene" in rows.column_names
            else [("slide_id", "ascending")]
        )
        yield rows.take(pc.sort_indices(rows, sort_keys=keys))
        return
    is_head = pc.is_null(rows["gene"])
    heads = rows.filter(is_head).sort_by("slide_id")
    yield from (heads.slice(i, HEADS) for i in range(0, heads.num_rows, HEADS))
    of_genes, by = rows.filter(pc.invert(is_head)), [table.section] if table.section else []
    keys = [(name, "ascending") for name in (*by, "gene", "slide_id")]
    yield of_genes.take(pc.sort_indices(of_genes, sort_keys=keys))


def _forget_fingerprints(store: Store) -> None:
    """Remove fingerprints that no part uses any more. Registering a part does not look for them, because that would be slow."""
    parts = f"{NAME}.parts"
    unused = f"{parts}.{FINGERPRINTS.name} where digest not in (select digest from {parts}.{LINEAGE.name})"
    if store.lake.rows(f"select count(*) from {unused}") != [(0,)]:
        store.lake.transact(lambda c: c.execute(f"delete from {unused}"))


def _forget_rows(store: Store) -> None:
    """Remove metadata rows that no snapshot sees; DuckLake itself never does."""
    meta = f"__ducklake_metadata_{NAME}"

    def work(cursor: Cursor) -> None:
        oldest = cursor.execute(f"select min(snapshot_id) from {meta}.ducklake_snapshot").fetchall()[0][0]
        for (table,) in cursor.execute(f"select table_name from {meta}.ducklake_inlined_data_tables").fetchall():
            cursor.execute(f"delete from {meta}.{table} where end_snapshot <= {oldest}")

    store.lake.transact(work)


def _shrink(store: Store) -> None:
    """Return the space of expired snapshots in lake.sqlite to the file system, if nobody else uses it.

    Within a process, Python's SQLite and DuckDB's do not see each other's locks, so no commit may be in progress.
    """
    if store.place.on_postgres:
        return
    turn = lock(store.home / "locks" / "commit.lock", COMMIT_WAIT_S, "the lake")
    with turn, suppress(sqlite3.OperationalError), closing(sqlite3.connect(store.place.sqlite, timeout=1)) as database:
        free, pages = (database.execute(f"pragma {p}").fetchone()[0] for p in ("freelist_count", "page_count"))
        if free > pages // 4:
            database.execute("vacuum")
        database.execute("pragma wal_checkpoint(truncate)")
