"""A data root for each test, copied from one that is made once."""

from pathlib import Path

import pytest

from stpath_assets.storage import Store
from tests.storage.parts import copied
from tests.storage.servers import bucket, database, object_server, postgres  # noqa: F401


@pytest.fixture(scope="session")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A new lake. Not to be written: copy it."""
    store = Store(tmp_path_factory.mktemp("lake") / "root")
    store.create()
    return store


@pytest.fixture
def store(empty_root: Store, tmp_path: Path) -> Store:
    """The tables of a new data root."""
    return copied(empty_root, tmp_path / "root")
