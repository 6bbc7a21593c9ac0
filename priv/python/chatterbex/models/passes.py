"""A Chatterbox model on a device: its weights, the passes made from them, and how they are compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from chatterbex import pages, s3gen
from chatterbex.device import Needs, Subject, require_finite, size_of, tolerance
from chatterbex.device.proof import BFLOAT16, FLOAT32
from chatterbex.precision import ROWS, Verdict, Verdicts, measure, on_cpu, on_gpu
from chatterbex.s3gen import SILENCE, Decoding, S3Gen, S3GenPass
from chatterbex.s3gen import proof as s3gen_proof
from chatterbex.s3gen.gpu import WORK_OF_TOKEN
from chatterbex.t3 import T3, Body, T3Config, T3CpuPass, T3GpuPass, rows_of_request
from chatterbex.t3 import proof as t3_proof
from chatterbex.t3.gpu import row_bytes
from chatterbex.t3.passes import Pass
from chatterbex.voices import Voice

# 11.6 s of audio, because some failures appear only beyond 11 s.
_WARM_UP: Final = 290

# The number of speech tokens to compare.
_TOKENS: Final = (4299, 12, 6000, 300, 2187, 3333, 41, 5120)

# Trained weights, whose sums are worse conditioned, may multiply the rounding more than synthetic ones.
_ROOM: Final = 15

_LONGEST: Final = 1000  # tokens of a request

_logger = logging.getLogger("chatterbex.models")


@dataclass(frozen=True)
class Weights:
    """The weights that are loaded again from the model's folder after a device was lost.

    Attributes:
        s3gen: flow and vocoder.
        t3: text to speech tokens, or None for a model that does not speak text.
    """

    s3gen: S3Gen
    t3: T3 | None


@dataclass(frozen=True)
class Passes:
    """The passes of a model on one device.

    Attributes:
        verdict: why it has its precision, if that was measured.
    """

    s3gen: S3GenPass
    t3: Pass | None
    verdict: Verdict | None = None


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
        verdicts: Verdicts | None = None,
        measured: list[int] | None = None,
    ) -> None:
        """Prepares to build.

        Args:
            load: loads the weights.
            front: T3's embeddings of voices and texts, or None for a model that does not speak text.
            voice: the built-in voice.
            text: tokens of a few words.
            batch: the wanted number of requests at a time.
            threads: the number of CPU threads.
            precision: one of `PRECISIONS`.
            verdicts: where "auto" keeps its measurements; None to measure each time.
            measured: tokens of `precision.TEXT`, for "auto"; None for `text`.
        """
        self._load = load
        self._front = front
        self._voice = voice
        self._text = text
        self._batch = batch
        self._threads = threads
        self._precision = precision
        self._verdicts = verdicts
        self._measured = measured or text
        self._s3gen_figures = s3gen_proof.Figures(voice.gen, _TOKENS)

    def load(self) -> Weights:
        """See `Subject.load`."""
        return self._load()

    def cpu(self, loaded: Weights) -> Passes:
        """See `Subject.cpu`."""
        weights = [*loaded.s3gen.parameters(), *(loaded.t3.weights.values() if loaded.t3 else ())]
        judged = self._judge(loaded) if self._precision == "auto" else None
        precision = judged.precision if judged else on_cpu(self._precision)
        # Packing is limited by memory, so both networks are packed in parallel.
        with ThreadPoolExecutor(1, "chatterbex-packing") as beside:
            packed = beside.submit(s3gen.S3GenCpuPass, loaded.s3gen, precision.flow)
            t3 = None if loaded.t3 is None else self._t3(loaded.t3, precision.t3)
            built = Passes(packed.result(), t3, judged)
        pages.release(weights)
        return built

    def _t3(self, t3: T3, precision: str, rows: int | None = None) -> T3CpuPass:
        rows = rows or self._batch * rows_of_request(t3.config)
        return T3CpuPass(t3, rows, threads=self._threads, precision=precision)

    def _judge(self, loaded: Weights) -> Verdict:
        """The kept verdict on these files, or a new measurement."""

        def judge() -> Verdict:
            t3 = None if loaded.t3 is None else partial(self._t3, loaded.t3, rows=ROWS)
            flow = partial(s3gen.S3GenCpuPass, loaded.s3gen)
            found = measure(t3, flow, front=self._front, voice=self._voice, text=self._measured)
            pages.release(loaded.s3gen.parameters())
            _logger.info("precision, measured on this checkpoint: T3 %s, flow %s", found.t3, found.flow)
            return found

        return judge() if self._verdicts is None else self._verdicts.of(self._measured, judge)

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
            kind = body.speech_emb.weight.device.type
            body.to(getattr(torch, on_gpu(self._precision, kind).t3))
            t3 = T3GpuPass(body, batch * rows_of_request(body.config), eager_attention=eager_attention)
        return Passes(s3gen.S3GenGpuPass(parts["s3gen"]), t3)

    def needs(self, parts: Mapping[str, Any]) -> Needs:
        """See `Subject.needs`."""
        row = 0
        if "t3" in parts:
            config: T3Config = parts["t3"].config
            row = row_bytes(config) * rows_of_request(config)
        return Needs(size_of(dict(parts)), row, WORK_OF_TOKEN * _LONGEST)

    # -- proof ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def figures(self, way: Passes) -> Mapping[str, Tensor]:
        """See `Subject.figures`: logits of a text and a few tokens, a mel, and samples."""
        figures = {}
        if way.t3 is not None:
            figures["t3.logits"] = t3_proof.logits(way.t3, self._front, self._voice.t3, self._text, _TOKENS)
        figures |= self._s3gen_figures.of(way.s3gen)
        return {name: value.float().cpu() for name, value in figures.items()}

    def tolerances(self) -> Mapping[str, float]:
        """See `Subject.tolerances`."""
        unit = BFLOAT16 if on_gpu(self._precision, "cuda").t3 == "bfloat16" else FLOAT32
        limits = {name: tolerance(_ROOM * gain, FLOAT32) for name, gain in s3gen_proof.GAINS.items()}
        return {**limits, "t3.logits": tolerance(_ROOM * t3_proof.GAIN, unit)}

    def warm_up(self, way: Passes) -> None:
        """See `Subject.warm_up`."""
        decoding = Decoding(way.s3gen, self._voice.gen, seed=0)
        samples = decoding.decode([SILENCE] * _WARM_UP, final=True)
        require_finite("s3gen", samples, str(way.s3gen.device))
