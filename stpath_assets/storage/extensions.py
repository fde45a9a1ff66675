"""Loads DuckDB's extensions from their wheels: by path, in DuckDB's own version, without a network."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb

from stpath_assets.errors import StorageError

OFFLINE: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    # Checking the signatures of 36 MB takes 0.16 s per connection, and pip has verified the wheels.
    "allow_unsigned_extensions": "true",
}
"""The configuration of every connection: DuckDB never downloads an extension, and never reads or stores a secret."""


def extension_path(name: str) -> Path:
    """Return the file of an extension such as `ducklake`. Raises `StorageError` if its wheel is not installed."""
    package = f"duckdb_extension_{name}"
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    path = folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if spec is None or not path.is_file():
        wheel = package.replace("_", "-")
        raise StorageError(
            f"the DuckDB extension {name} is not installed; run: pip install {wheel}=={duckdb.__version__}"
        )
    return path


def load_extensions(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Load extensions into a connection. Raises `StorageError` if one is not installed."""
    for name in names:
        connection.load_extension(str(extension_path(name)))
