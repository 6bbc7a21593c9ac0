"""The two transformers of T3, written for rows: (M, dim) in, (M, dim) out.

A row is one position of one sequence. The layers do not know which rows belong together: that
is the business of the attention they are given. Module names are those of the checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Rope, T3Config
from .linear import Linear, Matmul

# (layer, qkv (M, 3, H, D)) to (M, H * D)
Attention = Callable[[int, Tensor], Tensor]

# Torch splits larger elementwise work among threads, and the ends of the pieces, computed one by
# one, may differ in the last bit from what the vector instructions give.
_UNSPLIT = 32_767

_NOWHERE = torch.empty(0)


@dataclass
class Pass:
    """What all layers share in one forward pass.

    Attributes:
        attention: computes attention of one layer.
        cos: (M, 1, 1, D), for models that turn queries and keys.
        sin: likewise, its first half negated.
        rowwise: each row must come out the same, to the bit, whatever rows are beside it.
    """

    attention: Attention
    cos: Tensor = _NOWHERE
    sin: Tensor = _NOWHERE
    rowwise: bool = False

    def activate(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Applies an elementwise function."""
        if not self.rowwise or x.numel() <= _UNSPLIT or x.device.type != "cpu":
            return function(x)
        size = max(1, _UNSPLIT // x.shape[1])
        return torch.cat([function(block) for block in x.split(size)])


class Gpt2Layer(nn.Module):
    """One layer of GPT-2."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        dim, ffn = config.dim, config.ffn
        self.ln_1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = nn.ModuleDict(
            {
                "c_attn": Linear(dim, 3 * dim, bias=True, inputs_first=True),
                "c_proj": Linear(dim, dim, bias=True, inputs_first=True),
            }
        )
        self.ln_2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": Linear(dim, ffn, bias=True, inputs_first=True),
                "c_proj": Linear(ffn, dim, bias=True, inputs_first=True),
            }
        )
        self._split = (3, config.heads, config.head_dim)
        self._qkv = Matmul(self.attn["c_attn"])
        self._out = Matmul(self.attn["c_proj"])
        self._up = Matmul(self.mlp["c_fc"], gelu=True)
        self._down = Matmul(self.mlp["c_proj"])
        self.matmuls = (self._qkv, self._out, self._up, self._down)

    def forward(self, index: int, x: Tensor, run: Pass) -> Tensor:
        """(M, dim) to (M, dim); overwrites its input."""
        qkv = self._qkv(self.ln_1(x)).unflatten(1, self._split)
        x += self._out(run.attention(index, qkv))
        x += self._down(self._up(self.ln_2(x)))
        return x


class LlamaLayer(nn.Module):
    """One layer of Llama."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        dim, ffn = config.dim, config.ffn
        self.input_layernorm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.self_attn = nn.ModuleDict(
            {name: Linear(dim, dim, bias=False) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        )
        self.post_attention_layernorm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": Linear(dim, ffn, bias=False),
                "up_proj": Linear(dim, ffn, bias=False),
                "down_proj": Linear(ffn, dim, bias=False),
            }
        )
        self._split = (3, config.heads, config.head_dim)
        attn = self.self_attn
        self._qkv = Matmul(attn["q_proj"], attn["k_proj"], attn["v_proj"])
        self._out = Matmul(attn["o_proj"])
        self._up = Matmul(self.mlp["gate_proj"], self.mlp["up_proj"])
        self._down = Matmul(self.mlp["down_proj"])
        self.matmuls = (self._qkv, self._out, self._up, self._down)

    def forward(self, index: int, x: Tensor, run: Pass) -> Tensor:
        """(M, dim) to (M, dim); overwrites its input."""
        qkv = self._qkv(self.input_layernorm(x)).unflatten(1, self._split)  # (M, 3, H, D)
        turned = qkv[:, :2]  # queries and keys turn with their position, values do not
        low, high = turned.chunk(2, dim=-1)
        swapped = torch.cat((high, low), dim=-1).mul_(run.sin)
        turned.mul_(run.cos).add_(swapped)
        x += self._out(run.attention(index, qkv))
        gate, up = self._up(self.post_attention_layernorm(x)).chunk(2, dim=1)
        x += self._down(run.activate(F.silu, gate) * up)
        return x


class Gpt2(nn.Module):
    """GPT-2 without token embeddings."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        self.wpe = nn.Embedding(config.positions, config.dim)
        self.h = nn.ModuleList([Gpt2Layer(config) for _ in range(config.layers)])
        self.ln_f = nn.LayerNorm(config.dim, eps=config.norm_eps)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.h

    def enter(self, x: Tensor, positions: Tensor, run: Pass) -> Tensor:
        """Gives the rows their positions.

        Args:
            x: (M, dim) embeddings.
            positions: (M,) int64.
            run: what the layers will be given.
        """
        return x + self.wpe.weight.index_select(0, positions)

    def leave(self, x: Tensor) -> Tensor:
        """The last norm."""
        return self.ln_f(x)

    def build_buffers(self) -> None:
        """There are none."""


class Llama(nn.Module):
    """Llama without token embeddings."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        self._config = config
        self.layers = nn.ModuleList([LlamaLayer(config) for _ in range(config.layers)])
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        shape = (config.positions, config.head_dim)
        self.register_buffer("cos", torch.empty(shape), persistent=False)
        self.register_buffer("sin", torch.empty(shape), persistent=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.layers

    def enter(self, x: Tensor, positions: Tensor, run: Pass) -> Tensor:
        """Looks up the angles of the rows' positions; see `Gpt2.enter`."""
        run.cos = self.cos.index_select(0, positions)[:, None, None]
        run.sin = self.sin.index_select(0, positions)[:, None, None]
        return x.clone()

    def leave(self, x: Tensor) -> Tensor:
        """The last norm."""
        return self.norm(x)

    def build_buffers(self) -> None:
        """Fills the tables that no checkpoint holds."""
        config = self._config
        frequencies = rope_frequencies(config.rope, config.head_dim)
        places = torch.arange(config.positions, dtype=torch.float32)
        angles = places[:, None] * frequencies[None]  # (positions, D / 2)
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.cat((cos, cos), dim=1)
        self.sin = torch.cat((-sin, sin), dim=1)


def rope_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """(head_dim / 2,) radians per position, long wavelengths stretched."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    wavelengths = 2 * math.pi / frequencies
    stretched = frequencies / rope.factor
    # 0 at the longest wavelength of the ramp, 1 at the shortest
    ramp = (rope.original_positions / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    ramp = ramp.clamp(0, 1)
    blended = (1 - ramp) * stretched + ramp * frequencies
    return torch.where(ramp >= 1, frequencies, blended)


def matmuls(backbone: Gpt2 | Llama) -> Iterator[Matmul]:
    """All big products of a backbone."""
    for block in backbone.blocks:
        yield from block.matmuls
