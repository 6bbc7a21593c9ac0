"""Helpers that load a Chatterbox model, send it requests and collect the results."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shelf import SHELF

from chatterbex.model import Chunk, Failure, Notice, Request

TEXT = "Hello world, this is a test."

CLOSE = 1e-4
"""The allowed difference of samples computed with another number of threads; full scale is 1."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside it, this thread computes with `count` of torch's threads."""
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def load(model: Any, folder: Path, **options: Any) -> Any:
    """Loads a model as the engine does, in place of those that this test does not use."""
    SHELF.clear()
    return drained(model.load({"checkpoint": str(folder), "device": "cpu", "max_batch": 4, **options}))


def drained(stages: Generator[Any, None, Any]) -> Any:
    """Returns the final value of a generator."""
    while True:
        try:
            next(stages)
        except StopIteration as stop:
            return stop.value


def request(id: int = 1, text: str = TEXT, stream: bool = False, **options: Any) -> Request:
    """A request of at most 24 tokens."""
    return Request(id, text, stream, {"seed": 3, "max_tokens": 24, **options})


class Heard:
    """The results of each request."""

    def __init__(self) -> None:
        self.chunks: dict[int, list[Chunk]] = {}
        self.failures: dict[int, Any] = {}
        self.notices: list[Notice] = []
        self.steps = 0

    def samples(self, id: int = 1) -> np.ndarray:
        """All samples of a request."""
        assert id not in self.failures, self.failures[id]
        assert [chunk.last for chunk in self.chunks[id]] == [False] * (len(self.chunks[id]) - 1) + [True]
        return np.concatenate([chunk.samples for chunk in self.chunks[id]])

    def metadata(self, id: int = 1) -> dict[str, Any]:
        """The metadata of the last chunk."""
        return self.chunks[id][-1].metadata


def step(model: Any, heard: Heard) -> None:
    """One step of a model."""
    heard.steps += 1
    for outcome in model.step():
        if isinstance(outcome, Chunk):
            heard.chunks.setdefault(outcome.request_id, []).append(outcome)
        elif isinstance(outcome, Failure):
            heard.failures[outcome.request_id] = outcome.error
        else:
            heard.notices.append(outcome)


def say(model: Any, *requests: Request) -> Heard:
    """Runs simultaneous requests until all are done."""
    heard = Heard()
    for one in requests:
        model.admit(one)
    finish(model, heard)
    return heard


def finish(model: Any, heard: Heard) -> None:
    """Steps until nothing is left to do."""
    while model.busy():
        step(model, heard)
        assert heard.steps < 5000
