"""Work in threads whose results come in order and a bounded way ahead of who asks for them.

For work that releases Python's lock: decoding and resampling pixels do. Processes and machines are the orchestrator's.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_WORKERS = min(4, os.cpu_count() or 1)


def ahead(work: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Iterator[R]:
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
