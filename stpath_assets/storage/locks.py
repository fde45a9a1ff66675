"""Locks between processes: files with `flock`, which the kernel releases when their holder dies.

They are used by runs of one slide, registrations and commits.
"""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from stpath_assets.errors import StorageError

POLL_S = 0.1
SLIDE_WAIT_S = 3600.0
"""How long a run waits for another run of the same slide. A GPU stage takes minutes per slide, without a GPU an hour."""

_NOBODY = "another process"


@contextmanager
def lock(path: Path, wait_s: float, busy: str, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a lock inside the block. `waiting` is called once with the holder; `busy` names the locked thing in the error.

    Raises `StorageError` with the holder after `wait_s` seconds.
    """
    descriptor = _opened(path)
    try:
        until, said = time.monotonic() + wait_s, False
        while not _taken(descriptor):
            holder = _holder(path)
            if not said:
                said = True
                waiting(holder)
            if time.monotonic() > until:
                raise StorageError(f"{busy} is held by {holder} for more than {wait_s:g} s; wait for it, or end it")
            time.sleep(POLL_S)
        _name(
            descriptor,
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        )
        try:
            yield
        finally:
            _name(descriptor, "")
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full; free some room and run again" if full else f"{e.strerror}; give yourself the right to"
        raise StorageError(f"{path}: cannot be written, {what}") from e


def _name(descriptor: int, holder: str) -> None:
    """Record who holds a lock, for the messages of others. On a full disk, nothing is recorded."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    return path.read_text(errors="replace").strip()[:120] or _NOBODY
