"""Turns mel frames into samples on the CPU: upstream's HiFT vocoder, computed in tiles.

oneDNN, which convolves for torch, generates code for each new shape; for a transposed convolution that
takes seconds. Hardly two texts have the same length. So here

- a signal is cut into tiles of few lengths. Each tile is computed with everything that it depends on at
  either side, so that the result is the same as for the whole;
- transposed convolutions, and others that cost little, are matrix products;
- channels are contiguous in memory, which oneDNN convolves faster.

Signals are (T, C) here: positions, channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbex.s3gen.convolution import Convolution, convolution

# The numbers in a tile: few enough to stay in a core's cache from layer to layer, and enough that the part
# computed twice at its ends is small. The end of a signal is padded to a whole small tile.
_LARGE = 2**19
_SMALL = 2**17
_POST_SLOPE = 0.01  # of the last leaky ReLU: torch's default, as upstream leaves it


class Vocoder:
    """Upstream's `HiFTGenerator.decode`, prepared for the CPU."""

    def __init__(self, published: Any) -> None:
        """Prepares upstream's `HiFTGenerator`, which must be on the CPU with its weight norms merged."""
        self._published = published
        self._levels = [_level(published, level) for level in range(published.num_upsamples)]

    def wave(self, mel: Tensor, source: Tensor) -> Tensor:
        """Mel frames to samples.

        Args:
            mel: (1, 80, T).
            source: (1, 1, T * 480).

        Returns:
            (1, T * 480) samples.
        """
        published = self._published
        real, imaginary = published._stft(source.squeeze(1))
        harmonics = torch.cat([real, imaginary], dim=1)[0].t().contiguous()
        x = _product(published.conv_pre, mel[0].t())
        for number, level in enumerate(self._levels, 1):
            x = level.up(F.leaky_relu(x, published.lrelu_slope))
            if number == len(self._levels):
                x = torch.cat([x[1:2], x])  # reflected at the front
            for place, tile in _tiled(level.source, _product(level.source_down, harmonics)):
                x[place] += tile
            out = x.new_empty(len(x), level.blocks.channels)
            for place, tile in _tiled(level.blocks, x):
                out[place] = tile
            x = out
        x = x.t()[None]
        bins = published.istft_params["n_fft"] // 2 + 1
        samples = published._istft(torch.exp(x[:, :bins]), torch.sin(x[:, bins:]))
        return samples.clamp(-published.audio_limit, published.audio_limit)


@dataclass(frozen=True)
class _Level:
    """The layers for one of the rates between mel frames and samples."""

    up: _Upsampling
    source_down: nn.Conv1d
    source: _Blocks
    blocks: _Blocks


def _level(published: Any, level: int) -> _Level:
    kernels = published.num_kernels
    last = level == published.num_upsamples - 1
    blocks = published.resblocks[level * kernels : (level + 1) * kernels]
    return _Level(
        up=_Upsampling(published.ups[level]),
        source_down=published.source_downs[level],
        source=_Blocks([published.source_resblocks[level]]),
        blocks=_Blocks(blocks, published.conv_post if last else None),
    )


# -- tiles --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """A part of a signal: positions outside the signal, at either end of the window, are zero."""

    before: int
    after: int

    def clear(self, x: Tensor) -> Tensor:
        """Zeroes them again, so that every convolution sees the zeros with which it would pad the signal."""
        if self.before:
            x[: self.before] = 0
        if self.after:
            x[-self.after :] = 0
        return x


class _Blocks:
    """The mean of residual blocks, followed by the last convolution, if there is one."""

    def __init__(self, blocks: Iterable[Any], post: nn.Conv1d | None = None) -> None:
        self._blocks = [_Residual(block) for block in blocks]
        self._post = None if post is None else convolution(post)
        self.reach = max(block.reach for block in self._blocks)
        self.channels = self._blocks[0].channels
        if post is not None:
            self.reach += post.padding[0]
            self.channels = post.out_channels

    def __call__(self, x: Tensor, window: _Window) -> Tensor:
        mean = self._blocks[0](x, window)
        for block in self._blocks[1:]:
            mean += block(x, window)
        mean /= len(self._blocks)
        return mean if self._post is None else _activated(mean, _leaky, self._post)


