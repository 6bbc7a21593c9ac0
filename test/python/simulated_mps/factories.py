"""Kernels that allocate on the simulated device, for PyTorch's C++ code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from . import dispatch


def _empty(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    del layout, device, pin_memory
    dispatch._refuse_dtype(dtype)
    shape = torch.contiguous_format if memory_format is None else memory_format
    return dispatch.wrap(torch.empty(size, dtype=dtype, device="cpu", memory_format=shape))


def _empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> torch.Tensor:
    del layout, device, pin_memory
    dispatch._refuse_dtype(dtype)
    return dispatch.wrap(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Registers the kernels under the MPS key, and removes them."""
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("empty.memory_format", _empty, "MPS")
        library.impl("empty_strided", _empty_strided, "MPS")
        yield
    finally:
        library._destroy()
