"""The one simulated device of the process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .faults import Faults
from .memory import Pool

if TYPE_CHECKING:
    from .quirks import Quirks
    from .shapes import Shapes
    from .tensor import SimulatedTensor

GIBIBYTE = 2**30


@dataclass
class Simulation:
    """The properties of a simulated device, and what was done on it.

    Attributes:
        macos: The macOS version it claims; before 15.1 long convolutions fail as they do there.
        memory: What `torch.mps.recommended_max_memory` answers, in bytes.
        pool: Its allocations; `pool.limit` is where it is out of memory.
        faults: What is to fail.
        quirks: What it computes wrongly without a word.
        operators: How often each operator ran on it, by name.
        shapes: Who counts the shapes of its operators: see `shapes.counting_shapes`.
    """

    macos: tuple[int, int] = (15, 5)
    memory: int = 16 * GIBIBYTE
    pool: Pool = field(default_factory=lambda: Pool(16 * GIBIBYTE))
    faults: Faults = field(default_factory=Faults)
    quirks: Quirks | None = None
    operators: Counter[str] = field(default_factory=Counter)
    shapes: list[Shapes] = field(default_factory=list)


# The generators made for MPS, by the address that PyTorch knows.
generators: set[int] = set()
_current = Simulation()
_tensor_class: type[SimulatedTensor] | None = None


def current() -> Simulation:
    """Returns the simulated device in use, or the last one."""
    return _current


def use(simulation: Simulation) -> None:
    """Makes `simulation` the current one."""
    global _current
    _current = simulation


def tensor_class() -> type[SimulatedTensor]:
    """Returns the class of the tensors; imported late, since it needs this module."""
    global _tensor_class
    if _tensor_class is None:
        from .tensor import SimulatedTensor

        _tensor_class = SimulatedTensor
    return _tensor_class
