"""Speaks with a T3 in a continuous batch: requests join and leave between steps.

A step reads at most one piece of a voice or text (for the oldest request that waits for one) and draws one
token for every request that is speaking. So the length of a step is bounded, a cancelled request leaves
before the next step, and no request waits for another one's paragraph.

**The tokens of a request do not depend on other requests.** A pass computes each row in its own order,
whatever else is in the batch; a voice is read by itself and kept for the next request; every request draws
with its own random numbers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ChatterbexError
from .conditionals import T3Conditionals
from .conditioning import Front
from .config import Sampling, T3Config
from .native import Sampler
from .passes import PIECE, Pass, Prefix
from .runaway import Repetition

# The size of the KV cache for voices: 3 voices of turbo, 9 of nano, 30 of english.
_VOICES = 256 * 1024 * 1024


@dataclass(frozen=True)
class T3Request:
    """One text to speak.

    Attributes:
        id: any hashable value; the events carry it.
        text_tokens: text token ids, with the model's start and stop ids if it has any.
        conditionals: the voice.
        seed: the same seed gives the same speech.
        sampling: how tokens are drawn; None for the model's defaults.
        cfg_weight: guidance, 0 or more; None for the model's default. 0 needs half the work.
        max_tokens: the most tokens to draw.
        detect_runaway: end the speech when the model has lost the text.
    """

    id: object
    text_tokens: Sequence[int] | Tensor
    conditionals: T3Conditionals
    seed: int
    sampling: Sampling | None = None
    cfg_weight: float | None = None
    max_tokens: int = 1000
    detect_runaway: bool = True


@dataclass(frozen=True)
class TokenEvent:
    """The outcome of one step for one request.

    Attributes:
        id: the request's id.
        token: a speech token below `speech_codes`, or None if the step drew no audible token.
        finish_reason: None while the request continues. "stop": the model ended it; "limit":
            `max_tokens` or the model's own limit was reached; "runaway": the model lost the text;
            "failed": see `error`. No event follows.
        error: what went wrong.
    """

    id: object
    token: int | None = None
    finish_reason: str | None = None
    error: ChatterbexError | None = None


@dataclass
class _Live:
    """An admitted, unfinished request."""

    request: T3Request
    text: list[int]
    guidance: float
    limit: int
    positions: int  # of the whole sequence, at most
    sampler: Sampler
    repetition: Repetition | None
    slots: list[Any] = field(default_factory=list)
    unread: Tensor | None = None  # (1 or 2, T, dim) embeddings of the voice or the text that is being read
    read: int = 0  # positions of `unread` that were read
    in_text: bool = False  # whether `unread` is the text
    fed: int | None = None  # the token to feed next; None while reading


@dataclass
class Stats:
    """Figures of a session since it was made."""

    steps: int = 0
    tokens: int = 0
    requests: int = 0
    voices_read: int = 0
    voices_kept: int = 0


class T3Session:
    """A running batch on one T3.

    It belongs to a pass, and so to a device. If the device changes, make a new session.

    Attributes:
        max_batch: the most requests at once.
        stats: figures for telemetry.
    """

    def __init__(self, front: Front, way: Pass, max_batch: int = 8, *, voice_cache: int = _VOICES) -> None:
        """Makes an empty session.

        Args:
            front: makes the embeddings of voices and texts.
            way: the pass that computes for it.
            max_batch: the most requests at once; a further `admit` is refused. It is lowered if the pass has
                too few rows.
            voice_cache: the size of the KV cache for voices, in bytes.
        """
        self._front = front
        self._config = front.config
        self._pass = way
        self.max_batch = min(max_batch, way.rows // rows_of_request(front.config))
        self.stats = Stats()
        self._voices = PrefixCache(voice_cache)
        self._live: dict[object, _Live] = {}

    # -- requests --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a step has work to do."""
        return bool(self._live)

    @property
    def live(self) -> list[object]:
        """Ids of the admitted requests, in the order in which they came."""
        return list(self._live)

    @property
    def full(self) -> bool:
        """Whether another request would be refused."""
        return len(self._live) >= self.max_batch

    @property
    def nbytes(self) -> int:
        """Bytes in the KV cache of running requests and of voices."""
        return self._pass.nbytes + self._voices.nbytes

    def admit(self, request: T3Request) -> None:
        """Adds a request. It begins with the next step.

        Raises:
            ChatterbexError: `overloaded` if there are `max_batch` requests already; `invalid_text`,
                `invalid_option` or `not_supported` if the request cannot be spoken.
        """
        if request.id in self._live:
            raise _refused("invalid_option", f"A request with id {request.id!r} is running.")
        if self.full:
            raise _refused(
                "overloaded",
                f"All {self.max_batch} places of the batch are taken. Try again when one is free.",
            )
        config = self._config
        text = _text_ids(request.text_tokens, config)
        sampling = _checked_sampling(request.sampling or config.sampling, config)
        guidance = _checked_guidance(request.cfg_weight, config)
        self._front.check(request.conditionals)
        voice = self._front.voice_length(request.conditionals)
        limit = self._limit(request, voice, len(text))

        self._live[request.id] = _Live(
            request=request,
            text=text,
            guidance=guidance,
            limit=limit,
            positions=voice + len(text) + config.speech_starts + limit,
            sampler=Sampler(config, sampling, request.seed % 2**64),
            repetition=Repetition() if request.detect_runaway else None,
        )
        self.stats.requests += 1

    def cancel(self, request_id: object) -> None:
        """Forgets a request at once; it sends no more events. Unknown ids are ignored."""
        live = self._live.pop(request_id, None)
        if live is not None:
            self._close(live)

    def drawn(self, request_id: object) -> list[int]:
        """All ids that a running request has drawn, including inaudible ones."""
        return list(self._live[request_id].sampler.drawn)

    def clear(self) -> None:
        """Forgets all requests and voices."""
        for id in self.live:
            self.cancel(id)
        self._voices.clear()

    # -- steps -----------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self, threads: int | None = None) -> list[TokenEvent]:
        """Reads one piece, and draws one token for each request that speaks.

        A request with numbers that are not finite ends with "failed"; the others continue.

        Args:
            threads: how many threads the CPU may use for this step; None for the usual number. The
                tokens do not depend on it.

        Returns:
            At most one event per request; none for a request that is still being read.

        Raises:
            Exception: whatever the device raises. Do not use the session after that.
        """
        self.stats.steps += 1
        self._pass.use(threads)
        speaking = [live for live in self._live.values() if live.fed is not None]
        events: list[TokenEvent] = []
        reading = next((live for live in self._live.values() if live.fed is None), None)
        if reading is not None:
            logits = self._read(reading)
            if logits is not None:
                events.append(self._draw(reading, logits))
        if speaking:
            events += self._speak(speaking)
        for event in events:
            if event.finish_reason is not None:
                self.cancel(event.id)
        return events

    def _read(self, live: _Live) -> Tensor | None:
        """Reads one piece; (rows, V) logits when all is read."""
        if live.unread is None:
            self._begin(live)
        piece = live.unread[:, live.read : live.read + PIECE]
        live.read += piece.shape[1]
        last = live.read == live.unread.shape[1]
        logits = self._pass.read(live.slots, piece, want=last and live.in_text)
        if not last:
            return None
        live.unread, live.read = None, 0
        if live.in_text:
            return logits
        [slot] = live.slots
        prefix = self._pass.prefix(slot)
        self._close(live)
        self._voices.put(self._voice_key(live), prefix)
        self._begin_text(live, prefix)
        return None

    def _begin(self, live: _Live) -> None:
        """Finds the voice in the cache, or starts to read it."""
        kept = self._voices.get(self._voice_key(live))
        if kept is not None:
            self.stats.voices_kept += 1
            self._begin_text(live, kept)
            return
        live.unread = self._front.voice(live.request.conditionals)[None]
        live.slots = [self._pass.open(live.unread.shape[1])]
        self.stats.voices_read += 1

    def _begin_text(self, live: _Live, voice: Any) -> None:
        live.in_text = True
        live.unread = self._front.text(live.text, live.guidance > 0)
        live.slots = [self._pass.open(live.positions, voice) for _ in range(live.unread.shape[0])]

    def _close(self, live: _Live) -> None:
        for slot in live.slots:
            self._pass.close(slot)
        live.slots = []

    def _speak(self, group: Sequence[_Live]) -> list[TokenEvent]:
        """Feeds each request's last token and draws its next."""
        slots = [slot for live in group for slot in live.slots]
        tokens = [live.fed for live in group for _ in live.slots]
        steps = [len(live.sampler.drawn) for live in group for _ in live.slots]
        logits = self._pass.step(slots, tokens, steps)  # (M, V)
        events, first = [], 0
        for live in group:
            events.append(self._draw(live, logits[first : first + len(live.slots)]))
            first += len(live.slots)
        return events

    def _draw(self, live: _Live, logits: Tensor) -> TokenEvent:
        """Draws one token from a request's (1 or 2, V) logits."""
        config, request = self._config, live.request
        scores = logits[:1]
        if live.guidance:
            scores = scores + live.guidance * (scores - logits[1:])
        try:
            token = live.sampler.draw(scores)
        except (FloatingPointError, RuntimeError) as error:
            return TokenEvent(request.id, None, "failed", _undrawable(error))
        self.stats.tokens += 1
        if token == config.stop_speech:
            return TokenEvent(request.id, None, "stop")
        live.fed = token
        heard = token if token < config.speech_codes else None
        if len(live.sampler.drawn) >= live.limit:
            return TokenEvent(request.id, heard, "limit")
        if live.repetition is not None and live.repetition.stuck(live.sampler.drawn):
            return TokenEvent(request.id, heard, "runaway")
        return TokenEvent(request.id, heard)

    # -- sizes -----------------------------------------------------------------------------

    def _voice_key(self, live: _Live) -> str:
        return live.request.conditionals.fingerprint(emotion=self._config.emotion)

    def _limit(self, request: T3Request, voice: int, text: int) -> int:
        config = self._config
        if request.max_tokens < 1:
            raise _refused("invalid_option", "max_tokens must be at least 1.")
        room = config.positions - voice - text - config.speech_starts
        if room < 1:
            raise _refused(
                "invalid_text",
                f"The text has {text} tokens, and with this voice the model has room for "
                f"{max(0, text + room - 1)}. Cut it into sentences.",
            )
        return min(request.max_tokens, config.max_speech_tokens, room)


