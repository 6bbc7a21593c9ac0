"""The two transformers of T3 in PyTorch, written for rows: (M, dim) in, (M, dim) out.

A row is one position of one sequence. The layers do not know which rows belong together; the
attention that they are given does. Module names are those of the checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import blank
from .config import Rope, T3Config

# (layer, queries (M, H, D), keys (M, H, D), values (M, H, D)) to (M, H * D)
Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]

_NOWHERE = torch.empty(0)


@dataclass
class Rows:
    """What the layers share in one forward pass.

    Attributes:
        attention: computes attention of one layer.
        cos: (M, 1, D), for models that rotate queries and keys.
        sin: likewise, its first half negated.
    """

    attention: Attention
    cos: Tensor = _NOWHERE
    sin: Tensor = _NOWHERE


class Conv1D(nn.Module):
    """A linear layer whose weight is stored inputs first, as GPT-2's are."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Makes room for the weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        return torch.addmm(self.bias, x, self.weight)


class Gpt2Layer(nn.Module):
    """One layer of GPT-2."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        dim, ffn = config.dim, config.ffn
        self.ln_1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = nn.ModuleDict({"c_attn": Conv1D(dim, 3 * dim), "c_proj": Conv1D(dim, dim)})
        self.ln_2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(dim, ffn), "c_proj": Conv1D(ffn, dim)})
        self._split = (3, config.heads, config.head_dim)

    def forward(self, index: int, x: Tensor, rows: Rows) -> Tensor:
        """(M, dim) to (M, dim)."""
        qkv = self.attn["c_attn"](self.ln_1(x)).unflatten(1, self._split)
        x = x + self.attn["c_proj"](rows.attention(index, *qkv.unbind(1)))
        up = F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["c_proj"](up)


class LlamaLayer(nn.Module):
    """One layer of Llama."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        dim, ffn = config.dim, config.ffn
        self.input_layernorm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(dim, dim, bias=False) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        )
        self.post_attention_layernorm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(dim, ffn, bias=False),
                "up_proj": nn.Linear(dim, ffn, bias=False),
                "down_proj": nn.Linear(ffn, dim, bias=False),
            }
        )
        self._heads = (config.heads, config.head_dim)

    def forward(self, index: int, x: Tensor, rows: Rows) -> Tensor:
        """(M, dim) to (M, dim)."""
        normed = self.input_layernorm(x)
        query, key, value = (
            self.self_attn[name](normed).unflatten(1, self._heads) for name in ("q_proj", "k_proj", "v_proj")
        )
        attended = rows.attention(index, _rotated(query, rows), _rotated(key, rows), value)
        x = x + self.self_attn["o_proj"](attended)
        normed = self.post_attention_layernorm(x)
        up = F.silu(self.mlp["gate_proj"](normed)) * self.mlp["up_proj"](normed)
        return x + self.mlp["down_proj"](up)


def _rotated(x: Tensor, rows: Rows) -> Tensor:
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), dim=-1)
    return x * rows.cos + swapped * rows.sin


class Gpt2(nn.Module):
    """GPT-2 without token embeddings."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        self.wpe = nn.Embedding(config.positions, config.dim)
        self.h = nn.ModuleList([Gpt2Layer(config) for _ in range(config.layers)])
        self.ln_f = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, x: Tensor, positions: Tensor, rows: Rows) -> Tensor:
        """Runs all layers and the last norm.

        Args:
            x: (M, dim) embeddings.
            positions: (M,) int64: each row's place in its sequence.
            rows: what the layers share.
        """
        x = x + self.wpe.weight.index_select(0, positions)
        for index, layer in enumerate(self.h):
            x = layer(index, x, rows)
        return self.ln_f(x)


class Llama(nn.Module):
    """Llama without token embeddings."""

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights, and computes the rotary tables."""
        super().__init__()
        self.layers = nn.ModuleList([LlamaLayer(config) for _ in range(config.layers)])
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        cos, sin = rope_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, positions: Tensor, rows: Rows) -> Tensor:
        """As `Gpt2.forward`."""
        rows.cos = self.cos.index_select(0, positions)[:, None]
        rows.sin = self.sin.index_select(0, positions)[:, None]
        for index, layer in enumerate(self.layers):
            x = layer(index, x, rows)
        return self.norm(x)


class Body(nn.Module):
    """The part of a T3 that runs for every token. It takes spoken tokens and returns logits.

    Attributes:
        config: its sizes.
    """

    def __init__(self, config: T3Config) -> None:
        """Makes room for the weights."""
        super().__init__()
        self.config = config
        self.tfmr = Llama(config) if config.backbone == "llama" else Gpt2(config)
        self.speech_emb = nn.Embedding(config.speech_vocab, config.dim)
        self.speech_pos_emb: nn.ModuleDict | None = None
        if config.learned_positions:
            self.speech_pos_emb = nn.ModuleDict({"emb": nn.Embedding(config.speech_positions, config.dim)})
        self.speech_head = nn.Linear(config.dim, config.speech_vocab, bias=config.backbone == "gpt2")

    @classmethod
    def of(cls, config: T3Config, weights: Mapping[str, Tensor]) -> Body:
        """A body with the weights of a checkpoint, which are not copied.

        Args:
            config: the checkpoint's sizes.
            weights: all of its tensors, as `T3.weights` has them.
        """
        body = blank(lambda: cls(config))
        names = body.state_dict().keys()
        body.load_state_dict({name: weights[name] for name in names}, strict=True, assign=True)
        return body.requires_grad_(False).eval()

    def embed(self, tokens: Tensor, steps: Tensor) -> Tensor:
        """Embeds spoken tokens.

        Args:
            tokens: (M,) int64 ids.
            steps: (M,) int64: which token of its speech each one is, the first being 1.

        Returns:
            (M, dim).
        """
        x = self.speech_emb.weight.index_select(0, tokens)
        if self.speech_pos_emb is not None:
            x = x + self.speech_pos_emb["emb"].weight.index_select(0, steps)
        return x


def rope_tables(config: T3Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, (positions, head_dim), the first half of the sines negated."""
    frequencies = rope_frequencies(config.rope, config.head_dim)
    places = torch.arange(config.positions, dtype=torch.float32)
    angles = places[:, None] * frequencies[None]  # (positions, D / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)


def rope_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """(head_dim / 2,) radians per position, long wavelengths stretched as Llama 3 does."""
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
