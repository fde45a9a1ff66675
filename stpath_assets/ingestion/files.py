"""Files and folders of this machine, or of an object store by URL, through fsspec."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from upath import UPath

from stpath_assets.errors import describe
from stpath_assets.slides.source import is_url

Location: TypeAlias = Path | UPath
"""A path of this machine, or a URL with the same methods."""

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_VERSIONS = ("ETag", "etag", "md5Hash", "generation")


@dataclass(frozen=True)
class Seen:
    """What changes when a file does. `version` is what an object store says of the content, empty on this machine."""

    size_bytes: int
    modified_ns: int
    version: str = ""


def location(text: str) -> Location:
    """Return a path or URL, without a slash at its end."""
    return UPath(text.rstrip("/")) if is_url(text) else Path(text).expanduser()


def below(folder: Location, name: str) -> Location:
    """Return what a file in `folder` means by a name: a path relative to the folder, or an absolute one of this machine."""
    path = Path(name).expanduser()
    return path if path.is_absolute() else folder / name


Exists: TypeAlias = Callable[[Location], bool]
"""Whether something is there."""


def exists(path: Location) -> bool:
    """Return whether something is there; at a URL, a server is asked."""
    try:
        return bool(path.exists())
    except OSError as e:
        if e.errno == errno.ENAMETOOLONG:
            return False
        raise


def look_at(uri: str) -> Seen:
    """Return what a file is like now. Raises `FileNotFoundError`, or another `OSError` with what is wrong."""
    if not is_url(uri):
        stat = os.stat(uri)
        return Seen(stat.st_size, stat.st_mtime_ns)
    place = UPath(uri)
    try:
        place.fs.invalidate_cache()
        return _seen(place.fs.info(place.path))
    except FileNotFoundError:
        raise
    except Exception as e:  # network and credentials: each file system has its own errors
        raise OSError(0, describe(e), uri) from e


def walk(folder: Location, problems: list[str]) -> Iterator[tuple[Location, Seen | None]]:
    """Yield the files below a folder, sorted; those of an object store with what they are like. Hidden ones are left out.

    A link that leads back to a folder on the way is not followed again. What cannot be read is added to `problems`.
    """
    return _walk_store(folder, problems) if isinstance(folder, UPath) else _walk_disk(folder, problems)


def _walk_disk(folder: Path, problems: list[str]) -> Iterator[tuple[Location, None]]:
    seen = set[tuple[int, int]]()

    def refused(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror}); it is left out")

    for root, folders, names in os.walk(folder, followlinks=True, onerror=refused):
        stat = os.stat(root)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((Path(root, name), None) for name in sorted(names) if not name.startswith("."))


def _walk_store(folder: UPath, problems: list[str]) -> Iterator[tuple[Location, Seen]]:
    try:
        folder.fs.invalidate_cache()  # else a listing of an earlier tick is given again
        listed: dict[str, dict[str, Any]] = folder.fs.find(folder.path, detail=True)
    except Exception as e:  # network and credentials: each file system has its own errors
        problems.append(f"{folder}: cannot be listed ({describe(e)}); check the URL and your credentials")
        return
    start = folder.path.rstrip("/") + "/"
    for path in sorted(listed):
        name = path.removeprefix(start)
        if path.startswith(start) and not any(part.startswith(".") for part in name.split("/")):
            yield folder / name, _seen(listed[path])


def _seen(info: dict[str, Any]) -> Seen:
    when = next((info[key] for key in _TIMES if info.get(key)), 0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    seconds = when.timestamp() if isinstance(when, datetime) else float(when)
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    return Seen(int(info.get("size") or 0), int(seconds * 1e9), version)
