"""Silent errors of the simulated device, on request."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn import functional  # noqa: E402

import simulated_mps  # noqa: E402
from simulated_mps.metal import ALIGNMENT, MEBIBYTE, MetalPool  # noqa: E402


@pytest.fixture(params=[torch.inference_mode, torch.no_grad], ids=lambda mode: mode.__name__)
def mode(request: pytest.FixtureRequest) -> Any:
    """Both ways of running, because PyTorch dispatches operators differently in each."""
    with request.param():
        yield


def noise(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def close(result: Any, expected: Any) -> bool:
    # Packing an operand may choose another kernel, whose last bits differ.
    return torch.allclose(result.cpu(), expected, atol=1e-5)


Place = Callable[[Any], Any]  # to the device, or nowhere
# By name: the quirk, how its operands are made, and what is computed of them.
SPOILED: dict[str, tuple[str, Callable[[Place], list[Any]], Callable[..., Any]]] = {
    "a permuted weight": (
        "pytorch-192212",
        lambda to: [to(noise(2, 4, 9)), to(noise(3, 4, 6)).permute(2, 1, 0)],
        functional.conv1d,
    ),
    "a weight cut from a larger one": (
        "pytorch-192212",
        lambda to: [to(noise(1, 4, 5, 5)), to(noise(3, 4, 3, 3, 2))[..., 1]],
        functional.conv2d,
    ),
    "a permuted weight, transposed convolution": (
        "pytorch-192212",
        lambda to: [to(noise(1, 4, 5)), to(noise(3, 2, 4)).permute(2, 1, 0)],
        functional.conv_transpose1d,
    ),
    "channels of a channels-last picture": (
        "pytorch-180984",
        lambda to: [
            to(noise(1, 4, 2, 3).contiguous(memory_format=torch.channels_last))[:, :2],
            to(noise(1, 2, 1, 1)),
        ],
        functional.conv2d,
    ),
    "channels of a transposed sequence": (
        "pytorch-180984",
        lambda to: [to(noise(1, 7, 6))[..., :3].transpose(1, 2), to(noise(2, 3, 3))],
        functional.conv1d,
    ),
    "a chunk of channels": (
        "pytorch-169342",
        lambda to: [to(noise(2, 6, 7)).chunk(2, dim=1)[1], to(noise(2, 3, 3))],
        functional.conv1d,
    ),
    "an expanded matrix": (
        "pytorch-180201",
        lambda to: [to(noise(1, 4)).expand(20, 4), to(noise(4, 3))],
        torch.matmul,
    ),
    "an expanded row, linear layer": (
        "pytorch-180201",
        lambda to: [to(noise(1, 4)).expand(20, 4), to(noise(3, 4)), to(noise(3))],
        functional.linear,
    ),
    "an expanded weight": (
        "pytorch-180201",
        lambda to: [to(noise(20, 4)), to(noise(4, 1)).expand(4, 3)],
        torch.mm,
    ),
    "an expanded batch": (
        "pytorch-180201",
        lambda to: [to(noise(1, 20, 4)).expand(2, 20, 4), to(noise(2, 4, 3))],
        torch.bmm,
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_view_is_misread(mps: Any, mode: None, name: str) -> None:
    quirk, operands, compute = SPOILED[name]
    expected = compute(*operands(lambda tensor: tensor))
    views = operands(lambda tensor: tensor.to("mps"))
    assert close(compute(*views), expected)

    mps.quirks.add(quirk)
    assert not close(compute(*views), expected)
    assert close(compute(*(view.contiguous() for view in views)), expected)

    mps.quirks.clear()
    assert close(compute(*views), expected)


def test_the_first_row_of_a_batch_of_chunks_is_right(mps: Any, mode: None) -> None:
    _, operands, convolve = SPOILED["a chunk of channels"]
    expected = convolve(*operands(lambda tensor: tensor))
    mps.quirks.add("pytorch-169342")
    result = convolve(*operands(lambda tensor: tensor.to("mps")))
    assert close(result[0], expected[0])
    assert not close(result[1], expected[1])


def test_every_sixteenth_row_of_an_expanded_product_is_right(mps: Any, mode: None) -> None:
    mps.quirks.add("pytorch-180201")
    result = torch.ones(1, 2, device="mps").expand(20, 2) @ torch.ones(2, 1, device="mps")
    assert [row for row, [value] in enumerate(result.tolist()) if value == 2] == [0, 16]


def test_all_quirks_at_once(mode: None) -> None:
    if simulated_mps.missing():
        pytest.skip(f"no simulated MPS device: {simulated_mps.missing()}")
    with simulated_mps.device(quirks=["all"]) as mps:
        for _, operands, compute in SPOILED.values():
            assert not close(
                compute(*operands(lambda tensor: tensor.to("mps"))), compute(*operands(lambda tensor: tensor))
            )
        with pytest.raises(
            ValueError, match=r"unknown quirk 'pytorch-1'; there are pytorch-192212, .* and all"
        ):
            mps.quirks.add("pytorch-1")


# By family: what belongs to it, and a neighbour that does not.
FAMILIES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "linear": (
        lambda x: functional.linear(x, x.new_ones(2, 4), x.new_ones(2)),
        lambda x: functional.layer_norm(x, (4,)),
    ),
    "convolution": (
        lambda x: functional.conv1d(x[None], x.new_ones(2, 4, 3), padding=1),
        lambda x: functional.conv_transpose1d(x[None], x.new_ones(4, 2, 3)),
    ),
    "conv_transpose": (
        lambda x: functional.conv_transpose1d(x[None], x.new_ones(4, 2, 3)),
        lambda x: functional.conv1d(x[None], x.new_ones(2, 4, 3), padding=1),
    ),
    "attention": (
        lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None]),
        lambda x: x.softmax(-1),
    ),
    "stft": (
        lambda x: torch.view_as_real(torch.stft(x.flatten(), 8, 2, return_complex=True)),
        lambda x: x + 1,
    ),
    "fft": (
        lambda x: torch.view_as_real(torch.fft.rfft(x)),
        lambda x: x * 2,
    ),
}


@pytest.mark.parametrize("error", ["wrong", "nan"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:A window was not provided")
def test_an_operator_goes_wrong_from_its_nth_call_on(mps: Any, mode: None, family: str, error: str) -> None:
    hit, missed = FAMILIES[family]
    x = noise(4, 4)
    expected = hit(x), missed(x)
    there = x.to("mps")
    mps.faults.add(operator=family, nth=2, times=None, error=error)
    assert close(hit(there), expected[0])
    for _ in range(2):
        wrong = hit(there).cpu()
        assert not close(wrong, expected[0])
        assert bool(wrong.isnan().all()) == (error == "nan")
        assert close(missed(there), expected[1])


def test_in_place_results_are_spoiled_in_place(mps: Any, mode: None) -> None:
    x = torch.ones(2, device="mps")
    mps.faults.add(operator="aten::mul_", error="nan")
    assert x.mul_(2) is x
    assert x.isnan().all()


def test_a_wrong_result_outlives_normalisation(mps: Any, mode: None) -> None:
    x = noise(2, 8)
    expected = functional.layer_norm(functional.linear(x, noise(8, 8)), (8,))
    mps.faults.add(operator="linear", error="wrong")
    result = functional.layer_norm(functional.linear(x.to("mps"), noise(8, 8).to("mps")), (8,))
    assert not close(result, expected)


def test_distinct_shapes_are_counted(mps: Any, mode: None) -> None:
    x, weight = torch.ones(3, 4, device="mps"), torch.ones(2, 4, device="mps")
    with simulated_mps.counting_shapes() as shapes:
        for rows in (1, 2, 3, 3, 2):
            functional.relu(x[:rows])
        with simulated_mps.counting_shapes() as inner:
            functional.linear(x, weight)
        # None of these supports a graph.
        torch.ones(3).to("mps").view(3, 1).t().cpu()
        torch.ones(2) * 2
    assert shapes.by_operator()["aten::relu"] == 3
    assert shapes.calls["aten::relu", ((3, 4),), ((3, 4),)] == 2
    assert not {"aten::relu", "aten::slice"} & set(inner.by_operator())
    # A linear layer is one operator, or a product of a transposed weight.
    [product] = inner.by_operator()
    assert product in ("aten::linear", "aten::mm")
    assert len(shapes) == 4
    functional.relu(x[:, :1])
    assert len(shapes) == 4


def test_memory_is_allocated_as_metal_does() -> None:
    if simulated_mps.missing():
        pytest.skip(f"no simulated MPS device: {simulated_mps.missing()}")
    with simulated_mps.device(metal_memory=True):
        small = torch.ones(1, device="mps")
        assert torch.mps.current_allocated_memory() == ALIGNMENT
        assert torch.mps.driver_allocated_memory() == 8 * MEBIBYTE
        large = torch.ones(3 * MEBIBYTE // 4, device="mps")
        assert torch.mps.current_allocated_memory() == ALIGNMENT + 3 * MEBIBYTE
        assert torch.mps.driver_allocated_memory() == 40 * MEBIBYTE
        view = large[1:]
        del large
        gc.collect()
        assert torch.mps.current_allocated_memory() == ALIGNMENT + 3 * MEBIBYTE
        del view, small
        gc.collect()
        # It is returned to the driver on request.
        assert torch.mps.current_allocated_memory() == 0
        assert torch.mps.driver_allocated_memory() == 40 * MEBIBYTE
        torch.mps.empty_cache()
        assert torch.mps.driver_allocated_memory() == 0
        assert torch.mps.recommended_max_memory() == 16 * 2**30


GIBIBYTE = 1024 * MEBIBYTE


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (0, 0, 0),
        (1, 256, 8),
        (257, 512, 8),
        (MEBIBYTE, MEBIBYTE, 8),
        (MEBIBYTE + 1, MEBIBYTE + 256, 32),
        (10 * MEBIBYTE, 10 * MEBIBYTE, 1024),
        (511 * MEBIBYTE, 511 * MEBIBYTE, 1024),
        (512 * MEBIBYTE, 512 * MEBIBYTE, 512),
        (513 * MEBIBYTE + 1, 513 * MEBIBYTE + 256, 514),
    ],
)
def test_sizes_of_buffers_and_heaps(size: int, allocated: int, reserved: int) -> None:
    pool = MetalPool(16 * GIBIBYTE, 16 * GIBIBYTE)
    block = pool.allocate(size)
    assert (pool.allocated, pool.reserved, pool.peak) == (allocated, reserved * MEBIBYTE, allocated)
    del block
    assert pool.allocated == 0


def test_a_free_buffer_is_reused_unless_it_is_much_too_large() -> None:
    pool = MetalPool(16 * GIBIBYTE, 16 * GIBIBYTE)
    first = pool.allocate(20 * MEBIBYTE)
    del first
    again = pool.allocate(12 * MEBIBYTE)
    assert (again.size, pool.reserved) == (20 * MEBIBYTE, GIBIBYTE)
    del again
    huge = pool.allocate(400 * MEBIBYTE)
    del huge
    # Both free buffers are in the one heap, and this one is cut from what is left of it.
    other = pool.allocate(30 * MEBIBYTE)
    assert (other.size, pool.reserved) == (30 * MEBIBYTE, GIBIBYTE)


def test_under_pressure_a_heap_has_the_size_of_its_buffer() -> None:
    pool = MetalPool(4 * GIBIBYTE, GIBIBYTE)
    most = pool.allocate(1500 * MEBIBYTE)
    more = pool.allocate(11 * MEBIBYTE)
    assert pool.reserved == 1512 * MEBIBYTE
    del most, more


def test_the_cache_is_emptied_before_memory_is_out() -> None:
    pool = MetalPool(100 * MEBIBYTE, GIBIBYTE)
    held = pool.allocate(60 * MEBIBYTE)
    assert pool.reserved == GIBIBYTE
    with pytest.raises(RuntimeError, match=r"MPS allocated: 1024.00 MB, .* allocate 1.00 MB"):
        pool.allocate(MEBIBYTE)
    del held
    assert pool.reserved == GIBIBYTE
    small = pool.allocate(MEBIBYTE)
    assert (small.size, pool.reserved) == (MEBIBYTE, 8 * MEBIBYTE)
