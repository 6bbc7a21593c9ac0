"""Making a device fail on request, the same way on the simulated MPS device and on real CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from simulated_mps import Simulation
from simulated_mps.faults import Fault, Faults
from simulated_mps.spoiling import spoil


class Mps:
    """The simulated device."""

    name = "mps"
    placed = "mps:0"
    exact = True

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.faults = simulation.faults

    def allocated(self) -> int:
        """Bytes in use."""
        return self.simulation.pool.allocated


class CudaFaults(Faults):
    """The same faults, with CUDA's error messages."""

    def check(self, operator: str, device: str, arguments: Sequence[Any]) -> Fault | None:
        """As `operator`, with the errors that CUDA would raise."""
        try:
            return self.operator(operator, device, arguments)
        except (RuntimeError, TypeError) as error:
            raise _in_cuda_words(error, operator) from None

    def check_move(self) -> None:
        """As `moved`, with the errors that CUDA would raise."""
        try:
            self.moved()
        except (RuntimeError, TypeError) as error:
            raise _in_cuda_words(error, "copy_") from None


class Cuda(TorchDispatchMode):
    """Sees every operator, and makes the chosen ones on the device fail."""

    name = "cuda:0"
    placed = "cuda:0"
    exact = False

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__()
        self.kind = kind
        self.faults = CudaFaults()

    def allocated(self) -> int:
        """Bytes in use."""
        torch._C._cuda_clearCublasWorkspaces()
        return torch.cuda.memory_allocated()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        on_device = self._on_device(args, kwargs)
        fault = self.faults.check(name, "mps" if on_device else "cpu", args)
        result = func(*args, **kwargs)
        if (
            name in ("aten::_to_copy", "aten::to", "aten::copy_")
            and not on_device
            and self._on_device(result, {})
        ):
            self.faults.check_move()
        return spoil(fault, result, args) if fault is not None else result

    def _on_device(self, *values: Any) -> bool:
        leaves, _ = tree_flatten(values)
        return any(isinstance(leaf, torch.Tensor) and leaf.device.type == self.kind for leaf in leaves)


def _in_cuda_words(error: Exception, operator: str) -> Exception:
    text = str(error)
    if "out of memory" in text:
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
    if "Placeholder" in text:
        return RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        )
    return RuntimeError(f"CUDA error: no kernel image is available for execution on the device ({operator})")
