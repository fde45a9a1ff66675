"""Work in threads whose results come in order and a bounded way ahead of who asks for them.

For work that releases Python's lock: decoding and resampling pixels do. Processes and machines are the orchestrator's.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

_END = object()
DEFAULT_WORKERS = min(4, os.cpu_count() or 1)


def ahead(work: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Generator[R, None, None]:
    """Yields `work(item)` for each item in order, computed by threads at most two items a thread ahead.

    `workers`: threads, one a core and four at most by default. What `work` raises is raised where its result would come;
    items not yet begun are then left alone, as they are when nobody asks for the rest.
    """
    threads = DEFAULT_WORKERS if workers is None else workers
    pool = ThreadPoolExecutor(threads, thread_name_prefix="stpath")
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yields `items`, up to three of them made in advance by one thread, in order.

    An error of `items` is raised where its item would have come. Leaving the loop early ends the thread after its item.
    """
    with closing(ahead(lambda _: next(items, _END), repeat(None), workers=1)) as coming:
        for item in coming:
            if item is _END:
                return
            yield cast(T, item)
