"""Our parts of torchaudio give the same results as torchaudio."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chatterbex import torchaudio_parts

torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed: nothing to compare with")


@pytest.fixture
def waveform() -> torch.Tensor:
    """1.5 s of 16 kHz: noise over a tone, with silence at the end."""
    generator = torch.Generator().manual_seed(1)
    audio = 0.1 * torch.randn(1, 24_001, generator=generator)
    audio += 0.3 * torch.sin(torch.arange(24_001) * 0.05)
    audio[:, 23_000:] = 0.0
    return audio


@pytest.mark.parametrize(
    ("old", "new"), [(24_000, 16_000), (16_000, 24_000), (44_100, 16_000), (16_000, 16_000)]
)
def test_resampling(waveform: torch.Tensor, old: int, new: int) -> None:
    expected = torchaudio.transforms.Resample(old, new)(waveform)
    ours = torchaudio_parts.resample(waveform, old, new)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(torchaudio_parts.resample(waveform[0], old, new), ours[0], rtol=0, atol=1e-6)


def test_kaldis_filter_bank(waveform: torch.Tensor) -> None:
    import torchaudio.compliance.kaldi as kaldi

    ours = torchaudio_parts.fbank(waveform, num_mel_bins=80)
    torch.testing.assert_close(ours, kaldi.fbank(waveform, num_mel_bins=80), rtol=1e-5, atol=1e-4)
    assert ours.shape == (148, 80)
    assert ours[-1].unique().numel() == 1, "silence has the lowest energy in all bands"


@pytest.mark.parametrize("window_fn", [torch.hann_window, torch.hamming_window])
def test_spectrograms(waveform: torch.Tensor, window_fn: Any) -> None:
    settings = {
        "n_fft": 512,
        "win_length": 400,
        "hop_length": 160,
        "window_fn": window_fn,
        "normalized": False,
    }
    spectrum = torchaudio.transforms.Spectrogram(power=None, **settings)(waveform)
    ours = torchaudio_parts.Spectrogram(power=None, **settings)(waveform)
    torch.testing.assert_close(ours, spectrum, rtol=0, atol=1e-6)

    expected = torchaudio.transforms.InverseSpectrogram(**settings)(spectrum)
    back = torchaudio_parts.InverseSpectrogram(**settings)(spectrum)
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-6)


def test_settings_that_upstream_does_not_use_are_refused() -> None:
    settings = {"n_fft": 512, "win_length": 512, "hop_length": 256, "window_fn": torch.hann_window}
    with pytest.raises(NotImplementedError, match="magnitudes"):
        torchaudio_parts.Spectrogram(power=2.0, **settings)
    with pytest.raises(NotImplementedError, match="normalised"):
        torchaudio_parts.InverseSpectrogram(normalized=True, **settings)