class _Residual:
    """A residual block: pairs of convolutions, with each pair's result added to its input.

    Attributes:
        reach: how far it looks to either side.
        channels: the channels of its signal.
    """

    def __init__(self, block: Any) -> None:
        self.reach = sum(conv.padding[0] for conv in (*block.convs1, *block.convs2))
        self.channels: int = block.convs1[0].out_channels
        self._layers = [
            (_Snake(activation1), convolution(conv1), _Snake(activation2), convolution(conv2))
            for activation1, conv1, activation2, conv2 in zip(
                block.activations1, block.convs1, block.activations2, block.convs2, strict=True
            )
        ]

    def __call__(self, x: Tensor, window: _Window) -> Tensor:
        for snake1, convolve1, snake2, convolve2 in self._layers:
            inner = window.clear(_activated(x, snake1, convolve1))
            x = window.clear(_activated(inner, snake2, convolve2)).add_(x)
        return x


class _Snake:
    """The activation x + sin²(αx) / α (https://arxiv.org/abs/2006.08195)."""

    def __init__(self, published: Any) -> None:
        self._alpha = published.alpha.detach()
        self._scale = 1.0 / (self._alpha + published.no_div_by_zero)

    def __call__(self, x: Tensor, out: Tensor) -> None:
        torch.mul(x, self._alpha, out=out).sin_().square_()
        torch.addcmul(x, out, self._scale, out=out)


def _leaky(x: Tensor, out: Tensor) -> None:
    out.copy_(F.leaky_relu(x, _POST_SLOPE))


def _activated(x: Tensor, activation: Callable[[Tensor, Tensor], None], convolve: Convolution) -> Tensor:
    """An activation, which writes to its second argument, and the convolution after it."""
    room, inside = convolve.room(len(x))
    activation(x, inside)
    return convolve(room, len(x))


def _tiled(part: _Blocks, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Applies a part of the network to (T, C), and yields the result piece by piece."""
    (total, channels), reach = x.shape, part.reach
    for start, length in _tiles(total, channels):
        first, last = start - reach, start + length + reach
        window = _Window(before=max(0, -first), after=max(0, last - total))
        inside = x[max(0, first) : min(total, last)]
        padded = F.pad(inside, (0, 0, window.before, window.after))
        end = min(total, start + length)
        yield slice(start, end), part(padded, window)[reach : reach + end - start]


def _tiles(total: int, channels: int) -> Iterator[tuple[int, int]]:
    """The start and length of each tile; the last tile may extend past the signal."""
    large, small = _LARGE // channels, _SMALL // channels
    start = 0
    while start < total:
        length = large if total - start > large - small else small
        yield start, length
        start += length


# -- layers -------------------------------------------------------------------------------------------


def _product(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution as a matrix product, for small ones."""
    size, padding = conv.kernel_size[0], conv.padding[0]
    windows = F.pad(x, (0, 0, padding, padding)).unfold(0, size, conv.stride[0])  # (T', C, size)
    return F.linear(windows.flatten(1), conv.weight.flatten(1), conv.bias)


class _Upsampling:
    """A transposed convolution as a matrix product for each tap.

    Each input contributes to `kernel_size` outputs, starting at its own place. So a block of `stride` outputs
    depends on the inputs at its place and just before it.
    """

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        size = conv.kernel_size[0]
        self._stride, self._padding = conv.stride[0], conv.padding[0]
        self._bias = conv.bias.detach().repeat(self._stride)  # of a block
        taps = -(-size // self._stride)
        weight = F.pad(conv.weight.detach(), (0, taps * self._stride - size))
        weight = weight.unflatten(2, (taps, self._stride))  # (C, C', taps, stride)
        self._taps = weight.permute(2, 0, 3, 1).flatten(2).contiguous()  # (taps, C, stride * C')

    def __call__(self, x: Tensor) -> Tensor:
        """(T, C) to (T * stride, C')."""
        around = len(self._taps) - 1
        padded = F.pad(x, (0, 0, around, around))
        out = x.new_empty(len(x) + around, self._taps.shape[2])
        size = _LARGE // out.shape[1]
        for start in range(0, len(out), size):
            block = out[start : start + size].copy_(self._bias)  # in the core's cache from tap to tap
            for late, tap in enumerate(self._taps):
                block.addmm_(padded[start + around - late :][: len(block)], tap)
        return out.view(-1, out.shape[1] // self._stride)[self._padding :][: len(x) * self._stride]
