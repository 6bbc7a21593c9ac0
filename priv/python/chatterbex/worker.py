"""Long work beside the step loop.

Cloning a voice takes seconds, and so does hearing what is said in a recording or looking for a watermark.
None of it may keep others from speaking. So a thread of its own does it, one piece after the other. It
computes on the CPU only and shares nothing that it changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOMENT: Final = 0.05
"""Seconds that a step with nothing else to do waits for work beside it: a command may come meanwhile."""


class Worker:
    """A thread for long work; it is made when it is first needed."""

    def __init__(self) -> None:
        """Makes none yet."""
        self._pool: ThreadPoolExecutor | None = None
        self._running: dict[object, Future[Any]] = {}

    def start(self, key: object, work: Callable[[], T], *, alone: bool) -> Future[T]:
        """Starts some work, or joins the one that is running for the same.

        Args:
            key: what the result is the same for.
            work: does it.
            alone: whether nothing else computes now. If so it gets all of torch's threads, else half.
        """
        self._running = {key: one for key, one in self._running.items() if not one.done()}
        if key not in self._running:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "chatterbex-worker")
            self._running[key] = self._pool.submit(_with_threads, _threads(alone), work)
        return self._running[key]

    def close(self) -> None:
        """Forgets what has not begun; what is being done ends by itself."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        self._running.clear()


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


def _with_threads(threads: int | None, work: Callable[[], T]) -> T:
    if threads is not None:
        sys.modules["torch"].set_num_threads(threads)  # of this thread only
    return work()
