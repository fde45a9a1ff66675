"""Atomic writes of files: drafts are written next to their target, synced and renamed.

Knows nothing about the content of files. Parts of tables are in `by_gene`, their registration in `store`.
"""

import errno
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from stpath_assets.errors import StorageError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path next to `path` to write to. On success it is synced and renamed to `path`, on error removed.

    Raises `StorageError` if the disk is full or the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_leftovers(path)
        draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            yield draft
            with draft.open("rb+") as f:
                os.fsync(f.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as e:
        what = "the disk is full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else (e.strerror or str(e))
        raise StorageError(f"{path}: cannot be written, {what}; an earlier file is unchanged") from e


def writer_is_gone(draft: Path) -> bool | None:
    """Return whether the writer of a draft is dead, or None if that is unknown, as for another host's."""
    parts = draft.name.split(".")
    if f".{socket.gethostname()}." not in draft.name or len(parts) < 3 or not parts[-3].isdigit():
        return None
    return not psutil.pid_exists(int(parts[-3]))


def _remove_dead_leftovers(path: Path) -> None:
    """Remove drafts of `path` whose writer, a process of this host, was killed while writing."""
    for entry in os.scandir(path.parent):
        if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
            draft = Path(entry.path)
            if writer_is_gone(draft):
                draft.unlink(missing_ok=True)
