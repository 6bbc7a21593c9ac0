"""T3 on the CPU, with the Rust engine: the same bits on every processor, for any threads and any batch."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .model import T3
from .native import T3Engine


@dataclass(eq=False)
class CpuSlot:
    """One running sequence; see `passes.Pass`."""

    number: int
    length: int = 0


class CpuPrefix:
    """The KV cache of a voice, stored once for all requests that speak with it; see `passes.Prefix`."""

    def __init__(self, engine: T3Engine, slot: CpuSlot) -> None:
        """Keeps the current contents of a slot."""
        self.length = slot.length
        self._engine = engine
        self.number = engine.prefix(slot.number, slot.length)
        weakref.finalize(self, engine.close, self.number)

    @property
    def nbytes(self) -> int:
        """Its size in memory, in bytes."""
        config = self._engine.config
        return config.layers * 2 * config.dim * self.length * 4


class T3CpuPass:
    """Runs T3's layers on the CPU; see `passes.Pass`.

    Attributes:
        rows: how many sequences may be open at a time.
        weight_bytes: of the packed weights.
        precision: of the packed weights.
    """

    def __init__(
        self, t3: T3, rows: int, *, threads: int, precision: str = "float32", instruction_set: str = ""
    ) -> None:
        """Packs the weights. The embedding tables stay in the mapped checkpoint.

        Args:
            t3: the weights, which are not needed afterwards.
            rows: how many sequences may be open at a time.
            threads: the most threads that a step uses.
            precision: "float32" or "int8".
            instruction_set: see `T3Engine`.
        """
        self.rows = rows
        self.precision = precision
        self._engine = T3Engine(
            t3.config, t3.weights, threads=threads, precision=precision, instruction_set=instruction_set
        )
        self._threads = threads
        self._tokens = t3.weights["speech_emb.weight"]
        self._steps = t3.weights.get("speech_pos_emb.emb.weight")
        self._places = t3.weights.get("tfmr.wpe.weight")
        self.weight_bytes = self._engine.nbytes[0]

    @property
    def nbytes(self) -> int:
        """Bytes in the KV cache, without those of kept voices, which their owner counts."""
        return self._engine.nbytes[1]

    def use(self, threads: int | None) -> None:
        """See `passes.Pass.use`."""
        self._engine.threads = threads or self._threads

    def open(self, positions: int, prefix: CpuPrefix | None = None) -> CpuSlot:
        """See `passes.Pass.open`."""
        if prefix is None:
            return CpuSlot(self._engine.open(positions))
        return CpuSlot(self._engine.open(positions, prefix.number), prefix.length)

    def close(self, slot: CpuSlot) -> None:
        """See `passes.Pass.close`."""
        self._engine.close(slot.number)

    def prefix(self, slot: CpuSlot) -> CpuPrefix:
        """See `passes.Pass.prefix`."""
        return CpuPrefix(self._engine, slot)

    def read(self, slots: Sequence[CpuSlot], x: Tensor, want: bool) -> Tensor | None:
        """See `passes.Pass.read`."""
        count, length, _ = x.shape
        if self._places is not None:
            x = x + self._places[slots[0].length : slots[0].length + length]
        logits = self._forward(slots, x.flatten(0, 1), [length] * count, [want] * count)
        return logits if want else None

    def step(self, slots: Sequence[CpuSlot], tokens: Sequence[int], steps: Sequence[int]) -> Tensor:
        """See `passes.Pass.step`."""
        x = self._tokens[torch.tensor(tokens)]
        if self._steps is not None:
            x = x + self._steps[torch.tensor(steps)]
        if self._places is not None:
            x = x + self._places[torch.tensor([slot.length for slot in slots])]
        return self._forward(slots, x, [1] * len(slots), [True] * len(slots))

    def _forward(
        self, slots: Sequence[CpuSlot], x: Tensor, counts: Sequence[int], want: Sequence[bool]
    ) -> Tensor:
        step = self._engine.forward([slot.number for slot in slots], x, counts, want)
        for slot, count in zip(slots, counts, strict=True):
            slot.length += count
        return torch.from_numpy(step.logits)
