"""Small signal functions with librosa's results, without librosa (and so without numba and scipy)."""

from __future__ import annotations

from typing import Any

import numpy as np


def mel_filters(
    *,
    sr: float,
    n_fft: int,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> np.ndarray:
    """Triangular mel filters on Slaney's scale, each of area one: (n_mels, n_fft // 2 + 1), float32."""
    fmax = sr / 2 if fmax is None else fmax
    edges = _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2))
    bins = np.fft.rfftfreq(n_fft, 1.0 / sr)
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    weights *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return weights


# Slaney's scale: linear below 1 kHz (200/3 Hz a mel), logarithmic above.
_LINEAR = 200.0 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz / _LINEAR
    return float(_KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP)


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mels, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mels < _KNEE_MEL, mels * _LINEAR, above)


def stft(
    samples: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int,
    center: bool = True,
    pad_mode: str = "reflect",
) -> np.ndarray:
    """Short-time spectrum with a periodic Hann window: (n_fft // 2 + 1, frames), complex64."""
    import torch

    return torch.stft(
        torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)),
        n_fft,
        hop_length,
        win_length,
        torch.hann_window(win_length),
        center=center,
        pad_mode=pad_mode,
        return_complex=True,
    ).numpy()


def trim(
    samples: np.ndarray, *, top_db: float = 60.0, frame: int = 2048, hop: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """The samples without the ends that are ``top_db`` below the loudest frame, and the bounds."""
    padded = np.pad(np.asarray(samples, dtype=np.float32), frame // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    power = np.maximum(1e-10, np.mean(np.square(windows), axis=1, dtype=np.float64))
    level = 10.0 * np.log10(power) - 10.0 * np.log10(power.max())
    loud = np.flatnonzero(level > -top_db)
    if len(loud) == 0:
        return samples[:0], np.array([0, 0])
    start = int(loud[0]) * hop
    end = min(len(samples), (int(loud[-1]) + 1) * hop)
    return samples[start:end], np.array([start, end])


def resample(
    samples: np.ndarray, *, orig_sr: float, target_sr: float, res_type: str = "soxr_hq", **_: Any
) -> np.ndarray:
    """Resamples with libsoxr to the length ``ceil(len * target / orig)``, float32."""
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if orig_sr == target_sr:
        return samples
    import soxr

    ratio = target_sr / orig_sr
    length = int(np.ceil(len(samples) * ratio))
    out = soxr.resample(samples, orig_sr, target_sr, quality="soxr_hq")
    if len(out) < length:
        out = np.pad(out, (0, length - len(out)))
    return np.ascontiguousarray(out[:length], dtype=np.float32)
