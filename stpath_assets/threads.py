"""Runs work in threads, with results in order and a limited number of them computed in advance.

For work that releases the GIL, such as decoding and resampling pixels. Processes and machines belong to the orchestrator.
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


def map_ahead(work: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Generator[R, None, None]:
    """Yield `work(item)` for each item in order, computed by threads up to two items per thread in advance.

    `workers` is the number of threads, by default one per core and at most four. An error of `work` is raised where its
    result would come. Items that were not begun are then dropped, as they are when the consumer stops.
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
    """Yield `items` in order, with up to three of them made in advance by one thread.

    An error of `items` is raised where its item would have come. If the consumer stops early, the thread ends after its item.
    """
    with closing(map_ahead(lambda _: next(items, _END), repeat(None), workers=1)) as coming:
        for item in coming:
            if item is _END:
                return
            yield cast(T, item)
