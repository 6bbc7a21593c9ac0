"""Loudness by EBU R128.

The filters are those of the library that upstream uses (pyloudnorm), so prompts come out the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def loudness(samples: np.ndarray, rate: int) -> float:
    """Integrated loudness by EBU R128, in LUFS; -inf for silence or less than 400 ms."""
    block, step = int(0.4 * rate), 0.1 * rate
    if len(samples) < block:
        return -math.inf
    filtered = _k_weighted(samples, rate)
    squares = np.concatenate([[0.0], np.cumsum(np.square(filtered))])
    count = round((len(samples) / rate - 0.4) / 0.1) + 1
    starts = (np.arange(count) * step).astype(int)
    ends = np.minimum((np.arange(count) * step + 0.4 * rate).astype(int), len(samples))
    power = np.maximum(0.0, (squares[ends] - squares[starts]) / (0.4 * rate))
    with np.errstate(divide="ignore"):
        blocks = -0.691 + 10.0 * np.log10(power)
        audible = blocks >= -70.0
        if not audible.any():
            return -math.inf
        gate = -0.691 + 10.0 * np.log10(power[audible].mean()) - 10.0
        kept = power[(blocks > gate) & (blocks > -70.0)]
        return float(-0.691 + 10.0 * np.log10(kept.mean())) if len(kept) else -math.inf


def normalised(samples: np.ndarray, rate: int, target: float) -> np.ndarray:
    """The samples scaled to another loudness; unchanged if they have none."""
    gain = 10.0 ** ((target - loudness(samples, rate)) / 20.0)
    if not math.isfinite(gain) or gain <= 0.0:
        return samples
    return (samples * gain).astype(np.float32)


def _k_weighted(samples: np.ndarray, rate: int) -> np.ndarray:
    """Both filters at once, in the frequency domain.

    Multiplying spectra wraps the end of a filter's response round to the start. A second of zeros absorbs it:
    by then the slower filter has decayed by exp(-2 * pi * 38).
    """
    size = 1 << (len(samples) + rate - 1).bit_length()
    bins = size // 2 + 1
    delay = np.exp(-2j * np.pi / size * np.arange(bins))
    response = np.ones(bins, dtype=np.complex128)
    for numerator, denominator in (_shelf(rate), _high_pass(rate)):
        response *= np.polyval(numerator[::-1], delay) / np.polyval(denominator[::-1], delay)
    spectrum = np.fft.rfft(np.asarray(samples, dtype=np.float64), size)
    return np.fft.irfft(spectrum * response, size)[: len(samples)]


def _shelf(rate: int, gain: float = 4.0, q: float = 1 / math.sqrt(2), corner: float = 1500.0) -> Any:
    a = 10 ** (gain / 40.0)
    w = 2.0 * math.pi * corner / rate
    cos, root = math.cos(w), 2 * math.sqrt(a) * math.sin(w) / (2.0 * q)
    up, down = a + 1, a - 1
    numerator = [a * (up + down * cos + root), -2 * a * (down + up * cos), a * (up + down * cos - root)]
    denominator = [up - down * cos + root, 2 * (down - up * cos), up - down * cos - root]
    return _scaled(numerator, denominator)


def _high_pass(rate: int, q: float = 0.5, corner: float = 38.0) -> Any:
    w = 2.0 * math.pi * corner / rate
    cos, alpha = math.cos(w), math.sin(w) / (2.0 * q)
    return _scaled([(1 + cos) / 2, -(1 + cos), (1 + cos) / 2], [1 + alpha, -2 * cos, 1 - alpha])


def _scaled(numerator: list[float], denominator: list[float]) -> Any:
    first = denominator[0]
    as_doubles = ([value / first for value in part] for part in (numerator, denominator))
    return tuple(np.array(part, dtype=np.float64) for part in as_doubles)
