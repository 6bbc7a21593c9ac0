"""The parts of torchaudio that the Chatterbox models use, with the same results but without the package.

The last release of torchaudio is for PyTorch 2.11. This has only the settings that upstream's code uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ZERO_CROSSINGS = 6
_ROLLOFF = 0.99  # of the lower rate's Nyquist frequency


def resample(waveform: Tensor, orig_freq: int, new_freq: int) -> Tensor:
    """Audio at another rate, by sinc interpolation with a Hann window.

    Args:
        waveform: float32, (..., samples).
        orig_freq: its sample rate in Hz.
        new_freq: the rate to convert to in Hz.

    Returns:
        float32, (..., ceil(samples * new_freq / orig_freq)).
    """
    divisor = math.gcd(orig_freq, new_freq)
    old, new = orig_freq // divisor, new_freq // divisor
    if old == new:
        return waveform
    kernels, width = _resampling_kernels(old, new)
    samples = waveform.shape[-1]
    flat = functional.pad(waveform.reshape(-1, 1, samples), (width, width + old))
    out = functional.conv1d(flat, kernels.to(waveform.device), stride=old)
    out = out.transpose(1, 2).reshape(*waveform.shape[:-1], -1)
    return out[..., : math.ceil(new * samples / old)]


@lru_cache(maxsize=8)
def _resampling_kernels(old: int, new: int) -> tuple[Tensor, int]:
    """One filter for each of the ``new`` output samples in a period: (new, 1, taps), and its half width."""
    cutoff = min(old, new) * _ROLLOFF
    width = math.ceil(_ZERO_CROSSINGS * old / cutoff)
    taps = torch.arange(-width, width + old, dtype=torch.float64)[None, None] / old
    phases = torch.arange(0, -new, -1)[:, None, None] / new
    times = ((phases + taps) * cutoff).clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = torch.cos(times * math.pi / _ZERO_CROSSINGS / 2) ** 2
    angles = times * math.pi
    sinc = torch.where(angles == 0, 1.0, angles.sin() / angles)
    return (sinc * (window * (cutoff / old))).float(), width


_RATE = 16_000
_FRAME = 400
_HOP = 160
_FFT = 512
_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97


def fbank(waveform: Tensor, *, num_mel_bins: int) -> Tensor:
    """Kaldi's log mel filter bank of 16 kHz audio, in frames of 25 ms every 10 ms, without dither.

    Args:
        waveform: float32, (1, samples), at least 400 samples.
        num_mel_bins: the number of mel bands.

    Returns:
        float32, (frames, num_mel_bins).
    """
    frames = waveform[0].unfold(0, _FRAME, _HOP)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = frames - _PREEMPHASIS * previous
    window = torch.hann_window(_FRAME, periodic=False, dtype=frames.dtype, device=frames.device).pow(0.85)
    power = torch.fft.rfft(frames * window, n=_FFT).abs().pow(2.0)
    energies = power @ _mel_bands(num_mel_bins).to(frames.device).T
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


@lru_cache(maxsize=2)
def _mel_bands(count: int) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale of HTK: (count, _FFT // 2 + 1)."""
    lowest, highest = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (_LOWEST_HZ, _RATE / 2))
    step = (highest - lowest) / (count + 1)
    band = torch.arange(count)[:, None]
    left, centre, right = (lowest + (band + offset) * step for offset in (0.0, 1.0, 2.0))
    bins = 1127.0 * (1.0 + _RATE / _FFT * torch.arange(_FFT // 2) / 700.0).log()[None]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0.0)
    return functional.pad(filters, (0, 1))  # nothing from the Nyquist frequency


class _Transform(nn.Module):
    """The settings that both spectrograms share."""

    def __init__(
        self,
        n_fft: int,
        win_length: int,
        hop_length: int,
        window_fn: Callable[[int], Tensor],
        normalized: bool = False,
    ) -> None:
        super().__init__()
        if normalized:
            raise NotImplementedError("a normalised spectrogram")
        self.register_buffer("window", window_fn(win_length), persistent=False)
        self._sizes = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length}


class Spectrogram(_Transform):
    """The complex spectrum of audio: (..., samples) to (..., n_fft // 2 + 1, frames)."""

    def __init__(self, *, power: float | None, **sizes: Any) -> None:
        """Takes torchaudio's arguments; ``power`` must be None."""
        super().__init__(**sizes)
        if power is not None:
            raise NotImplementedError("a spectrogram of magnitudes")

    def forward(self, waveform: Tensor) -> Tensor:
        """Computes the spectrum, with the ends of the audio mirrored."""
        return torch.stft(waveform, window=self.window, center=True, return_complex=True, **self._sizes)


class InverseSpectrogram(_Transform):
    """Audio from its complex spectrum: (..., n_fft // 2 + 1, frames) to (..., samples)."""

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Computes the audio, by least squares where frames overlap."""
        return torch.istft(spectrogram, window=self.window, center=True, **self._sizes)
