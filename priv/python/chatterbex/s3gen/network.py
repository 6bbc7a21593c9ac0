"""S3Gen's flow and vocoder: upstream's networks with their weights as the checkpoint stores them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

RATE = 24_000
"""The sample rate, in Hz."""
FRAME = 480
"""Samples in a mel frame."""
TOKEN = 960
"""Samples in a speech token: two frames."""
CODES = 6561
"""Ids from here on are not sound."""
SILENCE = 4299
"""The token of silence."""


class S3Gen(nn.Module):
    """The flow turns speech tokens into mel frames; the vocoder turns mel frames into samples.

    This only holds their weights, and never changes them. A pass (`S3GenCpuPass` or
    `S3GenGpuPass`) computes with them.

    Attributes:
        meanflow: whether the flow was distilled to take two steps without guidance.
    """

    def __init__(self, published: Any) -> None:
        """Keeps the flow and the vocoder of upstream's module."""
        super().__init__()
        self.meanflow: bool = published.meanflow
        self.flow = published.flow
        self.mel2wav = published.mel2wav
        self.register_buffer("trim_fade", published.trim_fade, persistent=False)
        # Tensors that upstream keeps as plain attributes would stay behind when the module moves.
        for embed in (self.flow.encoder.embed, self.flow.encoder.up_embed):
            _to_buffer(embed.pos_enc, "pe")
        _to_buffer(self.mel2wav, "stft_window")

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.trim_fade.device


def _to_buffer(module: nn.Module, name: str) -> None:
    tensor = getattr(module, name)
    delattr(module, name)
    module.register_buffer(name, tensor, persistent=False)
