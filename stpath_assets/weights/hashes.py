"""SHA-256 of large files that seldom change, computed once a file and remembered on this machine.

A file counts as unchanged while its path, size, time of change and inode are the same. The memory is one JSON file in
`$XDG_CACHE_HOME/stpath-assets`; lost or damaged, it is made again. `doctor` verifies that files still match.
"""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stpath_assets.errors import StorageError
from stpath_assets.storage import atomic_file
from stpath_assets.storage.fingerprint import sha256_of_file

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCK_S = 10.0
_OF = "\n"  # between a file's path and what is remembered of it beside its hash: in no sane path


def cache_file() -> Path:
    """Where hashes are remembered."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG rules a relative path counts as not given.
    folder = Path(root) if Path(root).is_absolute() else Path("~/.cache").expanduser()
    return folder / "stpath-assets" / "sha256.json"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal: remembered, else computed. Raises `StorageError` where it cannot be read."""
    return remembered(path) or computed(path)


def remembered(path: Path) -> str | None:
    """What is remembered of the file as it stands now, or None."""
    entry = _entries().get(os.path.abspath(path))
    return None if entry is None or entry["state"] != _state(path) or "sha256" not in entry else str(entry["sha256"])


def computed(path: Path) -> str:
    """The SHA-256, computed and remembered."""
    before = _state(path)
    sha256 = sha256_of_file(path)
    # One that is being written would be remembered under what it never held.
    if before is not None and _state(path) == before:
        # The memory only saves time: a home that cannot be written must not stop a run.
        with suppress(OSError, StorageError, Timeout):
            _remember(path, {"state": before, "sha256": sha256})
    return sha256


def derived(path: Path, what: str, compute: Callable[[], str]) -> str:
    """A text that follows from a file's content alone and takes long to find, such as the tiles in it; remembered as hashes
    are, by `what` it is.
    """
    before = _state(path)
    entry = _entries().get(f"{os.path.abspath(path)}{_OF}{what}")
    if entry is not None and entry["state"] == before and "value" in entry:
        return str(entry["value"])
    value = compute()
    if before is not None and _state(path) == before:
        with suppress(OSError, StorageError, Timeout):
            _remember(path, {"state": before, "value": value}, f"{_OF}{what}")
    return value


def verified(path: Path) -> tuple[str, str | None]:
    """The SHA-256, computed, and what was remembered of the file as it stands, if anything.

    Where the two differ, what was remembered stays: the file has changed without a sign of it, and was damaged.
    """
    known = remembered(path)
    return (computed(path) if known is None else sha256_of_file(path)), known


def _state(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _read() -> dict[str, Any]:
    """The entries that are whole; none where the file is damaged or absent."""
    try:
        entries = json.loads(cache_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in entries.items() if _is_entry(v)} if isinstance(entries, dict) else {}


def _entries() -> dict[str, Any]:
    """As `_read`, once for each state of the memory's file: a cohort's status asks for thousands."""
    file = cache_file()
    return _cached(file, tuple(_state(file) or ()))


@lru_cache(maxsize=1)
def _cached(_file: Path, _of: tuple[int, ...]) -> dict[str, Any]:
    return _read()


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("state"), list):
        return False
    if isinstance(value.get("value"), str):
        return True
    return isinstance(value.get("sha256"), str) and bool(_SHA256.fullmatch(value["sha256"]))


def _remember(path: Path, entry: dict[str, Any], what: str = "") -> None:
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Two writers at once would lose each other's entry.
    with FileLock(file.with_suffix(".lock"), timeout=_LOCK_S):
        entries = {k: v for k, v in _read().items() if Path(k.partition(_OF)[0]).exists()}
        entries[f"{os.path.abspath(path)}{what}"] = entry
        with atomic_file(file) as draft:
            draft.write_text(json.dumps(entries, indent=1, sort_keys=True))
