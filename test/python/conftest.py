"""Fixtures for all Python tests: engines, and devices to test on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent.parent / "priv" / "python"
for path in (PACKAGE, HERE):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

import simulated_mps  # noqa: E402
from chatterbex import log, registry  # noqa: E402
from chatterbex.engine import Engine  # noqa: E402
from driving import Driver  # noqa: E402


@pytest.fixture
def restored() -> Iterator[None]:
    """Restores what an engine changes in its process."""
    environment, fork, forkpty = dict(os.environ), os.fork, os.forkpty
    models, level = dict(registry._MODELS), logging.getLogger("chatterbex").level
    yield
    log.restore()
    logging.getLogger("chatterbex").setLevel(level)
    os.environ.clear()
    os.environ.update(environment)
    os.fork, os.forkpty = fork, forkpty
    registry._MODELS.clear()
    registry._MODELS.update(models)


@pytest.fixture
def make(restored: None) -> Callable[..., Driver]:
    """Makes engines, with the fake model registered."""

    def make(config: Mapping[str, Any] | None = None) -> Driver:
        extra = {"fake": "fake_model:FakeModel"}
        return Driver(Engine({"extra_models": extra, **(config or {})}))

    return make


@pytest.fixture
def driver(make: Callable[..., Driver]) -> Driver:
    """An engine, with the fake model registered."""
    return make()


@pytest.fixture
def mps() -> Iterator[simulated_mps.Simulation]:
    """The simulated MPS device, with 16 GiB and macOS 15.5."""
    _need_simulation()
    with simulated_mps.device() as device:
        yield device


@pytest.fixture
def cuda() -> Iterator[Any]:
    """A real CUDA device on which faults can be set."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    from sabotage import Cuda

    with Cuda() as device:
        yield device


@pytest.fixture(params=["mps", "cuda"])
def accelerator(request: pytest.FixtureRequest) -> Any:
    """Each of the two, with `name`, `placed`, `faults` and `exact` (gives the CPU's bits)."""
    device = request.getfixturevalue(request.param)
    if request.param == "cuda":
        return device
    from sabotage import Mps

    return Mps(device)


def _need_simulation() -> None:
    lacking = simulated_mps.missing()
    if lacking is not None:
        pytest.skip(f"no simulated MPS device: {lacking}")


def _peak() -> int | None:
    """The peak memory of this process in MiB."""
    if sys.platform != "linux":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


_workers: list[int] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Passes the peak memory of a worker on to the process that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = _peak()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keeps the peak memory of a worker that has ended."""
    peak = getattr(node, "workeroutput", {}).get("peak")
    if peak is not None:
        _workers.append(peak)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Reports the peak memory of each process, for bin/test."""
    for peak in [*_workers, _peak()]:
        if peak is not None:
            terminalreporter.write_line(f"peak memory of a process: {peak} MiB")
