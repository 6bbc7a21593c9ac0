"""The matrix products of the flow's U-Net on the CPU, and its attention, in float32 and in bfloat16.

`FLOAT32` and `BFLOAT16` have the same parts. Signals are (T, C) in float32: the network's residual stream and
its norms stay in float32. In bfloat16, the factors and results of a product are rounded to 8 bits; the
processor sums them in float32.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(Protocol):
    """A linear layer whose weights are stored in the order in which they are summed.

    Attributes:
        outputs: how many numbers it returns for a position.
    """

    outputs: int

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, N), in the type of the products."""

    def add(self, x: Tensor, out: Tensor) -> None:
        """Adds its result to (M, N) in float32."""

    def write(self, x: Tensor, out: Tensor) -> None:
        """Writes its result to (M, N) in the type of the products, for a layer without a bias."""


class Convolution(Protocol):
    """A convolution of each position with those just before it."""

    def __call__(self, x: Tensor) -> Tensor:
        """(T, C) to (T, C'), in float32."""


class Products(Protocol):
    """The parts of one precision.

    Attributes:
        name: of the precision: "float32" or "bfloat16".
        dtype: the type of the factors.
    """

    name: str
    dtype: torch.dtype

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """Packs the weights (N, K) of a linear layer."""

    def convolution(self, published: nn.Conv1d) -> Convolution:
        """Packs the weights of a convolution."""

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Attention to the whole signal, from and to (T, heads * D). It may change the query."""


# -- float32 -------------------------------------------------------------------------------------------


class _Linear:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.detach().t().contiguous()  # (K, N)
        self._bias = bias
        self.outputs = len(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self._weight).add_(self._bias)

    def add(self, x: Tensor, out: Tensor) -> None:
        out.addmm_(x, self._weight).add_(self._bias)

    def write(self, x: Tensor, out: Tensor) -> None:
        torch.mm(x, self._weight, out=out)


class _Convolution:
    def __init__(self, published: nn.Conv1d) -> None:
        self._bias = published.bias
        self._taps = published.weight.detach().permute(2, 1, 0).contiguous()  # (taps, C, C')

    def __call__(self, x: Tensor) -> Tensor:
        *earlier, last = self._taps
        out = torch.addmm(self._bias, x, last)
        for late, tap in enumerate(reversed(earlier), 1):
            out[late:].addmm_(x[:-late], tap)
        return out


class _Float32:
    name = "float32"
    dtype = torch.float32

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        return _Linear(weight, bias)

    def convolution(self, published: nn.Conv1d) -> Convolution:
        return _Convolution(published)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        split = (each.unflatten(1, (heads, -1)).transpose(0, 1)[None] for each in (query, key, value))
        return F.scaled_dot_product_attention(*split)[0].transpose(0, 1).flatten(1)


# -- bfloat16 ------------------------------------------------------------------------------------------


class _HalfLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.detach().t().bfloat16().contiguous()
        self._bias = bias
        self._rounded_bias = None if bias is None else bias.detach().bfloat16()
        self.outputs = len(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self._rounded_bias, x.bfloat16(), self._weight)

    def add(self, x: Tensor, out: Tensor) -> None:
        out.add_(torch.mm(x.bfloat16(), self._weight)).add_(self._bias)

    def write(self, x: Tensor, out: Tensor) -> None:
        torch.mm(x.bfloat16(), self._weight, out=out)


class _HalfConvolution:
    """One product for all taps, so that their sum is rounded once."""

    def __init__(self, published: nn.Conv1d) -> None:
        self._bias = published.bias
        weight = published.weight.detach().permute(2, 1, 0)  # (taps, C, C')
        self._taps = len(weight)
        self._weight = weight.flatten(0, 1).bfloat16().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        padded = F.pad(x.bfloat16(), (0, 0, self._taps - 1, 0))
        columns = torch.cat([padded[tap : tap + len(x)] for tap in range(self._taps)], dim=1)
        return torch.mm(columns, self._weight) + self._bias


class _BFloat16:
    name = "bfloat16"
    dtype = torch.bfloat16

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        return _HalfLinear(weight, bias)

    def convolution(self, published: nn.Conv1d) -> Convolution:
        return _HalfConvolution(published)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Head by head, written out: PyTorch's own attention is no faster in bfloat16 than in float32."""
        width = query.shape[1] // heads
        query = query.mul_(width**-0.5)
        out = torch.empty_like(value)
        for head in range(heads):
            of = slice(head * width, (head + 1) * width)
            weights = torch.softmax(query[:, of] @ key[:, of].t(), dim=1)
            torch.mm(weights, value[:, of], out=out[:, of])
        return out


FLOAT32: Final[Products] = _Float32()
BFLOAT16: Final[Products] = _BFloat16()
PRODUCTS: Final = {product.name: product for product in (FLOAT32, BFLOAT16)}
"""By the name of their precision."""
