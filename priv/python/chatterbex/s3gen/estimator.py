"""The flow's U-Net on the CPU: what upstream's `ConditionalDecoder` gives, with less to write and to read.

Upstream's layers turn their signal around for every convolution and back, multiply it by masks of ones,
and write each outcome to memory of its own. Here

- channels lie side by side in memory throughout;
- a convolution is a matrix product for each tap, without the code that oneDNN makes for every length;
- outcomes are added to what is there;
- a thread that is alone does what is done position by position for some positions at a time, layer after
  layer, and reads the weights in the order in which they are added up.

Signals are (T, C): positions, channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Positions at a time, at most. The BLAS takes so few without packing them first, and what it makes of them
# stays in the core's cache. Several threads share the whole: over so few they would wait for each other.
_ROWS = 160
# From here on mish(x) is x in float32.
_MISH_IS_IDENTITY = 20.0


class Estimator:
    """Upstream's `ConditionalDecoder`, prepared for the CPU."""

    def __init__(self, published: Any) -> None:
        """Packs the weights of upstream's network, which must be on the CPU and causal."""
        self._down = [_Stage(*stage) for stage in published.down_blocks]
        self._middle = [_Stage(*stage) for stage in published.mid_blocks]
        self._up = [_Stage(*stage) for stage in published.up_blocks]
        self._final = _Block(published.final_block)
        self._projection = published.final_proj

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """The slope of the flow.

        Args:
            x: (B, 320, T): where the flow is, the encoder's frames, the speaker, and the prompt's frames.
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
    """A residual block and transformer blocks, and the convolution behind them, if there is one."""

    def __init__(self, resnet: Any, transformers: nn.ModuleList, last: nn.Conv1d | None = None) -> None:
        self._resnet = _Resnet(resnet)
        self._transformers = [_Transformer(block) for block in transformers]
        self.last = nn.Identity() if last is None else _CausalConvolution(last)

    def blocks(self, x: Tensor, time: Tensor) -> Tensor:
        x = self._resnet(x, time)
        for transformer in self._transformers:
            transformer(x)
        return x


class _Resnet:
    """Upstream's `CausalResnetBlock1D`."""

    def __init__(self, published: Any) -> None:
        self._time = published.mlp
        self._block1, self._block2 = _Block(published.block1), _Block(published.block2)
        self._skip = published.res_conv

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self._block1(x).add_(self._time(time))
        return self._block2(inner).addmm_(x, self._skip.weight.squeeze(2).t()).add_(self._skip.bias)


class _Block:
    """Upstream's `CausalBlock1D`: a convolution, a norm, an activation."""

    def __init__(self, published: Any) -> None:
        convolution, _, self._norm, _, _ = published.block
        self._convolution = _CausalConvolution(convolution)

    def __call__(self, x: Tensor) -> Tensor:
        return mish_(self._norm(self._convolution(x)))


class _CausalConvolution:
    """A convolution of each position and those right before it."""

    def __init__(self, published: nn.Conv1d) -> None:
        self._bias = published.bias
        self._taps = published.weight.detach().permute(2, 1, 0).contiguous()  # (taps, C, C')

    def __call__(self, x: Tensor) -> Tensor:
        *earlier, last = self._taps
        out = torch.addmm(self._bias, x, last)
        for late, tap in enumerate(reversed(earlier), 1):
            out[late:].addmm_(x[:-late], tap)
        return out


class _Transformer:
    """Upstream's `BasicTransformerBlock`, which attends to the whole signal."""

    def __init__(self, published: Any) -> None:
        attention = published.attn1
        self._norm1, self._norm3 = published.norm1, published.norm3
        self._heads = attention.heads
        self._qkv = [_Linear(layer) for layer in (attention.to_q, attention.to_k, attention.to_v)]
        self._out = _Linear(attention.to_out[0])
        self._up, self._down = _Linear(published.ff.net[0].proj), _Linear(published.ff.net[2])

    def __call__(self, x: Tensor) -> None:
        """Changes a signal."""
        places = _places(len(x))
        qkv = [x.new_empty(len(x), layer.outputs) for layer in self._qkv]
        for place in places:
            rows = self._norm1(x[place])
            for layer, outcome in zip(self._qkv, qkv, strict=True):
                layer.write(rows, outcome[place])
        heads = (outcome.unflatten(1, (self._heads, -1)).transpose(0, 1)[None] for outcome in qkv)
        mixed = F.scaled_dot_product_attention(*heads)[0].transpose(0, 1).flatten(1)
        for place in places:
            rows = x[place]
            self._out.add(mixed[place], rows)
            self._down.add(F.gelu(self._up(self._norm3(rows))), rows)


class _Linear:
    """A linear layer whose weights lie in memory as they are added up."""

    def __init__(self, published: nn.Linear) -> None:
        self._weight = published.weight.detach().t().contiguous()  # (K, N)
        self._bias = published.bias
        self.outputs = published.out_features

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, N)."""
        return torch.mm(x, self._weight).add_(self._bias)

    def add(self, x: Tensor, out: Tensor) -> None:
        """Adds to (M, N)."""
        out.addmm_(x, self._weight).add_(self._bias)

    def write(self, x: Tensor, out: Tensor) -> None:
        """Writes to (M, N), for a layer without a bias."""
        torch.mm(x, self._weight, out=out)


def _places(total: int) -> list[slice]:
    if torch.get_num_threads() > 1:
        return [slice(0, total)]
    count = -(-total // _ROWS)
    return [slice(total * at // count, total * (at + 1) // count) for at in range(count)]


def mish_(x: Tensor) -> Tensor:
    """The activation x * tanh(ln(1 + e^x)), in place (https://arxiv.org/abs/1908.08681).

    With w = e^x the tanh is n / (n + 2), where n = w² + 2w: so there is no logarithm to compute.
    """
    w = x.clamp(max=_MISH_IS_IDENTITY).exp_()
    half = w.addcmul_(w, w, value=0.5)
    return x.mul_(half.div_(half + 1))
