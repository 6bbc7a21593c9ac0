"""The figures by which the passes through T3 are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .conditionals import T3Conditionals
from .passes import PIECE, Pass

GAIN: Final = 100.0
"""How much T3 multiplies the rounding of float32: measured against float64 on synthetic checkpoints
(`test_proof_gains.py`), and doubled."""


def logits(t3: Pass, front: Any, voice: T3Conditionals, text: list[int], tokens: Sequence[int]) -> Tensor:
    """The logits after a text and after each spoken token, (1 + tokens, vocabulary)."""
    embedded = [front.voice(voice)[None], front.text(text, guided=False)]
    slot = t3.open(sum(part.shape[1] for part in embedded) + len(tokens))
    try:
        for part in embedded:
            for piece in part.split(PIECE, dim=1):
                last = t3.read([slot], piece, want=True)
        steps = [t3.step([slot], [token], [number]) for number, token in enumerate(tokens, 1)]
        return torch.cat([last, *steps])
    finally:
        t3.close(slot)
