"""SHA-256 of large files that seldom change, computed once a file and remembered on this machine.

A file counts as unchanged while its path, size, time of change and inode are the same. The memory is one JSON file in
`$XDG_CACHE_HOME/stpath-assets`; lost or damaged, it is made again. Whether a file still is what it was, `doctor` looks.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stpath_assets.errors import StorageError
from stpath_assets.fingerprint import sha256_of_file
from stpath_assets.storage import atomic_file

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCK_S = 10.0


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
    entry = _read().get(str(path.resolve()))
    return None if entry is None or entry["state"] != _state(path) else str(entry["sha256"])


def computed(path: Path) -> str:
    """The SHA-256, computed and remembered."""
    before = _state(path)
    sha256 = sha256_of_file(path)
    # One that is being written would be remembered under what it never held.
    if before is not None and _state(path) == before:
        # The memory only saves time: a home that cannot be written must not stop a run.
        with suppress(OSError, StorageError, Timeout):
            _remember(path, before, sha256)
    return sha256


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


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("state"), list)
        and isinstance(value.get("sha256"), str)
        and bool(_SHA256.fullmatch(value["sha256"]))
    )


def _remember(path: Path, state: list[int], sha256: str) -> None:
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Two writers at once would lose each other's entry.
    with FileLock(file.with_suffix(".lock"), timeout=_LOCK_S):
        entries = {k: v for k, v in _read().items() if Path(k).exists()}
        entries[str(path.resolve())] = {"state": state, "sha256": sha256}
        with atomic_file(file) as draft:
            draft.write_text(json.dumps(entries, indent=1, sort_keys=True))
