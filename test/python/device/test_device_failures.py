"""Telling a failed device from a bug in the program, and finding every tensor."""

from __future__ import annotations

from collections import deque, namedtuple
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from chatterbex.device import (  # noqa: E402
    Needs,
    WrongResultsError,
    classify,
    free_memory,
    size_of,
    stray_tensors,
    tensors,
)
from chatterbex.errors import ChatterbexError  # noqa: E402


@pytest.mark.parametrize(
    ("device", "error", "kind"),
    [
        ("mps", RuntimeError("Placeholder storage has not been allocated on MPS device!"), "placement"),
        (
            "mps",
            RuntimeError("Expected all tensors to be on the same device, but found mps:0 and cpu!"),
            "placement",
        ),
        ("mps", RuntimeError("MPS backend out of memory (MPS allocated: 5.98 GB, ...)"), "out_of_memory"),
        ("mps", RuntimeError("Invalid buffer size: 24.00 GB"), "out_of_memory"),
        ("mps", NotImplementedError("The operator 'aten::x' is not ... for the MPS device."), "unsupported"),
        (
            "mps",
            NotImplementedError("Output channels > 65536 not supported at the MPS device."),
            "unsupported",
        ),
        ("mps", TypeError("Cannot convert a MPS Tensor to float64 dtype as ..."), "unsupported"),
        ("mps", TypeError("can't convert mps:0 device type tensor to numpy. Use ..."), "unsupported"),
        ("mps", RuntimeError("Expected a 'mps' device type for generator but found 'cpu'"), "device"),
        ("mps", RuntimeError("MPSCommandBuffer: Internal Error"), "device"),
        ("mps", WrongResultsError("t3.logits differs"), "wrong_results"),
        ("cuda:0", WrongResultsError("out of memory is not what this is about"), "wrong_results"),
        ("cuda:0", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out_of_memory"),
        ("cuda:0", RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        ("cuda:1", RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling ..."), "out_of_memory"),
        ("cuda:0", RuntimeError("CUDA error: device-side assert triggered\nmore"), "device"),
        ("cuda:0", RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "device"),
        (
            "cuda:0",
            RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0"
            ),
            "placement",
        ),
    ],
)
def test_a_device_failed(device: str, error: Exception, kind: str) -> None:
    failure = classify(error, device)
    assert failure is not None
    assert failure.kind == kind
    assert "\n" not in failure.message
    assert failure.exception == type(error).__name__
    assert failure.reason == ("out_of_memory" if kind == "out_of_memory" else "device_unavailable")
    assert classify(error, "cpu") is None


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("mps", AttributeError("'NoneType' object has no attribute 'mps'")),
        ("mps", TypeError("f() got an unexpected keyword argument 'mps'")),
        ("mps", ValueError("no such MPS")),
        ("mps", KeyError("mps")),
        ("mps", AssertionError("mps")),
        ("mps", RuntimeError("shape '[5]' is invalid for input of size 6")),
        ("mps", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")),
        ("mps", ChatterbexError("invalid_text", "mps")),
        ("mps", RuntimeError("CUDA error: no such device")),
        ("cuda:0", RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        ("cuda:0", MemoryError("out of memory")),
    ],
)
def test_no_device_failed(device: str, error: Exception) -> None:
    assert classify(error, device) is None


def test_a_failure_is_found_in_the_chain_of_causes() -> None:
    error = ChatterbexError("generation_failed", "it did not work")
    error.__cause__ = RuntimeError("MPS did not work")
    assert classify(error, "mps").message == "MPS did not work"
    ring = RuntimeError("a")
    ring.__cause__ = RuntimeError("b")
    ring.__cause__.__cause__ = ring
    assert classify(ring, "mps") is None


def test_a_long_message_is_cut() -> None:
    assert len(classify(RuntimeError("MPS " + "x" * 1000), "mps").message) == 300


Pair = namedtuple("Pair", "left right")


class Slots:
    __slots__ = ("tensor", "unset")

    def __init__(self) -> None:
        self.tensor = torch.zeros(1)


@dataclass
class Many:
    inner: dict[str, Any] = field(default_factory=lambda: {"a": [torch.zeros(1)]})
    pair: Any = field(default_factory=lambda: Pair(torch.zeros(1), None))
    slots: Any = field(default_factory=Slots)
    later: Any = field(default_factory=lambda: partial(print, torch.zeros(1), key=torch.zeros(1)))
    line: Any = field(default_factory=lambda: deque([torch.zeros(1)]))


class Odd(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.register_buffer("kept", torch.zeros(1))
        self.register_buffer("passing", torch.zeros(1), persistent=False)
        self.plain = torch.zeros(1)
        self.listed = [self.linear, torch.zeros(1)]
        self.many = Many()
        self.itself = self


def test_every_tensor_is_found() -> None:
    assert sorted(path for path, _ in tensors(Odd(), "odd")) == [
        "odd.kept",
        "odd.linear.bias",
        "odd.linear.weight",
        "odd.listed.1",
        "odd.many.inner.a.0",
        "odd.many.later.args.0",
        "odd.many.later.keywords.key",
        "odd.many.line.0",
        "odd.many.pair.0",
        "odd.many.slots.tensor",
        "odd.passing",
        "odd.plain",
    ]


def test_strays_are_found_by_device_and_index() -> None:
    meta = {"a": torch.zeros(1, device="meta"), "b": [torch.zeros(1)]}
    assert [stray.path for stray in stray_tensors(meta, "cpu")] == ["a"]
    assert [(stray.path, stray.device) for stray in stray_tensors(meta, "meta")] == [("b.0", "cpu")]


def test_sizes_count_shared_memory_once() -> None:
    base = torch.zeros(100)
    module = torch.nn.Linear(10, 10, bias=False)
    assert size_of(module) == 400
    assert size_of([base, base[:50], base.view(10, 10)]) == 400
    assert size_of(module, {"same": module.weight}, base) == 800
    assert size_of(None, "words", 3) == 0


def test_a_device_that_does_not_report_its_memory() -> None:
    assert free_memory("cpu") is None


@pytest.mark.parametrize(
    ("free", "fits"),
    [(0, 0), (149, 0), (150, 0), (159, 0), (160, 1), (189, 3), (230, 8), (10**6, 8)],
)
def test_how_many_requests_fit_into_some_memory(free: int, fits: int) -> None:
    assert Needs(weights=100, row=10, work=50).fits(free, 8) == fits
    without_rows = Needs(weights=100, row=0, work=50).fits(free, 8)
    assert without_rows == (8 if free >= 150 else 0)


def test_missing_files_are_named() -> None:
    needs = Needs(weights=2**31, row=2**30, work=2**29)
    assert needs.shortage("mps", 2**30) == (
        "mps has 1.0 GiB of memory left; the model takes 2.0 GiB and needs 1.5 GiB to speak one request"
    )
