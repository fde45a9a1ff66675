"""Checks of a data root: room and rights, whole tables, and what killed runs left behind."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from stpath_assets.doctor.check import Check
from stpath_assets.errors import StpathError
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.tables import TABLES

LEAST_FREE = 10**9
"""Bytes of free disk below which a run is likely to fail: a slide of all genes is about a tenth of that."""

READ_WHOLE = 64 * 2**20
"""Bytes up to which a file is read as a whole; of larger ones the footer and the first and last row group are."""

OLD_S = 24 * 3600.0
"""Age from which on a file that is being written is taken for one of a dead writer, where that cannot be asked."""


def data_root(home: Path) -> Check:
    """Whether files can be written there, and how much room there is."""
    there = next(p for p in (home, *home.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"x")
    except OSError as e:
        return Check(
            "data root",
            False,
            f"{there}: cannot be written ({e.strerror})",
            "give yourself the right to, or set STPATH_HOME to another folder",
        )
    free = shutil.disk_usage(there).free
    said = f"{home}{'' if home.exists() else ' (not there yet)'}, {_size(free)} free"
    if free < LEAST_FREE:
        return Check("data root", False, said, f"free at least {_size(LEAST_FREE)}, or move the data root")
    return Check("data root", True, said)


def tables(home: Path) -> Check:
    """Whether every part of every table can be read."""
    store = Store(home)
    bad, parts = [], 0
    for name in TABLES:
        for path in sorted((home / "tables" / name).glob("[!.]*.parquet")):
            parts += 1
            if not _is_whole(store, name, path):
                bad.append(path)
    if bad:
        some = ", ".join(str(p.relative_to(home)) for p in bad[:5]) + (", …" if len(bad) > 5 else "")
        slides = " ".join(sorted({p.stem for p in bad})[:5])
        todo = f"delete them and run: stpath-assets run {slides}"
        return Check("tables", False, f"{len(bad)} of {parts} files are damaged: {some}", todo)
    return Check("tables", True, f"{parts} files, none damaged")


def leftovers(home: Path) -> Check:
    """Files of writers that were killed: nothing reads them, but they take room."""
    dead = [p for p in _drafts(home) if _is_dead(p)]
    if not dead:
        return Check("leftovers", True, "none")
    return Check(
        "leftovers",
        True,
        f"{len(dead)} files of killed writers, {_size(_bytes(dead))}, first {dead[0]}",
        "delete them; nothing reads them",
    )


def unfinished(home: Path) -> Check:
    """Pieces of features of runs that were killed: taken up by the next run, or of slides that no run will come to."""
    try:
        live = {row.slide_id for row in Registry(Store(home)).live()}
    except StpathError as e:
        return Check("unfinished features", False, str(e))
    folders = sorted((home / "tables" / ".parts").glob("*/*"))
    orphaned = [f for f in folders if f.name not in live]
    size = {f: _bytes(p for p in f.rglob("*") if p.is_file()) for f in folders}
    waiting = [f for f in folders if f not in orphaned]
    said = f"{len(waiting)} slides, {_size(sum(size[f] for f in waiting))}: the next run goes on from there"
    if orphaned:
        said += f"; {len(orphaned)} of slides that are gone, {_size(sum(size[f] for f in orphaned))}"
        return Check("unfinished features", True, said, f"delete {', '.join(map(str, orphaned[:3]))}")
    return Check("unfinished features", True, said if waiting else "none")


def _is_whole(store: Store, table: str, path: Path) -> bool:
    try:
        store.fingerprint(table, path.stem)
        with pq.ParquetFile(path) as file:
            n = file.num_row_groups
            every = path.stat().st_size <= READ_WHOLE
            for i in range(n) if every else sorted({0, n - 1} & set(range(n))):
                file.read_row_group(i)
    except (StpathError, pa.ArrowException, OSError):
        return False
    return True


def _drafts(home: Path) -> Iterator[Path]:
    """Files that `storage.atomic_file` is writing or has left, among what is ours alone."""
    for folder, folders, files in os.walk(home):
        if Path(folder) == home:
            folders[:] = [f for f in folders if f not in ("inbox", "dagster")]
        yield from (Path(folder) / f for f in sorted(files) if f.startswith(".") and f.endswith(".tmp"))


def _is_dead(draft: Path) -> bool:
    """Whether its writer, named in it, is gone; of another host's only its age tells."""
    pid = draft.name.split(".")[-3]
    try:
        if f".{socket.gethostname()}." in draft.name and pid.isdigit():
            return not psutil.pid_exists(int(pid))
        return time.time() - draft.stat().st_mtime > OLD_S
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
