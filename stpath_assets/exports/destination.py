"""Where an export goes: checked before any work, written beside, and put in place at once.

Nothing is overwritten unless `force` says so, and no folder is made but the export itself.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stpath_assets.errors import ExportError
from stpath_assets.storage import atomic_file


def check(path: Path, suffixes: tuple[str, ...], what: str, force: bool) -> None:
    """Raise `ExportError` if an export could not be written to a path, or must not be. `suffixes` are the endings that it may
    have, none for a folder of any name.
    """
    if suffixes and not path.name.lower().endswith(suffixes):
        raise ExportError(f"{path}: {what} ends in {' or '.join(suffixes)}; name it so")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: the folder {path.parent} does not exist; make it first, or correct --out")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"{path}: the folder {path.parent} cannot be written; get permission, or choose another")
    if path.exists() and not force:
        raise ExportError(f"{path}: exists already; give --force to replace it, or another --out")
    if path.is_dir() and not _is_folder(suffixes):
        raise ExportError(f"{path}: is a folder; give the file that is to be written")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder next to `path`. On success it takes the place of `path`, on error it is removed."""
    name = f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    draft, old = path.with_name(f"{name}.tmp"), path.with_name(f"{name}.old")
    try:
        yield draft
        if path.exists():
            path.rename(old)
        draft.rename(path)
    except OSError as e:
        if old.exists() and not path.exists():
            old.rename(path)
        raise ExportError(f"{path}: cannot be written ({e.strerror or e}); an earlier export is unchanged") from e
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _is_folder(suffixes: tuple[str, ...]) -> bool:
    return not suffixes or ".zarr" in suffixes


__all__ = ["atomic_file", "atomic_folder", "check"]
