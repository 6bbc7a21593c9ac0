"""Long work next to the step loop: one job at a time, each in a thread that ends with it."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from itertools import count
from typing import Any

import pytest

from chatterbex.worker import Worker

WAIT = 30


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("chatterbex-worker")}


def ended(before: set[threading.Thread]) -> None:
    for one in threads() - before:
        one.join(WAIT)
        assert not one.is_alive()


def test_jobs_run_one_at_a_time_in_order() -> None:
    worker, turns, begun, goes_on = Worker(), count(), [], threading.Event()

    def work(name: str) -> tuple[int, str]:
        begun.append(name)
        assert goes_on.wait(WAIT)
        return next(turns), name

    futures = [worker.start(name, lambda name=name: work(name), alone=False) for name in "abc"]
    assert worker.start("a", lambda: work("again"), alone=False) is futures[0]
    assert begun in ([], ["a"])
    goes_on.set()
    assert [one.result(WAIT) for one in futures] == [(0, "a"), (1, "b"), (2, "c")]
    assert begun == ["a", "b", "c"]


def test_no_thread_remains_after_the_work() -> None:
    before, worker = threads(), Worker()
    assert worker.start(1, lambda: 7, alone=True).result(WAIT) == 7
    with pytest.raises(ZeroDivisionError):
        worker.start(2, lambda: 1 / 0, alone=True).result(WAIT)
    ended(before)


def test_closing_drops_jobs_that_have_not_started() -> None:
    before, worker, begun, goes_on = threads(), Worker(), threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        assert goes_on.wait(WAIT)
        return "done"

    first: Future[Any] = worker.start("first", hold, alone=False)
    second = worker.start("second", lambda: "never", alone=False)
    assert begun.wait(WAIT)
    worker.close()
    goes_on.set()
    assert first.result(WAIT) == "done"
    with pytest.raises(CancelledError):
        second.result(WAIT)
    ended(before)
