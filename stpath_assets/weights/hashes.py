"""SHA-256 of large files that rarely change, computed once and cached on this machine.

A file counts as unchanged if its path, size, modification time and inode are the same. The cache is one JSON file in
`$XDG_CACHE_HOME/stpath-assets`; if it is lost or damaged, it is rebuilt. `doctor` verifies that files still match.
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
_OF = "\n"  # separates a path from the name of a derived text; no sane path contains it


def cache_file() -> Path:
    """Return the path of the cache."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules ignore a relative path.
    folder = Path(root) if Path(root).is_absolute() else Path("~/.cache").expanduser()
    return folder / "stpath-assets" / "sha256.json"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, cached or computed. Raises `StorageError` if it cannot be read."""
    return find_cached(path) or compute(path)


def find_cached(path: Path) -> str | None:
    """Return the cached SHA-256 of the unchanged file, or None."""
    entry = _entries().get(os.path.abspath(path))
    return None if entry is None or entry["state"] != _state(path) or "sha256" not in entry else str(entry["sha256"])


def compute(path: Path) -> str:
    """Compute and cache the SHA-256."""
    before = _state(path)
    sha256 = sha256_of_file(path)
    # If the file changed while it was read, the hash belongs to neither version.
    if before is not None and _state(path) == before:
        # The cache only saves time: a home folder that is not writable must not stop a run.
        with suppress(OSError, StorageError, Timeout):
            _remember(path, {"state": before, "sha256": sha256})
    return sha256


def derive(path: Path, what: str, compute: Callable[[], str]) -> str:
    """Return a text that depends only on a file's content and takes long to compute, such as its tiles.

    It is cached like hashes, under the name `what`.
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


def verify(path: Path) -> tuple[str, str | None]:
    """Compute the SHA-256, and return it with the cached one of the unchanged file, if any.

    If the two differ, the cached one is kept: the content changed while size and times did not, so the file was damaged.
    """
    known = find_cached(path)
    return (compute(path) if known is None else sha256_of_file(path)), known


def _state(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _read() -> dict[str, Any]:
    """Return the valid entries; none if the file is damaged or missing."""
    try:
        entries = json.loads(cache_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in entries.items() if _is_entry(v)} if isinstance(entries, dict) else {}


def _entries() -> dict[str, Any]:
    """Return the entries as `_read` does, but read the file once per version of it: a cohort's status asks for thousands."""
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
    # Two concurrent writers would lose each other's entry.
    with FileLock(file.with_suffix(".lock"), timeout=_LOCK_S):
        entries = {k: v for k, v in _read().items() if Path(k.partition(_OF)[0]).exists()}
        entries[f"{os.path.abspath(path)}{what}"] = entry
        with atomic_file(file) as draft:
            draft.write_text(json.dumps(entries, indent=1, sort_keys=True))
