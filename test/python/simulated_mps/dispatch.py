"""Runs one operator: unwraps, checks what MPS would refuse, computes on the CPU, wraps again."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._mode_utils

from . import faults, state
from .spoiling import spoil

CPU = torch.device("cpu")
UNSUPPORTED = (torch.float64, torch.complex128)
# A tensor of indices may be on the CPU: PyTorch moves it to the indexed tensor's device.
INDEXING = {
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
    "aten::_unsafe_index_put",
}
# These take tensors of both devices, one at a time.
CROSSING = {"aten::copy_", "aten::copy", "aten::_to_copy", "aten::to", "aten::_copy_from"}
# These look at no numbers.
METADATA = {"aten::_has_compatible_shallow_copy_type", "aten::is_same_size"}
# Other operators accept 0-dim CPU tensors; these need all tensors on one device.
STRICT = {"aten::cat", "aten::stack", "aten::concat", "aten::concatenate"}
# On macOS before 15.1 a convolution refuses any dimension above this.
LONGEST = 65536


@dataclass(frozen=True)
class Operator:
    """Facts about an operator from its schema."""

    name: str
    device_at: int | None
    dtype_at: int | None
    aliases: bool
    crosses: bool
    metadata: bool
    index: bool
    strict: bool
    convolves: bool
    changes_shape: bool
    views: bool = False


@functools.cache
def operator(func: Any) -> Operator:
    """Reads an operator's schema, once."""
    schema = func._schema
    positions = {argument.name: at for at, argument in enumerate(schema.arguments)}
    name = schema.name
    return Operator(
        name=name,
        device_at=positions.get("device"),
        dtype_at=positions.get("dtype"),
        aliases=any(argument.alias_info is not None for argument in schema.arguments),
        crosses=name in CROSSING,
        metadata=name in METADATA,
        index=name in INDEXING,
        strict=name in STRICT,
        convolves="conv" in name.rpartition("::")[2] and "backward" not in name,
        changes_shape=torch.Tag.inplace_view in func.tags,
        views=_is_view(schema),
    )


