"""A data root for each test, copied from one that is made once."""

import pytest

from stpath_assets.storage import Store
from tests.storage.servers import bucket, database, object_server, postgres  # noqa: F401


@pytest.fixture
def store(empty_store: Store) -> Store:
    """The tables of a new data root."""
    return empty_store
