"""Checks of a data root: disk space and permissions, intact tables, and leftovers of killed runs."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from stpath_assets.doctor.check import Check, attempt
from stpath_assets.errors import StorageError, StpathError, one_line
from stpath_assets.features.parts import UNFINISHED
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.stages import Plan, states_of
from stpath_assets.storage import Home, Store, maintenance
from stpath_assets.storage.files import writer_is_gone
from stpath_assets.storage.lake import NAME
from stpath_assets.storage.part import Part
from stpath_assets.tables import PART_TABLES, TABLES

LEAST_FREE = 10**9
"""Bytes of free disk below which a run is likely to fail. A slide with all genes takes about a tenth of that."""

OLD_S = 24 * 3600.0
"""Age from which a draft counts as left by a dead writer, if the writer cannot be checked."""


def data_root(home: Home) -> Check:
    """Check that the root exists and is writable, and how much space is free."""
    root = home.root
    if not root.is_dir():
        said = f"{root}: no such data root"
        return Check("data root", False, said, "check --home or STPATH_HOME, or add a slide: stpath-assets add SLIDE")
    try:
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(b"x")
    except OSError as e:
        said = f"{root}: cannot be written ({e.strerror}); what is there can be read"
        return Check("data root", False, said, "give yourself the right to, or set STPATH_HOME to another folder")
    free = shutil.disk_usage(root).free
    said = f"{root}, {_size(free)} free"
    if free < LEAST_FREE:
        return Check("data root", False, said, f"free at least {_size(LEAST_FREE)}, or move the data root")
    return Check("data root", True, said)


def lake(store: Store) -> Check:
    """Check that the lake's metadata opens, is intact, and has this version."""

    def look() -> str:
        store.open()
        if not store.place.on_postgres:
            _check_sqlite(store.place.sqlite)
        snapshots = store.rows(f"select count(*) from ducklake_snapshots('{NAME}')")[0][0]
        return f"{store.place.name}, {snapshots} snapshots"

    return attempt("lake", look)


