"""Imports the tables of a data root of version 0.1 into the lake, without computing anything again.

Version 0.1 had one file per slide and table, `tables/<table>/<slide_id>.parquet`. Each is linked to its new path and
registered with its own fingerprint; then the old name is removed. If it is killed at any moment, the next command continues.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stpath_assets.progress import track
from stpath_assets.storage.by_gene import FACTS, SUMMARY, read_parquet, to_by_gene
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import NAME
from stpath_assets.storage.part import part_key
from stpath_assets.storage.stage import add_files, add_lineage, insert_rows
from stpath_assets.tables import SLIDES, TABLES, Table

if TYPE_CHECKING:
    from stpath_assets.storage.store import Store

AT_ONCE = 100
"""Slides per transaction: few enough for their rows to be kept in the metadata."""

_KNOWN = (
    f"select slide_id, table_name from {NAME}.parts.lineage "
    f"union all select slide_id, '{SLIDES.name}' from {NAME}.parts.{SLIDES.name}"
)
_log = logging.getLogger(__name__)


def is_old(root: Path) -> bool:
    """Return whether a folder holds tables of version 0.1."""
    return next(_old_files(root, SLIDES.name), None) is not None


def is_unfinished(root: Path) -> bool:
    """Return whether an import was killed before its end."""
    return any(next(_old_files(root, table), None) for table in TABLES)


def take_over(store: "Store") -> None:
    """Register the files of version 0.1. Unreadable files stay in place, and a warning names them."""
    root = store.home
    files = {t.name: {p.stem: p for p in _old_files(root, t.name)} for t in TABLES.values()}
    slide_ids = sorted(set().union(*files.values()))
    if not slide_ids:
        return
    batches = [slide_ids[i : i + AT_ONCE] for i in range(0, len(slide_ids), AT_ONCE)]
    for batch in track(batches, "taking the tables of version 0.1 into the lake", len(slide_ids), len):
        found = [old for table in TABLES.values() for s in batch if s in files[table.name]
                 for old in _read(files[table.name][s], table, s)]  # fmt: skip
        _register(store, found)
        for old in found:
            old.path.unlink(missing_ok=True)
    _tidy(root)


class _Old:
    """A file of version 0.1, read as far as its registration needs."""

    def __init__(self, path: Path, table: Table, slide_id: str) -> None:
        metadata = pq.read_schema(path).metadata or {}
        self.path, self.table, self.slide_id = path, table, slide_id
        self.fingerprint = Fingerprint(json.loads(metadata[FACTS]))
        self.summary = metadata.get(SUMMARY)
        rows = read_parquet(str(path))
        self.rows = _completed(rows, table) if table.inline else None
        self.row_count = int(to_by_gene(table, rows).values.size) if table.by_gene else rows.num_rows
        if pc.unique(rows["slide_id"]).to_pylist() != [slide_id]:
            raise ValueError("holds another slide's rows, as a backup copy does")


def _read(path: Path, table: Table, slide_id: str) -> Iterator[_Old]:
    try:
        yield _Old(path, table, slide_id)
    except (pa.ArrowException, OSError, KeyError, ValueError, IndexError, TypeError, AttributeError) as e:
        _log.warning("%s: is left in place: it cannot be read as a part of %s (%s)", path, table.name, type(e).__name__)


def _register(store: "Store", found: Sequence[_Old]) -> None:

    now = datetime.now(UTC)
    known = set(store.lake.rows(_KNOWN))
    new = [o for o in found if (o.slide_id, o.table.name) not in known]
    lineage, keys = list[dict[str, Any]](), dict[str, list[str]]()
    for old in new:
        if old.table is SLIDES:
            continue
        key = None
        if old.rows is None:
            key = part_key(old.table.name, old.slide_id, old.fingerprint.digest)
            _place(store, old.path, key)
            keys.setdefault(old.table.name, []).append(key)
        lineage.append({
            "slide_id": old.slide_id, "table_name": old.table.name, "digest": old.fingerprint.digest, "file": key,
            "sha256": key and store.objects.sha256(key), "size_bytes": key and store.objects.size(key),
            "row_count": old.row_count, "made_at": now, "damaged": None,
            "summary": old.summary and old.summary.decode(),
        })  # fmt: skip

    def work(cursor: Any) -> None:
        if {(o.slide_id, o.table.name) for o in new} & set(cursor.execute(_KNOWN).fetchall()):
            return  # a commit whose answer was lost is tried again
        for table, files in keys.items():
            add_files(cursor, table, [store.objects.where(k) for k in files])
        for table_ in TABLES.values():
            rows = [o.rows for o in new if o.table is table_ and o.rows is not None]
            if rows:
                insert_rows(cursor, table_, pa.concat_tables(rows))
        add_lineage(cursor, lineage, [o.fingerprint for o in new if o.table is not SLIDES])

    store.lake.transact(work)


def _place(store: "Store", old: Path, key: str) -> None:
    """Give a file its new name, and keep the old one until it is registered. Copies it if the file system has no links."""
    if store.objects.exists(key):
        return
    if not store.place.on_object_store:
        new = store.objects.local(key)
        new.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            os.link(old, new)
            return
    with store.objects.draft(key) as draft:
        shutil.copyfile(old, draft)


def _completed(rows: pa.Table, table: Table) -> pa.Table:
    """Return rows with today's columns; columns that were not stored then are NULL."""
    defaults = {"backend": pa.array(["tiffslide"] * rows.num_rows)}
    columns = [
        rows[f.name].cast(f.type)
        if f.name in rows.column_names
        else defaults.get(f.name, pa.nulls(rows.num_rows, f.type))
        for f in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def _old_files(root: Path, table: str) -> Iterator[Path]:
    folder = root / "tables" / table
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_file() and entry.name.endswith(".parquet") and not entry.name.startswith("."):
            yield Path(entry.path)


def _tidy(root: Path) -> None:
    """Remove files of version 0.1 next to its tables that nothing reads any more."""
    for name in ("catalog.duckdb", "tables/.registry.lock"):
        (root / name).unlink(missing_ok=True)
    old_pieces = root / "tables" / ".parts"
    if old_pieces.is_dir() and not (root / "unfinished").exists():
        old_pieces.rename(root / "unfinished")
    for table in TABLES:
        with suppress(OSError):  # not there, or holds a file that could not be taken
            (root / "tables" / table).rmdir()
