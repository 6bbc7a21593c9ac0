"""Products of the flow in float32 and bfloat16, within what rounding explains, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chatterbex.device.proof import BFLOAT16, FLOAT32
from chatterbex.s3gen.products import PRODUCTS

ROUNDOFF = {"float32": FLOAT32, "bfloat16": BFLOAT16}
ROWS, INPUTS, OUTPUTS, TAPS = 37, 96, 40, 3


@pytest.fixture(params=PRODUCTS)
def products(request: pytest.FixtureRequest) -> Any:
    return PRODUCTS[request.param]


@pytest.fixture
def random() -> Any:
    generator = torch.Generator().manual_seed(11)
    return lambda *shape: torch.randn(*shape, generator=generator)


def product_error(products: Any, x: Tensor, weight: Tensor) -> Tensor:
    """The allowed error of x @ weight.T: both are rounded, the sum is made in float32 and rounded."""
    unit, inputs = ROUNDOFF[products.name], x.shape[1]
    magnitude = x.double().abs() @ weight.double().abs().t()
    summed = ((1 + unit) ** 2 * (1 + inputs * FLOAT32) - 1) * magnitude
    return summed + unit * (magnitude + summed)


def test_a_linear_layer(products: Any, random: Any) -> None:
    x, weight, bias = random(ROWS, INPUTS), random(OUTPUTS, INPUTS), random(OUTPUTS)
    layer, unit = products.linear(weight, bias), ROUNDOFF[products.name]
    exact = x.double() @ weight.double().t() + bias.double()
    given = layer(x)
    assert given.dtype == products.dtype
    # The bias is rounded, and then the sum again.
    allowed = product_error(products, x, weight) + unit * (2 * bias.double().abs() + exact.abs())
    assert ((given.double() - exact).abs() <= allowed).all()


def test_the_residual_signal_stays_in_float32(products: Any, random: Any) -> None:
    """The sum is large compared with what is added, which would be lost in bfloat16."""
    x, weight, bias = random(ROWS, INPUTS), random(OUTPUTS, INPUTS), random(OUTPUTS)
    before = 1e5 * random(ROWS, OUTPUTS)
    out = before.clone()
    products.linear(weight, bias).add(x, out)
    exact = before.double() + x.double() @ weight.double().t() + bias.double()
    allowed = product_error(products, x, weight) + INPUTS * FLOAT32 * (before.double().abs() + exact.abs())
    assert ((out.double() - exact).abs() <= allowed).all()


def test_a_layer_without_a_bias_writes_into_its_output(products: Any, random: Any) -> None:
    x, weight = random(ROWS, INPUTS), random(OUTPUTS, INPUTS)
    out = torch.empty(ROWS + 2, OUTPUTS, dtype=products.dtype).fill_(7)
    products.linear(weight, None).write(x.to(products.dtype), out[1:-1])
    exact = x.double() @ weight.double().t()
    assert ((out[1:-1].double() - exact).abs() <= product_error(products, x, weight)).all()
    assert (out[[0, -1]] == 7).all()


@pytest.mark.parametrize("length", [1, 2, ROWS])
def test_a_causal_convolution(products: Any, random: Any, length: int) -> None:
    layer = nn.Conv1d(INPUTS, OUTPUTS, TAPS)
    x = random(length, INPUTS)
    with torch.inference_mode():
        given = products.convolution(layer)(x)
        padded = nn.functional.pad(x.t().double(), (TAPS - 1, 0))
        exact = layer.double()(padded[None])[0].t()
    columns = torch.cat([padded.t()[tap : tap + length] for tap in range(TAPS)], dim=1)
    weight = layer.weight.detach().permute(0, 2, 1).flatten(1)
    allowed = product_error(products, columns, weight) + 4 * FLOAT32 * exact.abs()
    assert given.dtype == torch.float32
    assert ((given.double() - exact).abs() <= allowed).all()


def test_attention(products: Any, random: Any) -> None:
    """Scores that are off by e change a weight by exp(2e) at most, because their sum changes too."""
    heads, width, unit = 3, 64, ROUNDOFF[products.name]
    query, key, value = (random(ROWS, heads * width).to(products.dtype) for _ in range(3))
    split = [each.double().unflatten(1, (heads, width)).transpose(0, 1) for each in (query, key, value)]
    q, k, v = split
    scores = q @ k.mT / 8
    error = unit * scores.abs() + width * FLOAT32 * (q.abs() @ k.abs().mT) / 8
    weights = scores.softmax(2)
    exact = weights @ v
    changed = (1 + unit) * torch.exp(2 * error.amax(2, keepdim=True)) * (1 + ROWS * FLOAT32) - 1
    allowed = changed * (weights @ v.abs())
    allowed = allowed + unit * (exact.abs() + allowed) + 64 * FLOAT32
    given = products.attention(query, key, value, heads).unflatten(1, (heads, width)).transpose(0, 1)
    assert ((given.double() - exact).abs() <= allowed).all()
