"""Several requests at once on a CPU with several threads: in parallel, and each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import CLOSE, Heard, drained, finish, load, request, say, step

from chatterbex import lanes
from chatterbex.lanes import Lanes, side_by_side
from chatterbex.models.turbo import NanoModel
from chatterbex.s3gen import Decoding


@pytest.fixture(autouse=True)
def _two_threads(_two_threads: None) -> None:
    """The number of threads of this process."""
    torch.set_num_threads(2)


@pytest.fixture
def running_counts(nano: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of requests being vocoded, each time that one starts."""
    seen: list[int] = []
    start = nano._scheduler._lanes.start

    def spy(*given: Any) -> None:
        start(*given)
        seen.append(len(nano._scheduler._lanes.running))

    monkeypatch.setattr(nano._scheduler._lanes, "start", spy)
    return seen


@pytest.fixture
def _at_a_stroke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocoding in one stage, so that each job returns samples."""
    stages = Decoding.stages

    def stroke(self: Decoding, *given: Any) -> Any:
        return drained(stages(self, *given))
        yield

    monkeypatch.setattr(Decoding, "stages", stroke)


# -- lanes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "shares"), [(1, (1, 1)), (2, (1, 1)), (3, (2, 1))])
def test_two_functions_share_the_threads_of_their_caller(threads: int, shares: tuple[int, int]) -> None:
    torch.set_num_threads(threads)
    together = threading.Barrier(2)

    def given() -> int:
        if threads > 1:
            together.wait(30)
        return torch.get_num_threads()

    assert side_by_side(given, given) == shares
    assert torch.get_num_threads() == threads

    def fail() -> None:
        raise ZeroDivisionError

    for functions in ((fail, torch.get_num_threads), (torch.get_num_threads, fail)):
        with pytest.raises(ZeroDivisionError):
            side_by_side(*functions)
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("threads", "ready", "count"),
    [(1, 5, 1), (2, 0, 0), (2, 1, 1), (2, 2, 2), (2, 9, 2), (4, 3, 2), (8, 3, 2), (15, 8, 5), (16, 8, 8)],
)
def test_the_number_of_parallel_jobs_uses_most_threads(threads: int, ready: int, count: int) -> None:
    torch.set_num_threads(threads)
    assert Lanes.count(ready) == count


def test_jobs_run_in_parallel_each_with_its_threads() -> None:
    lanes: Lanes[str, int] = Lanes()
    both = threading.Barrier(2, timeout=60)

    def work() -> int:
        both.wait()
        return torch.get_num_threads()

    lanes.start("a", work, 1)
    lanes.start("b", work, 1)
    assert sorted(lanes.running) == ["a", "b"]
    done = []
    while lanes.running:
        done += lanes.finished(60)
    assert {one.key: one.result for one in done} == {"a": 1, "b": 1}
    assert all(one.seconds > 0 for one in done)
    assert torch.get_num_threads() == 2
    lanes.close()


def test_an_exception_in_a_job_is_its_result_and_nobody_waits_for_long() -> None:
    lanes: Lanes[str, None] = Lanes()
    go_on = threading.Event()

    def fail() -> None:
        assert go_on.wait(60)
        raise ValueError("no")

    lanes.start("a", fail, 1)
    assert lanes.finished(0.0) == []
    go_on.set()
    [done] = lanes.finished(60)
    assert isinstance(done.result, ValueError)
    assert lanes.running == []
    assert lanes.finished(0.0) == []
    lanes.close()


# -- models ---------------------------------------------------------------------------------------------


def test_each_request_sounds_as_it_does_alone(nano: Any, running_counts: list[int]) -> None:
    requests = [
        request(1, seed=11),
        request(2, "Another text.", seed=5, max_tokens=9),
        request(3, stream=True),
        request(4, seed=2, max_tokens=40),
    ]
    alone = {one.id: say(nano, one) for one in requests}
    assert not running_counts, "whoever is alone has all threads"
    together = say(nano, *requests)
    assert max(running_counts) == 2
    for one in requests:
        expected, given = alone[one.id], together
        assert given.metadata(one.id)["tokens"] == expected.metadata(one.id)["tokens"]
        assert given.samples(one.id).shape == expected.samples(one.id).shape
        if not one.stream:  # whose chunks depend on when they are asked for
            assert np.abs(given.samples(one.id) - expected.samples(one.id)).max() < CLOSE


def test_others_speak_while_one_is_vocoded(nano: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a vocoder that waits until the other has drawn its last token."""
    stages, drawn = Decoding.stages, threading.Event()

    def waiting(self: Decoding, *given: Any) -> Any:
        assert torch.get_num_threads() == 1
        assert drawn.wait(60), "nobody spoke meanwhile"
        return (yield from stages(self, *given))

    monkeypatch.setattr(Decoding, "stages", waiting)
    heard = Heard()
    nano.admit(request(1, max_tokens=3))
    nano.admit(request(2, max_tokens=30))
    while nano.busy():
        step(nano, heard)
        if nano._scheduler._session.live == []:
            drawn.set()
    assert len(heard.samples(1)) < len(heard.samples(2))


