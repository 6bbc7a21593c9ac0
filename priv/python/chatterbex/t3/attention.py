"""Attention over the key/value cache: one query for each running row, or a piece of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .cache import KeyValueCache


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, eager: bool) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: (B, H, T, D).
        k: (B, H, S, D).
        v: (B, H, S, D).
        mask: bool, True where a query may look, broadcastable to (B, H, T, S); None for all.
        eager: write it out, for devices whose fused kernel cannot be trusted.

    Returns:
        (B, H, T, D).
    """
    if not eager:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.matmul(F.softmax(scores, dim=-1), v)


class Watch:
    """Gathers what a few heads of one row look at in the text, averaged over the heads."""

    def __init__(self, heads: Sequence[tuple[int, int]], text: range) -> None:
        """Watches `heads`, (layer, head) pairs, over the positions `text`."""
        self._text = text
        self._share = 1.0 / len(heads)
        self._heads: dict[int, list[int]] = {}
        for layer, head in heads:
            self._heads.setdefault(layer, []).append(head)
        self._seen: Tensor | None = None

    def look(self, layer: int, q: Tensor, k: Tensor, position: int) -> None:
        """Adds one layer's attention.

        Args:
            layer: which layer.
            q: (T, H, D) queries of consecutive positions.
            k: (H, S, D) keys; S is at least the last query's position plus one.
            position: position of the first query. Those not past the text are left out.
        """
        heads = self._heads.get(layer)
        first = max(0, self._text.stop - position)
        if heads is None or first >= q.shape[0]:
            return
        for head in heads:
            scores = torch.matmul(q[first:, head], k[head].t()) * q.shape[-1] ** -0.5  # (t, S)
            if scores.shape[0] > 1:  # a later query must not be seen by an earlier one
                reach = position + first + torch.arange(scores.shape[0], device=q.device)
                places = torch.arange(scores.shape[1], device=q.device)
                hidden = places[None] > reach[:, None]
                scores = scores.masked_fill(hidden, float("-inf"))
            weights = F.softmax(scores, dim=-1)[:, self._text.start : self._text.stop]
            weights = weights * self._share
            self._seen = weights if self._seen is None else self._seen + weights

    def take(self) -> Tensor | None:
        """(t, text) on the CPU: the rows gathered since the last call, or None."""
        seen, self._seen = self._seen, None
        return None if seen is None else seen.cpu()


@dataclass
class Row:
    """One running sequence: where it lies in the cache and how far it is.

    Attributes:
        index: of the cache's row.
        position: of the token that is being fed.
        watch: what watches a few of its heads.
        voice: keys and values of the voice that it begins with, (layers, 2, H, P, D), if they are to be
            read apart. The row has them as well.
    """

    index: int
    position: int
    watch: Watch | None = None
    voice: Tensor | None = None


class DecodeAttention:
    """One query per row, each over its own length."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[Row], eager: bool) -> None:
        """Attention of one decode step for `rows`, in the order of the batch."""
        self._rows = [(row, cache.row(row.index)) for row in rows]
        self._eager = eager

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """Writes keys and values, then attends.

        Args:
            layer: which layer.
            qkv: (M, 3, H, D).

        Returns:
            (M, H * D).
        """
        outputs = []
        for number, (row, views) in enumerate(self._rows):
            kv = views[layer]  # (2, H, L, D)
            mine = qkv[number]  # (3, H, D)
            kv.select(2, row.position).copy_(mine[1:])
            seen = kv.narrow(2, 0, row.position + 1).unsqueeze(1)  # (2, 1, H, S, D)
            keys, values = seen.unbind(0)
            query = mine[0][None, :, None]  # (1, H, 1, D)
            outputs.append(attend(query, keys, values, None, self._eager))
            if row.watch is not None:
                row.watch.look(layer, mine[:1], keys[0], row.position)
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return joined.reshape(len(outputs), -1)


class BatchedDecodeAttention:
    """One query per row in a single padded call, for devices where each call costs."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[Row], eager: bool) -> None:
        """Attention of one decode step for `rows`, in the order of the batch."""
        self._cache, self._rows, self._eager = cache, rows, eager
        device = cache.device
        indices = [row.index for row in rows]
        # a gather of all keys and values is only needed where the rows do not lie side by side
        self._side_by_side = indices == list(range(indices[0], indices[0] + len(indices)))
        self._indices = torch.tensor(indices).to(device)
        self._positions = torch.tensor([row.position for row in rows]).to(device)
        self._length = max(row.position for row in rows) + 1
        places = torch.arange(self._length, device=device)
        mask = places[None] <= self._positions[:, None]  # (M, S)
        self._mask = mask[:, None, None]

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """As `DecodeAttention` does."""
        data = self._cache.data[layer]  # (rows, 2, H, L, D)
        data[self._indices, :, :, self._positions] = qkv[:, 1:]  # (M, 2, H, D)
        if self._side_by_side:
            first = self._rows[0].index
            data = data.narrow(0, first, len(self._rows)).narrow(3, 0, self._length)
        else:
            data = data.narrow(3, 0, self._length).index_select(0, self._indices)
        keys, values = data.unbind(1)  # (M, H, S, D)
        output = attend(qkv[:, 0, :, None], keys, values, self._mask, self._eager)
        for number, row in enumerate(self._rows):
            if row.watch is not None:
                seen = keys[number, :, : row.position + 1]
                row.watch.look(layer, qkv[number, :1], seen, row.position)
        return output.reshape(len(self._rows), -1)


class PrefillAttention:
    """A piece of one sequence, or of the two sequences of a guided request."""

    def __init__(
        self, cache: KeyValueCache, rows: Sequence[int], start: int, length: int, eager: bool
    ) -> None:
        """Attention of positions `start` to `start + length` of `rows`."""
        self._views = [cache.row(index) for index in rows]
        self._start, self._length, self._eager = start, length, eager
        mask = torch.ones(length, start + length, dtype=torch.bool, device=cache.device)
        self._mask = mask.tril(start)
        self.watch: Watch | None = None

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """Writes keys and values, then attends.

        Args:
            layer: which layer.
            qkv: (rows * length, 3, H, D), row after row.

        Returns:
            (rows * length, H * D).
        """
        end = self._start + self._length
        outputs = []
        for number, views in enumerate(self._views):
            kv = views[layer]  # (2, H, L, D)
            mine = qkv[number * self._length : (number + 1) * self._length]  # (T, 3, H, D)
            mine = mine.permute(1, 2, 0, 3)  # (3, H, T, D)
            kv[:, :, self._start : end] = mine[1:]
            keys, values = kv[:, None, :, :end].unbind(0)  # (1, H, S, D)
            output = attend(mine[0][None], keys, values, self._mask, self._eager)
            outputs.append(output[0].transpose(0, 1).flatten(1))  # (T, H * D)
            if number == 0 and self.watch is not None:
                self.watch.look(layer, mine[0].transpose(0, 1), keys[0], self._start)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
