"""Long work outside the step loop.

Cloning a voice takes seconds, and so does tokenising a recording or looking for a watermark. None of it may
keep other requests from speaking. So it runs in its own thread, on the CPU only, and shares nothing that it
changes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOMENT: Final = 0.05
"""How long a step with nothing else to do waits for this work, in seconds. Commands may arrive meanwhile."""


class Worker:
    """Does long work, one piece at a time.

    Each piece runs in its own thread, which ends with it. OpenMP keeps a team of threads for every thread
    that has computed with several. If all teams together have more threads than there are cores, their
    threads sleep between operations instead of spinning, and all computation with several threads becomes a
    tenth slower.
    """

    def __init__(self) -> None:
        """Starts no thread yet."""
        self._running: dict[object, Future[Any]] = {}
        self._closed = threading.Event()

    def start(self, key: object, work: Callable[[], T], *, alone: bool) -> Future[T]:
        """Starts a piece of work, or joins the one that is already running with the same key.

        Args:
            key: work with the same key has the same result.
            work: the function to run.
            alone: whether nothing else computes now. If so it gets all of torch's threads, else half.
        """
        self._running = {key: job for key, job in self._running.items() if not job.done()}
        if key not in self._running:
            earlier = list(self._running.values())
            pool = ThreadPoolExecutor(1, "chatterbex-worker")
            self._running[key] = pool.submit(self._do, earlier, _threads(alone), work)
            pool.shutdown(wait=False)
        return self._running[key]

    def close(self) -> None:
        """Drops work that has not begun. Work that has begun runs to its end."""
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
    """Waits until one of these is done, at most for `MOMENT`."""
    wait(works, MOMENT, FIRST_COMPLETED)


def _threads(alone: bool) -> int | None:
    """Taken from the calling thread, because a long-lived thread keeps its own number."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    usual = torch.get_num_threads()
    return usual if alone else max(1, usual // 2)
