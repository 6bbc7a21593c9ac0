"""A model that does no work, so that a request costs only what the bridge costs."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from chatterbex.model import Chunk, Model, Request


class IdleModel(Model):
    """Answers each request with as many seconds of silence as its text says."""

    name = "idle"
    sample_rate = 24_000
    max_batch = 8

    def __init__(self) -> None:
        """Starts with no request."""
        self._requests: list[Request] = []

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, IdleModel]:
        """Loads nothing."""
        yield "nothing"
        return cls()

    def admit(self, request: Request) -> None:
        """Accepts a request."""
        self._requests.append(request)

    def step(self) -> list[Chunk]:
        """Answers all requests."""
        requests, self._requests = self._requests, []
        return [
            Chunk(
                request_id=request.id,
                samples=np.zeros(int(float(request.text) * self.sample_rate), np.float32),
                metadata={},
                last=True,
            )
            for request in requests
        ]

    def cancel(self, request_id: int) -> None:
        """Forgets a request."""
        self._requests = [r for r in self._requests if r.id != request_id]

    def busy(self) -> bool:
        """Returns whether there is a request."""
        return bool(self._requests)

    def info(self) -> dict[str, Any]:
        """Reports where it runs."""
        return {"device": {"requested": "cpu", "actual": "cpu", "reason": None}}

    def close(self) -> None:
        """Has nothing to release."""
