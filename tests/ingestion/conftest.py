"""A bucket of an object store for the tests of the inbox."""

from tests.storage.servers import bucket, object_server  # noqa: F401
