"""Keys and values of the running sequences, and of the voices that were spoken lately."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

# Lengths grow by whole blocks, so that requests of about one length cause no reallocation.
_BLOCK = 256

# Torch's own tensors begin at such an address: kernels may round differently elsewhere.
_ALIGNED = 64


class KeyValueCache:
    """One tensor for all rows: (layers, rows, 2, heads, length, head_dim).

    It is made large enough for the requests that were admitted and never touched by the size of
    one token; it grows only when a request is admitted that is longer, or comes on top.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """An empty cache."""
        self.device = device
        self._layers, self._heads, self._head_dim = layers, heads, head_dim
        self._dtype = dtype
        self._views: dict[int, list[Tensor]] = {}
        self._free: list[int] = []
        self.data = self._new(0, 0)

    @property
    def rows(self) -> int:
        """Rows that there is room for."""
        return self.data.shape[1]

    @property
    def length(self) -> int:
        """Positions that there is room for."""
        return self.data.shape[4]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.data.numel() * self.data.element_size()

    def acquire(self, count: int, length: int) -> list[int]:
        """Takes `count` free rows with room for `length` positions; side by side if it can."""
        self._ensure(count, length)
        taken = self._free[:count]
        self._free = self._free[count:]
        return taken

    def release(self, rows: list[int]) -> None:
        """Gives rows back."""
        self._free = sorted([*self._free, *rows])

    def wipe(self, rows: list[int]) -> None:
        """Forgets what is in rows: numbers that are not finite would reach whoever comes next."""
        for row in rows:
            self.data[:, row] = 0

    def clear(self) -> None:
        """Lets go of the memory. No row may be in use."""
        self._views, self._free = {}, []
        self.data = self._new(0, 0)

    def row(self, index: int) -> list[Tensor]:
        """One (2, heads, length, head_dim) view for each layer."""
        views = self._views.get(index)
        if views is None:
            views = list(self.data[:, index].unbind(0))
            self._views[index] = views
        return views

    def copy_in(self, row: int, prefix: Tensor) -> None:
        """Writes the first positions of a row from (layers, 2, heads, P, head_dim)."""
        self.data[:, row, :, :, : prefix.shape[3]] = prefix

    def copy_out(self, row: int, length: int) -> Tensor:
        """A copy of the first positions of a row."""
        return self.data[:, row, :, :, :length].clone()

    def _ensure(self, free: int, length: int) -> None:
        rows = self.rows + max(0, free - len(self._free))
        length = max(self.length, -(-length // _BLOCK) * _BLOCK)
        if rows == self.rows and length == self.length:
            return
        old = self.data
        self.data = self._new(rows, length)
        self.data[:, : old.shape[1], :, :, : old.shape[4]] = old
        self._free.extend(range(old.shape[1], rows))
        self._views = {}

    def _new(self, rows: int, length: int) -> Tensor:
        shape = (self._layers, rows, 2, self._heads, length, self._head_dim)
        # padded attention multiplies what lies beyond a row's end by zero: it must be finite
        if self.device.type == "cpu":
            return _untouched(shape, self._dtype)
        return torch.zeros(shape, dtype=self._dtype, device=self.device)


class PrefixCache:
    """Keys and values of voices, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        """Keeps at most `limit` bytes."""
        self._limit = limit
        self._entries: OrderedDict[str, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(_size(entry) for entry in self._entries.values())

    def get(self, key: str) -> Tensor | None:
        """The entry, which counts as used now, or None."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Tensor) -> None:
        """Keeps an entry, unless it alone is over the limit."""
        if _size(entry) > self._limit:
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while self.nbytes > self._limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Drops everything."""
        self._entries.clear()


def _untouched(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the CPU, in pages that cost no memory until they are written to, which torch's own do."""
    size = math.prod(shape) * dtype.itemsize
    data = np.zeros(size + _ALIGNED, dtype=np.uint8)
    start = -data.ctypes.data % _ALIGNED
    return torch.from_numpy(data[start : start + size]).view(dtype).view(shape)


def _size(entry: Tensor) -> int:
    return entry.numel() * entry.element_size()
