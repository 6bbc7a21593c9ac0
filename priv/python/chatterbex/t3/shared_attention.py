"""Attention of one decode step on the CPU: rows in one call, and a voice that they share read once.

A step waits for the memory: for the keys and values of every row, of which the voice is often the
greater part, and it is the same for all who speak with it. So what a row's query finds in the voice
and what it finds in the row's own positions are computed apart, and put together by how much each
weighs: with the logarithm of the sum of the exponentials of its scores (Milakov and Gimelshein,
"Online normalizer calculation for softmax", https://arxiv.org/abs/1805.02867; for shared prefixes Juravsky
et al., "Hydragen", https://arxiv.org/abs/2402.05099).

A row's numbers are the same, to the bit, alone and in any company: what lies beyond its end is
masked, and lengths are filled up to whole vectors. That is up to how torch was built, so `is_exact`
tries it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..threads import torch_threads
from .attention import Row, attend
from .cache import KeyValueCache

# Torch's fused attention for the CPU, which also tells each query's log-sum-exp. It is not public.
_FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

# Voices from this length on are read apart; what reading a shorter one twice costs is less than putting
# the two parts together.
_LONG = 128

# Lengths are whole multiples of this many positions: a vector of the widest instructions.
_WHOLE = 16

# Rows of one call, at most: of more torch would split the elementwise work among threads, and the ends of the
# pieces, computed one by one, may differ in the last bit.
_MOST = 8

# How much of what a call reads may be beyond the rows' ends: a third.
_WASTE = 1.5


def is_long(voice: int) -> bool:
    """Whether a voice of so many positions is worth being read apart."""
    return voice >= _LONG


def room(length: int) -> int:
    """Positions of the cache that a row of so many needs."""
    return length + _WHOLE - 1


class SharedAttention:
    """One query per row, each over its own length."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[Row]) -> None:
        """Attention of one decode step for `rows`, in the order of the batch."""
        self._rows, self._data = rows, cache.data
        self._groups = [_Group(cache, group) for group in _grouped(rows)]
        if len(rows) == 1:  # numbers are a faster index than tensors
            self._place = (rows[0].index, rows[0].position)
        else:
            self._place = tuple(torch.tensor([[row.index, row.position] for row in rows]).t())

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """As `DecodeAttention` does."""
        index, position = self._place
        self._data[layer][index, :, :, position] = qkv[:, 1:]  # (M, 2, H, D)
        queries = qkv[:, 0, :, None]  # (M, H, 1, D)
        first, outputs = 0, []
        for group in self._groups:
            outputs.append(group.attend(layer, queries[first : first + group.size]))
            first += group.size
        for number, row in enumerate(self._rows):
            if row.watch is not None:
                keys = self._data[layer, row.index, 0, :, : row.position + 1]
                row.watch.look(layer, qkv[number, :1], keys, row.position)
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.flatten(1)


