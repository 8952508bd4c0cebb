"""Threads that each compute a part of a step on one core; torch's threads would split every operation instead."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import torch

__all__ = ["Workers", "threads_restored"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A context with a `map` over `count` threads; a count of 1 is a plain `map` in the calling thread.

    torch's number of threads is 1 inside, so that no result depends on the count: torch splits an operation by its
    threads, and the last bits of the result change with the split.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)
        if self.count > 1:
            self.pool = ThreadPoolExecutor(self.count, "worker", torch.set_num_threads, (1,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.before)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items; the first exception is raised, and items not begun are dropped."""
        return map(function, items) if self.pool is None else self.pool.map(function, items)


@contextmanager
def threads_restored() -> Iterator[None]:
    """Afterwards torch has as many threads as before: a training in a notebook must not slow what follows."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
