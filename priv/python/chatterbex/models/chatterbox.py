"""What the Chatterbox models share: loading, the running batch, voices, and the way to samples.

A request waits for its voice (made once, and kept), speaks (T3: speech tokens, step by step for
the whole batch) and is vocoded (S3Gen: samples, whole or in chunks). A step of the model is one
step of T3 or one stage of vocoding, in turns where both have something to do. On a CPU with several
threads it is several of these side by side.
"""

from __future__ import annotations

import abc
import importlib.metadata
import logging
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from chatterbex import checkpoint, s3gen, upstream, voices, watermark
from chatterbex.device import Runtime
from chatterbex.errors import ChatterbexError, ModelBrokenError
from chatterbex.models import speech
from chatterbex.models.base import Chunk, Failure, Model, Notice, Request
from chatterbex.models.lanes import Lanes
from chatterbex.models.speech import Speech
from chatterbex.s3gen import RATE, SILENCE, Decoding
from chatterbex.t3 import T3, Sampling, T3Config, T3Request, T3Session
from chatterbex.text import most_tokens
from chatterbex.voices import Audio, Family, Voice, VoiceCache, VoiceMaker

_MAX_BATCH = 8
_WARM_UP = 290  # tokens: 11.6 s, for what fails only beyond 11 s
_MAX_TOKENS = 1000
_RETRIES = 2
_MOMENT = 0.05  # seconds that a step waits for vocoding, for others may come and want something
_QUIETEST = 1e-3  # peak of speech that is called silent: -60 dB

M = TypeVar("M", bound="ChatterboxModel")
_logger = logging.getLogger("chatterbex.models")


@dataclass
class Parts:
    """What is loaded from a model's folder, on the CPU.

    Attributes:
        s3gen: flow and vocoder.
        analysis: speech tokenizer and speaker encoder; they stay on the CPU.
        encoder: the voice encoder, or None; it stays there too.
        t3: text to speech tokens, or None.
        voice: the built-in one.
        text: the tokenizer, or None.
    """

    s3gen: s3gen.S3Gen
    analysis: s3gen.Analysis
    encoder: Any | None
    t3: T3 | None
    voice: Voice
    text: Any | None = None


@dataclass
class _Options:
    """What a model is loaded with."""

    folder: Path
    device: str = "auto"
    fallback: bool = True
    max_batch: int = _MAX_BATCH
    voices: int = 32
    extra: dict[str, Any] = field(default_factory=dict)


