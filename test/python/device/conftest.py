"""Devices to test on: the simulated MPS device, and a real CUDA device where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import simulated_mps


@pytest.fixture
def mps() -> Iterator[simulated_mps.Simulation]:
    """The simulated device, with 16 GiB and macOS 15.5."""
    _need_simulation()
    with simulated_mps.device() as device:
        yield device


@pytest.fixture(params=["mps", "cuda"])
def accelerator(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A device on which faults can be set: `name`, `faults` and `exact` (gives the CPU's bits)."""
    from sabotage import Cuda, Mps

    if request.param == "mps":
        _need_simulation()
        with simulated_mps.device() as device:
            yield Mps(device)
        return
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    with Cuda() as device:
        yield device


def _need_simulation() -> None:
    lacking = simulated_mps.missing()
    if lacking is not None:
        pytest.skip(f"no simulated MPS device: {lacking}")