def _is_view(schema: Any) -> bool:
    aliases = [argument.alias_info for argument in schema.arguments if argument.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


class _Inputs:
    """The tensors of one call, by where they are."""

    __slots__ = ("cpu", "generators", "simulated")

    def __init__(self) -> None:
        self.simulated: list[Any] = []
        self.cpu: list[torch.Tensor] = []
        self.generators: list[Any] = []

    def unwrap(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if isinstance(value, state.tensor_class()):
                self.simulated.append(value)
                return value._cpu
            if value.device.type == "mps":
                raise AssertionError("a tensor claims MPS without being simulated")
            self.cpu.append(value)
            return value
        kind = type(value)
        if kind is list or kind is tuple:
            return kind(self.unwrap(item) for item in value)
        if isinstance(value, torch._C.Generator):
            self.generators.append(value)
        return value


def run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Runs `func` as the simulated device would."""
    op = operator(func)
    inputs = _Inputs()
    plain = [inputs.unwrap(value) for value in args]
    named = {key: inputs.unwrap(value) for key, value in kwargs.items()}
    target = _target(op, inputs, args, plain, named)
    if not inputs.simulated and target == "cpu":
        state.current().faults.operator(op.name, "cpu", plain)
        return func(*args, **kwargs)
    result = compute(op, func, inputs, plain, named, target)
    if op.changes_shape:
        _change_view(func, args, kwargs)
    return result


def compute(op: Operator, func: Any, inputs: _Inputs, plain: list, named: dict, target: str) -> Any:
    """Checks a call that touches the simulated device, runs it on the CPU and wraps the result."""
    simulation = state.current()
    if not op.crosses and not op.metadata and op.device_at is None:
        _refuse_mixed(op, inputs, plain)
    if target == "mps":
        _refuse_dtype(_argument(op.dtype_at, "dtype", plain, named))
        _refuse_generators(inputs.generators)
        simulation.operators[op.name] += 1
    if op.crosses and target == "mps" and inputs.cpu:
        simulation.faults.moved()
    fault = simulation.faults.operator(op.name, "mps", plain)
    if target == "mps" and simulation.quirks is not None:
        plain = simulation.quirks.misread(op.name, plain)
    result = func(*plain, **named)
    if target == "mps" and op.convolves and simulation.macos < (15, 1):
        _refuse_long(result)
    if fault is not None:
        result = spoil(fault, result, plain)
    if target == "mps" and not op.views and not (op.crosses and inputs.cpu):
        for shapes in simulation.shapes:
            shapes.add(op.name, inputs.simulated, result)
    if target == "cpu":
        return _apart(result, inputs)
    return _wrap_all(op, result, inputs)


def wrap(cpu: torch.Tensor, block: Any = None) -> torch.Tensor:
    """Puts a CPU tensor's numbers on the simulated device, without copying them."""
    _refuse_dtype(cpu.dtype)
    if cpu.is_conj():
        cpu = cpu.resolve_conj()
    if cpu.is_neg():
        cpu = cpu.resolve_neg()
    if block is None:
        block = state.current().pool.allocate(cpu.untyped_storage().nbytes())
    return state.tensor_class()(cpu, block)


def move(cpu: torch.Tensor) -> torch.Tensor:
    """Copies a CPU tensor to the simulated device; `aten::to` as a function."""
    _refuse_dtype(cpu.dtype)
    simulation = state.current()
    simulation.faults.moved()
    simulation.faults.operator("aten::_to_copy", "mps")
    return wrap(cpu.detach().clone())


def _argument(at: int | None, name: str, plain: list, named: dict) -> Any:
    if name in named:
        return named[name]
    return plain[at] if at is not None and at < len(plain) else None


def _target(op: Operator, inputs: _Inputs, args: tuple, plain: list, named: dict) -> str:
    """Returns where the result goes; a requested device is replaced by the CPU in the arguments."""
    if op.name in ("aten::copy_", "aten::copy", "aten::_copy_from"):
        receiver = args[1] if op.name == "aten::_copy_from" else args[0]
        return receiver.device.type
    other = args[1] if op.name == "aten::to" and len(args) > 1 else None
    if isinstance(other, torch.Tensor):
        return other.device.type
    asked = _argument(op.device_at, "device", plain, named)
    if asked is None or op.device_at is None:
        return "mps" if inputs.simulated else "cpu"
    asked = torch.device(asked)
    if asked.type != "mps":
        return asked.type
    if asked.index not in (None, 0):
        raise RuntimeError(f"Invalid device argument {asked}: there is one MPS device")
    if "device" in named:
        named["device"] = CPU
    else:
        plain[op.device_at] = CPU
    return "mps"


def _refuse_mixed(op: Operator, inputs: _Inputs, plain: list) -> None:
    if not inputs.simulated or not inputs.cpu:
        return
    strangers = inputs.cpu
    if op.index:
        indices = [index for index in plain[1] if isinstance(index, torch.Tensor)]
        if any(plain[0] is stranger for stranger in strangers):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        strangers = [one for one in strangers if not any(one is index for index in indices)]
    if any(op.strict or stranger.dim() > 0 for stranger in strangers):
        raise RuntimeError(faults.PLACEHOLDER)


def _refuse_dtype(dtype: torch.dtype | None) -> None:
    if dtype in UNSUPPORTED:
        raise TypeError(faults.FLOAT64)


def _refuse_generators(generators: list) -> None:
    for generator in generators:
        if generator._cdata not in state.generators:
            raise RuntimeError("Expected a 'mps' device type for generator but found 'cpu'")


def _refuse_long(result: Any) -> None:
    if isinstance(result, torch.Tensor) and any(size > LONGEST for size in result.shape):
        raise NotImplementedError(faults.CHANNELS)


def _apart(result: Any, inputs: _Inputs) -> Any:
    """A tensor copied to the CPU shares no memory with its original."""
    if isinstance(result, torch.Tensor):
        source = {one._cpu.untyped_storage()._cdata for one in inputs.simulated}
        own = {one.untyped_storage()._cdata for one in inputs.cpu}
        storage = result.untyped_storage()._cdata
        if storage in source and storage not in own:
            return result.clone()
    return result


def _wrap_all(op: Operator, result: Any, inputs: _Inputs) -> Any:
    # No closure that calls itself: the cycle would keep this call's tensors until a collection.
    return _Wrapper(op, inputs).wrap(result)


class _Wrapper:
    """Wraps one call's results, each by its relation to the call's inputs."""

    __slots__ = ("bases", "known", "op", "strangers")

    def __init__(self, op: Operator, inputs: _Inputs) -> None:
        self.op = op
        self.known = {id(one._cpu): one for one in inputs.simulated}
        self.bases = {}
        if op.aliases:
            self.bases = {one._cpu.untyped_storage()._cdata: one for one in inputs.simulated}
        crossing = inputs.cpu if op.crosses else ()
        self.strangers = {one.untyped_storage()._cdata for one in crossing}

    def wrap(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) in self.known:
                same = self.known[id(value)]
                return same if self.op.changes_shape else _unchanged(same)
            storage = value.untyped_storage()._cdata
            if storage in self.strangers:
                return wrap(value.clone())
            return _view(value, self.bases[storage]) if storage in self.bases else wrap(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.wrap(item) for item in value)
        return value


def _view(cpu: torch.Tensor, base: Any) -> torch.Tensor:
    # In inference mode a view of an ordinary tensor is an ordinary tensor, and PyTorch insists.
    if torch.is_inference_mode_enabled() and not base.is_inference():
        with torch.inference_mode(False):
            return wrap(cpu, base._block)
    return wrap(cpu, base._block)


def _unchanged(tensor: Any) -> Any:
    if tensor.shape != tensor._cpu.shape:
        raise NotImplementedError("the simulated device cannot resize a tensor in place")
    return tensor


def _change_view(func: Any, args: tuple, kwargs: dict) -> None:
    """Gives the wrapper the shape that an operator such as `t_` gave the tensor inside."""
    before = torch._C._meta_in_tls_dispatch_include()
    with torch.utils._mode_utils.no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            func(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)
