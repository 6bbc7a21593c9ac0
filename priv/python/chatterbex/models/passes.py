"""A Chatterbox model on a device: its weights, the passes made from them, and what they are compared by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from chatterbex import pages, s3gen
from chatterbex.device import Needs, Subject, require_finite, size_of, tolerance
from chatterbex.device.proof import BFLOAT16, FLOAT32
from chatterbex.s3gen import FRAME, SILENCE, Decoding, MelTask, Reference, S3Gen, S3GenPass
from chatterbex.s3gen.noise import Noise
from chatterbex.t3 import T3, Body, CpuPass, GpuPass, T3Config, rows_of_request
from chatterbex.t3.gpu import row_bytes
from chatterbex.t3.passes import PIECE, Pass
from chatterbex.voices import Voice

# 11.6 s of audio, for what fails only beyond 11 s.
_WARM_UP: Final = 290

# Tokens that are compared, and how much of the voice stands before them.
_TOKENS: Final = (4299, 12, 6000, 300, 2187, 3333, 41, 5120)
_PROMPT: Final = 25

# What the vocoder holds at once for a token, measured on the simulated device's allocator.
_WORK_OF_TOKEN: Final = 3 * 2**20
_LONGEST: Final = 1000

# How much each computation multiplies the rounding of float32, measured against float64 on synthetic
# checkpoints of all models (`test_passes.py`); and room for trained weights, whose sums are worse
# conditioned.
_GAINS: Final = {
    "t3.logits": 50.0,
    "s3gen.mel": 100.0,
    "s3gen.pitch": 1.0,
    "s3gen.source": 250.0,
    "s3gen.samples": 350.0,
}
_ROOM: Final = 30

PRECISIONS: Final = ("float32", "bfloat16", "int8")
"""What T3 may compute in: bfloat16 on CUDA, int8 on the CPU, and float32 everywhere. S3Gen stays float32."""


@dataclass(frozen=True)
class Weights:
    """What is loaded from a model's folder again when a device was lost.

    Attributes:
        s3gen: flow and vocoder.
        t3: text to speech tokens, or None for a model that does not speak text.
    """

    s3gen: S3Gen
    t3: T3 | None


@dataclass(frozen=True)
class Passes:
    """What a model speaks with on one device."""

    s3gen: S3GenPass
    t3: Pass | None


class ChatterboxSubject(Subject[Weights, Passes]):
    """Builds the passes of one model."""

    def __init__(
        self,
        load: Callable[[], Weights],
        *,
        front: Any | None,
        voice: Voice,
        text: list[int],
        batch: int,
        threads: int,
        precision: str = "float32",
    ) -> None:
        """Prepares to build.

        Args:
            load: loads the weights.
            front: T3's embeddings of voices and texts, or None for a model that does not speak text.
            voice: the built-in one.
            text: tokens of a few words.
            batch: how many requests are wanted at a time.
            threads: of the CPU.
            precision: that T3 should compute in, where the device can.
        """
        self._load = load
        self._front = front
        self._voice = voice
        self._text = text
        self._batch = batch
        self._threads = threads
        self._precision = precision
        self._given: dict[str, Tensor] = {}

    def load(self) -> Weights:
        """See `Subject.load`."""
        return self._load()

    def cpu(self, loaded: Weights) -> Passes:
        """See `Subject.cpu`."""
        t3, weights = None, list(loaded.s3gen.parameters())
        if loaded.t3 is not None:
            rows = self._batch * rows_of_request(loaded.t3.config)
            precision = "int8" if self._precision == "int8" else "float32"
            t3 = CpuPass(loaded.t3, rows, threads=self._threads, precision=precision)
            weights += loaded.t3.weights.values()
        built = Passes(s3gen.CpuPass(loaded.s3gen), t3)
        pages.release(weights)
        return built

    def parts(self, loaded: Weights) -> MutableMapping[str, Any]:
        """See `Subject.parts`."""
        parts: dict[str, Any] = {}
        if loaded.t3 is not None:
            parts["t3"] = Body.of(loaded.t3.config, loaded.t3.weights)
        parts["s3gen"] = loaded.s3gen
        return parts

    def gpu(self, parts: Mapping[str, Any], batch: int, eager_attention: bool) -> Passes:
        """See `Subject.gpu`."""
        t3 = None
        if "t3" in parts:
            body = parts["t3"]
            if self._precision == "bfloat16" and body.speech_emb.weight.device.type == "cuda":
                body.to(torch.bfloat16)
            t3 = GpuPass(body, batch * rows_of_request(body.config), eager_attention=eager_attention)
        return Passes(s3gen.GpuPass(parts["s3gen"]), t3)

    def needs(self, parts: Mapping[str, Any]) -> Needs:
        """See `Subject.needs`."""
        row = 0
        if "t3" in parts:
            config: T3Config = parts["t3"].config
            row = row_bytes(config) * rows_of_request(config)
        return Needs(size_of(dict(parts)), row, _WORK_OF_TOKEN * _LONGEST)

    # -- proof ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def figures(self, way: Passes) -> Mapping[str, Tensor]:
        """See `Subject.figures`: logits of a text and a few tokens, a mel, and samples.

        The first time, on the CPU, what later components need of earlier ones is kept, so that each one is
        compared by itself afterwards.
        """
        figures = {} if way.t3 is None else {"t3.logits": self._logits(way.t3)}
        net, noise = way.s3gen, Noise(0)
        device = net.device
        reference = _short(self._voice.gen).to(device)
        tokens = torch.tensor([_TOKENS]).to(device)
        [mel] = _drained(net.mel_stages([MelTask(tokens, reference, noise, final=True)], steps=1))
        figures["s3gen.mel"] = mel
        given = self._given.setdefault("mel", mel.cpu()).to(device)
        pitch = figures["s3gen.pitch"] = net.pitch(given)
        given_pitch = self._given.setdefault("pitch", pitch.cpu()).to(device)
        frames = given.shape[2]
        random = noise.source(0, frames, net.harmonics, FRAME).to(device)
        source = figures["s3gen.source"] = net.source(given_pitch, noise.phases(net.harmonics), random)[0]
        figures["s3gen.samples"] = net.wave(given, self._given.setdefault("source", source.cpu()).to(device))
        return {name: value.float().cpu() for name, value in figures.items()}

    def _logits(self, t3: Pass) -> Tensor:
        """Those of the text and of a few spoken tokens."""
        embedded = [self._front.voice(self._voice.t3)[None], self._front.text(self._text, guided=False)]
        length = sum(one.shape[1] for one in embedded) + len(_TOKENS)
        slot = t3.open(length)
        try:
            for one in embedded:
                for piece in one.split(PIECE, dim=1):
                    logits = t3.read([slot], piece, want=True)
            found = [logits]
            for step, token in enumerate(_TOKENS, 1):
                found.append(t3.step([slot], [token], [step]))
            return torch.cat(found)
        finally:
            t3.close(slot)

    def tolerances(self) -> Mapping[str, float]:
        """See `Subject.tolerances`."""
        units = {"t3.logits": BFLOAT16 if self._precision == "bfloat16" else FLOAT32}
        return {name: tolerance(_ROOM * gain, units.get(name, FLOAT32)) for name, gain in _GAINS.items()}

    def warm_up(self, way: Passes) -> None:
        """See `Subject.warm_up`."""
        decoding = Decoding(way.s3gen, self._voice.gen, seed=0)
        samples = decoding.decode([SILENCE] * _WARM_UP, final=True)
        require_finite("s3gen", samples, str(way.s3gen.device))


def _short(reference: Reference) -> Reference:
    return Reference(
        reference.prompt_token[:, :_PROMPT], reference.prompt_feat[:, : 2 * _PROMPT], reference.embedding
    )


def _drained(stages: Any) -> Any:
    while True:
        try:
            next(stages)
        except StopIteration as stop:
            return stop.value
