"""Mel frames to samples on the CPU: upstream's HiFT vocoder, passed through in tiles.

oneDNN, which convolves for torch, makes code for each shape that it meets, and for a transposed
convolution that takes seconds. No two texts have the same length. So here

- a signal is cut into tiles of few lengths. Each is computed with all that it depends on at either
  side, so that the outcome is that of the whole;
- a transposed convolution, and others that cost little, are matrix products;
- channels lie side by side in memory, which oneDNN convolves faster.

Signals are (T, C) here: positions, channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Numbers of a tile: few enough to stay in a core's cache from layer to layer, and enough for what is
# computed twice at its ends to be little. The end of a signal is filled up to a whole small tile.
_LARGE = 2**19
_SMALL = 2**17
_POST_SLOPE = 0.01  # of the last leaky ReLU: torch's default, as upstream leaves it


def wave(vocoder: Any, mel: Tensor, source: Tensor) -> Tensor:
    """What upstream's `HiFTGenerator.decode` gives.

    Args:
        vocoder: upstream's `HiFTGenerator`, on the CPU, its weight norms merged.
        mel: (1, 80, T).
        source: (1, 1, T * 480).

    Returns:
        (1, T * 480) samples.
    """
    real, imaginary = vocoder._stft(source.squeeze(1))
    harmonics = torch.cat([real, imaginary], dim=1)[0].t().contiguous()
    last = vocoder.num_upsamples - 1
    x = _product(vocoder.conv_pre, mel[0].t())
    for level in range(vocoder.num_upsamples):
        x = _upsampled(vocoder.ups[level], F.leaky_relu(x, vocoder.lrelu_slope))
        if level == last:
            x = torch.cat([x[1:2], x])  # reflected at the front
        source_blocks = _Blocks([vocoder.source_resblocks[level]])
        x += _tiled(source_blocks, _product(vocoder.source_downs[level], harmonics))
        blocks = vocoder.resblocks[level * vocoder.num_kernels : (level + 1) * vocoder.num_kernels]
        x = _tiled(_Blocks(blocks, vocoder.conv_post if level == last else None), x)
    x = x.t()[None]
    bins = vocoder.istft_params["n_fft"] // 2 + 1
    samples = vocoder._istft(torch.exp(x[:, :bins]), torch.sin(x[:, bins:]))
    return samples.clamp(-vocoder.audio_limit, vocoder.audio_limit)


# -- tiles --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """A part of a signal: positions outside the signal, at either end of the window, are zero."""

    before: int
    after: int

    def clear(self, x: Tensor) -> Tensor:
        """Makes them zero again: so every convolution meets the zeros that it pads a signal with."""
        if self.before:
            x[: self.before] = 0
        if self.after:
            x[-self.after :] = 0
        return x


class _Blocks:
    """The mean of residual blocks, and what the last convolution makes of it, if there is one."""

    def __init__(self, blocks: Iterable[Any], post: nn.Conv1d | None = None) -> None:
        self._blocks = list(blocks)
        self._post = post
        self.reach = max(_reach(block) for block in self._blocks)
        self.channels: int = self._blocks[0].convs1[0].out_channels
        if post is not None:
            self.reach += post.padding[0]
            self.channels = post.out_channels

    def __call__(self, x: Tensor, window: _Window) -> Tensor:
        mean = _residual(self._blocks[0], x, window)
        for block in self._blocks[1:]:
            mean += _residual(block, x, window)
        mean /= len(self._blocks)
        if self._post is None:
            return mean
        return _convolved(self._post, F.leaky_relu(mean, _POST_SLOPE))


def _tiled(part: _Blocks, x: Tensor) -> Tensor:
    """Applies a part of the network to (T, C)."""
    (total, channels), reach = x.shape, part.reach
    out = x.new_empty(total, part.channels)
    for start, length in _tiles(total, channels):
        first, last = start - reach, start + length + reach
        window = _Window(before=max(0, -first), after=max(0, last - total))
        inside = x[max(0, first) : min(total, last)]
        padded = F.pad(inside, (0, 0, window.before, window.after))
        end = min(total, start + length)
        out[start:end] = part(padded, window)[reach : reach + end - start]
    return out


def _tiles(total: int, channels: int) -> Iterator[tuple[int, int]]:
    """Where tiles begin and how long they are; the last one may end behind the signal."""
    large, small = _LARGE // channels, _SMALL // channels
    start = 0
    while start < total:
        length = large if total - start > large - small else small
        yield start, length
        start += length


# -- layers -------------------------------------------------------------------------------------------


def _reach(block: Any) -> int:
    """How far a residual block looks to either side."""
    return sum(conv.padding[0] for conv in (*block.convs1, *block.convs2))


def _residual(block: Any, x: Tensor, window: _Window) -> Tensor:
    layers = zip(block.activations1, block.convs1, block.activations2, block.convs2, strict=True)
    for activation1, conv1, activation2, conv2 in layers:
        inner = window.clear(_convolved(conv1, _snake(activation1, x)))
        x = window.clear(_convolved(conv2, _snake(activation2, inner))).add_(x)
    return x


def _snake(activation: Any, x: Tensor) -> Tensor:
    """The activation x + sin²(αx) / α (https://arxiv.org/abs/2006.08195)."""
    alpha = activation.alpha
    waves = (x * alpha).sin_().square_()
    return torch.addcmul(x, waves, 1.0 / (alpha + activation.no_div_by_zero), out=waves)


def _convolved(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution that leaves the length as it is."""
    rows = x[None, None].permute(0, 3, 1, 2)  # (1, C, 1, T), channels last
    padding, dilation = (0, conv.padding[0]), (1, conv.dilation[0])
    rows = F.conv2d(rows, conv.weight.unsqueeze(2), conv.bias, padding=padding, dilation=dilation)
    return rows.permute(0, 2, 3, 1)[0, 0]


def _product(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution as a matrix product, for those that have little to do."""
    size, padding = conv.kernel_size[0], conv.padding[0]
    windows = F.pad(x, (0, 0, padding, padding)).unfold(0, size, conv.stride[0])  # (T', C, size)
    return F.linear(windows.flatten(1), conv.weight.flatten(1), conv.bias)


def _upsampled(conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """A transposed convolution as a matrix product: (T, C) to (T * stride, C').

    Each input is spread over the `kernel_size` outputs from its own place on. Counted by blocks of
    `stride` outputs, a block is so made of the inputs at its place and right before it.
    """
    stride, size, padding = conv.stride[0], conv.kernel_size[0], conv.padding[0]
    taps = -(-size // stride)
    channels, outputs = conv.in_channels, conv.out_channels
    weight = F.pad(conv.weight, (0, taps * stride - size))  # (C, C', taps * stride)
    weight = weight.view(channels, outputs, taps, stride).flip(2).permute(3, 1, 0, 2)
    windows = F.pad(x, (0, 0, taps - 1, taps - 1)).unfold(0, taps, 1)  # (T + taps - 1, C, taps)
    blocks = F.linear(windows.flatten(1), weight.reshape(stride * outputs, channels * taps))
    rows = blocks.view(-1, outputs)
    return rows[padding : padding + x.shape[0] * stride] + conv.bias
