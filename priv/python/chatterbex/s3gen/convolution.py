"""Convolutions of long signals with few products.

A convolution with a kernel of `size` taps multiplies each position with `size` matrices. In the frequency
domain, stretch by stretch (overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, section
8.7), it needs a third or half as many. The transform of a stretch and its inverse are products with a small
matrix too, so the BLAS does all the work. The sums are also shorter than in a direct convolution, so it
rounds less.

Signals are (T, C): positions, channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Kernels with at least this many taps use the frequency domain: direct convolution was faster with 3 taps
# and slower with 7 and 11.
_TAPS = 5


class DirectConvolution:
    """A direct convolution, by oneDNN. It is faster for few taps."""

    def __init__(self, conv: nn.Conv1d) -> None:
        """Takes a convolution that leaves the length as it is."""
        self._weight = conv.weight.unsqueeze(2)
        self._bias = conv.bias
        self._padding = (0, conv.padding[0])
        self._dilation = (1, conv.dilation[0])

    def room(self, total: int) -> tuple[Tensor, Tensor]:
        """See `SpectralConvolution.room`."""
        room = self._weight.new_empty(total, self._weight.shape[1])
        return room, room

    def __call__(self, room: Tensor, total: int) -> Tensor:
        """See `SpectralConvolution`."""
        rows = room[None, None].permute(0, 3, 1, 2)  # (1, C, 1, T), channels last
        rows = F.conv2d(rows, self._weight, self._bias, padding=self._padding, dilation=self._dilation)
        return rows.permute(0, 2, 3, 1)[0, 0]


class SpectralConvolution:
    """A convolution in the frequency domain."""

    def __init__(self, conv: nn.Conv1d) -> None:
        """Takes a convolution that leaves the length as it is."""
        size, self._dilation, self._padding = conv.kernel_size[0], conv.dilation[0], conv.padding[0]
        transform = _transform(2 ** math.ceil(math.log2(2 * size)))
        self._length = transform.length
        self._fresh = transform.length - size + 1  # positions that a stretch brings
        self._forward = transform.forward
        self._inverse = transform.inverse[: self._fresh]
        taps = conv.weight.detach().permute(2, 1, 0).flatten(1)  # (size, C * C')
        spectra = transform.kernel[:, :size] @ taps
        self._spectra = spectra.view(-1, conv.in_channels, conv.out_channels)
        # The inverse spreads this one over the stretch.
        self._bias = None if conv.bias is None else conv.bias.detach() * transform.length

    def room(self, total: int) -> tuple[Tensor, Tensor]:
        """Memory for a signal of `total` positions.

        Returns:
            The memory to pass to the convolution, and the part of it, (T, C), for you to fill.
        """
        rows = self._stretches(total) * self._fresh + self._length - self._fresh
        room = self._spectra.new_empty(rows * self._dilation, self._spectra.shape[1])
        end = self._padding + total
        room[: self._padding] = 0
        room[end:] = 0
        return room, room[self._padding : end]

    def __call__(self, room: Tensor, total: int) -> Tensor:
        """Convolves a signal.

        Args:
            room: from `room`, filled.
            total: T.

        Returns:
            (T, C').
        """
        count, channels = self._stretches(total), room.shape[1]
        # A row has as many positions as the dilation, and all of them meet the same tap at once. So a row
        # plays the part that a single position plays without dilation.
        row = self._dilation * channels
        stretches = room.as_strided((self._length, count, row), (row, self._fresh * row, 1))
        spectra = self._forward @ stretches.reshape(self._length, -1)
        spectra = torch.bmm(spectra.view(-1, count * self._dilation, channels), self._spectra)
        if self._bias is not None:
            spectra[0] += self._bias
        products = spectra.view(spectra.shape[0], count, -1).transpose(0, 1)  # (count, products, row)
        out = torch.bmm(self._inverse.expand(count, -1, -1), products)  # (count, fresh, row)
        return out.view(-1, self._spectra.shape[2])[:total]

    def _stretches(self, total: int) -> int:
        return -(-total // (self._fresh * self._dilation))


Convolution = DirectConvolution | SpectralConvolution


@dataclass(frozen=True)
class _Transform:
    """Matrices that turn the cyclic convolution of `length` real numbers into products, one by one.

    Attributes:
        length: of a stretch, N.
        forward: (products, N), for the signal.
        kernel: (products, N), for the kernel.
        inverse: (N, products).
    """

    length: int
    forward: Tensor
    kernel: Tensor
    inverse: Tensor


@cache
def _transform(length: int) -> _Transform:
    """The discrete Fourier transform, with three real products for each complex one.

    (a + bi)(c + di) = (p - r) + (p + q)i, where p = (a + b)c, q = a(d - c), r = b(c + d), after Gauss:
    https://en.wikipedia.org/wiki/Multiplication_algorithm#Complex_number_multiplication. The additions before
    and after the products are part of the matrices.
    """
    at = torch.arange(length, dtype=torch.float64)
    forward, kernel, inverse = [], [], []
    for frequency in (0, length // 2):  # whose spectrum is real
        wave = torch.cos(2 * math.pi * frequency * at / length)
        forward.append(wave)
        kernel.append(wave)
        inverse.append(wave / length)
    for frequency in range(1, length // 2):
        angles = 2 * math.pi * frequency * at / length
        cosine, sine = torch.cos(angles), torch.sin(angles)
        # The signal's spectrum is (cosine, -sine); the kernel's is (cosine, sine), because its taps are
        # applied in the order of the signal: what networks call a convolution is a correlation.
        forward += [cosine - sine, cosine, -sine]
        kernel += [cosine, sine - cosine, cosine + sine]
        inverse += [(cosine - sine) * 2 / length, -sine * 2 / length, -cosine * 2 / length]
    return _Transform(
        length,
        torch.stack(forward).float(),
        torch.stack(kernel).float(),
        torch.stack(inverse, dim=1).float(),
    )


def convolution(conv: nn.Conv1d) -> Convolution:
    """The faster implementation of a convolution that keeps the length."""
    return SpectralConvolution(conv) if conv.kernel_size[0] >= _TAPS else DirectConvolution(conv)
