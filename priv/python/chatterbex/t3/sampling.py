"""Drawing one token from the logits of one request.

Llama models: repetition penalty, temperature, min_p, top_p. GPT-2 models: temperature, top_k,
top_p, repetition penalty. That is the order in which the models were tuned to be used.

Everything is float32 on the CPU, with a generator of the request's own, so that a seed gives
the same speech whatever device computed the logits and whoever else is in the batch. It is numpy's
work for the most part, whose operations on so few numbers begin sooner than torch's.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Sampling, T3Config

_NEVER = np.float32("-inf")


class Sampler:
    """Draws the tokens of one request, and remembers them."""

    def __init__(self, config: T3Config, sampling: Sampling, seed: int, most: int) -> None:
        """A sampler at the beginning of a speech.

        Args:
            config: whose order and start token are used.
            sampling: how to draw.
            seed: what makes it repeatable.
            most: most tokens that will be drawn.
        """
        self._sampling = sampling
        self._penalty_first = config.backbone == "llama"
        self._generator = torch.Generator().manual_seed(seed)
        # ids that the penalty falls on, each once; the speech begins with the start token
        self._seen = np.empty(most + 1, dtype=np.int64)
        self._seen[0] = config.start_speech
        self._count = 1
        self._ids = {config.start_speech}
        self.drawn: list[int] = []

    def draw(self, logits: Tensor) -> int:
        """Draws a token.

        Args:
            logits: (1, V) float32 on the CPU.

        Raises:
            FloatingPointError: if the logits are not numbers to draw from.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scores = logits[0].numpy().copy()
            _highest(scores)
            if self._sampling.temperature == 0:
                token = int(self._penalised(scores).argmax())
            else:
                scores = self._like_llama(scores) if self._penalty_first else self._like_gpt2(scores)
                token = self._any_of(scores)
        self._remember(token)
        return token

    def _remember(self, token: int) -> None:
        if not self._penalty_first and not self.drawn:
            # these models are penalised for what was said; the start token only counts at first
            self._count = 0
            self._ids.clear()
        self.drawn.append(token)
        if token not in self._ids:
            self._ids.add(token)
            self._seen[self._count] = token
            self._count += 1

    def _any_of(self, scores: np.ndarray) -> int:
        """Draws as `torch.multinomial` does, of whose time most goes into looking for what is not there.

        Whoever comes first in a race of exponential clocks that run at the speed of their chances has won.
        """
        clocks = torch.empty(len(scores)).exponential_(generator=self._generator).numpy()
        return int((np.exp(scores - _highest(scores)) / clocks).argmax())

    def _penalised(self, scores: np.ndarray) -> np.ndarray:
        penalty = self._sampling.repetition_penalty
        if penalty != 1:
            seen = self._seen[: self._count]
            marked = scores[seen]
            scores[seen] = np.where(marked < 0, marked * penalty, marked / penalty)
        return scores

    def _like_llama(self, scores: np.ndarray) -> np.ndarray:
        scores = self._penalised(scores)
        scores /= self._sampling.temperature
        if self._sampling.min_p > 0:
            scores = at_least(scores, self._sampling.min_p)
        return best(scores, len(scores), self._sampling.top_p)

    def _like_gpt2(self, scores: np.ndarray) -> np.ndarray:
        scores /= self._sampling.temperature
        scores = best(scores, self._sampling.top_k or len(scores), self._sampling.top_p)
        return self._penalised(scores)


def _highest(scores: np.ndarray) -> np.float32:
    highest = scores.max()  # which is no number if any is none
    if not math.isfinite(highest):
        raise FloatingPointError("the model's output is not finite")
    return highest


def at_least(scores: np.ndarray, min_p: float) -> np.ndarray:
    """min_p: (V,) with what is less likely than `min_p` times the likeliest ruled out."""
    return np.where(scores < scores.max() + math.log(min_p), _NEVER, scores)


def best(scores: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """top_k, then top_p: (V,) with all ruled out but, of the `top_k` likeliest, those that sum to `top_p`.

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
