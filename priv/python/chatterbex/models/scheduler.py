"""Decides what a Chatterbox model does next.

A step of the model is one step of T3 or one stage of vocoding; if both have work, they alternate. On a CPU
with several threads, several of these run in parallel (ADR 10). Recordings are processed outside the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import torch

from chatterbex.device import Runtime, WrongResultsError, classify, require_finite
from chatterbex.errors import ModelBrokenError
from chatterbex.lanes import Lanes
from chatterbex.model import Chunk, Failure, Notice
from chatterbex.models.passes import Passes, Weights
from chatterbex.models.speech import Job, Speech
from chatterbex.s3gen import together
from chatterbex.stages import advance
from chatterbex.t3 import T3Request, T3Session, TokenEvent
from chatterbex.voices import Voice
from chatterbex.worker import MOMENT, wait_a_moment

# The most tokens vocoded together: as many as in the longest request, for which memory is reserved.
_TOGETHER = 1000

Outcomes = list[Chunk | Failure | Notice]


class _Group:
    """Chunks of several requests whose flow is computed together."""

    def __init__(self, members: list[tuple[Speech, Job]]) -> None:
        self.members = members
        self._stages = together([(job.decoding, job.tokens, job.final) for _, job in members])

    def advance(self) -> list[np.ndarray | Exception] | None:
        """Runs one stage. Returns the samples of each chunk if they are done."""
        if len(self.members) == 1:
            samples = advance(self.members[0][1].stages)
            return None if samples is None else [samples]
        return advance(self._stages)


class Scheduler:
    """The running batch of one model, and the order of its work."""

    def __init__(
        self,
        runtime: Runtime[Weights, Passes],
        *,
        front: Any | None,
        voice_of: Callable[[Speech], Voice | None],
        listen: Callable[[Speech], Future[Voice]],
        finish: Callable[[np.ndarray], np.ndarray],
        metadata: Callable[[Speech], dict[str, Any]],
    ) -> None:
        """Starts with no request.

        Args:
            runtime: the model's runtime.
            front: T3's embeddings of voices and texts, or None for a model that does not speak text.
            voice_of: returns the voice of a request, or None if it must be cloned first.
            listen: starts cloning it, outside the step loop.
            finish: processes samples before they are sent.
            metadata: returns the metadata of a finished request.
        """
        self._runtime = runtime
        self._front = front
        self._voice_of = voice_of
        self._listen = listen
        self._finish = finish
        self._metadata = metadata
        self._speeches: dict[int, Speech] = {}
        self._session: T3Session | None = None
        self._group: _Group | None = None
        self._vocoded_last = False
        self._lanes: Lanes[tuple[Speech, Job], np.ndarray | None] = Lanes()

    # -- requests --------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many requests are admitted."""
        return len(self._speeches)

    @property
    def cache_bytes(self) -> int:
        """Bytes in T3's KV cache."""
        return 0 if self._session is None else self._session.nbytes

    def add(self, speech: Speech) -> None:
        """Adds a request."""
        self._speeches[speech.id] = speech

    def cancel(self, request_id: int) -> None:
        """Forgets a request."""
        if self._speeches.pop(request_id, None) is not None and self._session is not None:
            self._session.cancel(request_id)

    def renew(self) -> None:
        """Rebuilds what depends on the runtime's passes, after they were replaced or dropped."""
        self._session = self._group = None
        if self._front is not None and self._runtime.ready:
            self._session = T3Session(self._front, self._runtime.way.t3, self._runtime.batch)

    def close(self) -> None:
        """Releases everything."""
        self._speeches.clear()
        self._session = None
        self._lanes.close()

    # -- steps -----------------------------------------------------------------------------

    def step(self) -> Outcomes:
        """Does the most urgent work."""
        outcomes: Outcomes = []
        waiting = next((speech for speech in self._speeches.values() if self._can_begin(speech)), None)
        vocoding = self._to_vocode()
        others = self._others_speak(vocoding)
        count = self._count(vocoding, others)
        if waiting is not None:
            outcomes += self._begin(waiting)
        elif self._lanes.running or count > 1:
            outcomes += self._work_together(vocoding, others, count)
        elif vocoding and not (self._speaking and self._vocoded_last):
            self._vocoded_last = True
            outcomes += self._vocode(vocoding)
        elif self._speaking:
            self._vocoded_last = False
            outcomes += self._speak()
        elif self._speeches:
            wait_a_moment([speech.heard for speech in self._speeches.values() if speech.heard is not None])
        return outcomes

    @property
    def _speaking(self) -> bool:
        return self._session is not None and self._session.busy

    def _can_begin(self, speech: Speech) -> bool:
        if speech.stage == "listening" and not speech.heard.done():
            return False
        return speech.stage in ("waiting", "listening") and not (
            self._session is not None and self._session.full
        )

    def _begin(self, speech: Speech) -> Outcomes:
        """Lets a request speak, or starts processing its recordings."""
        try:
            self._runtime.run(partial(self._enter, speech), component="t3", restart=self._restart)
        except ModelBrokenError:
            raise
        except Exception as error:
            return [self._failed(speech, error)]
        return []

    def _enter(self, speech: Speech) -> None:
        if speech.stage not in ("waiting", "listening"):
            return
        speech.began = speech.began or time.perf_counter()
        heard, speech.heard = speech.heard, None
        speech.voice = heard.result() if heard is not None else speech.voice or self._voice_of(speech)
        if speech.voice is None:
            speech.heard = self._listen(speech)
            speech.stage = "listening"
            return
        if self._session is None:
            speech.stage = "vocoding"
            return
        conditionals = speech.voice.t3
        if speech.exaggeration is not None:
            conditionals = conditionals.with_emotion(speech.exaggeration)
        self._session.admit(
            T3Request(
                speech.id,
                speech.text,
                conditionals,
                seed=speech.draw_seed,
                sampling=speech.sampling,
                cfg_weight=speech.guidance,
                max_tokens=speech.max_tokens,
            )
        )
        speech.stage = "speaking"

    # -- T3 --------------------------------------------------------------------------------

    def _speak(self, threads: int | None = None) -> Outcomes:
        """One step of T3 for all speaking requests; `threads` as in `T3Session.step`."""
        began = time.perf_counter()
        try:
            step = partial(self._session_step, threads)
            events = self._runtime.run(step, component="t3", restart=self._restart)
        except ModelBrokenError:
            raise
        except Exception as error:
            # The request at fault is unknown, and the session cannot be used again.
            failures: Outcomes = [self._failed(speech, error) for speech in self._in_session()]
            self.renew()
            return failures
        spent = time.perf_counter() - began
        outcomes: Outcomes = []
        for event in events:
            speech = self._speeches.get(event.id)
            if speech is None:
                continue
            speech.spend("t3", spent / len(events))
            try:
                self._take(speech, event)
            except Exception as error:
                outcomes.append(self._failed(speech, error))
        return outcomes

    def _session_step(self, threads: int | None) -> list[TokenEvent]:
        events = self._session.step(threads)
        device = self._runtime.actual
        if device != "cpu" and any(event.error is not None for event in events):
            raise WrongResultsError(
                f"{device} computes wrong results: t3.logits has numbers that are not finite"
            )
        return events

    @staticmethod
    def _take(speech: Speech, event: TokenEvent) -> None:
        if event.error is not None:
            raise event.error
        if event.token is not None:
            speech.tokens.append(event.token)
        if event.finish_reason is not None:
            speech.end(event.finish_reason)

    def _in_session(self) -> list[Speech]:
        if self._session is None:
            return []
        return [self._speeches[id] for id in self._session.live if id in self._speeches]

    # -- S3Gen -----------------------------------------------------------------------------

    def _to_vocode(self) -> list[Speech]:
        """The requests with something to vocode, most urgent first."""
        running = [job for _, job in self._lanes.running]
        ready = [speech for speech in self._speeches.values() if speech.job not in running and speech.ready]
        return sorted(ready, key=lambda speech: speech.urgency)

    def _vocode(self, ready: list[Speech]) -> Outcomes:
        """One stage of vocoding the most urgent request, on a GPU together with others of similar length."""
        group: list[tuple[Speech, Job]] = []

        def stage() -> list[np.ndarray | Exception] | None:
            if self._group is None:
                self._group = self._gathered(ready)
            group[:] = self._group.members
            results = self._group.advance()
            if results is not None:
                self._group = None
                self._check(results)
            return results

        began = time.perf_counter()
        try:
            results = self._runtime.run(stage, component="s3gen", restart=self._restart)
        except ModelBrokenError:
            raise
        except Exception as error:
            self._group = None
            return [self._failed(speech, error) for speech, job in group if self._works_on(speech, job)]
        spent = (time.perf_counter() - began) / max(1, len(group))
        outcomes: Outcomes = []
        for number, (speech, job) in enumerate(group):
            if self._works_on(speech, job):
                outcomes += self._vocoded(speech, None if results is None else results[number], spent)
        return outcomes

    def _gathered(self, ready: list[Speech]) -> _Group:
        """The requests to vocode together. A request that began again must speak first."""
        way = self._runtime.way.s3gen
        members: list[tuple[Speech, Job]] = []
        for speech in ready:
            if not speech.prepare(way, self._finish):
                continue
            longest = max(len(speech.job.tokens), *(len(job.tokens) for _, job in members), 0)
            total = longest * (len(members) + 1)
            if members and (total > _TOGETHER or longest > 2 * len(speech.job.tokens)):
                continue
            if members and speech.decoding.steps != members[0][0].decoding.steps:
                continue
            members.append((speech, speech.job))
            if self._runtime.actual == "cpu" or len(members) == self._runtime.batch:
                break
        return _Group(members)

    def _check(self, results: list[np.ndarray | Exception]) -> None:
        """Raises an error that is the device's failure rather than one request's."""
        device = self._runtime.actual
        for result in results:
            if isinstance(result, Exception):
                if classify(result, device) is not None:
                    raise result
            elif device != "cpu":
                require_finite("s3gen", result, device)

    def _works_on(self, speech: Speech, job: Job) -> bool:
        """Whether a request still needs a chunk: it was not cancelled and did not begin again."""
        return self._speeches.get(speech.id) is speech and speech.job is job

    def _vocoded(self, speech: Speech, samples: np.ndarray | Exception | None, spent: float) -> Outcomes:
        speech.spend("s3gen", spent)
        speech.working += spent
        if samples is None:
            return []
        if isinstance(samples, Exception):
            return [self._failed(speech, samples)]
        tokens, final = len(speech.job.tokens), speech.job.final
        samples = speech.give(samples)
        if samples is None:
            return []
        if not final:
            return [speech.chunk(samples, tokens)] if len(samples) else []
        del self._speeches[speech.id]
        self._runtime.after_request()
        return [Chunk(speech.id, samples, self._metadata(speech), last=True)]

    # -- side by side ----------------------------------------------------------------------

    def _count(self, vocoding: list[Speech], others: list[Speech]) -> int:
        """How many jobs to run in parallel: vocoding, and T3 if it has other requests to speak for.

        A single request finishes sooner with one job after the other.
        """
        if self._runtime.actual != "cpu":
            return 1
        return self._lanes.count(len(self._lanes.running) + len(vocoding) + bool(others))

    def _others_speak(self, vocoding: list[Speech]) -> list[Speech]:
        """The requests that are speaking and have nothing to vocode yet."""
        vocoded = {speech.id for speech in [*vocoding, *(speech for speech, _ in self._lanes.running)]}
        return [speech for speech in self._in_session() if speech.id not in vocoded]

    def _work_together(self, vocoding: list[Speech], others: list[Speech], count: int) -> Outcomes:
        """Runs a step of T3 while requests are vocoded; returns what is done then. `count` is `_count`'s."""
        outcomes: Outcomes = []
        threads = max(1, torch.get_num_threads() // max(1, count))
        # A step of T3 takes about as long for one request as for many. So T3 gets its own lane only for a
        # stream, whose listener waits. For others it runs alongside, so that more requests speak together.
        listened = any(speech.request.stream for speech in others)
        room = count - len(self._lanes.running) - listened
        for speech in vocoding[: max(0, room)]:
            try:
                speech.prepare(self._runtime.way.s3gen, self._finish)
                self._lanes.start((speech, speech.job), partial(advance, speech.job.stages), threads)
            except Exception as error:
                outcomes.append(self._failed(speech, error))
        speaking = self._speaking
        if speaking:
            outcomes += self._speak(threads)
        for done in self._lanes.finished(0.0 if speaking else MOMENT):
            if self._works_on(*done.key):
                outcomes += self._vocoded(done.key[0], done.result, done.seconds)
        return outcomes

    # -- ends ------------------------------------------------------------------------------

    def _failed(self, speech: Speech, error: Exception) -> Failure:
        self.cancel(speech.id)
        self._runtime.after_request()
        return Failure.of(speech.id, error)

    def _restart(self) -> None:
        """Begins all running requests again, after the passes were replaced."""
        self._group = None
        for speech in self._speeches.values():
            speech.restart()
