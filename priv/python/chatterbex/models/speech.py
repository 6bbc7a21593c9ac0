"""The life of one request in a Chatterbox model.

It waits until its recordings were listened to, then speaks (tokens, one for each step) and is vocoded
(samples, whole or in chunks). A request that runs away from its text or is silent speaks again with another
seed. After a device failed it begins again with the same one, and what was given out stays given out.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chatterbex.errors import ChatterbexError
from chatterbex.model import Chunk, Request
from chatterbex.models.options import number, whole
from chatterbex.s3gen import RATE, SILENCE, TOKEN, Decoding, Reference, S3GenPass
from chatterbex.voices import Voice

if TYPE_CHECKING:
    from chatterbex.t3 import Sampling
    from chatterbex.voices import Audio

_MOST_STEPS = 50
_QUIETEST = 1e-3  # peak of speech that is called silent: -60 dB

_logger = logging.getLogger("chatterbex.models")


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
        size = whole(options, "chunk_tokens", 10, 1, 1000)
        growth = number(options, "chunk_growth", 1.0, 10.0)
        most = whole(options, "chunk_most", 250, 1, 1000)
        return cls(size, cls.growth if growth is None else growth, max(most, size), size)

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


@dataclass(frozen=True)
class FlowOptions:
    """What a request gives up of the flow's quality for speed.

    Attributes:
        reference_seconds: of the voice's prompt that the flow sees; None for all of it.
        steps: of the flow; None for the usual number.
        first_steps: of the flow, for the first chunk of a stream; None or 0 for as many as later.
    """

    reference_seconds: float | None = None
    steps: int | None = None
    first_steps: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], default: FlowOptions | None = None) -> FlowOptions:
        """What a request or a load asks for: "reference_seconds", "flow_steps", "first_chunk_steps".

        Args:
            options: its options.
            default: where an option is missing.

        Raises:
            ChatterbexError: One of them is out of range ("invalid_option").
        """
        asked = {
            "reference_seconds": number(options, "reference_seconds", 3.0, 10.0),
            "steps": _steps(options, "flow_steps", 1),
            "first_steps": _steps(options, "first_chunk_steps", 0),
        }
        return replace(
            default or cls(), **{name: value for name, value in asked.items() if value is not None}
        )

    def decoding(
        self, way: S3GenPass, voice: Reference, seed: int, *, stream: bool, **given: Any
    ) -> Decoding:
        """The decoding of a request; `given` as `Decoding` takes it."""
        if self.reference_seconds is not None:
            voice = voice.beginning(self.reference_seconds)
        first = self.first_steps if stream else None
        return Decoding(way, voice, seed, steps=self.steps, first_steps=first, **given)


def _steps(options: Mapping[str, Any], name: str, least: int) -> int | None:
    return None if options.get(name) is None else whole(options, name, least, least, _MOST_STEPS)


@dataclass
class Job:
    """A chunk that is being vocoded.

    Attributes:
        decoding: what vocodes it.
        tokens: all of the request's so far.
        final: whether these are all.
        stages: the work, where it is done for this chunk alone.
    """

    decoding: Decoding
    tokens: list[int]
    final: bool
    stages: Generator[None, None, np.ndarray]


@dataclass(frozen=True)
class Traits:
    """What differs between the models when they speak.

    Attributes:
        speaks: whether a text is spoken; otherwise a recording is converted.
        silence: tokens of silence that are spoken after the text.
        dropped: tokens at the end of a text that are not heard, for they are noise.
    """

    speaks: bool = True
    silence: int = 0
    dropped: int = 0


@dataclass
class Speech:
    """A request and how far it is.

    Attributes:
        text: text tokens.
        most: tokens after which it is ended.
        bounded: whether these are as many as the text could take: more are no reading of it.
        retries: how often it may begin again with another seed, where it ran away or is silent.
        retried: how often it did.
        voice_key: what the voice is kept by; None for the built-in one.
        audio: what the voice is made from.
        flow: how the flow is computed.
        source: what is to be converted.
        stage: "waiting" to be admitted, "listening" to its recordings, "speaking", or "vocoding": no
            token will come any more.
        heard: the work of the stage "listening".
        voice: who speaks, from "speaking" on.
        tokens: speech tokens so far.
        finish_reason: why there will be no more: "stop", "limit", "runaway" or "silent".
        decoded: samples that were decoded since it began, or began again.
        given: samples that were given out.
        working: seconds of vocoding since the last chunk.
        seconds: of each kind of work.
        first: seconds from its begin to the first samples.
    """

    request: Request
    traits: Traits
    seed: int
    plan: Plan
    voice_key: str | None
    audio: Audio | bytes | None
    flow: FlowOptions = FlowOptions()
    text: list[int] = field(default_factory=list)
    sampling: Sampling | None = None
    guidance: float | None = None
    exaggeration: float | None = None
    most: int = 0
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
        return self.began + self.first + self.given / RATE

    @property
    def draw_seed(self) -> int:
        """What is drawn from now: the request's seed, and after a retry one that is derived from it."""
        return derived(self.seed, self.retried) if self.retried else self.seed

    def restart(self) -> None:
        """Begins again. What was given out stays given out."""
        self.stage = "waiting"
        if self.traits.speaks:  # what a recording says stays the same
            self.tokens = []
            self.finish_reason = None
        self.decoding = self.job = self.heard = None
        self.decoded = 0
        self.plan.due = self.plan.size

    def spend(self, kind: str, seconds: float) -> None:
        """Notes how long something took."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    # -- tokens ----------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Takes the end of the tokens: goes on to be vocoded, or begins again with another seed.

        Args:
            reason: "stop", "limit" or "runaway".

        Raises:
            ChatterbexError: There is nothing to be heard, however often it was tried.
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
        """Begins again with another seed, unless that was done often enough or samples were given out."""
        what = "silent" if reason == "silent" else "without an end"
        length = len(self.request.text)
        about = f"{length} characters of text came out {what} after {len(self.tokens)} tokens"
        if self.retried >= self.retries or self.given:
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
        """Begins to vocode a chunk, if none is being vocoded. Returns whether there is one.

        Args:
            way: through S3Gen.
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
        """Takes the samples of the job that is done.

        Returns:
            Those to be given out, perhaps none; or None where the request begins again with another seed.
        """
        job, self.job = self.job, None
        if job.final and not self.given and self.traits.speaks and _silent(samples):
            if self._again("silent"):
                return None
            self.finish_reason = "silent"
        dropped = self.traits.dropped
        if job.final and dropped and len(job.tokens) > dropped:
            heard = (len(job.tokens) - dropped) * TOKEN
            samples = samples[: max(0, heard - self.decoded)]
        self.decoded += len(samples)
        # What was given out before the device failed is not given out again.
        fresh = max(0, self.decoded - self.given)
        samples = samples[max(0, len(samples) - fresh) :] if fresh else samples[:0]
        self.given += len(samples)
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
            "voice": self.voice_key or "built-in",
        }


def derived(seed: int, retry: int) -> int:
    """The seed of a retry, the first being 1: 64 bits, always the same for the same seed."""
    data = f"chatterbex:{seed}:retry:{retry}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _silent(samples: np.ndarray) -> bool:
    return float(np.max(np.abs(samples), initial=0.0)) < _QUIETEST