@pytest.mark.parametrize("listened", [False, True])
def test_without_a_listener_all_threads_may_vocode(
    listened: bool, nano: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T3 continues in parallel. With a vocoder that waits, and a request that speaks for a long time."""
    stages, go_on = Decoding.stages, threading.Event()

    def waiting(self: Decoding, *given: Any) -> Any:
        assert go_on.wait(60)
        return (yield from stages(self, *given))

    monkeypatch.setattr(Decoding, "stages", waiting)
    heard = Heard()
    nano.admit(request(1, max_tokens=3))
    nano.admit(request(2, max_tokens=3))
    nano.admit(request(3, max_tokens=60, stream=listened, chunk_tokens=60))
    largest = 0
    while nano._scheduler._speeches[3].finish_reason is None:
        step(nano, heard)
        if 3 in nano._scheduler._session.live:
            largest = max(largest, len(nano._scheduler._lanes.running))
    go_on.set()
    finish(nano, heard)
    assert largest == (1 if listened else 2)
    assert set(heard.chunks) == {1, 2, 3}


@pytest.mark.usefixtures("_at_a_stroke")
def test_a_request_cancelled_during_vocoding_sends_nothing_more(nano: Any) -> None:
    alone = say(nano, request(1)).samples()
    heard = Heard()
    nano.admit(request(1))
    nano.admit(request(2))
    while 2 not in [one.id for one, _ in nano._scheduler._lanes.running]:
        step(nano, heard)
    nano.cancel(2)
    finish(nano, heard)
    assert 2 not in heard.chunks
    assert 2 not in heard.failures
    assert np.abs(heard.samples(1) - alone).max() < CLOSE
    assert np.abs(say(nano, request(2)).samples(2) - alone).max() < CLOSE


@pytest.mark.usefixtures("_at_a_stroke")
def test_a_request_restarted_during_vocoding_drops_its_old_samples(nano: Any) -> None:
    alone = say(nano, request(1)).samples()
    heard = Heard()
    nano.admit(request(1))
    nano.admit(request(2))
    while not (running := nano._scheduler._lanes.running):
        step(nano, heard)
    running[0][0].restart()
    finish(nano, heard)
    for id in (1, 2):
        assert np.abs(heard.samples(id) - alone).max() < CLOSE


def test_one_that_fails_leaves_the_others(
    nano: Any, running_counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = say(nano, request(1)).samples()
    stages = Decoding.stages

    def broken(self: Decoding, *given: Any) -> Any:
        if self._noise.seed == 99:
            raise RuntimeError("no sound")
        return (yield from stages(self, *given))

    monkeypatch.setattr(Decoding, "stages", broken)
    heard = say(nano, request(1), request(2, seed=99), request(3))
    assert max(running_counts) == 2
    assert list(heard.failures) == [2]
    assert "no sound" in heard.failures[2].message
    for id in (1, 3):
        assert np.abs(heard.samples(id) - alone).max() < CLOSE


def test_a_model_that_is_closed_while_it_vocodes_ends_its_threads(folder: Callable[[str], Path]) -> None:
    model = load(NanoModel, folder("nano"))
    before = set(threading.enumerate())
    model.admit(request(1))
    model.admit(request(2))
    while not model._scheduler._lanes.running:
        step(model, Heard())
    assert set(threading.enumerate()) > before
    model.close()
    assert set(threading.enumerate()) == before


def test_rest_waits_for_running_jobs_and_starts_no_more() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[str] = []
    lane: Lanes[str, None] = Lanes()
    for name in ("first", "second", "third"):
        lane.start(name, lambda name=name: (begun.set(), go_on.wait(10), done.append(name))[0], 1)
    begun.wait(10)

    waiting = threading.Thread(target=lanes.rest)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    go_on.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert sorted(done) == ["first", "second"]
    with pytest.raises(RuntimeError):
        lane.start("fourth", lambda: None, 1)
