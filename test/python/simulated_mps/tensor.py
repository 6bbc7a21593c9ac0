"""The simulated tensor: to PyTorch it is on mps:0, its numbers are in a tensor on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from . import dispatch
from .memory import Block


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device."""

    _cpu: torch.Tensor
    _block: Block | None

    @staticmethod
    def __new__(cls: type, cpu: torch.Tensor, block: Block | None = None) -> SimulatedTensor:
        del block
        return torch.Tensor._make_wrapper_subclass(
            cls,
            cpu.size(),
            strides=cpu.stride(),
            storage_offset=cpu.storage_offset(),
            dtype=cpu.dtype,
            layout=cpu.layout,
            device="mps:0",
            requires_grad=False,
        )

    def __init__(self, cpu: torch.Tensor, block: Block | None = None) -> None:
        self._cpu = cpu
        self._block = block

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        # Reached when PyTorch disables the modes, as inside torch.tensor.
        return dispatch.run(func, args, kwargs or {})

    # PyTorch treats a tensor with these two as a wrapper, and then keeps a parameter's
    # identity when a module moves, as it does on a real device.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["_cpu"], None

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, torch.Tensor], meta: None, size: Any, stride: Any
    ) -> SimulatedTensor:
        del meta, size, stride
        return dispatch.wrap(inner["_cpu"])

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        del tensor_contents
        values = torch.Tensor.__repr__(self._cpu.detach())
        return f"{values[:-1]}, device='mps:0')"

    def __reduce_ex__(self, protocol: int) -> tuple:
        del protocol
        return _restore, (self._cpu.detach(), self.requires_grad)


def _restore(cpu: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    return dispatch.wrap(cpu).requires_grad_(requires_grad)
