"""The few layers that upstream takes from diffusers and einops, with the same parameter names.

They are here so that those packages, and torch._dynamo with them, need not be installed or imported.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

Linear = nn.Linear


def activation(name: str) -> nn.Module:
    """An activation layer by name; the flow's time embedding asks for SiLU."""
    return {"silu": nn.SiLU, "swish": nn.SiLU, "mish": nn.Mish, "gelu": nn.GELU}[name.lower()]()


def flattened(x: torch.Tensor, pattern: str) -> torch.Tensor:
    """The only einops rearrangement in use: all dimensions except the last become one."""
    if pattern != "... d -> (...) d":
        raise NotImplementedError(f"rearrangement {pattern}")
    return x.reshape(-1, x.shape[-1])


class GELU(nn.Module):
    """A linear projection followed by GELU."""

    def __init__(self, dim_in: int, dim_out: int, approximate: str = "none", bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out, bias=bias)
        self.approximate = approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim_in) to (..., dim_out)."""
        return F.gelu(self.proj(x), approximate=self.approximate)


class Attention(nn.Module):
    """Multi-head self-attention over the whole sequence."""

    def __init__(
        self,
        query_dim: int,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        bias: bool = False,
        cross_attention_dim: int | None = None,
        upcast_attention: bool = False,
    ) -> None:
        super().__init__()
        if cross_attention_dim is not None or upcast_attention:
            raise NotImplementedError("only plain self-attention is used by S3Gen")
        inner = heads * dim_head
        self.heads = heads
        self.to_q = nn.Linear(query_dim, inner, bias=bias)
        self.to_k = nn.Linear(query_dim, inner, bias=bias)
        self.to_v = nn.Linear(query_dim, inner, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(inner, query_dim), nn.Dropout(dropout)])

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(batch, time, dim) to the same; ``attention_mask`` is a bias of (batch, 1 or time, time)."""
        if encoder_hidden_states is not None:
            raise NotImplementedError("only self-attention is used by S3Gen")
        if attention_mask is not None:
            attention_mask = attention_mask.unsqueeze(1)
        query, key, value = (
            layer(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))