def _check_sqlite(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found = [str(r[0]) for r in database.execute("pragma quick_check(3)").fetchall()]
    except sqlite3.OperationalError:  # a read-only mount, where SQLite cannot read a database in WAL mode
        return
    except sqlite3.DatabaseError as e:
        found = [str(e)]
    if found != ["ok"]:
        raise StorageError(
            f"{path}: is damaged ({one_line(found[0])[:120]}); restore it from a backup (docs/operations.md)"
        )


def tables(store: Store, checksums: bool = True) -> Check:
    """Check that every registered part exists with its size and, with `checksums`, its SHA-256."""
    try:
        parts = [p for p in store.parts() if p.file is not None]
    except StpathError as e:
        return Check("tables", False, str(e))
    wrong: dict[str, str | None] = {}
    bad = []
    for part in parts:
        file = str(part.file)
        if file not in wrong:
            wrong[file] = _wrong(store, part, checksums)
        why = part.damaged or wrong[file]
        if why is not None:
            bad.append((part, why))
    for part, why in bad:
        if part.damaged is None:
            with suppress(StpathError):  # said below all the same
                store.mark_damaged(part, why)
    if bad:
        some = "; ".join(f"{p.slide_id} {p.table}: {why}" for p, why in bad[:3]) + ("; …" if len(bad) > 3 else "")
        slides = " ".join(sorted({p.slide_id for p, _ in bad})[:5])
        return Check(
            "tables",
            False,
            f"{len(bad)} of {len(parts)} parts are damaged: {some}",
            f"make them again: stpath-assets run {slides}",
        )
    how = "their checksums hold" if checksums else "not read: checksums were not asked for"
    return Check("tables", True, f"{len(parts)} parts in {len(wrong)} files, {how}")


def _wrong(store: Store, part: Part, checksums: bool) -> str | None:
    if checksums:
        return store.verify(part)
    return None if store.is_whole(replace(part, damaged=None)) else "its file is gone or cut off"


def counts(store: Store) -> Check:
    """Check that the tables hold exactly the registered rows of each slide: none twice, none lost."""
    try:
        expected = {(p.table, p.slide_id): p.row_count for p in store.parts()}
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for table in (TABLES[name] for name in sorted(PART_TABLES)):
            rows = "sum(coalesce(len(" + str(table.value) + "), 0))" if table.by_gene else "count(*)"
            query = f"select slide_id, {rows}, count(*) filter (gene is null) from {NAME}.parts.{table.name} group by slide_id"
            if not table.by_gene:
                query = f"select slide_id, {rows}, 1 from {NAME}.parts.{table.name} group by slide_id"
            found |= {(table.name, s): (int(n), heads) for s, n, heads in store.rows(query)}
    except StpathError as e:
        return Check("rows", False, str(e))
    wrong = [k for k in expected.keys() | found.keys() if found.get(k, (0, 1)) != (expected.get(k, -1), 1)]
    if wrong:
        some = ", ".join(f"{s} {t}" for t, s in sorted(wrong)[:3])
        slides = " ".join(sorted({s for _, s in wrong})[:5])
        return Check(
            "rows",
            False,
            f"{len(wrong)} parts have other rows than were registered: {some}",
            f"stpath-assets run {slides}",
        )
    return Check("rows", True, f"{len(expected)} parts, each with the rows that were registered")


def unknown_files(store: Store) -> Check:
    """Report files among the tables that the lake does not know, left by killed runs or put there by hand. Nothing reads them."""
    try:
        found = list(maintenance.find_unknown(store))
    except StpathError as e:
        return Check("unknown files", False, str(e))
    if not found:
        return Check("unknown files", True, "none")
    said = f"{len(found)} files that the lake does not name, {_size(sum(size for _, size, _ in found))}, first {found[0][0]}"
    return Check(
        "unknown files", True, said, "nothing reads them; stpath-assets maintain removes those older than a day"
    )


def scans(store: Store) -> Check:
    """Check that every live slide's scan exists at its path, with its registered size."""
    try:
        found = [(r.slide_id, r.trouble()) for r in Registry(store).live()]
    except StpathError as e:
        return Check("scans", False, str(e))
    bad = [f"{s}: {why}" for s, why in found if why]
    if bad:
        return Check(
            "scans", False, f"{len(bad)} of {len(found)} scans: " + "; ".join(bad[:3]) + ("; …" if len(bad) > 3 else "")
        )
    return Check("scans", True, f"{len(found)} scans, each where it was registered")


def up_to_date(store: Store, settings: Settings) -> Check:
    """Count the slides with an outdated stage."""
    try:
        states = {row.slide_id: stages for row, stages in states_of(store, Plan(settings))}
    except StpathError as e:
        return Check("up to date", False, str(e))
    behind = sorted(
        s for s, stages in states.items() if any(x.kind not in ("current", "nothing") for x in stages.values())
    )
    if behind:
        some = " ".join(behind[:5]) + (" …" if len(behind) > 5 else "")
        return Check(
            "up to date",
            True,
            f"{len(behind)} of {len(states)} slides are not: {some}",
            "stpath-assets status says why",
        )
    return Check("up to date", True, f"{len(states)} slides")


def leftovers(home: Path) -> Check:
    """Report temporary files of killed writers. Nothing reads them, but they take space."""
    dead = [p for p in _drafts(home) if _is_dead(p)]
    if not dead:
        return Check("leftovers", True, "none")
    return Check(
        "leftovers",
        True,
        f"{len(dead)} files of killed writers, {_size(_bytes(dead))}, first {dead[0]}",
        "delete them; nothing reads them",
    )


def unfinished(store: Store) -> Check:
    """Report pieces of features of killed runs. The next run of the slide uses them; those of removed slides are unused."""
    home = store.home
    try:
        live = {row.slide_id for row in Registry(store).live()}
    except StpathError as e:
        return Check("unfinished features", False, str(e))
    folders = sorted((home / UNFINISHED).glob("*/*"))
    orphaned = [f for f in folders if f.name not in live]
    size = {f: _bytes(p for p in f.rglob("*") if p.is_file()) for f in folders}
    waiting = [f for f in folders if f not in orphaned]
    said = f"{len(waiting)} slides, {_size(sum(size[f] for f in waiting))}: the next run goes on from there"
    if orphaned:
        said += f"; {len(orphaned)} of slides that are gone, {_size(sum(size[f] for f in orphaned))}"
        return Check("unfinished features", True, said, f"delete {', '.join(map(str, orphaned[:3]))}")
    return Check("unfinished features", True, said if waiting else "none")


def _drafts(home: Path) -> Iterator[Path]:
    """Yield drafts of `storage.atomic_file`, in folders that only we write."""
    for folder, folders, files in os.walk(home):
        if folder == str(home):
            folders[:] = [f for f in folders if f not in ("inbox", "dagster")]
        yield from (Path(folder) / f for f in sorted(files) if f.startswith(".") and f.endswith(".tmp"))


def _is_dead(draft: Path) -> bool:
    """Return whether a draft's writer, named in it, is gone. For another host, only the age tells."""
    try:
        gone = writer_is_gone(draft)
        return time.time() - draft.stat().st_mtime > OLD_S if gone is None else gone
    except FileNotFoundError:
        return False


def _bytes(files: Iterator[Path] | list[Path]) -> int:
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # finished meanwhile
            continue
    return total


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
