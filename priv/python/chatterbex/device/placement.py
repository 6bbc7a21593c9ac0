"""Moves a model's parts to a device, and checks that no tensor stays behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from chatterbex.device.failure import DeviceFailure, StrayTensorsError, summarise
from chatterbex.device.tensors import stray_tensors

_moving: str | None = None


def moving() -> str | None:
    """Returns the name of the part that is being moved to a device now, or None."""
    return _moving


@dataclass
class PlacementReport:
    """The result of a move.

    Attributes:
        device: The target device.
        reason: Why the move failed, else None.
        component: The part that could not be moved.
        failure: The failure.
        seconds: How long each part took.
    """

    device: str
    reason: str | None = None
    component: str | None = None
    failure: DeviceFailure | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Returns whether everything was moved."""
        return self.reason is None


def place(parts: MutableMapping[str, Any], device: str) -> PlacementReport:
    """Moves the parts of a model to a device, one after the other.

    Parts never move back. If one fails, none of them can be used any more, and the caller loads the
    model again from its files: weights read back from a broken device cannot be trusted.

    Args:
        parts: Modules on the CPU, by name. If a module's `.to` returns a new object, that replaces it.
        device: A device such as "mps" or "cuda:0".
    """
    report = PlacementReport(device)
    name = ""
    try:
        for name in list(parts):
            with timed(report.seconds, name):
                _move(parts, name, device)
    except Exception as error:
        report.failure = summarise(error)
        report.component = name
        report.reason = f"moving {name} to {device} failed: {report.failure.message}"
    return report


def _move(parts: MutableMapping[str, Any], name: str, device: str) -> None:
    global _moving
    import torch

    _moving = name
    try:
        # Tensors made in inference mode cannot be used outside it, and parameters must be.
        with torch.inference_mode(False), torch.no_grad():
            parts[name] = parts[name].to(device=device)
    finally:
        _moving = None
    strays = stray_tensors({name: parts[name]}, device)
    if strays:
        raise StrayTensorsError(strays, device)


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Records how long something takes, even if it fails."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = time.perf_counter() - began
