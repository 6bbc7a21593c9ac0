"""The figures by which the passes through S3Gen are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from chatterbex.s3gen.network import FRAME
from chatterbex.s3gen.noise import Noise
from chatterbex.s3gen.passes import MelTask, S3GenPass
from chatterbex.s3gen.reference import Reference
from chatterbex.stages import finish

GAINS: Final = {"s3gen.mel": 200.0, "s3gen.pitch": 2.0, "s3gen.source": 1000.0, "s3gen.samples": 700.0}
"""How much each component multiplies the rounding of float32: measured against float64 on synthetic
checkpoints (`test_proof_gains.py`), and doubled: it varies a little with the processor."""

# Tokens of the voice's prompt.
_PROMPT: Final = 25


class Figures:
    """Computes a mel, its pitch, a source signal and samples.

    The first pass is the CPU's. The results that its later components need from earlier ones are kept and
    given to every other pass, so that each component is compared by itself.
    """

    def __init__(self, voice: Reference, tokens: Sequence[int]) -> None:
        """Keeps the voice and the tokens that it speaks."""
        self._tokens = torch.tensor([tokens])
        self._voice = Reference(
            voice.prompt_token[:, :_PROMPT], voice.prompt_feat[:, : 2 * _PROMPT], voice.embedding
        )
        self._shared: dict[str, Tensor] = {}

    def of(self, net: S3GenPass) -> dict[str, Tensor]:
        """The figures of a pass by component, on the pass's device."""
        device, noise = net.device, Noise(0)

        def shared(name: str, value: Tensor) -> Tensor:
            return self._shared.setdefault(name, value.cpu()).to(device)

        task = MelTask(self._tokens.to(device), self._voice.to(device), noise, final=True)
        [mel] = finish(net.mel_stages([task], steps=1))
        shared_mel = shared("mel", mel)
        pitch = net.pitch(shared_mel)
        random = noise.source(0, shared_mel.shape[2], net.harmonics, FRAME).to(device)
        source, _ = net.source(shared("pitch", pitch), noise.phases(net.harmonics), random)
        samples = net.wave(shared_mel, shared("source", source))
        return {"s3gen.mel": mel, "s3gen.pitch": pitch, "s3gen.source": source, "s3gen.samples": samples}
