"""Locates a scan: a local path, or a URL of any file system that fsspec knows.

Gives its size, its hash, and its bytes: in place, or from a local copy for readers that need a file. Parsing the bytes belongs in
`formats`.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

import fsspec

from stpath_assets.errors import SlideError, describe, one_line
from stpath_assets.storage import atomic_file, fingerprint

_URL = re.compile(r"[A-Za-z][\w+.:-]*://")
_CHUNK = 1 << 22
# Query parameters that grant access to anyone with the URL: those of S3, Google Cloud, Azure (`sig`), and tokens.
_SECRET = re.compile(r"signature|credential|token|secret|password|passwd|^sig$|api_?key|access_?key", re.IGNORECASE)
# File system attributes that change when the content of a file does.
_VERSION_KEYS = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created", "md5Hash")


def is_url(uri: str | Path) -> bool:
    """Return whether a scan is given as a URL; everything else is a path."""
    return isinstance(uri, str) and _URL.match(uri) is not None


def scan_cache() -> Path:
    """Return the folder of local copies: `$XDG_CACHE_HOME/stpath-assets/scans`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stpath-assets" / "scans"


def content_of(files: Iterable[Path]) -> tuple[str, int]:
    """Return SHA-256 and size in bytes of a scan of one or more local files.

    For one file, it is the file's own hash. For several, it is the hash of their sorted hexadecimal hashes, so that names and
    order do not matter. Raises `StorageError` with the file that cannot be read.
    """
    files = list(files)
    hashes = sorted(fingerprint.sha256_of_file(f) for f in files)
    size = sum(f.stat().st_size for f in files)
    return (hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()), size


class Source:
    """A scan's location. `uri` is kept as given; `name` is the file's name, which messages and slide_ids use.

    Raises `SlideError` for a URL with a password, or with a secret in its query, because the URL is stored with the slide.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        try:
            self.uri.encode()
        except UnicodeEncodeError as e:  # tables and JSON hold text
            raise SlideError(
                f"{self.uri.encode('utf-8', 'backslashreplace').decode()}: its name is not UTF-8; rename it"
            ) from e
        parts = urlsplit(self.uri.rpartition("::")[2])  # fsspec chains file systems with ::
        self.is_remote = is_url(uri) and parts.scheme != "file"
        if not self.is_remote:
            self.path = Path(unquote(parts.path)) if is_url(uri) else Path(uri)
            self.name = self.path.name
            return
        self.path = Path(PurePosixPath(unquote(parts.netloc.rpartition("@")[2] + parts.path)))
        self.name = self.path.name
        if parts.password or (parts.username and parts.scheme in ("http", "https")):
            raise SlideError(
                f"{self.name}: its URL holds a password or a token, which would be stored; use the environment instead"
            )
        secret = next((k for k, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.search(k)), None)
        if secret is not None:
            raise SlideError(
                f"{self.name}: its URL holds a secret ({one_line(secret)[:40]}=…), which would be stored; "
                "give the URL without it, and the secret in the environment"
            )

    def check(self) -> None:
        """Raise `SlideError` if the file is missing or empty."""
        if self.is_remote:
            if self._info.get("type") == "directory":
                raise SlideError(f"{self.uri}: is a folder; give the scan's file")
            size = self._info.get("size")
        else:
            try:
                if self.path.is_dir():
                    raise SlideError(f"{self.path}: is a folder; give the scan's file")
                size = self.path.stat().st_size
            except FileNotFoundError as e:
                raise SlideError(f"{self.path}: no such file; check the path") from e
            except OSError as e:  # a name longer than the file system allows, a folder that may not be entered
                raise SlideError(f"{self.path}: cannot be read ({e.strerror}); check the path") from e
        if size == 0:
            raise SlideError(f"{self.uri}: is empty (0 bytes); copy it again")

    def open(self) -> BinaryIO:
        """Open the scan's bytes in place, seekable."""
        try:
            return self.path.open("rb") if not self.is_remote else self._fs.open(self._fs_path, "rb")
        except OSError as e:
            raise SlideError(f"{self.name}: cannot be read ({e.strerror or describe(e)}); check its permissions") from e

    def head(self, n: int = 1024) -> bytes:
        """Return the first bytes, at most n."""
        return next(self._chunks(n), b"")

    def size_bytes(self) -> int | None:
        """Return the size of the file, or None if a server does not say."""
        if not self.is_remote:
            return self.path.stat().st_size
        return int(self._info["size"]) if self._info.get("size") else None

    def can_seek(self) -> bool:
        """Return whether parts can be read by themselves. Not every web server supports that."""
        if not self.is_remote:
            return True
        try:
            with closing(self.open()) as f:
                f.seek((self.size_bytes() or 0) - 1)
                return len(f.read(1)) == 1
        except Exception:  # each file system has its own way to say no
            return False

    def content(self) -> tuple[str, int]:
        """Return SHA-256 and size in bytes of the file, read in place."""
        if not self.is_remote:
            return content_of([self.path])
        digest, size = hashlib.sha256(), 0
        for chunk in self._chunks(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
        return digest.hexdigest(), size

    def local(self) -> Path:
        """Return a local file with the scan's bytes: the file itself, or a copy in `scan_cache`, downloaded if needed.

        A copy is named after the URL and the version that the server reports, so a changed scan is downloaded again. Raises
        `SlideError` if that fails.
        """
        if not self.is_remote:
            return self.path
        version = {k: str(self._info[k]) for k in _VERSION_KEYS if self._info.get(k) is not None}
        key = hashlib.sha256(json.dumps([self.uri, version], sort_keys=True).encode()).hexdigest()[:24]
        copy = scan_cache() / key / self.name
        if not copy.exists():
            try:
                with atomic_file(copy) as draft:
                    self._fs.get_file(self._fs_path, str(draft))
            except Exception as e:
                raise SlideError(f"{self.name}: cannot be downloaded from {self.uri} ({describe(e)}); try again") from e
        return copy

    def _chunks(self, n: int) -> Iterator[bytes]:
        """Yield the scan's bytes, n at a time."""
        try:
            with closing(self.open()) as f:
                while chunk := f.read(n):
                    yield chunk
        except SlideError:
            raise
        except Exception as e:
            raise SlideError(
                f"{self.uri}: cannot be read ({describe(e)}); check that it can be reached, and try again"
            ) from e

    @cached_property
    def _info(self) -> dict[str, Any]:
        try:
            return dict(self._fs.info(self._fs_path))
        except SlideError:
            raise
        except FileNotFoundError as e:
            raise SlideError(f"{self.uri}: no such file; check the URL") from e
        except Exception as e:  # network and credentials: each file system has its own errors
            raise SlideError(
                f"{self.uri}: cannot be reached ({describe(e)}); check the URL and your credentials"
            ) from e

    @cached_property
    def _resolved(self) -> tuple[Any, str]:
        try:
            return fsspec.core.url_to_fs(self.uri)
        except ImportError as e:
            raise SlideError(f"{self.uri}: {describe(e)}; install it: pip install 'stpath-assets[remote]'") from e
        except ValueError as e:
            raise SlideError(f"{self.uri}: is not a supported URL ({describe(e)}); use s3://, gs:// or https://") from e

    @property
    def _fs(self) -> Any:
        return self._resolved[0]

    @property
    def _fs_path(self) -> str:
        return self._resolved[1]
