"""Convolutions by way of the frequencies are what they are when written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chatterbex.s3gen.convolution import Convolution, DirectConvolution, SpectralConvolution, convolution


@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("taps", [3, 5, 7, 11, 15, 17])
def test_a_convolution_matches_its_definition(taps: int, dilation: int) -> None:
    """At lengths of less than a stretch, of whole stretches, and of one position less and more."""
    generator = torch.Generator().manual_seed(taps)
    conv = nn.Conv1d(6, 4, taps, dilation=dilation, padding=dilation * (taps - 1) // 2)
    for parameter in conv.parameters():
        nn.init.normal_(parameter, generator=generator)
    spectral = SpectralConvolution(conv)
    step = spectral._fresh * dilation
    for length in (1, 2, step - 1, step, step + 1, 2 * step, 7 * step - 3):
        x = torch.randn(length, 6, generator=generator)
        with torch.inference_mode():
            expected = _written_out(conv, x)
            for one in (spectral, DirectConvolution(conv)):
                given = _given(one, x)
                assert given.shape == (length, 4)
                assert (given - expected).abs().max() < 1e-5 * expected.abs().max()


def test_frequencies_do_not_cost_precision() -> None:
    """With the sizes of the real vocoder, the error is about that of the sums as they are written."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv1d(256, 256, 11, padding=5)
    x = torch.randn(2000, 256, generator=generator)
    with torch.inference_mode():
        expected = _written_out(conv, x)
        ways = SpectralConvolution(conv), DirectConvolution(conv)
        errors = [float((_given(way, x) - expected).pow(2).mean().sqrt()) for way in ways]
    assert 0 < errors[0] < 1.5 * errors[1]


def test_few_taps_are_convolved_directly() -> None:
    kinds = [type(convolution(nn.Conv1d(4, 4, taps, padding=taps // 2))) for taps in (3, 7, 11)]
    assert kinds == [DirectConvolution, SpectralConvolution, SpectralConvolution]


def _given(one: Convolution, x: torch.Tensor) -> torch.Tensor:
    room, inside = one.room(len(x))
    inside.copy_(x)
    return one(room, len(x))


def _written_out(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """In float64."""
    weight, bias = conv.weight.double(), conv.bias.double()
    rows = F.conv1d(x.t()[None].double(), weight, bias, padding=conv.padding, dilation=conv.dilation)
    return rows[0].t()
