"""What a session needs from the pass that computes for it.

A pass belongs to one device. It owns the KV cache of the running sequences and everything that was packed or
precomputed for that device. Dropping the pass frees all of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Slot(Protocol):
    """One running sequence.

    Attributes:
        length: the number of positions in it so far.
    """

    length: int


class Prefix(Protocol):
    """The KV cache of a voice, with which other sequences can begin.

    Attributes:
        length: its number of positions.
        nbytes: its size in memory.
    """

    length: int
    nbytes: int


class Pass(Protocol):
    """Runs T3's layers on one device.

    Attributes:
        rows: how many sequences may be open at a time; a request with guidance needs two.
        weight_bytes: the size of its weights.
        precision: the precision of its weights: "float32", "bfloat16" or "int8".
    """

    rows: int
    weight_bytes: int
    precision: str

    def open(self, positions: int, prefix: Any | None = None) -> Any:
        """A slot with room for `positions`. It begins with a voice if one is given."""

    def close(self, slot: Any) -> None:
        """Returns a slot. Numbers in it that are not finite cannot reach another request."""

    def prefix(self, slot: Any) -> Any:
        """Keeps the slot's current contents as a prefix."""

    def read(self, slots: Sequence[Any], x: Tensor, want: bool) -> Tensor | None:
        """Appends the same number of positions to each slot.

        Args:
            slots: one or two.
            x: (slots, T, dim) float32 embeddings on the CPU, T at most `PIECE`.
            want: whether to return the logits of the last position.

        Returns:
            (slots, V) float32 logits on the CPU, or None.
        """

    def step(self, slots: Sequence[Any], tokens: Sequence[int], steps: Sequence[int]) -> Tensor:
        """Appends one spoken token to each slot.

        Args:
            slots: each at most once.
            tokens: their ids.
            steps: which token of its speech each one is, the first being 1.

        Returns:
            (slots, V) float32 logits on the CPU.
        """

    def use(self, threads: int | None) -> None:
        """Sets how many threads of the CPU the next calls may use; None for the usual number."""

    @property
    def nbytes(self) -> int:
        """Bytes in the KV cache."""


PIECE = 64
"""How many positions are read at a time: enough for fast matrix products, and few enough that the other
requests' next tokens come soon."""
