"""The life of one request in a Chatterbox model.

It waits until its recordings are processed, then speaks (one token per step) and is vocoded (samples, whole
or in chunks). A request that loses its text, or is silent, speaks again with another seed. After the device
failed, it begins again with the same seed. Samples that were already sent are not sent again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chatterbex.errors import ChatterbexError
from chatterbex.model import Chunk, Request
from chatterbex.options import integer, number
from chatterbex.s3gen import RATE, SILENCE, TOKEN, Decoding, FlowOptions, S3GenPass
from chatterbex.voices import Voice

if TYPE_CHECKING:
    from chatterbex.t3 import Sampling
    from chatterbex.voices import Audio

_QUIETEST = 1e-3  # speech with a lower peak counts as silent: -60 dB

_logger = logging.getLogger("chatterbex.models")


@dataclass
class Plan:
    """When the next chunk of a stream is due.

    The first chunk is small, so that the first sound comes soon. Each further chunk is larger, because
    the flow recomputes everything before it. It is larger still if the machine cannot keep up with the
    playback.

    Attributes:
        size: tokens in the next chunk.
        growth: the ratio of each chunk's size to that of the chunk before.
        largest: tokens in the largest chunk.
        due: the total number of tokens at which the next chunk is due.
    """

    size: int = 10
    growth: float = 2.0
    largest: int = 250
    due: int = 10

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Plan:
        """The plan that a request asks for: "chunk_tokens", "chunk_growth", "chunk_most".

        Raises:
            ChatterbexError: One of them is out of range ("invalid_option").
        """
        size = integer(options, "chunk_tokens", 10, 1, 1000)
        growth = number(options, "chunk_growth", 1.0, 10.0)
        largest = integer(options, "chunk_most", 250, 1, 1000)
        return cls(size, cls.growth if growth is None else growth, max(largest, size), size)

    def next(self, tokens: int, audio: float, work: float) -> None:
        """Plans the next chunk.

        Args:
            tokens: how many tokens have been vocoded so far.
            audio: seconds of audio in the last chunk.
            work: seconds of work for that chunk.
        """
        factor = self.growth * (2.0 if work > audio > 0 and self.growth > 1.0 else 1.0)
        self.size = min(self.largest, max(1, round(self.size * factor)))
        self.due = tokens + self.size


@dataclass
class Job:
    """A chunk that is being vocoded.

    Attributes:
        decoding: vocodes the chunk.
        tokens: all of the request's tokens so far.
        final: whether no more tokens will come.
        stages: the work, if it is done for this chunk alone.
    """

    decoding: Decoding
    tokens: list[int]
    final: bool
    stages: Generator[None, None, np.ndarray]


@dataclass(frozen=True)
class Traits:
    """How the models differ when they speak.

    Attributes:
        speaks: whether the model speaks a text; otherwise it converts a recording.
        silence: the number of tokens of silence after the text.
        dropped: the number of tokens dropped at the end of a text, because they are noise.
    """

    speaks: bool = True
    silence: int = 0
    dropped: int = 0


@dataclass
class Speech:
    """A request and its progress.

    Attributes:
        text: text tokens.
        max_tokens: the most speech tokens.
        bounded: whether `max_tokens` is the longest plausible reading of the text.
        retries: how often it may begin again with another seed, if it loses the text or is silent.
        retried: how often it has begun again.
        voice_key: the cache key of the voice; None for the built-in one.
        audio: the reference audio for the voice.
        flow: how the flow is computed.
        source: the recording to convert.
        stage: "waiting" to be admitted, "listening" to its recordings, "speaking", or "vocoding", when
            no more tokens will come.
        heard: the work of the stage "listening".
        voice: the voice, from "speaking" on.
        tokens: speech tokens so far.
        finish_reason: why no more tokens will come: "stop", "limit", "runaway" or "silent".
        decoded: samples decoded since it began, or began again.
        sent: samples that were sent.
        working: seconds of vocoding since the last chunk.
        seconds: of each kind of work.
        first: seconds from its beginning to the first samples.
    """

    request: Request
    traits: Traits
    seed: int
    plan: Plan
    voice_key: str | None
    audio: Audio | bytes | None
    flow: FlowOptions = field(default_factory=FlowOptions)
    text: list[int] = field(default_factory=list)
    sampling: Sampling | None = None
    guidance: float | None = None
    exaggeration: float | None = None
    max_tokens: int = 0
    source: Audio | None = None
    bounded: bool = False
    retries: int = 0
    retried: int = 0
    stage: Literal["waiting", "listening", "speaking", "vocoding"] = "waiting"
    heard: Future[Any] | None = None
    voice: Voice | None = None
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    decoding: Decoding | None = None
    job: Job | None = None
    decoded: int = 0
    sent: int = 0
    chunks: int = 0
    working: float = 0.0
    began: float = 0.0
    first: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """The request's id."""
        return self.request.id

    @property
    def urgency(self) -> float:
        """When it is due: for a stream, when the listener's playback ends; for others, when they began."""
        if self.first is None or not self.request.stream:
            return self.began
        return self.began + self.first + self.sent / RATE

    @property
    def draw_seed(self) -> int:
        """The seed to draw with: the request's seed, or after a retry one that is derived from it."""
        return derived(self.seed, self.retried) if self.retried else self.seed

    def restart(self) -> None:
        """Begins again. Samples that were already sent are not sent again."""
        self.stage = "waiting"
        if self.traits.speaks:  # the tokens of a recording stay the same
            self.tokens = []
            self.finish_reason = None
        self.decoding = self.job = self.heard = None
        self.decoded = 0
        self.plan.due = self.plan.size

    def spend(self, kind: str, seconds: float) -> None:
        """Records how long something took."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    # -- tokens ----------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Handles the end of the tokens: moves on to vocoding, or begins again with another seed.

        Args:
            reason: "stop", "limit" or "runaway".

        Raises:
            ChatterbexError: Every attempt was silent.
        """
        if reason == "limit" and self.bounded:
            reason = "runaway"
        elif not self.tokens:
            reason = "silent"
        if reason in ("runaway", "silent") and self._again(reason):
            return
        self.finish_reason, self.stage = reason, "vocoding"
        if not self.tokens:
            raise ChatterbexError(
                "generation_failed",
                f"The model ended without a sound, {self.retried + 1} times. Try another seed, or a "
                "longer text.",
                {"finish_reason": reason, "tokens": 0, "retries": self.retried},
            )
        if reason == "limit":
            _logger.warning(
                "%d characters of text were cut short after %d speech tokens (%.0f s): use sentences",
                len(self.request.text),
                len(self.tokens),
                len(self.tokens) / 25,
            )

    def _again(self, reason: str) -> bool:
        """Begins again with another seed, unless no retry is left or samples were already sent."""
        outcome = "silent" if reason == "silent" else "without an end"
        length = len(self.request.text)
        about = f"{length} characters of text came out {outcome} after {len(self.tokens)} tokens"
        if self.retried >= self.retries or self.sent:
            _logger.warning("%s", about)
            return False
        self.retried += 1
        _logger.warning("%s; spoken again with another seed, %d of %d", about, self.retried, self.retries)
        self.restart()
        return True

    # -- samples ---------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a chunk is being vocoded or can be."""
        if self.job is not None or self.stage == "vocoding":
            return True
        if self.stage != "speaking" or not self.request.stream or len(self.tokens) < self.plan.due:
            return False
        return self.decoding is None or self.decoding.worth(len(self.tokens)) > 0

    def prepare(self, way: S3GenPass, finish: Callable[[np.ndarray], np.ndarray]) -> bool:
        """Begins to vocode a chunk unless one is being vocoded. Returns whether there is one now.

        Args:
            way: the pass through S3Gen.
            finish: see `Decoding`.
        """
        if self.job is None and self.ready:
            if self.decoding is None:
                self.decoding = self.flow.decoding(
                    way, self.voice.gen, self.draw_seed, stream=self.request.stream, finish=finish
                )
            final = self.finish_reason is not None
            tokens = self.tokens + [SILENCE] * (self.traits.silence if final else 0)
            self.job = Job(self.decoding, tokens, final, self.decoding.stages(tokens, final))
        return self.job is not None

    def give(self, samples: np.ndarray) -> np.ndarray | None:
        """Accepts the samples of a finished job.

        Returns:
            The samples to send, perhaps none; or None if the request begins again with another seed.
        """
        job, self.job = self.job, None
        if job.final and not self.sent and self.traits.speaks and _silent(samples):
            if self._again("silent"):
                return None
            self.finish_reason = "silent"
        dropped = self.traits.dropped
        if job.final and dropped and len(job.tokens) > dropped:
            heard = (len(job.tokens) - dropped) * TOKEN
            samples = samples[: max(0, heard - self.decoded)]
        self.decoded += len(samples)
        # Samples that were sent before the device failed are not sent again.
        fresh = max(0, self.decoded - self.sent)
        samples = samples[max(0, len(samples) - fresh) :] if fresh else samples[:0]
        self.sent += len(samples)
        self.chunks += 1
        self.plan.next(len(job.tokens), len(samples) / RATE, self.working)
        self.working = 0.0
        if self.first is None:
            self.first = time.perf_counter() - self.began
        return samples

    def chunk(self, samples: np.ndarray, tokens: int) -> Chunk:
        """A chunk that is not the last."""
        return Chunk(self.id, samples, {"chunk": self.chunks - 1, "tokens": tokens})

    def metadata(self) -> dict[str, Any]:
        """The metadata of the finished request."""
        total = time.perf_counter() - self.began
        return {
            "chunks": self.chunks,
            "finish_reason": self.finish_reason,
            "retries": self.retried,
            "seconds": {**self.seconds, "first": self.first or total, "total": total},
            "seed": self.seed,
            "text_tokens": len(self.text),
            "tokens": len(self.tokens),
            "voice": self.voice_key or "built-in",
        }


def derived(seed: int, retry: int) -> int:
    """The seed for retry number `retry`, from 1: 64 bits, always the same for the same seed."""
    data = f"chatterbex:{seed}:retry:{retry}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _silent(samples: np.ndarray) -> bool:
    return float(np.max(np.abs(samples), initial=0.0)) < _QUIETEST
