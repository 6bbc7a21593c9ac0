"""Decides whether a checkpoint may be spoken in a lower precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from chatterbex.device import processor
from chatterbex.precision.levels import Precision
from chatterbex.precision.measurement import flow_error, t3_error
from chatterbex.s3gen import S3GenPass
from chatterbex.t3.passes import Pass


@dataclass(frozen=True)
class Limits:
    """What a lower precision may cost.

    Attributes:
        kl_divergence: the largest mean divergence of T3's distributions from those in float32, in nats.
        changed_tokens: the largest share of positions where another token is the likeliest.
        mel_snr: the smallest ratio of the mel in float32 to the difference, in dB. The mel's mean does not
            count as signal.
        waveform_snr: the smallest ratio of the samples in float32 to the difference, in dB.
    """

    kl_divergence: float = 0.002
    changed_tokens: float = 0.01
    mel_snr: float = 35.0
    waveform_snr: float = 30.0


LIMITS: Final = Limits()


@dataclass(frozen=True)
class Verdict:
    """The measurements, and the precisions that they allow.

    Attributes:
        t3: {"precision", "passed", "kl_divergence", "changed_tokens", "positions"}; None for a model without
            T3. A figure that is not finite is None.
        flow: {"precision", "passed", "mel_snr", "waveform_snr"}; None if the processor has no lower
            precision for it.
        limits: see `Limits`.
        processor: its name.
    """

    t3: dict[str, Any] | None
    flow: dict[str, Any] | None
    limits: dict[str, float]
    processor: str

    @property
    def precision(self) -> Precision:
        """The precision for each part: the lower one if it passed."""
        parts = {"t3": self.t3, "flow": self.flow}
        return Precision(**{name: one["precision"] for name, one in parts.items() if one and one["passed"]})


def measure(
    t3: Callable[[str], Pass] | None,
    flow: Callable[[str], S3GenPass],
    *,
    front: Any,
    voice: Any,
    text: Sequence[int],
    limits: Limits = LIMITS,
) -> Verdict:
    """Measures the lower precisions of a model on this CPU.

    Args:
        t3: makes T3's pass in a precision, with `ROWS` rows; None for a model without T3. Only one pass is
            kept at a time.
        flow: makes S3Gen's pass in a precision.
        front: T3's embeddings, or None.
        voice: a `voices.Voice`.
        text: tokens of `TEXT`.
        limits: the limits to pass.
    """
    speaking = flowing = None
    if t3 is not None:
        speaking = _judged("int8", t3_error(t3, "int8", front, voice.t3, text), limits)
    if processor.multiplies_bfloat16():
        flowing = _judged("bfloat16", flow_error(flow, "bfloat16", voice.gen), limits)
    return Verdict(speaking, flowing, asdict(limits), processor.name())


def _judged(precision: str, figures: Mapping[str, float], limits: Limits) -> dict[str, Any]:
    passed = all(
        value >= limit if name.endswith("_snr") else value <= limit  # not so for NaN either
        for name, limit in asdict(limits).items()
        if (value := figures.get(name)) is not None
    )
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"precision": precision, "passed": passed, **finite}