class _Group:
    """Rows that lie side by side in the cache, are about as long, and speak with one voice."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[Row]) -> None:
        self.size = len(rows)
        start = _start(rows[0])
        ends = torch.tensor([row.position + 1 - start for row in rows])
        length = _whole(int(ends.max()))
        first = rows[0].index
        self._own = cache.data[:, first : first + self.size, :, :, start : start + length]
        beyond = torch.arange(length) >= ends[:, None]
        self._mask = torch.zeros(self.size, 1, 1, length).masked_fill_(beyond[:, None, None], float("-inf"))
        voice = rows[0].voice
        # (layers, 2, H, M, P, D): head by head, so that all rows but the first find it in the core's cache
        self._voice = None if voice is None else voice.unsqueeze(3).expand(-1, -1, -1, self.size, -1, -1)

    def attend(self, layer: int, queries: Tensor) -> Tensor:
        """(M, H, 1, D) to the same."""
        keys, values = self._own[layer].unbind(1)  # (M, H, S, D)
        if self._voice is None:
            return F.scaled_dot_product_attention(queries, keys, values, attn_mask=self._mask)
        own, own_weight = _FUSED(queries, keys, values, attn_mask=self._mask)  # (M, H, 1, D), (M, H, 1)
        keys, values = self._voice[layer].unbind(0)  # (H, M, P, D)
        said, said_weight = _FUSED(queries.transpose(0, 1), keys, values)  # (H, M, 1, D), (H, M, 1)
        # Spread over all numbers of a head: what is left of a vector rounds differently.
        share = (said_weight.transpose(0, 1) - own_weight).unsqueeze(3).expand_as(own).sigmoid()
        return torch.lerp(own, said.transpose(0, 1), share)


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for row in rows:
        if groups and _belongs(groups[-1], row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _belongs(group: Sequence[Row], row: Row) -> bool:
    if len(group) == _MOST or row.index != group[-1].index + 1 or row.voice is not group[0].voice:
        return False
    lengths = [one.position + 1 - _start(one) for one in (*group, row)]
    return max(lengths) * len(lengths) <= _WASTE * sum(lengths)


def _start(row: Row) -> int:
    return 0 if row.voice is None else row.voice.shape[3]


def _whole(length: int) -> int:
    return -(-length // _WHOLE) * _WHOLE


# -- whether it can be trusted ------------------------------------------------------------------------


@functools.cache
def is_exact(heads: int, head_dim: int, voice: int) -> bool:
    """Whether a row's numbers are the same alone and beside others, and right.

    Args:
        heads: of each layer.
        head_dim: numbers of each head.
        voice: positions of a voice that is read apart; 0 for none.
    """
    if _FUSED is None:
        return False
    with torch.inference_mode():
        return _Trial(heads, head_dim, voice).passed()


class _Trial:
    """Made-up rows, few positions long, and more than the 512 at which torch cuts its work in blocks."""

    _LENGTHS = (9, 513)

    def __init__(self, heads: int, head_dim: int, voice: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._cache = KeyValueCache(1, heads, head_dim, torch.device("cpu"), torch.float32)
        self._indices = self._cache.acquire(_MOST, room(voice + max(self._LENGTHS)))
        self._voice = torch.randn(1, 2, heads, voice, head_dim, generator=generator) if voice else None
        self._start = voice
        own = torch.randn(2, heads, room(max(self._LENGTHS)), head_dim, generator=generator)
        for index in self._indices:
            self._cache.data[0, index, :, :, voice : voice + own.shape[2]] = own.roll(index)
        self._qkv = torch.randn(_MOST, 3, heads, head_dim, generator=generator)

    def passed(self) -> bool:
        return all(self._same(most) for most in self._LENGTHS)

    def _same(self, most: int) -> bool:
        lengths = [max(1, most - 3 * number) for number in range(_MOST)]
        rows = [
            Row(index, self._start + length - 1, voice=self._voice)
            for index, length in zip(self._indices, lengths, strict=True)
        ]
        with torch_threads(1):
            alone = torch.cat([self._given(rows, number, number + 1) for number in range(_MOST)])
        for count in range(2, _MOST + 1):
            if not torch.equal(self._given(rows, 0, count), alone[:count]):
                return False
        return torch.allclose(alone, self._written_out(rows), atol=1e-4)

    def _given(self, rows: Sequence[Row], start: int, end: int) -> Tensor:
        return SharedAttention(self._cache, rows[start:end])(0, self._qkv[start:end])

    def _written_out(self, rows: Sequence[Row]) -> Tensor:
        outputs = []
        for row, query in zip(rows, self._qkv[:, 0], strict=True):
            seen = self._cache.data[0, row.index, :, :, self._start : row.position + 1]
            if self._voice is not None:
                seen = torch.cat([self._voice[0], seen], dim=2)
            keys, values = seen[:, None]  # (1, H, S, D)
            outputs.append(attend(query[None, :, None], keys, values, None, eager=True))
        return torch.cat(outputs).flatten(1)
