"""The location of parts: a folder, or an object store through fsspec. Publishes, opens, lists and removes whole files.

Keys are relative to the tables' location, such as `parts/tile_grids/a/0f….parquet`. The content of files belongs in `by_gene`.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from stpath_assets.errors import StorageError, describe
from stpath_assets.storage.files import atomic_file
from stpath_assets.storage.home import Home

_CHUNK = 1 << 22


class Objects:
    """The files of a data root's tables."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def local(self, key: str) -> Path:
        """Return the path of a key, for tables in a folder."""
        return Path(self.home.tables_path) / key

    def where(self, key: str) -> str:
        """Return the name of a key in messages and DuckDB."""
        return self.home.tables_path + key

    @contextmanager
    def draft(self, key: str) -> Iterator[Path]:
        """Yield a local path to write to. On success, the whole file appears under `key`. Raises `StorageError`."""
        if not self.home.on_object_store:
            with atomic_file(self.local(key)) as path:
                yield path
            return
        with tempfile.TemporaryDirectory(prefix="stpath-part-") as folder:
            path = Path(folder) / "part.parquet"
            yield path
            try:
                self._fs.put_file(str(path), self._remote(key))
            except Exception as e:  # each object store has its own errors
                raise StorageError(
                    f"{self.where(key)}: cannot be written ({describe(e)}); check STPATH_TABLES and your credentials"
                ) from e

    @contextmanager
    def open(self, key: str) -> Iterator[Any]:
        """Open the file of a key, for pyarrow. Raises `FileNotFoundError` or `OSError`."""
        if not self.home.on_object_store:
            # Given a path, pyarrow would open the file again and again.
            with pa.OSFile(str(self.local(key))) as file:
                yield file
            return
        with self._asked(key):
            file = self._fs.open(self._remote(key), "rb")
        with file:
            yield pa.PythonFile(file, mode="r")

    def exists(self, key: str) -> bool:
        """Return whether a file exists under the key."""
        if not self.home.on_object_store:
            return self.local(key).is_file()
        with self._asked(key):
            return bool(self._fs.exists(self._remote(key)))

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""
        try:
            if not self.home.on_object_store:
                return os.stat(self.where(key)).st_size
            with self._asked(key):
                return int(self._fs.info(self._remote(key))["size"])
        except FileNotFoundError:
            return None

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of a file's content, hexadecimal. Raises `OSError`."""
        digest = hashlib.sha256()
        with self._asked(key):
            opened = self._fs.open(self._remote(key), "rb") if self.home.on_object_store else self.local(key).open("rb")
            with opened as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()

    def state(self, key: str) -> tuple[Any, ...] | None:
        """Return a value that changes when a file does, or None if that is unknown."""
        if self.home.on_object_store:
            return (key,)
        try:
            stat = self.local(key).stat()
        except OSError:
            return None
        return (key, stat.st_size, stat.st_mtime_ns, stat.st_ino)

    def listing(self) -> Iterator[tuple[str, int, float]]:
        """Yield every file: its key, size in bytes and modification time in seconds since 1970."""
        if self.home.on_object_store:
            root = self._remote("")
            try:
                with self._asked(""):
                    found = self._fs.find(root, detail=True)
            except FileNotFoundError as e:
                raise StorageError(
                    f"{self.home.tables_path}: does not exist ({describe(e)}); check STPATH_TABLES"
                ) from e
            for path, info in found.items():
                changed = info.get("LastModified")
                yield path.removeprefix(root), int(info["size"]), changed.timestamp() if changed else 0.0
            return
        top = self.home.tables_path  # paths as text: a lab has a hundred thousand files
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    stat = os.stat(path)
                except FileNotFoundError:  # finished or removed meanwhile
                    continue
                yield path.removeprefix(top).replace(os.sep, "/"), stat.st_size, stat.st_mtime

    def remove(self, key: str) -> None:
        """Remove a file if it exists."""
        if self.home.on_object_store:
            with self._asked(key):
                self._fs.rm_file(self._remote(key))
        else:
            self.local(key).unlink(missing_ok=True)

    @contextmanager
    def _asked(self, key: str) -> Iterator[None]:
        """Convert an object store's own errors to `StorageError`: not being reachable does not mean that a file is missing."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except Exception as e:  # each object store has its own errors
            if not self.home.on_object_store:
                raise
            raise StorageError(
                f"{self.where(key)}: cannot be reached ({describe(e)}); check STPATH_TABLES, your credentials and the network"
            ) from e

    def _remote(self, key: str) -> str:
        return f"{self.home.tables_path.partition('://')[2]}{key}"

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        try:
            # No listing cache, so that other processes' changes are seen at once.
            return fsspec.filesystem(self.home.tables_path.partition("://")[0], use_listings_cache=False)
        except (ImportError, ValueError) as e:
            raise StorageError(
                f"{self.home.tables_path}: cannot be used ({describe(e)}); install it: pip install 'stpath-assets[remote]'"
            ) from e
