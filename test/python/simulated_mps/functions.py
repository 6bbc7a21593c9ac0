"""Calls that must be intercepted above the operators: they read memory, or branch on the device in C++."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from . import dispatch, state


class DispatchMode(TorchDispatchMode):
    """Sees every operator, also those on CPU tensors alone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return dispatch.run(func, args, kwargs or {})


class FunctionMode(TorchFunctionMode):
    """Sees every call of PyTorch's Python functions."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        handler = HANDLERS.get(func)
        if handler is None:
            return func(*args, **(kwargs or {}))
        return handler(func, args, kwargs or {})


def _numpy(func: Callable, args: tuple, kwargs: dict) -> Any:
    if isinstance(args[0], state.tensor_class()):
        raise TypeError(
            "can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )
    return func(*args, **kwargs)


def _data_pointer(func: Callable, args: tuple, kwargs: dict) -> int:
    tensor = args[0]
    return tensor._cpu.data_ptr() if isinstance(tensor, state.tensor_class()) else func(tensor)


def _list(func: Callable, args: tuple, kwargs: dict) -> Any:
    # PyTorch does this only for its own tensors.
    tensor = args[0]
    return func(tensor._cpu) if isinstance(tensor, state.tensor_class()) else func(tensor)


def _to(func: Callable, args: tuple, kwargs: dict) -> Any:
    # The device guard knows no index, so PyTorch would copy from "mps:0" to "mps".
    if not isinstance(args[0], state.tensor_class()):
        return func(*args, **kwargs)
    named = {key: _indexed(value) for key, value in kwargs.items()}
    return func(*(_indexed(value) for value in args), **named)


def _indexed(value: Any) -> Any:
    bare = isinstance(value, (str, torch.device)) and str(value) == "mps"
    return torch.device("mps:0") if bare else value


def _new_tensor(func: Callable, args: tuple, kwargs: dict) -> torch.Tensor:
    """torch.tensor and its like read memory directly, so the copy is made on the CPU first."""
    device = kwargs.get("device")
    source = args[0] if args else kwargs.get("data", kwargs.get("obj"))
    if device is None and isinstance(source, state.tensor_class()):
        device = source.device
    if isinstance(source, state.tensor_class()):
        rest = {key: value for key, value in kwargs.items() if key in ("dtype",)}
        moved = source.to(device, **rest)
        return moved if func is not torch.tensor else moved.detach().clone()
    if device is None or torch.device(device).type != "mps":
        return func(*args, **kwargs)
    kwargs = {**kwargs, "device": "cpu"}
    grad = kwargs.pop("requires_grad", False)
    return func(*args, **kwargs).to(device).requires_grad_(grad)


def _set_data(func: Callable, args: tuple, kwargs: dict) -> None:
    tensor, new = args
    simulated = state.tensor_class()
    if not isinstance(tensor, simulated) and not isinstance(new, simulated):
        return func(*args, **kwargs)
    with torch.no_grad():
        replacement = new.detach()
        grad = tensor.requires_grad
        if isinstance(tensor, torch.nn.Parameter):
            replacement = torch.nn.Parameter(replacement, requires_grad=grad)
        torch.utils.swap_tensors(tensor, replacement)
    return None


def _whole(name: str) -> Callable[[Callable, tuple, dict], Any]:
    """Runs a composite function on the CPU as a whole: below it PyTorch asks for Metal kernels."""
    op = dispatch.Operator(name, None, None, *([False] * 7))

    def handler(func: Callable, args: tuple, kwargs: dict) -> Any:
        inputs = dispatch._Inputs()
        plain = [inputs.unwrap(value) for value in args]
        named = {key: inputs.unwrap(value) for key, value in kwargs.items()}
        if not inputs.simulated:
            return func(*args, **kwargs)
        return dispatch.compute(op, func, inputs, plain, named, "mps")

    return handler


HANDLERS: dict[Any, Callable[[Callable, tuple, dict], Any]] = {
    torch.Tensor.numpy: _numpy,
    torch.Tensor.__array__: _numpy,
    torch.Tensor.tolist: _list,
    torch.Tensor.data_ptr: _data_pointer,
    torch.Tensor.to: _to,
    torch.Tensor.data.__set__: _set_data,
    torch.tensor: _new_tensor,
    torch.as_tensor: _new_tensor,
    torch.asarray: _new_tensor,
    torch.nn.functional.scaled_dot_product_attention: _whole("aten::scaled_dot_product_attention"),
    torch.lstm: _whole("aten::lstm"),
    torch.gru: _whole("aten::gru"),
}
