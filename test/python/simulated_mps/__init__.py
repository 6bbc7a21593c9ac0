"""A simulated MPS device: whole models run on "mps" without a Mac.

A test tool. Tensors that say they are on mps:0 keep their numbers on the CPU, every operator runs
there, and what the real device refuses is refused: a CPU tensor that meets an MPS one, float64,
`.numpy()`, too much memory. What else is to fail can be set (see `faults.Fault`), and what is to go
wrong without a word (see `quirks`).

    with simulated_mps.device(memory=8 * 2**30) as mps:
        model.to("mps")
        mps.faults.add(operator="aten::conv1d", nth=3, error="unsupported")

PyTorch keeps the two modes that do this per thread, so the thread that installs the device is the
one that may use it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import state
from .faults import Fault, Faults
from .guard import SimulationUnavailable, load
from .memory import Pool
from .metal import MetalPool
from .state import Simulation

if TYPE_CHECKING:
    from .shapes import Shapes

__all__ = [
    "Fault",
    "Faults",
    "Simulation",
    "SimulationUnavailable",
    "counting_shapes",
    "current",
    "device",
    "install",
    "missing",
    "uninstall",
]

_installed: contextlib.ExitStack | None = None


def missing() -> str | None:
    """Returns what the simulated device lacks here, or None if it can run."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return "PyTorch is not installed"
    try:
        load()
    except SimulationUnavailable as error:
        return str(error)
    return None


def counting_shapes() -> contextlib.AbstractContextManager[Shapes]:
    """Counts the distinct operators and shapes on the device, inside a `with` block."""
    from . import shapes

    return shapes.counting_shapes()


def current() -> Simulation:
    """Returns the device in use."""
    return state.current()


def install(
    *,
    macos: tuple[int, int] = (15, 5),
    memory: int = 16 * state.GIBIBYTE,
    limit: int | None = None,
    quirks: Iterable[str] = (),
    metal_memory: bool = False,
    source: str | os.PathLike | None = None,
) -> Simulation:
    """Installs the device until `uninstall`, on this thread.

    Args:
        macos: The macOS version to claim.
        memory: The recommended working set, in bytes.
        limit: Where allocations fail, in bytes; default `memory`.
        quirks: Names of `quirks.QUIRKS`, such as "pytorch-192212", or "all".
        metal_memory: Whether memory is taken in heaps and buffers as on a Mac (see `metal`), or to
            the byte.
        source: A JSON file whose "faults" are read now and whenever it changes.

    Raises:
        SimulationUnavailable: It cannot run here.
        RuntimeError: It is in place already.
    """
    global _installed
    if _installed is not None:
        raise RuntimeError("the simulated device is installed already")
    load()
    from . import factories, functions, patches
    from .quirks import Quirks

    limit = memory if limit is None else limit
    simulation = Simulation(
        macos=macos,
        memory=memory,
        pool=MetalPool(limit, memory) if metal_memory else Pool(limit),
        faults=Faults(None if source is None else Path(source)),
        quirks=Quirks(quirks),
    )
    state.use(simulation)
    with contextlib.ExitStack() as stack:
        stack.enter_context(factories.registered())
        stack.enter_context(patches.applied(simulation))
        stack.enter_context(functions.DispatchMode())
        stack.enter_context(functions.FunctionMode())
        _installed = stack.pop_all()
    return simulation


def uninstall() -> None:
    """Uninstalls the device; does nothing if it is not installed."""
    global _installed
    stack, _installed = _installed, None
    if stack is not None:
        stack.close()


@contextlib.contextmanager
def device(**options: Any) -> Iterator[Simulation]:
    """Installs the device for a `with` block; accepts the options of `install`."""
    simulation = install(**options)
    try:
        yield simulation
    finally:
        uninstall()
