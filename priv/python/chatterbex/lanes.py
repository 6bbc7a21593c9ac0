"""Runs the work of several requests in parallel on the CPU, each with its share of torch's threads.

Two requests with half the threads each finish sooner than one after the other with all threads:
threads that work on one request wait for each other after every operation. T3 and S3Gen also run
well together, because T3 is limited by memory bandwidth and S3Gen by computation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakSet

import torch

from chatterbex.threads import use_threads

K = TypeVar("K")
T = TypeVar("T")


_pools: WeakSet[ThreadPoolExecutor] = WeakSet()


def rest() -> None:
    """Waits for running work in all lanes. Queued work is dropped, and no new work can be started."""
    for pool in list(_pools):
        pool.shutdown(cancel_futures=True)


def side_by_side(first: Callable[[], K], second: Callable[[], T]) -> tuple[K, T]:
    """Runs two functions in parallel, each with half of this thread's threads. Returns both results.

    They must not share anything that they change. With one thread they run one after the other.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return first(), second()

    def beside() -> T:
        use_threads(threads // 2)
        return second()

    with ThreadPoolExecutor(1, "chatterbex-half") as pool:
        other = pool.submit(beside)
        use_threads(threads - threads // 2)
        try:
            return first(), other.result()
        finally:
            use_threads(threads)


@dataclass(frozen=True)
class Done(Generic[K, T]):
    """A finished piece of work.

    Attributes:
        key: the key that it was started with.
        result: what it returned or raised.
        seconds: how long it took.
    """

    key: K
    result: T | Exception
    seconds: float


class Lanes(Generic[K, T]):
    """Threads for work on the CPU, started when they are first needed."""

    def __init__(self) -> None:
        """Starts no thread yet."""
        self._pool: ThreadPoolExecutor | None = None
        self._running: dict[Future[Done[K, T]], K] = {}

    @property
    def running(self) -> list[K]:
        """The keys of started work that `finished` has not returned yet."""
        return list(self._running.values())

    @staticmethod
    def count(ready: int) -> int:
        """How many of `ready` pieces of work to run at once, so that the most threads are in use."""
        threads = torch.get_num_threads()
        numbers = range(1, min(ready, threads) + 1)
        return max(numbers, key=lambda number: (number * (threads // number), number), default=0)

    def start(self, key: K, work: Callable[[], T], threads: int) -> None:
        """Starts `work` with `threads` of torch's threads. It must not share anything that it changes."""

        def attempt() -> Done[K, T]:
            use_threads(threads)
            began = time.perf_counter()
            try:
                result: T | Exception = work()
            except Exception as error:
                result = error
            return Done(key, result, time.perf_counter() - began)

        if self._pool is None:
            self._pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="chatterbex-lane")
            _pools.add(self._pool)
        self._running[self._pool.submit(attempt)] = key

    def finished(self, timeout: float) -> list[Done[K, T]]:
        """Removes finished work and returns it.

        Args:
            timeout: seconds to wait if nothing is finished yet.
        """
        done, _ = wait(self._running, timeout, FIRST_COMPLETED)
        for future in done:
            del self._running[future]
        return [future.result() for future in done]

    def close(self) -> None:
        """Waits for running work, and ends the threads."""
        self._running.clear()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