class PrefixCache:
    """The KV cache of voices. It drops the least recently used first."""

    def __init__(self, limit: int) -> None:
        """Keeps at most `limit` bytes."""
        self._limit = limit
        self._entries: OrderedDict[str, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(entry.nbytes for entry in self._entries.values())

    def get(self, key: str) -> Prefix | None:
        """The entry, which counts as used now, or None."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Prefix) -> None:
        """Keeps an entry, unless the entry alone is over the limit."""
        if entry.nbytes > self._limit:
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while self.nbytes > self._limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Drops everything."""
        self._entries.clear()


def rows_of_request(config: T3Config) -> int:
    """The most sequences that a request needs: guidance compares two."""
    return 2 if config.guided else 1


def _text_ids(tokens: Sequence[int] | Tensor, config: T3Config) -> list[int]:
    ids = tokens.reshape(-1).tolist() if torch.is_tensor(tokens) else [int(t) for t in tokens]
    if not ids:
        raise _refused("invalid_text", "There are no text tokens to speak.")
    framed = config.start_text is not None
    if framed and (ids[0] != config.start_text or ids[-1] != config.stop_text or len(ids) < 3):
        raise _refused(
            "invalid_text",
            f"The text tokens must begin with {config.start_text}, end with {config.stop_text} "
            "and have something between.",
        )
    limit = config.max_text_tokens + (2 if framed else 0)
    if len(ids) > limit:
        raise _refused(
            "invalid_text",
            f"The text has {len(ids)} tokens and the model accepts {limit}. Cut it into sentences.",
        )
    if min(ids) < 0 or max(ids) >= config.text_vocab:
        raise _refused("invalid_text", f"A text token is not within 0..{config.text_vocab - 1}.")
    return ids


def _checked_sampling(sampling: Sampling, config: T3Config) -> Sampling:
    ranges = {
        "temperature": (sampling.temperature, 0.0, 100.0),
        "repetition_penalty": (sampling.repetition_penalty, 0.01, 100.0),
        "top_p": (sampling.top_p, 0.0, 1.0),
        "min_p": (sampling.min_p, 0.0, 1.0),
        "top_k": (sampling.top_k, 0, 10**9),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:  # not so for NaN either
            raise _refused("invalid_option", f"{name} must be within {low}..{high}, not {value}.")
    if 0 < sampling.temperature < 1e-3:
        raise _refused("invalid_option", "temperature must be 0 or at least 0.001.")
    if config.guided and sampling.top_k:
        raise _refused("not_supported", "This model has no top_k; use min_p or top_p.")
    if not config.guided and sampling.min_p:
        raise _refused("not_supported", "This model has no min_p; use top_k or top_p.")
    return sampling


def _checked_guidance(weight: float | None, config: T3Config) -> float:
    weight = config.cfg_weight if weight is None else float(weight)
    if not (math.isfinite(weight) and weight >= 0):
        raise _refused("invalid_option", f"cfg_weight must be 0 or more, not {weight}.")
    if weight and not config.guided:
        raise _refused("not_supported", "This model has no guidance; leave cfg_weight out.")
    return weight


def _refused(reason: str, message: str) -> ChatterbexError:
    return ChatterbexError(reason, message)


def _undrawable(error: Exception) -> ChatterbexError:
    return ChatterbexError(
        "generation_failed",
        f"No token could be drawn: {error}. The weights may be damaged, or the device computes "
        'wrongly: try device "cpu".',
        {"exception": repr(error)},
    )
