"""Weights that are the same on every machine and with every version of PyTorch and NumPy."""

from __future__ import annotations

import math

import numpy as np

from chatterbex.t3 import T3Config
from synthetic import t3 as synthetic


def portable(start: int, *shape: int) -> np.ndarray:
    """Numbers within -1..1: whole numbers, mixed, then scaled by a power of two."""
    z = np.arange(start, start + math.prod(shape), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return ((z >> np.uint64(53)).astype(np.float32) - np.float32(1023.5)).reshape(shape) * np.float32(2**-10)


def portable_weights(config: T3Config) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, scaled so that each part of the model matters."""
    weights = {}
    for number, (name, shape) in enumerate(synthetic.shapes(config).items()):
        array = portable((number + 1) << 32, *shape) * np.float32(_scale(name, shape))
        weights[name] = array + 1 if len(shape) == 1 and name.endswith("weight") else array
    return weights


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if name.startswith(("text_emb.", "speech_emb.", "cond_enc.spkr_enc.")) or len(shape) == 3:
        return 1.0
    return 2**-3 if len(shape) > 1 else 2**-4
