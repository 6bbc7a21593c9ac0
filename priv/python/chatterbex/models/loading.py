"""Loads the parts of a Chatterbox model from its files."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chatterbex import checkpoint, s3gen, voices
from chatterbex.errors import ChatterbexError
from chatterbex.models.passes import Weights
from chatterbex.options import choice, integer
from chatterbex.precision import PRECISIONS
from chatterbex.s3gen import FlowOptions
from chatterbex.t3 import T3
from chatterbex.threads import use_threads
from chatterbex.voices import Voice

MAX_BATCH = 8

# The options that are not a model's own.
_COMMON = {"checkpoint", "device", "fallback", "threads", "max_batch", "max_voices", "precision", "cache"}


@dataclass
class Options:
    """The options of a load."""

    folder: Path
    device: str = "auto"
    fallback: bool = True
    max_batch: int = MAX_BATCH
    voices: int = 32
    threads: int = 1
    precision: str = "float32"
    cache: Path | None = None
    flow_options: FlowOptions = field(default_factory=FlowOptions)
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, options: Mapping[str, Any]) -> Options:
        """Checks the options of a load; see `ChatterboxModel.load`.

        Raises:
            ChatterbexError: The folder is missing, or an option is invalid.
        """
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
            use_threads(threads)
        return cls(
            folder=Path(folder),
            device=options.get("device") or "auto",
            fallback=options.get("fallback") is not False,
            max_batch=integer(options, "max_batch", MAX_BATCH, 1, 1024),
            voices=integer(options, "max_voices", 32, 1, 100_000),
            threads=torch.get_num_threads(),
            precision=choice(options, "precision", PRECISIONS),
            cache=Path(options["cache"]) if options.get("cache") else None,
            flow_options=FlowOptions.of(options),
            extra={key: value for key, value in options.items() if key not in _COMMON},
        )


@dataclass(frozen=True)
class S3GenFile:
    """A file of S3Gen.

    Attributes:
        name: its name in the model's folder.
        meanflow: whether its flow was distilled.
        strict: whether an unknown weight is an error.
    """

    name: str
    meanflow: bool
    strict: bool


@dataclass
class Residents:
    """The parts that stay on the CPU, whichever device speaks.

    Attributes:
        analysis: speech tokenizer and speaker encoder.
        encoder: the voice encoder, or None.
        voice: the built-in voice.
        text: the tokenizer, or None.
        front: T3's embeddings of voices and texts, or None.
    """

    analysis: s3gen.Analysis
    encoder: Any | None
    voice: Voice
    text: Any | None
    front: Any | None


def load(
    model: Any, folder: Path, extra: Mapping[str, Any]
) -> Generator[str, None, tuple[Weights, Residents]]:
    """Loads all files of a model, on the CPU, as they are stored.

    Args:
        model: the class of the model, which names its files.
        folder: the folder that holds them.
        extra: the model's own options of the load.

    Yields:
        "t3", "s3gen", "voices" and "text", as each begins.
    """
    t3 = None
    if model.t3_name:
        yield "t3"
        t3 = _load_t3(model, folder, extra)
    yield "s3gen"
    network, analysis = _load_s3gen(model, folder, extra)
    yield "voices"
    encoder = voices.load_encoder(folder / model.encoder_file) if model.t3_name else None
    voice = Voice.from_pickle(folder / "conds.pt", model.family)
    if t3 is not None:
        t3.front.check(voice.t3)
    text = None
    if model.t3_name:
        yield "text"
        text = model.tokenizer(folder)
        checkpoint.check_tokenizer(text.size, t3.config.text_vocab, extra)
    front = None if t3 is None else t3.front
    return Weights(network, t3), Residents(analysis, encoder, voice, text, front)


def load_weights(model: Any, folder: Path, extra: Mapping[str, Any]) -> Weights:
    """Loads only the weights that a device has lost."""
    network, _ = _load_s3gen(model, folder, extra)
    return Weights(network, _load_t3(model, folder, extra) if model.t3_name else None)


def _load_s3gen(model: Any, folder: Path, extra: Mapping[str, Any]) -> tuple[s3gen.S3Gen, s3gen.Analysis]:
    file = model.s3gen(extra)
    return s3gen.load(folder / file.name, meanflow=file.meanflow, strict=file.strict)


def _load_t3(model: Any, folder: Path, extra: Mapping[str, Any]) -> T3:
    path = folder / model.t3_file(folder, extra)
    state = checkpoint.read_safetensors(path)
    try:
        return T3.from_state_dict(model.t3_config().fitted_to(state), state)
    except ChatterbexError as error:
        details = {**error.details, "file": path.name, "path": str(path)}
        raise ChatterbexError(error.reason, f"{path}: {error.message}", details) from error
