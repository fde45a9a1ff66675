"""Progress reporting for long-running work, independent of who listens.

The domain wraps its loops in `track`. The command line installs a listener that draws bars. By default there is no listener.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], None]
"""Called with the name of the work, the number of units done, and their total."""

_listener: ContextVar[Listener | None] = ContextVar("stpath_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of all work inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(
    items: Iterable[T], what: str, total: int, size: Callable[[T], int] = lambda _: 1, done: int = 0
) -> Iterator[T]:
    """Yield `items`, and tell the listener after each how many of `total` units are done. `done` units were done before."""
    listener = _listener.get()
    if listener:
        listener(what, done, total)
    for item in items:
        yield item
        done += size(item)
        if listener:
            listener(what, done, total)
