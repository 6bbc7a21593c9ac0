"""The random numbers of one request, which depend only on its seed and on positions.

A chunk of a stream is computed again with the chunks after it, and must then meet the same noise at the
same place. A request must also sound the same on every device and in every batch. So noise is made on the
CPU, in blocks, each with its own generator.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_BLOCK = 64  # frames
_KEPT = 4  # how many blocks of the source's noise to cache; they are large and used in order


class Noise:
    """The noise of one request.

    Attributes:
        seed: the request's seed.
    """

    def __init__(self, seed: int) -> None:
        """Makes none yet."""
        self.seed = seed
        self._mel: dict[tuple[str, int], Tensor] = {}
        self._source: dict[int, Tensor] = {}

    def mel(self, prompt: int, frames: int, channels: int = 80) -> Tensor:
        """The noise that the flow starts from: (1, channels, prompt + frames).

        Args:
            prompt: frames of the voice. They have separate noise, so their number does not matter.
            frames: frames of the speech.
            channels: mel bands.
        """
        return torch.cat(
            [self._flow("prompt", prompt, channels), self._flow("mel", frames, channels)], dim=1
        )[None]

    def source(self, first: int, last: int, harmonics: int, frame: int) -> Tensor:
        """Noise of the vocoder's source for frames ``first`` to ``last``: (1, harmonics, samples)."""
        blocks = range(first // _BLOCK, -(-last // _BLOCK))
        for block in blocks:
            if block not in self._source:
                size = (harmonics, _BLOCK * frame)
                self._source[block] = torch.randn(size, generator=self._generator("source", block))
        joined = torch.cat([self._source[block] for block in blocks], dim=1)
        for block in sorted(self._source)[:-_KEPT]:
            del self._source[block]
        start = (first - blocks.start * _BLOCK) * frame
        return joined[None, :, start : start + (last - first) * frame]

    def phases(self, harmonics: int) -> Tensor:
        """The starting phase of each harmonic of the source, in turns; the first starts at 0."""
        phases = torch.rand(harmonics, generator=self._generator("phases", 0), dtype=torch.float64) - 0.5
        phases[0] = 0.0
        return phases

    def _flow(self, kind: str, frames: int, channels: int) -> Tensor:
        blocks = []
        for block in range(math.ceil(frames / _BLOCK)):
            if (kind, block) not in self._mel:
                generator = self._generator(kind, block)
                self._mel[kind, block] = torch.randn(channels, _BLOCK, generator=generator)
            blocks.append(self._mel[kind, block])
        return torch.cat(blocks, dim=1)[:, :frames] if blocks else torch.zeros(channels, 0)

    def _generator(self, kind: str, block: int) -> torch.Generator:
        name = f"chatterbex:{self.seed}:{kind}:{block}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
        return torch.Generator().manual_seed(seed)
