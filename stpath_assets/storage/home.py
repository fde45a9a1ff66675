"""Where a data root is: its folder, its lake's metadata and the place of its tables.

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
    """A data root. `lake` names a Postgres database in place of lake.sqlite, `tables` an object store in place of tables/."""

    root: Path
    lake: str | None = None
    tables: str | None = None

    @classmethod
    def of(cls, settings: "Settings") -> "Home":
        """The data root that the settings name."""
        return cls(settings.home, settings.lake, settings.tables)

    @property
    def sqlite(self) -> Path:
        """The lake's metadata where it is not on Postgres."""
        return self.root / "lake.sqlite"

    @property
    def on_postgres(self) -> bool:
        """Whether the lake's metadata is a Postgres database."""
        return self.lake is not None

    @cached_property
    def tables_path(self) -> str:
        """Where parts lie, absolute, with a slash at the end."""
        return f"{(self.tables or str(self.root.absolute() / 'tables')).rstrip('/')}/"

    @property
    def on_object_store(self) -> bool:
        """Whether parts lie in an object store."""
        return self.tables is not None and "://" in self.tables

    @property
    def is_writable(self) -> bool:
        """Whether the lake can be written: False on a read-only mount or without the right to."""
        if self.on_postgres:
            return True
        return os.access(self.root, os.W_OK) and os.access(self.sqlite, os.W_OK)

    @property
    def name(self) -> str:
        """What messages call the lake; without a password."""
        return without_secrets(self.lake) if self.lake else str(self.sqlite)

    def create(self) -> None:
        """Makes the folder, for this user alone. Raises `StorageError` where that is not possible."""
        try:
            if not self.root.exists():
                self.root.parent.mkdir(parents=True, exist_ok=True)
                self.root.mkdir(mode=0o700, exist_ok=True)
            (self.root / "tables").mkdir(mode=0o700, exist_ok=True)
        except OSError as e:
            raise StorageError(
                f"{self.root}: the data root cannot be made ({e.strerror}); give yourself the right to, or set STPATH_HOME"
            ) from e
