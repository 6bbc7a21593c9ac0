"""Finding every tensor that a component holds, wherever it keeps it."""

from __future__ import annotations

import functools
import logging
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_OPAQUE = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    range,
    type,
    logging.Logger,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    type(None),
)


@dataclass(frozen=True)
class Stray:
    """A tensor that is not where its component should be.

    Attributes:
        path: Where it hangs, such as "conds.gen.embedding".
        device: Where it is.
    """

    path: str
    device: str


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Walks an object: parameters, buffers, plain attributes, items of containers.

    Args:
        value: A module, a dataclass, a dict, a tensor, or anything that holds some.
        path: What to call it.

    Yields:
        Each tensor once, with where it hangs.
    """
    import torch

    seen: dict[int, Any] = {}  # the objects themselves as well: an id is used again
    waiting: deque[tuple[str, Any]] = deque([(path, value)])
    while waiting:
        here, item = waiting.popleft()
        if isinstance(item, _OPAQUE) or id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, torch.Tensor):
            yield here, item
        else:
            waiting.extend(_children(item, here))


def _children(item: Any, path: str) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(item, torch.nn.Module):
        inside = vars(item)
        for name in ("_parameters", "_buffers", "_modules"):
            for key, value in inside[name].items():
                yield _join(path, key), value
        for key, value in inside.items():
            if key not in ("_parameters", "_buffers", "_modules"):
                yield _join(path, key), value
        return
    if isinstance(item, Mapping):
        for key, value in item.items():
            yield _join(path, key), value
    elif isinstance(item, (Sequence, Set, deque)):
        for at, value in enumerate(item):
            yield _join(path, at), value
    elif isinstance(item, functools.partial):
        yield _join(path, "args"), item.args
        yield _join(path, "keywords"), item.keywords
    for key, value in getattr(item, "__dict__", {}).items():
        yield _join(path, key), value
    for cls in type(item).__mro__:
        names = vars(cls).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__") and hasattr(item, name):
                yield _join(path, name), getattr(item, name)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def stray_tensors(components: Mapping[str, Any], device: str | torch.device) -> list[Stray]:
    """Returns the tensors of some components that are not on a device.

    Args:
        components: Names to components.
        device: Where everything should be; "mps" is the same as "mps:0".
    """
    wanted = _place(device)
    return [
        Stray(path, str(tensor.device))
        for name, component in components.items()
        for path, tensor in tensors(component, name)
        if _place(tensor.device) != wanted
    ]


def device_of(component: Any) -> str | None:
    """Returns the device that a component is on, "mixed" for several, or None if it has no tensor."""
    found = {str(tensor.device) for _, tensor in tensors(component)}
    return "mixed" if len(found) > 1 else next(iter(found), None)


def _place(device: str | torch.device) -> tuple[str, int]:
    import torch

    device = torch.device(device)
    return device.type, device.index or 0
