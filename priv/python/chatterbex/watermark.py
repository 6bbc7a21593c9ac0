"""PerTh, Resemble AI's inaudible watermark, which is in all speech of the Chatterbox models.

The network is upstream's. The code around it is ours, because upstream's keeps gradients and imports
librosa to resample.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from chatterbex import checkpoint, upstream
from chatterbex.errors import ChatterbexError
from chatterbex.s3gen.signal import resample
from chatterbex.voices import Audio

_FILE = "perth_net_250000.pth.tar"
_SURE = 0.5
_SHORTEST = 1024  # samples at PerTh's rate: half a window, which the first frame mirrors


class Watermarker:
    """Adds the watermark to samples, and detects it. It stays on the CPU."""

    def __init__(self) -> None:
        """Loads PerTh's weights from its package.

        Raises:
            ChatterbexError: The package is not installed ("not_set_up") or damaged
                ("model_load_failed").
        """
        folder = upstream.perth_folder()
        module = upstream.perth()
        path = folder / _FILE
        weights = checkpoint.read_pickle(path)
        if not isinstance(weights, dict) or not isinstance(weights.get("model"), dict):
            raise ChatterbexError(
                "model_load_failed", f"{path} is not the file of the package resemble-perth"
            )
        settings = _settings((folder / "hparams.yaml").read_text(encoding="utf-8"))
        net = checkpoint.blank(lambda: module.PerthNet(module.PerthConfig(**settings)))
        # The file also has the windows of the spectrograms, which the module computes.
        learned = {name: value for name, value in weights["model"].items() if not name.startswith("ap.")}
        self._net: Any = checkpoint.fill(net, checkpoint.normalised(learned, path), path)
        self._rate = int(settings["sample_rate"])

    @torch.inference_mode()
    def apply(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """The same number of samples, with the watermark.

        Args:
            samples: float32, 1-D. Less than 32 ms is returned unchanged.
            sample_rate: of the samples.
        """
        signal = resample(samples, orig_sr=sample_rate, target_sr=self._rate)
        if len(signal) <= _SHORTEST:
            return np.asarray(samples, dtype=np.float32)
        net = self._net
        magnitude, phase = net.ap.signal_to_magphase(torch.from_numpy(signal))
        marked, _ = net.encoder(magnitude[None])
        out = net.ap.magphase_to_signal(marked[0], phase).numpy()
        out = resample(out, orig_sr=self._rate, target_sr=sample_rate)[: len(samples)]
        if len(out) < len(samples):
            # The spectrogram has only whole frames; the rest stays unmarked.
            out = np.concatenate([out, samples[len(out) :]])
        return np.ascontiguousarray(out, dtype=np.float32)

    @torch.inference_mode()
    def confidence(self, samples: np.ndarray, sample_rate: int) -> float:
        """How sure PerTh is that the samples have its watermark, from 0 to 1."""
        signal = resample(samples, orig_sr=sample_rate, target_sr=self._rate)
        if len(signal) <= _SHORTEST or not np.any(signal):
            return 0.0
        magnitude, _ = self._net.ap.signal_to_magphase(torch.from_numpy(signal))
        value = float(self._net.decoder(magnitude[None])[0])
        return min(1.0, max(0.0, value)) if value == value else 0.0


@lru_cache(maxsize=1)
def watermarker() -> Watermarker:
    """The watermarker of this process."""
    return Watermarker()


def watermarked(samples: np.ndarray, sample_rate: int = 24_000) -> bool:
    """Whether samples have PerTh's watermark in them.

    Args:
        samples: float32, 1-D; a second or more is needed to be sure.
        sample_rate: of the samples.

    Raises:
        ChatterbexError: PerTh is not installed ("not_set_up").
    """
    samples = np.asarray(samples, dtype=np.float32).reshape(-1)
    return watermarker().confidence(samples, sample_rate) > _SURE


def answer(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Answers a command that asks whether audio has the watermark.

    Args:
        arguments: "samples" (bytes of float32, or an array; one channel), "sample_rate" (int).

    Returns:
        "watermarked" (bool) and "confidence" (float).

    Raises:
        ChatterbexError: It is not audio ("voice_unreadable"), or PerTh is not installed ("not_set_up").
    """
    audio = Audio.of(arguments)
    sure = watermarker().confidence(audio.samples, audio.sample_rate)
    return {"watermarked": sure > _SURE, "confidence": sure}


def _settings(text: str) -> dict[str, Any]:
    """PerTh's settings: lines of ``name: value``, so that no YAML library is needed."""
    settings: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name and not name.startswith("#"):
            settings[name] = _value(value)
    return settings


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
