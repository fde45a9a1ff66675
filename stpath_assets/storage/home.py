"""The paths of a data root: its folder, the lake's metadata and the location of the tables.

    home = Home(Path("data"))
    home.sqlite             data/lake.sqlite
    home.tables_path        data/tables/, or the URL of an object store

Opens nothing. The lake itself is in `lake`, the tables in `store`.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stpath_assets.errors import StorageError, without_secrets

if TYPE_CHECKING:
    from stpath_assets.settings import Settings


@dataclass(frozen=True)
class Home:
    """A data root. `lake` is a Postgres database instead of lake.sqlite, `tables` an object store instead of tables/."""

    root: Path
    lake: str | None = None
    tables: str | None = None

    @classmethod
    def of(cls, settings: "Settings") -> "Home":
        """Return the data root of the settings."""
        return cls(settings.home, settings.lake, settings.tables)

    @property
    def sqlite(self) -> Path:
        """The lake's metadata file, unless it is on Postgres."""
        return self.root / "lake.sqlite"

    @property
    def on_postgres(self) -> bool:
        """True if the lake's metadata is a Postgres database."""
        return self.lake is not None

    @cached_property
    def tables_path(self) -> str:
        """The absolute location of parts, with a slash at the end."""
        return f"{(self.tables or str(self.root.absolute() / 'tables')).rstrip('/')}/"

    @property
    def on_object_store(self) -> bool:
        """True if parts are in an object store."""
        return self.tables is not None and "://" in self.tables

    @property
    def is_writable(self) -> bool:
        """True if the lake can be written; False on a read-only mount or without permission."""
        if self.on_postgres:
            return True
        return os.access(self.root, os.W_OK) and os.access(self.sqlite, os.W_OK)

    @property
    def name(self) -> str:
        """The lake's name in messages, without a password."""
        return without_secrets(self.lake) if self.lake else str(self.sqlite)

    def create(self) -> None:
        """Create the folder, for this user only. Raises `StorageError` if that is not possible."""
        try:
            if not self.root.exists():
                self.root.parent.mkdir(parents=True, exist_ok=True)
                self.root.mkdir(mode=0o700, exist_ok=True)
            (self.root / "tables").mkdir(mode=0o700, exist_ok=True)
        except OSError as e:
            raise StorageError(
                f"{self.root}: the data root cannot be created ({e.strerror}); get permission, or set STPATH_HOME"
            ) from e
