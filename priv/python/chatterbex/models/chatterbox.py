"""What the Chatterbox models share: loading, admitting requests, and their other functions.

The path of a request: `admit` makes a `Speech` (`speech.py`), which is the request's state. The `Scheduler`
(`scheduler.py`) decides what to do next. Tokens come from a `T3Session` (`t3/session.py`) and samples from a
`Decoding` (`s3gen/decoding.py`). Both compute with the `Passes` (`passes.py`) that the `Runtime`
(`device/runtime.py`) built for the device.
"""

from __future__ import annotations

import abc
import importlib.metadata
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from chatterbex import checkpoint, upstream, watermark
from chatterbex.device import Runtime
from chatterbex.errors import ChatterbexError
from chatterbex.model import Chunk, Failure, Model, Notice, Request
from chatterbex.models import loading
from chatterbex.models.loading import Options, Residents, S3GenFile
from chatterbex.models.passes import ChatterboxSubject, Passes, Weights
from chatterbex.models.scheduler import Scheduler
from chatterbex.models.speech import Plan, Speech, Traits
from chatterbex.options import choice, integer, number
from chatterbex.precision import TEXT, Verdicts
from chatterbex.s3gen import RATE, FlowOptions
from chatterbex.t3 import Sampling, T3Config
from chatterbex.text import most_tokens
from chatterbex.voices import Audio, Family, Voice, VoiceMaker, Voices
from chatterbex.worker import Worker

_MAX_TOKENS = 1000
_RETRIES = 2

M = TypeVar("M", bound="ChatterboxModel")


