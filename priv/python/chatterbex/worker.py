"""Long work beside the step loop.

Cloning a voice takes seconds, and so does hearing what is said in a recording or looking for a watermark.
None of it may keep others from speaking. So a thread of its own does it, on the CPU only. It shares nothing
that it changes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOMENT: Final = 0.05
"""Seconds that a step with nothing else to do waits for work beside it: a command may come meanwhile."""


class Worker:
    """Does long work, one piece at a time.

    Each piece has a thread that ends with it. OpenMP keeps a team of threads for every thread that has
    computed with several. If there are more of them than cores, they sleep between two operations
    where they would spin, and everything that computes with several threads is a tenth slower.
    """

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._running: dict[object, Future[Any]] = {}
        self._closed = threading.Event()

    def start(self, key: object, work: Callable[[], T], *, alone: bool) -> Future[T]:
        """Starts some work, or joins the one that is running for the same.

        Args:
            key: what the result is the same for.
            work: does it.
            alone: whether nothing else computes now. If so it gets all of torch's threads, else half.
        """
        self._running = {key: one for key, one in self._running.items() if not one.done()}
        if key not in self._running:
            earlier = list(self._running.values())
            pool = ThreadPoolExecutor(1, "chatterbex-worker")
            self._running[key] = pool.submit(self._do, earlier, _threads(alone), work)
            pool.shutdown(wait=False)
        return self._running[key]

    def close(self) -> None:
        """Forgets what has not begun; what is being done ends by itself."""
        self._closed.set()
        self._running.clear()

    def _do(self, earlier: list[Future[Any]], threads: int | None, work: Callable[[], T]) -> T:
        wait(earlier)
        if self._closed.is_set():
            raise CancelledError
        if threads is not None:
            from chatterbex.threads import use_threads

            use_threads(threads)
        return work()


def wait_a_moment(works: list[Future[Any]]) -> None:
    """Waits until one of some works is done, or for `MOMENT`."""
    wait(works, MOMENT, FIRST_COMPLETED)


def _threads(alone: bool) -> int | None:
    """Of the thread that calls: a thread that lives long keeps a number of its own."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    usual = torch.get_num_threads()
    return usual if alone else max(1, usual // 2)
