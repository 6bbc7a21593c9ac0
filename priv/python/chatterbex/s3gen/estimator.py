"""The flow's U-Net on the CPU: the same as upstream's `ConditionalDecoder`, with less memory traffic.

Upstream's layers transpose their signal for every convolution and back, multiply it by masks of ones, and
write each result to new memory. Here

- channels are contiguous in memory throughout;
- a convolution is made of matrix products, without the code that oneDNN generates for every length;
- results are added in place;
- a single thread computes position-wise work for a few positions at a time, layer after layer, and reads the
  weights in the order in which they are summed.

Signals are (T, C): positions, channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbex.s3gen.products import FLOAT32, Products

# The most positions at a time. The BLAS does not pack so few first, and its results stay in the core's cache.
# Several threads share the whole signal, because over so few positions they would wait for each other.
_ROWS = 160
# From here on mish(x) is x in float32.
_MISH_IS_IDENTITY = 20.0


class Estimator:
    """Upstream's `ConditionalDecoder`, prepared for the CPU."""

    def __init__(self, published: Any, products: Products = FLOAT32) -> None:
        """Packs the weights of upstream's network, which must be on the CPU and causal."""
        self._down = [_Stage(products, *stage) for stage in published.down_blocks]
        self._middle = [_Stage(products, *stage) for stage in published.mid_blocks]
        self._up = [_Stage(products, *stage) for stage in published.up_blocks]
        self._final = _Block(products, published.final_block)
        self._projection = published.final_proj

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """The slope of the flow.

        Args:
            x: (B, 320, T): the flow's state, the encoder's frames, the speaker, and the prompt's frames.
            time: (1, 1024), the embedding of the time.

        Returns:
            (B, 80, T).
        """
        return torch.stack([self._slope(rows.t().contiguous(), time) for rows in x])

    def _slope(self, x: Tensor, time: Tensor) -> Tensor:
        skipped = []
        for stage in self._down:
            x = stage.blocks(x, time)
            skipped.append(x)
            x = stage.last(x)
        for stage in self._middle:
            x = stage.blocks(x, time)
        for stage in self._up:
            x = stage.last(stage.blocks(torch.cat([x, skipped.pop()], dim=1), time))
        return F.linear(self._final(x), self._projection.weight.squeeze(2), self._projection.bias).t()


class _Stage:
    """A residual block and transformer blocks, and the convolution after them, if there is one."""

    def __init__(
        self, products: Products, resnet: Any, transformers: nn.ModuleList, last: nn.Conv1d | None = None
    ) -> None:
        self._resnet = _Resnet(products, resnet)
        self._transformers = [_Transformer(products, block) for block in transformers]
        self.last = nn.Identity() if last is None else products.convolution(last)

    def blocks(self, x: Tensor, time: Tensor) -> Tensor:
        x = self._resnet(x, time)
        for transformer in self._transformers:
            transformer(x)
        return x


class _Resnet:
    """Upstream's `CausalResnetBlock1D`."""

    def __init__(self, products: Products, published: Any) -> None:
        self._time = published.mlp
        self._block1, self._block2 = (
            _Block(products, block) for block in (published.block1, published.block2)
        )
        self._skip = products.linear(published.res_conv.weight.squeeze(2), published.res_conv.bias)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self._block1(x).add_(self._time(time))
        out = self._block2(inner)
        self._skip.add(x, out)
        return out


class _Block:
    """Upstream's `CausalBlock1D`: a convolution, a norm, an activation."""

    def __init__(self, products: Products, published: Any) -> None:
        convolution, _, self._norm, _, _ = published.block
        self._convolution = products.convolution(convolution)

    def __call__(self, x: Tensor) -> Tensor:
        return mish_(self._norm(self._convolution(x)))


class _Transformer:
    """Upstream's `BasicTransformerBlock`, which attends to the whole signal."""

    def __init__(self, products: Products, published: Any) -> None:
        attention, feed = published.attn1, published.ff.net
        self._products = products
        self._norm1, self._norm3 = published.norm1, published.norm3
        self._heads = attention.heads
        self._qkv = [
            products.linear(layer.weight, None) for layer in (attention.to_q, attention.to_k, attention.to_v)
        ]
        self._out, self._up, self._down = (
            products.linear(layer.weight, layer.bias)
            for layer in (attention.to_out[0], feed[0].proj, feed[2])
        )

    def __call__(self, x: Tensor) -> None:
        """Changes a signal."""
        places, dtype = _places(len(x)), self._products.dtype
        qkv = [x.new_empty(len(x), layer.outputs, dtype=dtype) for layer in self._qkv]
        for place in places:
            rows = self._norm1(x[place]).to(dtype)
            for layer, outcome in zip(self._qkv, qkv, strict=True):
                layer.write(rows, outcome[place])
        mixed = self._products.attention(*qkv, self._heads)
        for place in places:
            rows = x[place]
            self._out.add(mixed[place], rows)
            self._down.add(F.gelu(self._up(self._norm3(rows))), rows)


def _places(total: int) -> list[slice]:
    if torch.get_num_threads() > 1:
        return [slice(0, total)]
    count = -(-total // _ROWS)
    return [slice(total * at // count, total * (at + 1) // count) for at in range(count)]


def mish_(x: Tensor) -> Tensor:
    """The activation x * tanh(ln(1 + e^x)), in place (https://arxiv.org/abs/1908.08681).

    With w = e^x the tanh is n / (n + 2), where n = w² + 2w. So no logarithm is needed.
    """
    w = x.clamp(max=_MISH_IS_IDENTITY).exp_()
    half = w.addcmul_(w, w, value=0.5)
    return x.mul_(half.div_(half + 1))
