"""Progress reporting for long-running work, without knowing who listens.

The domain wraps its loops in `track`; the command line installs a listener that draws bars. Nobody listens by
default.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and how many there are in all."""

_listener: ContextVar[Listener | None] = ContextVar("stpath_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Sends the progress of all work inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(
    items: Iterable[T], what: str, total: int, size: Callable[[T], int] = lambda _: 1, done: int = 0
) -> Iterator[T]:
    """Yields `items`, telling the listener after each how many of `total` units are done; `done` are from before."""
    listener = _listener.get()
    if listener:
        listener(what, done, total)
    for item in items:
        yield item
        done += size(item)
        if listener:
            listener(what, done, total)