class ChatterboxModel(Model):
    """Base of the models that speak text."""

    family: ClassVar[Family]
    s3gen_file: ClassVar[str]
    s3gen_strict: ClassVar[bool] = True
    encoder_file: ClassVar[str] = "ve.safetensors"
    meanflow: ClassVar[bool] = False
    silence: ClassVar[int] = 0
    """Tokens of silence that are spoken after the text."""
    dropped: ClassVar[int] = 0
    """Tokens at the end of a text that are not heard, for they are noise."""
    generation_options: ClassVar[frozenset[str]] = frozenset({"temperature", "repetition_penalty", "top_p"})

    def __init__(self, options: _Options, parts: Parts) -> None:
        """Takes what was loaded; `start` makes it ready."""
        self.max_batch = options.max_batch
        self._folder = options.folder
        self._extra = options.extra
        self._text = parts.text
        self._maker = VoiceMaker(self.family, parts.analysis, parts.encoder)
        self._watermarker = watermark.watermarker()
        self._speeches: dict[int, Speech] = {}
        self._session: T3Session | None = None
        self._vocoded_last = False
        self._lanes: Lanes[tuple[Speech, speech.Job], np.ndarray | None] = Lanes()
        self._runtime = Runtime(
            self._components(parts, VoiceCache(options.voices)),
            requested=options.device,
            fallback=options.fallback,
            after=[self._moved],
            restore=self._restore,
            residents={"analysis": parts.analysis, "ve": parts.encoder},
        )

    # -- loading ---------------------------------------------------------------------------

    @classmethod
    def load(cls: type[M], options: Mapping[str, Any]) -> Generator[str, None, M]:
        """Loads the model; see `Model.load`.

        Args:
            options: "checkpoint" (str: the folder with the model's files), "device", "fallback",
                "threads", "max_batch", "max_voices" (how many voices are kept, default 32), and
                what the model adds.

        Yields:
            "packages", "files", "t3", "s3gen", "voices", "text", "watermark" and "device".

        Raises:
            ChatterbexError: Files are missing or damaged, or the device cannot be used and the CPU
                may not stand in.
        """
        yield "packages"
        chosen = _options(cls.name, options)
        upstream.s3gen()
        if cls.has_t3():
            upstream.voice_encoder()
        yield "files"
        checkpoint.check_files(chosen.folder, cls.files(chosen.folder, chosen.extra))
        loading = cls._load_parts(chosen.folder, chosen.extra)
        parts = yield from loading
        yield "watermark"
        model = cls(chosen, parts)
        yield "device"
        model.start()
        return model

    @classmethod
    def _load_parts(cls, folder: Path, extra: Mapping[str, Any]) -> Generator[str, None, Parts]:
        t3 = None
        if cls.has_t3():
            yield "t3"
            t3 = cls._load_t3(folder / cls.t3_file(folder, extra), extra)
        yield "s3gen"
        path, strict = folder / cls.s3gen_file, cls.strict(extra)
        network, analysis = s3gen.load(path, meanflow=cls.meanflow, strict=strict)
        yield "voices"
        encoder = voices.load_encoder(folder / cls.encoder_file) if cls.has_t3() else None
        voice = Voice.from_pickle(folder / "conds.pt", cls.family)
        if t3 is not None:
            t3.check_voice(voice.t3)
        text = None
        if cls.has_t3():
            yield "text"
            text = cls.load_text(folder)
        return Parts(network, analysis, encoder, t3, voice, text)

    @classmethod
    def _load_t3(cls, path: Path, extra: Mapping[str, Any]) -> T3:
        state = checkpoint.read_safetensors(path)
        try:
            return T3.from_state_dict(cls.t3_config(extra).fitted_to(state), state)
        except ChatterbexError as error:
            details = {**error.details, "file": path.name, "path": str(path)}
            raise ChatterbexError(error.reason, f"{path}: {error.message}", details) from error

    @classmethod
    def has_t3(cls) -> bool:
        """Whether the model speaks text."""
        return True

    @classmethod
    def strict(cls, extra: Mapping[str, Any]) -> bool:
        """Whether a weight of S3Gen that is not known is an error; as in upstream's own loading."""
        del extra
        return cls.s3gen_strict

    @classmethod
    @abc.abstractmethod
    def files(cls, folder: Path, extra: Mapping[str, Any]) -> tuple[str, ...]:
        """The files that must be there."""

    @classmethod
    @abc.abstractmethod
    def t3_file(cls, folder: Path, extra: Mapping[str, Any]) -> str:
        """The file of T3."""

    @classmethod
    @abc.abstractmethod
    def t3_config(cls, extra: Mapping[str, Any]) -> T3Config:
        """The published sizes of T3."""

    @classmethod
    @abc.abstractmethod
    def load_text(cls, folder: Path) -> Any:
        """The tokenizer."""

    @abc.abstractmethod
    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Text to T3's text tokens, start and stop around it where the model has them."""

    @staticmethod
    def _components(parts: Parts, cache: VoiceCache) -> dict[str, Any]:
        found = {
            "t3": parts.t3,
            "s3gen": parts.s3gen,
            "conds.t3": parts.voice.t3 if parts.t3 is not None else None,
            "conds.gen": parts.voice.gen,
            "voices": cache,
        }
        return {name: part for name, part in found.items() if part is not None}

    def _restore(self) -> Mapping[str, Any]:
        """The components anew, where a device has lost them."""
        loading = type(self)._load_parts(self._folder, self._extra)
        while True:
            try:
                next(loading)
            except StopIteration as stop:
                return self._components(stop.value, VoiceCache())

    def start(self) -> None:
        """Chooses the device, moves there, warms up."""
        self._moved("cpu")
        self._runtime.start(self.warm_up)

    def warm_up(self) -> None:
        """Speaks and vocodes more than 11 seconds, so that what fails only then fails now."""
        if self._session is not None:
            text = self.tokenize("A few words to warm up.", {"language": "en"})
            conditionals = self._runtime.components["conds.t3"]
            request = T3Request("warm-up", text, conditionals, seed=0, max_tokens=8, detect_runaway=False)
            self._session.admit(request)
            while self._session.busy:
                for event in self._session.step():
                    if event.error is not None:
                        raise event.error
        parts = self._runtime.components
        Decoding(parts["s3gen"], parts["conds.gen"], seed=0).decode([SILENCE] * _WARM_UP, final=True)
        self._runtime.after_request()

    def _moved(self, device: str) -> None:
        """Drops what was made for the device that the model was on."""
        del device
        self._session = None
        t3 = self._runtime.components.get("t3")
        if t3 is not None:
            self._session = T3Session(t3, self.max_batch, eager_attention=self._runtime.eager_attention)
        self._runtime.components["s3gen"].prepare()

    # -- requests --------------------------------------------------------------------------

    def admit(self, request: Request) -> None:
        """Takes a request; see `Model.admit`.

        Options: "seed"; "voice": None, {"samples": bytes, "sample_rate": int} or {"saved": bytes};
        "max_tokens" (1 to 4096; as many as the text could take, and 1000 at most); "retries" (0 to 10,
        default 2); "chunk_tokens" (first chunk of a stream, default 10),
        "chunk_growth" (1 to 10, default 2), "chunk_most" (default 250); and the model's own.
        """
        options = request.options
        plan = speech.Plan.of(options)
        audio, key = self._voice(options.get("voice"))
        natural = most_tokens(request.text)
        self._speeches[request.id] = Speech(
            request=request,
            text=self.tokenize(request.text, options),
            seed=int(options["seed"]),
            sampling=self._sampling(options),
            guidance=_number(options, "cfg_weight"),
            exaggeration=_number(options, "exaggeration"),
            most=_whole(options, "max_tokens", min(natural, _MAX_TOKENS), 1, 4096),
            bounded=options.get("max_tokens") is None and natural <= _MAX_TOKENS,
            retries=_whole(options, "retries", _RETRIES, 0, 10),
            plan=plan,
            voice=key,
            audio=audio,
        )

    def _voice(self, value: Any) -> tuple[Audio | bytes | None, str | None]:
        """What to make a voice from, and what to keep it by; nothing for the built-in one."""
        if value is None:
            return None, None
        if isinstance(value, Mapping) and isinstance(value.get("saved"), (bytes, bytearray)):
            data = bytes(value["saved"])
            return data, speech.digest(data)
        if isinstance(value, Mapping) and "samples" in value:
            audio = Audio.of(value)
            audio.check(self.family.shortest)
            return audio, audio.digest
        raise ChatterbexError(
            "invalid_option",
            "voice must be nothing, audio ({'samples', 'sample_rate'}) or a saved voice ({'saved'})",
        )

    def _sampling(self, options: Mapping[str, Any]) -> Sampling | None:
        known = self.generation_options
        given = {
            name: _number(options, name) for name in ("temperature", "repetition_penalty", "top_p", "min_p")
        }
        given["top_k"] = _number(options, "top_k")
        for name in (*given, "cfg_weight", "exaggeration"):
            if options.get(name) is not None and name not in known:
                raise ChatterbexError("not_supported", f"the model {self.name} has no {name}")
        changes = {name: value for name, value in given.items() if value is not None}
        if "top_k" in changes:
            changes["top_k"] = int(changes["top_k"])
        return Sampling(**{**vars(self.defaults), **changes})

    @property
    def defaults(self) -> Sampling:
        """How tokens are drawn where a request does not say."""
        return self._runtime.components["t3"].config.sampling

    def cancel(self, request_id: int) -> None:
        """Forgets a request; see `Model.cancel`."""
        if self._speeches.pop(request_id, None) is not None and self._session is not None:
            self._session.cancel(request_id)

    def busy(self) -> bool:
        """Tells whether there is work; see `Model.busy`."""
        return bool(self._speeches) or self._runtime.pending

    # -- steps -----------------------------------------------------------------------------

    def step(self) -> list[Chunk | Failure | Notice]:
        """Does one step; see `Model.step`."""
        outcomes: list[Chunk | Failure | Notice] = []
        waiting = next((one for one in self._speeches.values() if one.stage == "waiting"), None)
        vocoding = self._to_vocode()
        others = self._others_speak(vocoding)
        count = self._count(vocoding, others)
        speaking = self._session is not None and self._session.busy
        if waiting is not None:
            outcomes += self._begin(waiting)
        elif self._lanes.running or count > 1:
            outcomes += self._work_together(vocoding, others, count)
        elif vocoding and not (speaking and self._vocoded_last):
            self._vocoded_last = True
            outcomes += self._vocode(vocoding[0])
        elif speaking:
            self._vocoded_last = False
            outcomes += self._speak()
        return [*self._runtime.take_notices(), *outcomes]

    def _begin(self, one: Speech) -> list[Chunk | Failure | Notice]:
        """Makes the voice, if it is not there, and lets the request speak."""
        try:
            self._runtime.run(lambda: self._enter(one), component="t3", restart=self._restart)
        except ModelBrokenError:
            raise
        except Exception as error:
            return [self._failed(one, error)]
        return []

    def _enter(self, one: Speech) -> None:
        if one.stage != "waiting":
            return
        one.began = one.began or time.perf_counter()
        voice = self._voice_of(one)
        if self._session is None or voice.t3 is None:
            one.stage = "speaking"
            return
        conditionals = voice.t3
        if one.exaggeration is not None:
            conditionals = conditionals.with_emotion(one.exaggeration)
        self._session.admit(
            T3Request(
                one.id,
                one.text,
                conditionals,
                seed=one.draw_seed,
                sampling=one.sampling,
                cfg_weight=one.guidance,
                max_tokens=one.most,
            )
        )
        one.stage = "speaking"

    def _voice_of(self, one: Speech) -> Voice:
        parts = self._runtime.components
        if one.voice is None:
            return Voice(self.family.name, parts.get("conds.t3"), parts["conds.gen"])
        cache: VoiceCache = parts["voices"]
        known = cache.get(one.voice)
        if known is not None:
            return known
        began = time.perf_counter()
        if isinstance(one.audio, bytes):
            made = Voice.parse(one.audio, self.family)
            if self._session is not None:
                if made.t3 is None:
                    raise ChatterbexError("not_supported", "The saved voice has no part for speaking text.")
                parts["t3"].check_voice(made.t3)
        else:
            made = self._maker.make(one.audio)
        one.seconds["voice"] = time.perf_counter() - began
        return cache.put(one.voice, made)

    def _speak(self, threads: int | None = None) -> list[Chunk | Failure | Notice]:
        """One step of T3 for all that speak; `threads` as in `T3Session.step`."""
        began = time.perf_counter()
        try:
            events = self._runtime.run(
                lambda: self._session.step(threads), component="t3", restart=self._restart
            )
        except ModelBrokenError:
            raise
        except Exception as error:
            # Nobody knows whose fault it was, and the session is not to be used again.
            failures = [self._failed(one, error) for one in self._speaking()]
            self._moved(self._runtime.actual)
            return failures
        spent = time.perf_counter() - began
        outcomes: list[Chunk | Failure | Notice] = []
        for event in events:
            one = self._speeches.get(event.id)
            if one is None:
                continue
            one.seconds["t3"] = one.seconds.get("t3", 0.0) + spent / len(events)
            if event.error is not None:
                outcomes.append(self._failed(one, event.error))
                continue
            if event.token is not None:
                one.tokens.append(event.token)
            if event.finish_reason is not None:
                outcomes += self._spoken(one, event.finish_reason)
        return outcomes

    def _spoken(self, one: Speech, reason: str) -> list[Chunk | Failure | Notice]:
        if reason == "limit" and one.bounded:
            reason = "runaway"
        elif not one.tokens:
            reason = "silent"
        if reason in ("runaway", "silent") and self._again(one, reason):
            return []
        one.finish_reason = reason
        if not one.tokens:
            error = ChatterbexError(
                "generation_failed",
                f"The model ended without a sound, {one.retried + 1} times. Try another seed, or a "
                "longer text.",
                {"finish_reason": reason, "tokens": 0, "retries": one.retried},
            )
            return [self._failed(one, error)]
        if reason == "limit":
            _logger.warning(
                "%d characters of text were cut short after %d speech tokens (%.0f s): use sentences",
                len(one.request.text),
                len(one.tokens),
                len(one.tokens) / 25,
            )
        return []

    def _again(self, one: Speech, reason: str) -> bool:
        """Lets a request speak anew with another seed, if it may."""
        what = "silent" if reason == "silent" else "without an end"
        about = f"{len(one.request.text)} characters of text came out {what} after {len(one.tokens)} tokens"
        again = one.retry()
        if again:
            _logger.warning("%s; spoken again with another seed, %d of %d", about, one.retried, one.retries)
        else:
            _logger.warning("%s", about)
        return again

    def _to_vocode(self) -> list[Speech]:
        """Those that have something to vocode, the most urgent one first."""
        running = [job for _, job in self._lanes.running]
        ready = [
            one
            for one in self._speeches.values()
            if one.job not in running and (one.job is not None or self._ready(one))
        ]
        return sorted(ready, key=lambda one: one.urgency)

    def _ready(self, one: Speech) -> bool:
        if one.stage != "speaking":
            return False
        if one.finish_reason is not None:
            return True
        if not one.request.stream or len(one.tokens) < one.plan.due:
            return False
        return one.decoding is None or one.decoding.worth(len(one.tokens)) > 0

    def _vocode(self, one: Speech) -> list[Chunk | Failure | Notice]:
        """One stage of vocoding one request."""

        def stage() -> np.ndarray | None:
            # It has to speak first, if it began anew.
            return self._advanced(one.job) if self._prepared(one) else None

        began = time.perf_counter()
        try:
            samples = self._runtime.run(stage, component="s3gen", restart=self._restart)
        except ModelBrokenError:
            raise
        except Exception as error:
            return [self._failed(one, error)]
        return self._vocoded(one, samples, time.perf_counter() - began)

    def _count(self, vocoding: list[Speech], others: list[Speech]) -> int:
        """How much is done side by side: vocoding, and T3 where it has others to speak for.

        Whoever is alone is done sooner one thing after the other.
        """
        if self._runtime.actual != "cpu":
            return 1
        return self._lanes.count(len(self._lanes.running) + len(vocoding) + bool(others))

    def _others_speak(self, vocoding: list[Speech]) -> list[Speech]:
        """Those that speak and have nothing to vocode yet."""
        vocoded = {one.id for one in [*vocoding, *(one for one, _ in self._lanes.running)]}
        return [one for one in self._speaking() if one.id not in vocoded]

    def _speaking(self) -> list[Speech]:
        if self._session is None:
            return []
        return [self._speeches[id] for id in self._session.live if id in self._speeches]

    def _work_together(
        self, vocoding: list[Speech], others: list[Speech], count: int
    ) -> list[Chunk | Failure | Notice]:
        """One step of T3 while requests are vocoded; what is done by then. `count` as `_count` says."""
        outcomes: list[Chunk | Failure | Notice] = []
        threads = max(1, torch.get_num_threads() // max(1, count))
        # A step of T3 takes about as long for one as for many. So only for a stream, whose listener waits, it
        # has a lane of its own. For others it goes on beside, and more come to speak together.
        listened = any(one.request.stream for one in others)
        room = count - len(self._lanes.running) - listened
        for one in vocoding[: max(0, room)]:
            try:
                self._prepared(one)  # not side by side, for they share the kept voices
                self._lanes.start((one, one.job), partial(self._advanced, one.job), threads)
            except Exception as error:
                outcomes.append(self._failed(one, error))
        speaking = self._session is not None and self._session.busy
        if speaking:
            outcomes += self._speak(threads)
        for done in self._lanes.finished(0.0 if speaking else _MOMENT):
            one, job = done.key
            if self._speeches.get(one.id) is not one or one.job is not job:
                continue  # it was cancelled, or began anew
            if isinstance(done.result, Exception):
                outcomes.append(self._failed(one, done.result))
            else:
                outcomes += self._vocoded(one, done.result, done.seconds)
        return outcomes

    def _vocoded(
        self, one: Speech, samples: np.ndarray | None, spent: float
    ) -> list[Chunk | Failure | Notice]:
        one.seconds["s3gen"] = one.seconds.get("s3gen", 0.0) + spent
        one.working += spent
        return [] if samples is None else self._give(one, samples)

    def _prepared(self, one: Speech) -> bool:
        """Whether a request has a chunk that is being vocoded, or has one now."""
        if one.job is None and self._ready(one):
            if one.decoding is None:
                one.decoding = Decoding(
                    self._runtime.components["s3gen"],
                    self._voice_of(one).gen,
                    one.draw_seed,
                    finish=self._marked,
                )
            final = one.finish_reason is not None
            tokens = one.tokens + [SILENCE] * (self.silence if final else 0)
            one.job = speech.Job(one.decoding.stages(tokens, final), len(tokens), final)
        return one.job is not None

    @staticmethod
    def _advanced(job: speech.Job) -> np.ndarray | None:
        """Goes on with a chunk: its samples, if it is done."""
        try:
            next(job.stages)
        except StopIteration as stop:
            return stop.value
        return None

    def _marked(self, samples: np.ndarray) -> np.ndarray:
        return self._watermarker.apply(samples, RATE)

    def _give(self, one: Speech, samples: np.ndarray) -> list[Chunk | Failure | Notice]:
        job, one.job = one.job, None
        if job.final and not one.given and self.has_t3() and _silent(samples):
            if self._again(one, "silent"):
                return []
            one.finish_reason = "silent"
        if job.final and self.dropped and job.tokens > self.dropped:
            heard = (job.tokens - self.dropped) * s3gen.TOKEN
            samples = samples[: max(0, heard - one.decoded)]
        one.decoded += len(samples)
        # What was given out before the device failed is not given out again.
        samples = (
            samples[max(0, len(samples) - (one.decoded - one.given)) :]
            if one.decoded > one.given
            else samples[:0]
        )
        one.given += len(samples)
        one.chunks += 1
        one.plan.next(job.tokens, len(samples) / RATE, one.working)
        one.working = 0.0
        if one.first is None:
            one.first = time.perf_counter() - one.began
        if not job.final:
            return [Chunk(one.id, samples, one.chunk_metadata(job.tokens))] if len(samples) else []
        del self._speeches[one.id]
        self._runtime.after_request()
        return [Chunk(one.id, samples, self.metadata(one), last=True)]

    def metadata(self, one: Speech) -> dict[str, Any]:
        """What there is to say of a request that is done."""
        return {**one.metadata(), "model": self.name, "watermarked": True}

    def _failed(self, one: Speech, error: Exception) -> Failure:
        self.cancel(one.id)
        self._runtime.after_request()
        return Failure.of(one.id, error)

    def _restart(self) -> None:
        """Begins all running requests anew, after the model was moved to the CPU."""
        for one in self._speeches.values():
            one.restart()

    # -- else ------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Describes the model; see `Model.info`."""
        about = self._runtime.info()
        for package in ("chatterbox-tts", "s3tokenizer", "resemble-perth", "torchaudio"):
            try:
                about["versions"][package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                about["versions"][package] = None
        about["voices"] = len(self._runtime.components["voices"])
        about["batch"] = len(self._speeches)
        # Pieces of one text at a time: the others' places are for other callers.
        about["parallel"] = max(1, self.max_batch // 2)
        about["checkpoint"] = str(self._folder)
        if self._session is not None:
            about["memory"]["cache"] = self._session.nbytes
        return about

    def call(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Does something else that the model can do; see `Model.call`.

        - "clone" {"samples": bytes, "sample_rate": int, "about": {str: str}}: {"voice": bytes of a
          safetensors file, "family": str, "quality": {...}}.
        - "watermarked" {"samples": bytes, "sample_rate": int}: {"watermarked": bool,
          "confidence": float}.
        """
        if function == "clone":
            audio = Audio.of(arguments)
            voice = self._maker.make(audio)
            self._runtime.components["voices"].put(audio.digest, voice)
            about = {str(key): str(value) for key, value in (arguments.get("about") or {}).items()}
            data = voice.dump({**about, "sample_hash": audio.digest, "model": self.name})
            return {"voice": data, "family": self.family.name, "quality": audio.quality()}
        if function == "watermarked":
            return watermark.answer(arguments)
        return super().call(function, arguments)

    def close(self) -> None:
        """Lets go of everything."""
        self._speeches.clear()
        self._session = None
        self._lanes.close()
        self._runtime.components.clear()


def _silent(samples: np.ndarray) -> bool:
    return float(np.max(np.abs(samples), initial=0.0)) < _QUIETEST


def _options(model: str, options: Mapping[str, Any]) -> _Options:
    folder = options.get("checkpoint")
    if not isinstance(folder, str) or not folder:
        raise ChatterbexError(
            "model_files_missing",
            f"The files of the model {model} are not on this machine. Fetch them with "
            f"`mix chatterbex.models download {model}`, or give their folder as `checkpoint:`.",
            {"model": model},
        )
    threads = options.get("threads")
    if isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1:
        torch.set_num_threads(threads)
    known = ("checkpoint", "device", "fallback", "threads", "max_batch", "max_voices")
    return _Options(
        folder=Path(folder),
        device=options.get("device") or "auto",
        fallback=options.get("fallback") is not False,
        max_batch=_whole(options, "max_batch", _MAX_BATCH, 1, 1024),
        voices=_whole(options, "max_voices", 32, 1, 100_000),
        extra={key: value for key, value in options.items() if key not in known},
    )


def _whole(options: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ChatterbexError(
            "invalid_option", f"{name} must be a whole number from {least} to {most}, not {value!r}"
        )
    return value


def _number(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ChatterbexError("invalid_option", f"{name} must be a number, not {value!r}")
    return float(value)
