"""Speaking with a T3: requests join and leave between steps.

A step does at most one piece of reading-in (the voice and the text of the oldest request that
waits for it) and one token for every request that is speaking. So a step's length is bounded, a
cancelled request is gone with the next step, and nobody waits for a stranger's paragraph.

**The tokens of a request depend on nobody else.** On CPU in float32 they are the same to the bit
alone and in any company: reading-in is done for one request at a time in pieces of fixed size, a
voice is read in by itself (and kept for the next request), every request draws with its own
generator, and the matrices are multiplied by a kernel, and attention is computed in a way, in which
rows do not affect each other. These last are tried out; where a machine's BLAS does not give it, each
request is computed by itself, which is slower in a batch and equally right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ChatterbexError
from ..threads import torch_threads
from . import shared_attention
from .attention import (
    BatchedDecodeAttention,
    DecodeAttention,
    PrefillAttention,
    Row,
    Watch,
)
from .backbone import Attention
from .cache import KeyValueCache, PrefixCache
from .conditionals import T3Conditionals
from .config import Sampling, T3Config
from .model import T3
from .runaway import AlignmentMonitor, Repetition
from .sampling import Sampler
from .shared_attention import SharedAttention

# Positions that are read in at a time: enough to keep the matrix units busy, few enough that the
# others' next tokens are not long in coming.
_PIECE = 64

# Keys and values of voices that are kept: 3 voices of turbo, 9 of nano, 30 of english.
_VOICES = 256 * 1024 * 1024

_HELD = -(2.0**15)  # the logit of a stop that must not be; finite, so that the penalty can scale it


@dataclass(frozen=True)
class T3Request:
    """One text to speak.

    Attributes:
        id: anything hashable that the events will carry.
        text_tokens: text token ids, with the model's start and stop ids where it has any.
        conditionals: the voice, on the model's device.
        seed: what makes the speech repeatable.
        sampling: how tokens are drawn; None for the model's defaults.
        cfg_weight: guidance, 0 or more; None for the model's default. 0 needs half the work.
        max_tokens: most tokens that are drawn.
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
    """What one step brought for one request.

    Attributes:
        id: the request's.
        token: a speech token below `speech_codes`, or None if none came that can be heard.
        finish_reason: None while it goes on. "stop": the model ended it; "limit": `max_tokens`
            or the model's own limit was reached; "runaway": the model had lost the text;
            "failed": see `error`. No event comes after it.
        error: what went wrong.
    """

    id: object
    token: int | None = None
    finish_reason: str | None = None
    error: ChatterbexError | None = None


@dataclass
class _Live:
    """A request that has a place in the cache."""

    request: T3Request
    text: list[int]
    guidance: float
    limit: int
    sampler: Sampler
    rows: list[Row]
    repetition: Repetition | None
    monitor: AlignmentMonitor | None
    read: int = 0  # positions that are in the cache
    prefix: int = 0  # how many of them are the voice's, once that is known
    unread: Tensor | None = None  # (1 or 2, T, dim) embeddings of the part that is being read in
    fed: int | None = None  # the token to feed next; None while reading in

    @property
    def indices(self) -> list[int]:
        return [row.index for row in self.rows]


@dataclass
class Stats:
    """Figures of a session, since it was made."""

    steps: int = 0
    tokens: int = 0
    requests: int = 0
    voices_read: int = 0
    voices_kept: int = 0


@dataclass
class _Order:
    """Live requests in the order in which they came."""

    live: dict[object, _Live] = field(default_factory=dict)

    @property
    def reading(self) -> _Live | None:
        return next((one for one in self.live.values() if one.fed is None), None)

    @property
    def speaking(self) -> list[_Live]:
        return [one for one in self.live.values() if one.fed is not None]


