"""min_p, top_k and top_p written down plainly, to compare the native library's filters with."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

_NEVER = np.float32("-inf")


def at_least(scores: np.ndarray, min_p: float) -> np.ndarray:
    """min_p: (V,) without tokens less likely than `min_p` times the likeliest."""
    return np.where(scores < scores.max() + math.log(min_p), _NEVER, scores)


def best(scores: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """top_k, then top_p: (V,) with only those of the `top_k` likeliest that sum to `top_p`.

    The outcome is that of the two filters one after the other. Only numbers are sorted, not their places,
    which is many times as fast: whatever is less than the last that stays is ruled out.
    """
    top_k = min(top_k, len(scores))
    if top_k == len(scores) and top_p >= 1:
        return scores
    rising = np.sort(scores)[-top_k:]
    keep = max(1, top_k - np.count_nonzero(_beyond(rising, top_p)))
    out = scores < rising[-keep]
    if np.count_nonzero(out) == len(scores) - keep:
        return np.where(out, _NEVER, scores)
    # several share the last place: top_k lets all of them stay, top_p those that stand last
    scores = np.where(scores < rising[0], _NEVER, scores)
    order = torch.sort(torch.from_numpy(scores)).indices.numpy()
    out = _beyond(scores[order], top_p)
    out[-1] = False
    scores[order[out]] = _NEVER
    return scores


def _beyond(rising: np.ndarray, top_p: float) -> np.ndarray:
    """Which of these are not needed for the likeliest to sum to `top_p`."""
    if top_p >= 1:
        return np.zeros(len(rising), dtype=bool)
    return (F.softmax(torch.from_numpy(rising), dim=-1).cumsum(dim=-1) <= 1 - top_p).numpy()
