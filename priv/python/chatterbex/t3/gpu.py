"""T3 on a GPU, with PyTorch: fixed slots, few shapes, and one transfer to the CPU per step.

A GPU is slow when it meets something new: MPS compiles a graph for each shape, and CUDA waits for each
launch. So the KV cache has slots of a fixed size, a step computes a batch of 1, 2, 4, ... rows over a length
that is a multiple of 256, and text is read in pieces of one size. Unused rows write to a scratch position.
On CUDA, each pair of batch and length is recorded once as a graph and then replayed (`graphs.py`).

The same code runs on CPU tensors, for tests and to compare a device with the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ChatterbexError
from .backbone import Body, Rows
from .config import T3Config
from .graphs import CudaGraphs
from .passes import PIECE

SLOT: Final = 1536
"""Positions in a slot: enough for a voice of turbo, a text of 160 tokens and 1000 spoken tokens."""

_BUCKET: Final = 256


def row_bytes(config: T3Config, positions: int = SLOT, itemsize: int = 4) -> int:
    """Bytes in one slot: keys and values of all layers."""
    return config.layers * 2 * config.dim * (positions + 1) * itemsize


@dataclass(eq=False)
class GpuSlot:
    """One sequence in a bank; see `passes.Slot`."""

    bank: _Bank
    index: int
    length: int = 0


@dataclass(frozen=True)
class GpuPrefix:
    """The KV cache of a voice; see `passes.Prefix`."""

    length: int
    layers: list[Tensor]  # each (2, H, P, D), P a multiple of `PIECE`

    @property
    def nbytes(self) -> int:
        """Its size in memory, in bytes."""
        return sum(layer.numel() * layer.element_size() for layer in self.layers)


class _Bank:
    """Slots of one length: for each layer (2, slots, H, length + 1, D). The last position is scratch."""

    def __init__(self, config: T3Config, slots: int, length: int, like: Tensor) -> None:
        self.length = length
        shape = (2, slots, config.heads, length + 1, config.head_dim)
        # Masked attention multiplies the memory behind a sequence by zero, so it must be finite.
        self.layers = [like.new_zeros(shape) for _ in range(config.layers)]
        self.free = list(range(slots))

    @property
    def nbytes(self) -> int:
        return sum(layer.numel() * layer.element_size() for layer in self.layers)

    def wipe(self, index: int) -> None:
        for layer in self.layers:
            layer[:, index] = 0


class T3GpuPass:
    """Runs T3's layers with PyTorch, on the body's device; see `passes.Pass`.

    Attributes:
        rows: how many sequences may be open at a time.
        weight_bytes: of the body.
        precision: of the body.
        graphs: the state of CUDA's graphs; None on other devices.
    """

    def __init__(
        self, body: Body, rows: int, *, positions: int = SLOT, eager_attention: bool = False
    ) -> None:
        """Keeps a body, on its device. Slots are allocated when the first one is opened.

        Args:
            body: the layers.
            rows: how many sequences may be open at a time.
            positions: of each slot.
            eager_attention: write attention out, because the fused kernel cannot be trusted.
        """
        self.rows = rows
        self.weight_bytes = sum(
            parameter.numel() * parameter.element_size() for parameter in body.parameters()
        )
        self.precision = str(body.speech_emb.weight.dtype).removeprefix("torch.")
        self._body = body
        self._config = body.config
        self._positions = min(_rounded(positions, _BUCKET), _rounded(body.config.positions, _BUCKET))
        self._eager = eager_attention
        self._usual: _Bank | None = None
        self._long: list[_Bank] = []
        self.graphs = CudaGraphs() if self._device.type == "cuda" else None

    @property
    def _device(self) -> torch.device:
        return self._body.speech_emb.weight.device

    def use(self, threads: int | None) -> None:
        """Does nothing: a GPU does not depend on the CPU's threads."""

    @property
    def nbytes(self) -> int:
        """Bytes in the KV cache."""
        return sum(bank.nbytes for bank in self._banks)

    @property
    def _banks(self) -> list[_Bank]:
        return [*([self._usual] if self._usual is not None else []), *self._long]

    # -- slots -----------------------------------------------------------------------------

    @torch.inference_mode()
    def open(self, positions: int, prefix: GpuPrefix | None = None) -> GpuSlot:
        """See `passes.Pass.open`."""
        slot = self._take(positions + PIECE)  # the last piece of a text is padded
        if prefix is not None:
            for layer, kept in zip(slot.bank.layers, prefix.layers, strict=True):
                layer[:, slot.index, :, : kept.shape[2]] = kept
            slot.length = prefix.length
        return slot

    def _take(self, positions: int) -> GpuSlot:
        if positions > self._positions:
            # A longer request gets a bank of its own.
            bank = _Bank(self._config, 1, _rounded(positions, 4 * _BUCKET), self._body.speech_emb.weight)
            self._long.append(bank)
        else:
            if self._usual is None:
                self._usual = _Bank(self._config, self.rows, self._positions, self._body.speech_emb.weight)
            bank = self._usual
            if not bank.free:
                raise ChatterbexError("overloaded", f"all {self.rows} slots of the device are in use")
        return GpuSlot(bank, bank.free.pop(0))

    @torch.inference_mode()
    def close(self, slot: GpuSlot) -> None:
        """See `passes.Pass.close`."""
        if slot.bank in self._long:
            self._long.remove(slot.bank)
            return
        slot.bank.wipe(slot.index)
        slot.bank.free = sorted([*slot.bank.free, slot.index])

    @torch.inference_mode()
    def prefix(self, slot: GpuSlot) -> GpuPrefix:
        """See `passes.Pass.prefix`."""
        padded = _rounded(slot.length, PIECE)
        return GpuPrefix(
            slot.length, [layer[:, slot.index, :, :padded].clone() for layer in slot.bank.layers]
        )

    # -- passes ----------------------------------------------------------------------------

    @torch.inference_mode()
    def read(self, slots: Sequence[GpuSlot], x: Tensor, want: bool) -> Tensor | None:
        """See `passes.Pass.read`."""
        count, length, dim = x.shape
        padded = x.new_zeros(count, PIECE, dim)
        padded[:, :length] = x
        start = slots[0].length
        bank = slots[0].bank
        positions = torch.arange(start, start + PIECE).repeat(count)
        rows = torch.tensor([slot.index for slot in slots]).repeat_interleave(PIECE)
        numbers = torch.stack([positions, rows]).to(self._device)
        bucket = _rounded(start + PIECE, _BUCKET)
        embeddings = padded.flatten(0, 1).to(self._device, self._body.speech_emb.weight.dtype)
        hidden = self._layers(bank, embeddings, *numbers, bucket, PIECE)
        for slot in slots:
            slot.length += length
        if not want:
            return None
        last = hidden.unflatten(0, (count, PIECE))[:, length - 1]
        return self._body.speech_head(last).float().cpu()

    @torch.inference_mode()
    def step(self, slots: Sequence[GpuSlot], tokens: Sequence[int], steps: Sequence[int]) -> Tensor:
        """See `passes.Pass.step`."""
        out = torch.empty(len(slots), self._config.speech_vocab)
        for bank in self._banks:
            mine = [number for number, slot in enumerate(slots) if slot.bank is bank]
            if mine:
                self._step_bank(bank, slots, tokens, steps, mine, out)
        return out

    def _step_bank(
        self,
        bank: _Bank,
        slots: Sequence[GpuSlot],
        tokens: Sequence[int],
        steps: Sequence[int],
        mine: Sequence[int],
        out: Tensor,
    ) -> None:
        batch = self._batch(1 + max(slots[number].index for number in mine))
        bucket = _rounded(1 + max(slots[number].length for number in mine), _BUCKET)
        numbers = torch.zeros(4, batch, dtype=torch.long)  # tokens, steps, positions, rows
        numbers[2] = bank.length
        numbers[3] = torch.arange(batch)
        for number in mine:
            slot = slots[number]
            numbers[:3, slot.index] = torch.tensor([tokens[number], steps[number], slot.length])

        def compute(numbers: Tensor) -> Tensor:
            return self._decode(bank, numbers, bucket)

        if self.graphs is not None and bank is self._usual:
            result = self.graphs.run((batch, bucket), numbers.to(self._device), compute)
        else:
            result = compute(numbers.to(self._device))
        result = result.cpu()
        for number in mine:
            slots[number].length += 1
            out[number] = result[slots[number].index]

    def _decode(self, bank: _Bank, numbers: Tensor, bucket: int) -> Tensor:
        """(batch, V) logits."""
        tokens, steps, positions, rows = numbers
        hidden = self._layers(bank, self._body.embed(tokens, steps), positions, rows, bucket, 1)
        return self._body.speech_head(hidden).float()

    def _layers(
        self, bank: _Bank, x: Tensor, positions: Tensor, rows: Tensor, bucket: int, length: int
    ) -> Tensor:
        """Runs the layers over `length` positions of each sequence.

        Args:
            bank: holds the sequences.
            x: (M, dim) embeddings, sequence after sequence.
            positions: (M,) of each row in its sequence.
            rows: (M,) slot of each row. In a decode step (`length` 1) these are 0, 1, 2, ...
            bucket: positions that attention covers.
            length: positions of each sequence.

        Returns:
            (M, dim), after the last norm.
        """
        count = x.shape[0] // length
        places = torch.arange(bucket, device=x.device)
        mask = places <= positions.view(count, 1, length, 1)  # (sequences, 1, length, bucket)

        def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = bank.layers[layer].unbind(0)  # (slots, H, L, D)
            keys[rows, :, positions] = key
            values[rows, :, positions] = value
            if length == 1:
                keys, values = keys[:count, :, :bucket], values[:count, :, :bucket]
            else:
                chosen = rows.view(count, length)[:, 0]
                keys, values = (each[:, :, :bucket].index_select(0, chosen) for each in (keys, values))
            query = query.unflatten(0, (count, length)).transpose(1, 2)  # (sequences, H, length, D)
            return attend(query, keys, values, mask, self._eager).transpose(1, 2).flatten(0, 1).flatten(1)

        # Padding and unused rows may be past the last position that the model knows.
        clamped = positions.clamp(max=self._config.positions - 1)
        return self._body.tfmr(x, clamped, Rows(attention))

    def _batch(self, rows: int) -> int:
        return min(self.rows, 1 << (rows - 1).bit_length())


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, eager: bool) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: (B, H, T, D).
        keys: (B, H, S, D).
        values: (B, H, S, D).
        mask: bool, True where a query may attend, broadcastable to (B, H, T, S).
        eager: write it out, for devices whose fused kernels cannot be trusted.

    Returns:
        (B, H, T, D).
    """
    if not eager:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    scores = torch.matmul(query, keys.transpose(-1, -2)) * query.shape[-1] ** -0.5
    weights = F.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
    return torch.matmul(weights, values)


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
