"""A layer of the flow's encoder on the CPU: the same as upstream's, with less memory traffic.

Upstream's relative attention computes and copies scores for twice as many distances as there are,
for the whole text at once: 250 MB for 40 seconds of speech.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_QUERIES = 64  # at a time


def layer(published: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Computes the result of upstream's `ConformerEncoderLayer`.

    Args:
        published: the layer; normalised before each part, and without convolutions.
        x: (1, T, dim).
        positions: (1, 2T - 1, dim), encodings of the distances T - 1 to 1 - T.

    Returns:
        (1, T, dim).
    """
    x = x + _attention(published.self_attn, published.norm_mha(x), positions)
    return x + published.feed_forward(published.norm_ff(x))


def _attention(published: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Attention to content and to distance (https://arxiv.org/abs/1901.02860, section 3.3)."""
    query, key, value = published.forward_qkv(x, x, x)  # (1, H, T, D)
    distance = published.linear_pos(positions).unflatten(2, (published.h, -1)).transpose(1, 2)
    to_content = query + published.pos_bias_u.unsqueeze(1)
    to_distance = (query + published.pos_bias_v.unsqueeze(1)) / math.sqrt(published.d_k)
    length = x.shape[1]
    mixed = []
    for start in range(0, length, _QUERIES):
        end = min(length, start + _QUERIES)
        # The query at t meets the key at s at the distance t - s, and so at T - 1 - t + s.
        near = distance[:, :, length - end : 2 * length - 1 - start]
        scores = to_distance[:, :, start:end] @ near.transpose(2, 3)  # (1, H, end - start, T + ...)
        bias = _sheared(scores, length)
        part = F.scaled_dot_product_attention(to_content[:, :, start:end], key, value, attn_mask=bias)
        mixed.append(part)
    return published.linear_out(torch.cat(mixed, dim=2).transpose(1, 2).flatten(2))


def _sheared(scores: Tensor, length: int) -> Tensor:
    """(1, H, n, n - 1 + length) to (1, H, n, length): each row starts one place before the row above."""
    count = scores.shape[2]
    batch, heads, row, column = scores.stride()
    shape = (*scores.shape[:3], length)
    first = scores.storage_offset() + (count - 1) * column
    return scores.as_strided(shape, (batch, heads, row - column, column), first)