class ChatterboxModel(Model):
    """Base of the models that speak text."""

    family: ClassVar[Family]
    t3_name: ClassVar[str] = ""
    """The file of T3; "" for a model that does not speak text."""
    t3_config: ClassVar[Callable[[], T3Config]]
    """Returns the published sizes of T3."""
    tokenizer: ClassVar[Callable[[Path], Any]]
    """Loads the tokenizer from the model's folder."""
    s3gen_file: ClassVar[str]
    s3gen_strict: ClassVar[bool] = True
    encoder_file: ClassVar[str] = "ve.safetensors"
    meanflow: ClassVar[bool] = False
    traits: ClassVar[Traits] = Traits()
    generation_options: ClassVar[frozenset[str]] = frozenset({"temperature", "repetition_penalty", "top_p"})

    def __init__(self, options: Options, residents: Residents) -> None:
        """Keeps the parts that stay on the CPU; `start` makes the model ready."""
        self._options = options
        self._residents = residents
        self._text = residents.text
        self._extra = options.extra
        self._flow = options.flow_options
        maker = VoiceMaker(self.family, residents.analysis, residents.encoder)
        self._voices = Voices(maker, residents.voice, residents.front, options.voices)
        self._watermarker = watermark.watermarker()
        self._worker = Worker()
        speaks = residents.front is not None
        files = self.files(options.folder, options.extra)
        verdicts = Verdicts(options.cache, self.name, options.folder, files) if options.cache else None
        subject = ChatterboxSubject(
            partial(loading.load_weights, type(self), options.folder, options.extra),
            front=residents.front,
            voice=residents.voice,
            text=self.tokenize("A few words to warm up.", {"language": "en"}) if speaks else [],
            batch=options.max_batch,
            threads=options.threads,
            precision=options.precision,
            verdicts=verdicts,
            measured=self.tokenize(TEXT, {"language": "en"}) if speaks else [],
        )
        self._runtime: Runtime[Weights, Passes] = Runtime(
            subject,
            requested=options.device,
            fallback=options.fallback,
            batch=options.max_batch,
            changed=lambda: self._scheduler.renew(),
        )
        self._scheduler = Scheduler(
            self._runtime,
            front=residents.front,
            voice_of=self._voice_of,
            listen=self._listen,
            finish=self._marked,
            metadata=self.metadata,
        )

    # -- loading ---------------------------------------------------------------------------

    @classmethod
    def load(cls: type[M], options: Mapping[str, Any]) -> Generator[str, None, M]:
        """Loads the model; see `Model.load`.

        Args:
            options: "checkpoint" (str: the folder with the model's files), "device", "fallback",
                "threads", "max_batch", "max_voices" (the most voices to cache, default 32),
                "precision" (see `chatterbex.precision`), "cache" (str: the folder for the measurements of the
                precision "auto"), "flow" ("cfm", the model's own, or "meanflow", the distilled flow of
                turbo, for models with a flow of ten steps), "reference_seconds", "flow_steps" and
                "first_chunk_steps" (see `admit`), and the model's own options.

        Yields:
            "packages", "files", "t3", "s3gen", "voices", "text", "watermark" and "device".

        Raises:
            ChatterbexError: Files are missing or damaged, or the device cannot be used and fallback
                is off.
        """
        yield "packages"
        chosen = Options.of(cls.name, options)
        upstream.s3gen()
        if cls.t3_name:
            upstream.voice_encoder()
        yield "files"
        checkpoint.check_files(
            chosen.folder, cls.files(chosen.folder, chosen.extra), cls.download(chosen.extra)
        )
        weights, residents = yield from loading.load(cls, chosen.folder, chosen.extra)
        yield "watermark"
        model = cls(chosen, residents)
        yield "device"
        model._runtime.start(weights)
        return model

    @classmethod
    def strict(cls, extra: Mapping[str, Any]) -> bool:
        """Whether an unknown weight of S3Gen is an error, as it is when upstream loads the file."""
        del extra
        return cls.s3gen_strict

    @classmethod
    def s3gen(cls, extra: Mapping[str, Any]) -> S3GenFile:
        """The file of S3Gen, and its kind.

        Raises:
            ChatterbexError: There is no such flow ("invalid_option"), or this model does not have it
                ("not_supported").
        """
        flow = choice(extra, "flow", ("cfm", "meanflow"))
        if extra.get("flow") is not None and cls.meanflow:
            raise ChatterbexError("not_supported", f"the model {cls.name} has no flow but meanflow")
        if flow == "meanflow":
            return S3GenFile("s3gen_meanflow.safetensors", meanflow=True, strict=True)
        return S3GenFile(cls.s3gen_file, meanflow=cls.meanflow, strict=cls.strict(extra))

    @classmethod
    def download(cls, extra: Mapping[str, Any]) -> str:
        """The arguments with which `mix chatterbex.models` downloads the files."""
        if extra.get("flow") != "meanflow":
            return "download"
        chosen = {"language-pack": extra.get("pack"), "version": extra.get("version"), "flow": "meanflow"}
        return " ".join(
            ["download", cls.name, *(f"--{flag} {value}" for flag, value in chosen.items() if value)]
        )

    @classmethod
    def files(cls, folder: Path, extra: Mapping[str, Any]) -> tuple[str, ...]:
        """The required files."""
        return checkpoint.needed_files(cls.name, t3=cls.t3_file(folder, extra), s3gen=cls.s3gen(extra).name)

    @classmethod
    def t3_file(cls, folder: Path, extra: Mapping[str, Any]) -> str:
        """The file of T3, or the path of a fine-tune."""
        del folder
        return extra.get("t3") or cls.t3_name

    @abc.abstractmethod
    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Converts text to T3's text tokens, between start and stop tokens if the model has them."""

    # -- requests --------------------------------------------------------------------------

    @property
    def max_batch(self) -> int:
        """How many requests may be admitted at a time: the requested number, or what fits in memory."""
        return self._runtime.batch

    def admit(self, request: Request) -> None:
        """Adds a request; see `Model.admit`.

        Options: "seed"; "voice": None, {"samples": bytes, "sample_rate": int} or {"saved": bytes};
        "norm_loudness" (bool, default True, for a voice made from samples);
        "max_tokens" (1 to 4096; default: as many as the text could need, at most 1000); "retries" (0 to 10,
        default 2); "chunk_tokens" (first chunk of a stream, default 10),
        "chunk_growth" (1 to 10, default 2), "chunk_most" (default 250); "reference_seconds" (3 to 10: how
        much of the voice's prompt the flow sees), "flow_steps" (1 to 50; default: the flow's own number),
        "first_chunk_steps" (the same for the first chunk of a stream; default or 0: as many as for the
        others); and the model's own. The defaults of the last three can be set when the model is loaded.
        """
        options = request.options
        audio, key = self._voices.requested(options.get("voice"), options.get("norm_loudness"))
        natural = most_tokens(request.text)
        self._scheduler.add(
            Speech(
                request=request,
                traits=self.traits,
                text=self.tokenize(request.text, options),
                seed=int(options["seed"]),
                sampling=self._sampling(options),
                guidance=number(options, "cfg_weight"),
                exaggeration=number(options, "exaggeration"),
                max_tokens=integer(options, "max_tokens", min(natural, _MAX_TOKENS), 1, 4096),
                bounded=options.get("max_tokens") is None and natural <= _MAX_TOKENS,
                retries=integer(options, "retries", _RETRIES, 0, 10),
                plan=Plan.of(options),
                flow=FlowOptions.of(options, self._flow),
                voice_key=key,
                audio=audio,
            )
        )

    def _sampling(self, options: Mapping[str, Any]) -> Sampling | None:
        names = ("temperature", "repetition_penalty", "top_p", "min_p", "top_k")
        for name in (*names, "cfg_weight", "exaggeration", "norm_loudness"):
            if options.get(name) is not None and name not in self.generation_options:
                raise ChatterbexError("not_supported", f"the model {self.name} has no {name}")
        changes = {name: value for name in names if (value := number(options, name)) is not None}
        if "top_k" in changes:
            changes["top_k"] = int(changes["top_k"])
        return Sampling(**{**vars(self.defaults), **changes})

    @property
    def defaults(self) -> Sampling:
        """How tokens are drawn if the request does not say."""
        return self._residents.front.config.sampling

    def cancel(self, request_id: int) -> None:
        """Forgets a request; see `Model.cancel`."""
        self._scheduler.cancel(request_id)

    def busy(self) -> bool:
        """Returns whether there is work; see `Model.busy`."""
        return bool(self._scheduler.count) or self._runtime.pending

    def step(self) -> list[Chunk | Failure | Notice]:
        """Runs one step; see `Model.step`."""
        outcomes = self._scheduler.step()
        return [*self._runtime.take_notices(), *outcomes]

    def metadata(self, speech: Speech) -> dict[str, Any]:
        """The metadata of a finished request."""
        return {**speech.metadata(), "model": self.name, "watermarked": True}

    def _marked(self, samples: np.ndarray) -> np.ndarray:
        return self._watermarker.apply(samples, RATE)

    # -- voices ----------------------------------------------------------------------------

    def _voice_of(self, speech: Speech) -> Voice | None:
        """The voice of a request, or None if a recording must be cloned first."""
        return self._voices.ready(speech.audio, speech.voice_key)

    def _listen(self, speech: Speech) -> Future[Voice]:
        """Starts cloning the voice of a request, outside the step loop."""
        return self._worker.start(
            speech.voice_key, partial(self._make, speech), alone=self._scheduler.count == 1
        )

    def _make(self, speech: Speech) -> Voice:
        began = time.perf_counter()
        voice = self._voices.make(speech.audio)
        speech.spend("voice", time.perf_counter() - began)
        return voice

    # -- other -----------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Describes the model; see `Model.info`."""
        residents, way = self._residents, self._runtime.way
        parts = {"s3gen": way.s3gen, "analysis": residents.analysis, "ve": residents.encoder}
        about = self._runtime.info({name: part for name, part in parts.items() if part is not None})
        if way.t3 is not None:
            about["components"]["t3"] = about["components"]["s3gen"]
            about["memory"]["t3"] = way.t3.weight_bytes
        about["precision"] = {
            "requested": self._options.precision,
            "t3": None if way.t3 is None else way.t3.precision,
            "flow": way.s3gen.precision,
            "verdict": None if way.verdict is None else asdict(way.verdict),
        }
        for package in ("chatterbox-tts", "s3tokenizer", "resemble-perth"):
            try:
                about["versions"][package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                about["versions"][package] = None
        about["voices"] = len(self._voices)
        about["memory"]["voices"] = self._voices.bytes
        about["batch"] = self._scheduler.count
        # How many pieces of one text run together: the other places are for other callers.
        about["parallel"] = max(1, self.max_batch // 2)
        about["checkpoint"] = str(self._options.folder)
        if residents.front is not None:
            about["memory"]["cache"] = self._scheduler.cache_bytes
        return about

    def call(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any] | Future[dict[str, Any]]:
        """Calls another function of the model; see `Model.call`.

        - "clone" {"samples": bytes, "sample_rate": int, "norm_loudness": bool, "about": {str: str}}:
          {"voice": bytes of a safetensors file, "family": str, "quality": {...}}.
        - "watermarked" {"samples": bytes, "sample_rate": int}: {"watermarked": bool,
          "confidence": float}.
        """
        if function == "clone":
            audio = Audio.of(arguments)
            about = {str(key): str(value) for key, value in (arguments.get("about") or {}).items()}
            return self._worker.start(object(), partial(self._clone, audio, about), alone=not self.busy())
        if function == "watermarked":
            return self._worker.start(object(), partial(watermark.answer, arguments), alone=not self.busy())
        return super().call(function, arguments)

    def _clone(self, audio: Audio, about: dict[str, str]) -> dict[str, Any]:
        voice = self._voices.make(audio)
        data = voice.dump({**about, "sample_hash": audio.digest, "model": self.name})
        return {"voice": data, "family": self.family.name, "quality": audio.quality()}

    def close(self) -> None:
        """Releases everything."""
        self._worker.close()
        self._scheduler.close()
        self._runtime.close()
