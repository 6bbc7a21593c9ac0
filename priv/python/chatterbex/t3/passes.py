"""What a session asks of the pass that computes for it.

A pass belongs to one device. It owns the keys and values of the running sequences and everything that was
packed or precomputed for that device. Dropping it gives all of that back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Slot(Protocol):
    """One running sequence.

    Attributes:
        length: positions that it holds so far.
    """

    length: int


class Prefix(Protocol):
    """Keys and values of a voice, to begin other sequences with.

    Attributes:
        length: its positions.
        nbytes: memory that it takes.
    """

    length: int
    nbytes: int


class Pass(Protocol):
    """Runs T3's layers on one device.

    Attributes:
        rows: how many sequences may be open at a time; a request with guidance needs two.
        weight_bytes: of the weights that it computes with.
        precision: that of the weights: "float32", "bfloat16" or "int8".
    """

    rows: int
    weight_bytes: int
    precision: str

    def open(self, positions: int, prefix: Any | None = None) -> Any:
        """A slot with room for a sequence, which begins with a voice if one is given."""

    def close(self, slot: Any) -> None:
        """Gives a slot back. Numbers in it that are not finite reach nobody."""

    def prefix(self, slot: Any) -> Any:
        """What a slot holds so far, to be kept."""

    def read(self, slots: Sequence[Any], x: Tensor, want: bool) -> Tensor | None:
        """Appends the same number of positions to each slot.

        Args:
            slots: one or two.
            x: (slots, T, dim) float32 embeddings on the CPU, T at most `PIECE`.
            want: whether the logits of the last position are asked for.

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
        """Bytes of keys and values."""


PIECE = 64
"""Positions that are read in at a time: enough for fast matrix products, few enough that the others' next
tokens come soon."""
