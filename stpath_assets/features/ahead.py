"""Reads ahead: the next batches of pixels are decoded while the encoder computes on this one."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")
_END = object()


@dataclass
class Ahead(Generic[T]):
    """Iterates over `items` with up to `depth` of them made in advance by one thread, in order.

    An error of `items` is raised where its item would have come; leaving the loop early ends the thread after the item it is
    at.
    """

    items: Iterator[T]
    depth: int = 2

    def __iter__(self) -> Iterator[T]:
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            coming: deque[Future[object]] = deque(pool.submit(next, self.items, _END) for _ in range(self.depth))
            try:
                while True:
                    item = coming.popleft().result()
                    if item is _END:
                        return
                    coming.append(pool.submit(next, self.items, _END))
                    yield cast(T, item)
            finally:
                for future in coming:
                    future.cancel()