class T3Session:
    """A running batch on one T3.

    It belongs to the device that the model is on when the session is made; after moving the model,
    make a new one.

    Attributes:
        max_batch: most requests at once.
        together: whether the rows of different requests are multiplied together.
        stats: figures for telemetry.
    """

    def __init__(
        self,
        t3: T3,
        max_batch: int = 8,
        *,
        eager_attention: bool = False,
        kernel: str | None = None,
        together: bool | None = None,
        batched_attention: bool | None = None,
        voice_cache: int = _VOICES,
    ) -> None:
        """Makes a session with nothing in it.

        Args:
            t3: the model, on its device.
            max_batch: most requests at once; a further `admit` is refused.
            eager_attention: write attention out, where the fused one is not to be trusted.
            kernel: how big products are computed, a name of `linear.KERNELS`; None for the best.
            together: None: find out on CPU in float32, yes elsewhere.
            batched_attention: one padded attention for all rows, whose last bits may depend on who they
                are; None: no on CPU, yes elsewhere.
            voice_cache: bytes of keys and values kept of voices that were spoken.
        """
        self._t3 = t3
        self._device = t3.device
        self.max_batch = max_batch
        self.stats = Stats()
        t3.prepare(kernel)
        config = t3.config
        on_cpu = self._device.type == "cpu"
        most = max_batch * (2 if config.guided else 1)
        if together is None:
            together = not on_cpu or t3.dtype != torch.float32 or t3.rows_are_exact(most)
        self.together = together
        self._most = most
        self._eager = eager_attention
        self._batched = batched_attention if batched_attention is not None else not on_cpu
        self._shared = (
            not (self._batched or eager_attention)
            and on_cpu
            and t3.dtype == torch.float32
            and shared_attention.is_exact(config.heads, config.head_dim, 0)
        )
        self._rowwise = on_cpu
        self._cache = KeyValueCache(config.layers, config.heads, config.head_dim, self._device, t3.dtype)
        self._voices = PrefixCache(voice_cache)
        self._order = _Order()

    # -- requests --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._order.live)

    @property
    def live(self) -> list[object]:
        """Ids of the requests that are in, in the order in which they came."""
        return list(self._order.live)

    @property
    def full(self) -> bool:
        """Whether a further request would be refused."""
        return len(self._order.live) >= self.max_batch

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values: of running requests and of voices."""
        return self._cache.nbytes + self._voices.nbytes

    @torch.inference_mode()
    def admit(self, request: T3Request) -> None:
        """Takes a request in; it speaks from the next steps on.

        Raises:
            ChatterbexError: `overloaded` if `max_batch` are in; `invalid_text`,
                `invalid_option` or `not_supported` if it cannot be spoken.
        """
        if request.id in self._order.live:
            raise _refused("invalid_option", f"A request with id {request.id!r} is running.")
        if self.full:
            raise _refused(
                "overloaded",
                f"All {self.max_batch} places of the batch are taken. Try again when one is free.",
            )
        config = self._t3.config
        text = _text_ids(request.text_tokens, config)
        sampling = _checked_sampling(request.sampling or config.sampling, config)
        guidance = _checked_guidance(request.cfg_weight, config)
        self._t3.check_voice(request.conditionals)
        voice = self._voice_length(request.conditionals)
        limit = self._limit(request, voice, len(text))
        length = voice + len(text) + config.speech_starts + limit
        if self._shared:
            length = shared_attention.room(length)
        indices = self._cache.acquire(2 if guidance else 1, length)

        watch = monitor = None
        if request.detect_runaway and config.alignment is not None:
            watch = Watch(config.alignment.heads, range(voice, voice + len(text)))
            monitor = AlignmentMonitor(config.alignment, len(text))
        self._order.live[request.id] = _Live(
            request=request,
            text=text,
            guidance=guidance,
            limit=limit,
            sampler=Sampler(config, sampling, request.seed, limit),
            rows=[Row(index, 0, None if number else watch) for number, index in enumerate(indices)],
            repetition=Repetition() if request.detect_runaway else None,
            monitor=monitor,
        )
        self.stats.requests += 1

    def cancel(self, request_id: object) -> None:
        """Forgets a request at once; nothing more is heard of it. Unknown ids are ignored."""
        live = self._order.live.pop(request_id, None)
        if live is not None:
            self._cache.release(live.indices)

    def drawn(self, request_id: object) -> list[int]:
        """All ids that a running request has drawn, those that cannot be heard included."""
        return list(self._order.live[request_id].sampler.drawn)

    def clear(self) -> None:
        """Forgets all requests and voices and gives their memory back."""
        self._order.live.clear()
        self._cache.clear()
        self._voices.clear()

    # -- steps -----------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self, threads: int | None = None) -> list[TokenEvent]:
        """One piece of reading-in, and one token for each that speaks.

        A request whose numbers turn out not to be finite ends with "failed"; the others go on.

        Args:
            threads: how many of torch's threads are enough for those that speak. It is more where
                fewer would change the tokens, and for reading-in, where they mostly would.

        Returns:
            At most one event per request; none for one that is still being read in.

        Raises:
            Exception: whatever the device raises. The session is then to be thrown away.
        """
        self.stats.steps += 1
        speaking = self._order.speaking
        events: list[TokenEvent] = []
        reading = self._order.reading
        if reading is not None:
            logits = self._read(reading)
            if logits is not None:
                events.append(self._draw(reading, logits))
        groups = [speaking] if self.together else [[live] for live in speaking]
        with torch_threads(self._threads(threads)):
            for group in groups:
                if group:
                    events += self._speak(group)
        for event in events:
            if event.finish_reason == "failed":
                self._cache.wipe(self._order.live[event.id].indices)
            if event.finish_reason is not None:
                self.cancel(event.id)
        return events

    def _threads(self, wanted: int | None) -> int:
        usual = torch.get_num_threads()
        if wanted is None or wanted == usual or not self._t3.is_exact_with(wanted, self._most):
            return usual
        return wanted

    def _read(self, live: _Live) -> Tensor | None:
        """Reads in one piece; (rows, V) logits on the CPU when all is read."""
        if live.unread is None:
            if live.read == 0:
                self._begin(live)
            if live.read:  # the voice is in
                live.unread = self._t3.text_embeddings(live.text, live.guidance > 0)
        voice = live.read < live.prefix
        count, total, dim = live.unread.shape
        start = live.read if voice else live.read - live.prefix
        piece = live.unread[:, start : start + _PIECE]
        length = piece.shape[1]
        attention = PrefillAttention(self._cache, live.indices[:count], live.read, length, self._eager)
        attention.watch = None if voice else live.rows[0].watch
        positions = torch.arange(live.read, live.read + length, device=self._device).repeat(count)
        hidden = self._t3.hidden(piece.reshape(-1, dim), positions, attention)
        live.read += length
        if start + length < total:
            return None
        live.unread = None
        if voice:
            self._keep(live)
            return None
        last = hidden.unflatten(0, (count, length))[:, -1]
        for row in live.rows:
            row.position = live.read
        return self._t3.logits(last).float().cpu()

    def _begin(self, live: _Live) -> None:
        """Finds the voice among those that were spoken, or starts to read it in."""
        key = self._voice_key(live)
        kept = self._voices.get(key)
        if kept is not None:
            for index in live.indices:
                self._cache.copy_in(index, kept)
            live.prefix = live.read = kept.shape[3]
            self._share(live, kept)
            self.stats.voices_kept += 1
            return
        live.unread = self._t3.voice_embeddings(live.request.conditionals)[None]
        live.prefix = live.unread.shape[1]
        self.stats.voices_read += 1

    def _keep(self, live: _Live) -> None:
        """Keeps the voice that was just read in, for this request's other row and for others."""
        prefix = self._cache.copy_out(live.indices[0], live.prefix)
        for index in live.indices[1:]:
            self._cache.copy_in(index, prefix)
        self._voices.put(self._voice_key(live), prefix)
        self._share(live, prefix)

    def _share(self, live: _Live, voice: Tensor) -> None:
        """Lets a voice's keys and values be read once for all rows that have it, if that is worth it."""
        config, length = self._t3.config, voice.shape[3]
        if not (self._shared and shared_attention.is_long(length)):
            return
        if shared_attention.is_exact(config.heads, config.head_dim, length):
            for row in live.rows:
                row.voice = voice

    def _speak(self, group: list[_Live]) -> list[TokenEvent]:
        """Feeds each request's last token and draws its next."""
        group = sorted(group, key=lambda live: live.indices)  # rows side by side are read in one call
        rows = [row for live in group for row in live.rows]
        fed = [live.fed for live in group for _ in live.rows]
        steps = [len(live.sampler.drawn) for live in group for _ in live.rows]
        numbers = torch.tensor([fed, steps, [row.position for row in rows]]).to(self._device)
        x = self._t3.speech_embeddings(numbers[0], numbers[1])  # (M, dim)
        hidden = self._t3.hidden(x, numbers[2], self._attention(rows), self._rowwise)
        logits = self._t3.logits(hidden).float().cpu()  # (M, V)

        events, first = [], 0
        for live in group:
            for row in live.rows:
                row.position += 1
            events.append(self._draw(live, logits[first : first + len(live.rows)]))
            first += len(live.rows)
        return events

    def _attention(self, rows: list[Row]) -> Attention:
        if self._shared:
            return SharedAttention(self._cache, rows)
        if self._batched and len(rows) > 1:
            return BatchedDecodeAttention(self._cache, rows, self._eager)
        return DecodeAttention(self._cache, rows, self._eager)

    def _draw(self, live: _Live, logits: Tensor) -> TokenEvent:
        """Draws one token from a request's (1 or 2, V) logits."""
        config, request = self._t3.config, live.request
        scores = logits[:1]
        if live.guidance:
            scores = scores + live.guidance * (scores - logits[1:])
        if live.monitor is not None:
            watch = live.rows[0].watch
            seen = watch.take() if watch is not None else None
            if seen is not None:
                verdict = live.monitor.see(seen.float())
                if verdict.runaway:
                    return TokenEvent(request.id, None, "runaway")
                if verdict.hold_stop:
                    scores = scores.clone()
                    scores[:, config.stop_speech] = _HELD
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
        return live.request.conditionals.fingerprint(emotion=self._t3.config.emotion)

    def _voice_length(self, voice: T3Conditionals) -> int:
        config = self._t3.config
        length = 2 if config.emotion else 1
        if voice.cond_prompt_speech_tokens is not None:
            length += config.perceiver_queries or voice.cond_prompt_speech_tokens.numel()
        return length

    def _limit(self, request: T3Request, voice: int, text: int) -> int:
        config = self._t3.config
        if request.max_tokens < 1:
            raise _refused("invalid_option", "max_tokens must be at least 1.")
        room = config.positions - voice - text - config.speech_starts
        if room < 1:
            raise _refused(
                "invalid_text",
                f"The text has {text} tokens, and beside this voice the model has room for "
                f"{max(0, text + room - 1)}. Cut it into sentences.",
            )
        return min(request.max_tokens, config.max_speech_tokens, room)


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
    most = config.max_text_tokens + (2 if framed else 0)
    if len(ids) > most:
        raise _refused(
            "invalid_text",
            f"The text has {len(ids)} tokens and the model takes {most}. Cut it into sentences.",
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
