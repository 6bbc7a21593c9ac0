"""Drawing one token from the logits of one request.

Llama models: repetition penalty, temperature, min_p, top_p. GPT-2 models: temperature, top_k,
top_p, repetition penalty. That is the order in which the models were tuned to be used.

Everything is float32 on the CPU, with a generator of the request's own, so that a seed gives
the same speech whatever device computed the logits and whoever else is in the batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Sampling, T3Config

_NEVER = float("-inf")


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
        self._seen = torch.empty(1, most + 1, dtype=torch.long)
        self._seen[0, 0] = config.start_speech
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
        if not math.isfinite(logits.max().item()):
            raise FloatingPointError("the model's output is not finite")
        if self._sampling.temperature == 0:
            token = int(self._penalised(logits).argmax())
        else:
            scores = self._like_llama(logits) if self._penalty_first else self._like_gpt2(logits)
            chances = F.softmax(scores, dim=-1)
            token = int(torch.multinomial(chances, 1, generator=self._generator))
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
            self._seen[0, self._count] = token
            self._count += 1

    def _penalised(self, scores: Tensor) -> Tensor:
        penalty = self._sampling.repetition_penalty
        if penalty == 1:
            return scores
        seen = self._seen[:, : self._count]
        marked = scores.gather(1, seen)
        marked = torch.where(marked < 0, marked * penalty, marked / penalty)
        return scores.scatter(1, seen, marked)

    def _heated(self, scores: Tensor) -> Tensor:
        temperature = self._sampling.temperature
        return scores if temperature == 1 else scores / temperature

    def _like_llama(self, logits: Tensor) -> Tensor:
        scores = self._heated(self._penalised(logits))
        if self._sampling.min_p > 0:
            scores = at_least(scores, self._sampling.min_p)
        if self._sampling.top_p < 1:
            scores = nucleus(scores, self._sampling.top_p)
        return scores

    def _like_gpt2(self, logits: Tensor) -> Tensor:
        scores = self._heated(logits)
        top_k, top_p = self._sampling.top_k, self._sampling.top_p
        if 0 < top_k < scores.shape[1]:
            scores = best(scores, top_k, top_p)
        elif top_p < 1:
            scores = nucleus(scores, top_p)
        return self._penalised(scores)


def at_least(scores: Tensor, min_p: float) -> Tensor:
    """min_p: (1, V) with what is less likely than `min_p` times the likeliest ruled out."""
    chances = F.softmax(scores, dim=-1)
    return scores.masked_fill(chances < min_p * chances.amax(dim=-1, keepdim=True), _NEVER)


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """top_p: (1, V) with all but the likeliest, which sum to `top_p`, ruled out."""
    rising, order = torch.sort(scores, dim=-1)
    out = F.softmax(rising, dim=-1).cumsum(dim=-1) <= 1 - top_p
    out[:, -1] = False
    return scores.masked_fill(torch.empty_like(out).scatter_(1, order, out), _NEVER)


def best(scores: Tensor, top_k: int, top_p: float) -> Tensor:
    """top_k, then top_p: (1, V) with the others ruled out.

    The outcome is that of the two filters one after the other. Only numbers are sorted, not their places,
    which numpy does many times as fast as torch: whatever is less than the last that stays is ruled out.
    """
    rising = torch.from_numpy(np.sort(scores[0].numpy()))[-top_k:]
    keep = top_k
    if top_p < 1:
        gone = F.softmax(rising, dim=-1).cumsum(dim=-1) <= 1 - top_p
        keep = max(1, top_k - int(gone.sum()))
    out = scores < rising[-keep]
    if int(out.sum()) == scores.shape[1] - keep:
        return scores.masked_fill(out, _NEVER)
    # several share the last place: top_k lets all of them stay
    scores = scores.masked_fill(scores < rising[0], _NEVER)
    return nucleus(scores, top_p) if top_p < 1 else scores
