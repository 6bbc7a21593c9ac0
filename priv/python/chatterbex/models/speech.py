"""One request on its way through a Chatterbox model."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from chatterbex.errors import ChatterbexError

if TYPE_CHECKING:
    import numpy as np

    from chatterbex.models.base import Request
    from chatterbex.s3gen import Decoding
    from chatterbex.t3 import Sampling
    from chatterbex.voices import Audio


@dataclass
class Plan:
    """When the next chunk of a stream is due.

    The first chunk is small, so that the first sound is soon there. Each further one is larger,
    for the flow computes all that came before again; and larger still where the machine does not
    keep up with the playback.

    Attributes:
        size: tokens of the next chunk.
        growth: how much larger each chunk is than the one before.
        most: tokens of the largest chunk.
        due: tokens that there must be in all for the next chunk.
    """

    size: int = 10
    growth: float = 2.0
    most: int = 250
    due: int = 10

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Plan:
        """The plan that a request asks for: "chunk_tokens", "chunk_growth", "chunk_most".

        Raises:
            ChatterbexError: One of them is out of range ("invalid_option").
        """
        size = _within(options, "chunk_tokens", 10, 1, 1000)
        growth = _within(options, "chunk_growth", 2.0, 1.0, 10.0)
        most = _within(options, "chunk_most", 250, 1, 1000)
        return cls(int(size), growth, max(int(most), int(size)), int(size))

    def next(self, tokens: int, audio: float, work: float) -> None:
        """Plans the next chunk.

        Args:
            tokens: how many were vocoded so far.
            audio: seconds of audio that they brought this time.
            work: seconds of work that it took.
        """
        factor = self.growth * (2.0 if work > audio > 0 and self.growth > 1.0 else 1.0)
        self.size = min(self.most, max(1, round(self.size * factor)))
        self.due = tokens + self.size


@dataclass
class Job:
    """A chunk that is being vocoded."""

    stages: Generator[None, None, np.ndarray]
    tokens: int
    final: bool


@dataclass
class Speech:
    """A request and how far it is.

    Attributes:
        text: text tokens.
        most: tokens after which it is ended.
        bounded: whether these are as many as the text could take: more are no reading of it.
        retries: how often it may begin anew with another seed, where it ran away or is silent.
        retried: how often it did.
        voice: what the voice is kept by; None for the built-in one.
        audio: what the voice is made from.
        source: what is to be converted.
        stage: "waiting" for its voice, then "speaking".
        tokens: speech tokens so far.
        finish_reason: why there will be no more: "stop", "limit", "runaway" or "silent".
        decoded: samples that were decoded since it began, or began anew.
        given: samples that were given out.
        working: seconds of vocoding since the last chunk.
        seconds: of each kind of work.
        first: seconds from its begin to the first samples.
    """

    request: Request
    text: list[int]
    seed: int
    sampling: Sampling | None
    guidance: float | None
    exaggeration: float | None
    most: int
    plan: Plan
    voice: str | None
    audio: Audio | bytes | None
    source: Audio | None = None
    bounded: bool = False
    retries: int = 0
    retried: int = 0
    stage: Literal["waiting", "speaking"] = "waiting"
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    decoding: Decoding | None = None
    job: Job | None = None
    decoded: int = 0
    given: int = 0
    chunks: int = 0
    working: float = 0.0
    began: float = 0.0
    first: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """The request's."""
        return self.request.id

    @property
    def urgency(self) -> float:
        """When it must have been vocoded: a listener's playback runs out, others wait since they began."""
        if self.first is None or not self.request.stream:
            return self.began
        return self.began + self.first + self.given / 24_000

    @property
    def draw_seed(self) -> int:
        """What is drawn from now: the request's seed, and after a retry one that is derived from it."""
        return derived(self.seed, self.retried) if self.retried else self.seed

    def retry(self) -> bool:
        """Begins anew with another seed, unless that was done often enough or samples were given out."""
        if self.retried >= self.retries or self.given:
            return False
        self.retried += 1
        self.restart()
        return True

    def restart(self) -> None:
        """Begins anew. What was given out stays given out."""
        self.stage = "waiting"
        self.tokens = []
        self.finish_reason = None
        self.decoding = self.job = None
        self.decoded = 0
        self.plan.due = self.plan.size

    def chunk_metadata(self, tokens: int) -> dict[str, Any]:
        """What there is to say of a chunk."""
        return {"chunk": self.chunks - 1, "tokens": tokens}

    def metadata(self) -> dict[str, Any]:
        """What there is to say of the request when it is done."""
        total = time.perf_counter() - self.began
        return {
            "chunks": self.chunks,
            "finish_reason": self.finish_reason,
            "retries": self.retried,
            "seconds": {**self.seconds, "first": self.first or total, "total": total},
            "seed": self.seed,
            "text_tokens": len(self.text),
            "tokens": len(self.tokens),
            "voice": self.voice or "built-in",
        }


def derived(seed: int, retry: int) -> int:
    """The seed of a retry, the first being 1: 64 bits, always the same for the same seed."""
    data = f"chatterbex:{seed}:retry:{retry}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def digest(data: bytes) -> str:
    """What a saved voice is kept by."""
    return hashlib.sha256(b"saved:" + data).hexdigest()


def _within(options: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = options.get(name)
    if value is None:
        return default
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value <= most:
        raise ChatterbexError("invalid_option", f"{name} must be from {least:g} to {most:g}, not {value!r}")
    return value
