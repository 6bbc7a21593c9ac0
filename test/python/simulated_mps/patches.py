"""What PyTorch and Python report about the machine while the simulated device is in use."""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Iterator
from typing import Any

import torch

from . import state
from .state import Simulation, current

_Generator = torch._C.Generator


class _GeneratorType(type(_Generator)):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Generator)


class Generator(_Generator, metaclass=_GeneratorType):
    """torch.Generator, which PyTorch cannot make for MPS without Metal."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        if torch.device(device).type != "mps":
            return _Generator(device)
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        # An operator is handed another Python object for the same generator.
        self._key = self._cdata
        state.generators.add(self._key)

    def __del__(self) -> None:
        state.generators.discard(self._key)

    @property
    def device(self) -> torch.device:
        """Where its numbers may be used."""
        return torch.device("mps")


def _is_macos_or_newer(major: int, minor: int) -> bool:
    return current().macos >= (major, minor)


def _empty_cache() -> None:
    current().pool.empty()


def _set_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 2:
        raise ValueError("Invalid fraction value, allowed range: 0-2")
    simulation = current()
    simulation.pool.limit = int(fraction * simulation.memory)


def _values(simulation: Simulation) -> list[tuple[Any, str, Any]]:
    mac = (".".join(map(str, simulation.macos)), ("", "", ""), "arm64")
    return [
        (torch.backends.mps, "is_built", lambda: True),
        # PyTorch's own is cached as well, and torch._dynamo reads the function behind the cache.
        (torch.backends.mps, "is_available", functools.cache(lambda: True)),
        (torch.backends.mps, "is_macos_or_newer", _is_macos_or_newer),
        (torch.mps, "device_count", lambda: 1),
        (torch.mps, "synchronize", lambda: None),
        (torch.mps, "empty_cache", _empty_cache),
        (torch.mps, "set_per_process_memory_fraction", _set_fraction),
        (torch.mps, "recommended_max_memory", lambda: current().memory),
        (torch.mps, "current_allocated_memory", lambda: current().pool.allocated),
        (torch.mps, "driver_allocated_memory", lambda: current().pool.reserved),
        # One generator serves both devices, so that the same seed gives the same numbers.
        (torch.mps, "manual_seed", lambda seed: None),
        (torch.mps, "seed", torch.seed),
        (torch.mps, "get_rng_state", lambda device="mps": torch.get_rng_state()),
        (torch.mps, "set_rng_state", lambda state, device="mps": torch.set_rng_state(state)),
        (torch, "Generator", Generator),
        (torch.nn.Module, "_apply", _apply_by_swapping(torch.nn.Module._apply)),
        (torch.utils, "swap_tensors", _swap(torch.utils.swap_tensors)),
        (platform, "mac_ver", lambda *args, **kwargs: mac),
    ]


def _apply_by_swapping(original: Any) -> Any:
    """Makes modules exchange the whole tensor: `.data =` would lose the wrapper's numbers."""

    def _apply(module: torch.nn.Module, fn: Any, recurse: bool = True) -> torch.nn.Module:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return original(module, fn, recurse)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return _apply


def _swap(original: Any) -> Any:
    """Exchanges two tensors, whatever else refers to them.

    PyTorch's own refuses while a view is alive, as in the traceback of the failure that a model is
    retreating from. On a real device nothing is exchanged, so nothing can be refused.
    """

    def swap_tensors(first: torch.Tensor, second: torch.Tensor) -> None:
        simulated = state.tensor_class()
        if not isinstance(first, simulated) and not isinstance(second, simulated):
            return original(first, second)
        first.__class__, second.__class__ = second.__class__, first.__class__
        first.__dict__, second.__dict__ = second.__dict__, first.__dict__
        torch._C._swap_tensor_impl(first, second)
        return None

    return swap_tensors


@contextlib.contextmanager
def applied(simulation: Simulation) -> Iterator[None]:
    """Sets the values, and restores the old ones."""
    values = _values(simulation)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in values]
    try:
        for owner, name, value in values:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
