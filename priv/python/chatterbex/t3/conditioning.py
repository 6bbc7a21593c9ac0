"""The part of T3 that turns a voice into the embeddings in front of the text.

Module names are those of the checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import T3Config
from .linear import Linear


class PerceiverAttention(nn.Module):
    """Attention of one sequence over another, with a shared norm and a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        """Makes room for the weights.

        Args:
            dim: width of both sequences.
            heads: attention heads.
        """
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_q = Linear(dim, dim, bias=True)
        self.to_k = Linear(dim, dim, bias=True)
        self.to_v = Linear(dim, dim, bias=True)
        self.proj_out = Linear(dim, dim, bias=True)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(Q, dim) and (S, dim) to (Q, dim)."""
        normed, source = self.norm(queries), self.norm(keys)
        # (heads, length, head_dim)
        q = self.to_q(normed).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        k = self.to_k(source).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        v = self.to_v(source).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        # written out: it runs once per voice, and is then right on every device
        scores = torch.matmul(q, k.transpose(1, 2)) * q.shape[-1] ** -0.5
        mixed = torch.matmul(F.softmax(scores, dim=-1), v)
        return queries + self.proj_out(mixed.transpose(0, 1).flatten(1))


class Perceiver(nn.Module):
    """Condenses a speech prompt of any length to a fixed number of embeddings."""

    def __init__(self, queries: int, dim: int, heads: int) -> None:
        """Makes room for the weights.

        Args:
            queries: number of embeddings that come out.
            dim: their width.
            heads: attention heads.
        """
        super().__init__()
        self.pre_attention_query = nn.Parameter(torch.empty(1, queries, dim), requires_grad=False)
        self.attn = PerceiverAttention(dim, heads)

    def forward(self, prompt: Tensor) -> Tensor:
        """(P, dim) to (queries, dim)."""
        gathered = self.attn(self.pre_attention_query[0], prompt)
        return self.attn(gathered, gathered)


class ConditionEncoder(nn.Module):
    """Speaker, speech prompt and emotion, one after the other."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        self.spkr_enc = Linear(config.speaker_dim, config.dim, bias=True)
        self.emotion_adv_fc = Linear(1, config.dim, bias=False) if config.emotion else None
        self.perceiver = None
        if config.perceiver_queries:
            self.perceiver = Perceiver(config.perceiver_queries, config.dim, config.perceiver_heads)

    def forward(self, speaker: Tensor, prompt: Tensor | None, emotion: Tensor | None) -> Tensor:
        """Puts the conditioning together.

        Args:
            speaker: (1, speaker_dim).
            prompt: (P, dim) embedded speech prompt, or None.
            emotion: one number in any shape, or None for models without it.

        Returns:
            (length, dim).
        """
        pieces = [self.spkr_enc(speaker.reshape(1, -1))]
        if prompt is not None:
            pieces.append(prompt if self.perceiver is None else self.perceiver(prompt))
        if self.emotion_adv_fc is not None and emotion is not None:
            pieces.append(self.emotion_adv_fc(emotion.reshape(1, 1)))
        return torch.cat(pieces)
