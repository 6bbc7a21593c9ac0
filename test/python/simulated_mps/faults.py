"""Faults on request: what fails, when, and with which of PyTorch's own errors."""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import families

PLACEHOLDER = "Placeholder storage has not been allocated on MPS device!"
FLOAT64 = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)
CHANNELS = (
    "Output channels > 65536 not supported at the MPS device. As a temporary fix, you can set the "
    "environment variable `PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a fallback for this "
    "op. WARNING: this will be slower than running natively on MPS."
)
KINDS = (
    "missing",
    "unsupported",
    "placeholder",
    "out_of_memory",
    "float64",
    "channels",
    "command_buffer",
    "runtime",
    "wrong",
    "nan",
    "bug",
)
SILENT = ("wrong", "nan")
"""Kinds that raise nothing."""


def missing_text(operator: str) -> str:
    """Returns PyTorch's message about an operator that MPS lacks."""
    return (
        f"The operator '{operator}' is not currently implemented for the MPS device. If you want "
        "this op to be considered for addition please comment on "
        "https://github.com/pytorch/pytorch/issues/141287 and mention use-case, that resulted in "
        "missing op as well as the commit hash. As a temporary fix, you can set the environment "
        "variable `PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a fallback for this op. "
        "WARNING: this will be slower than running natively on MPS."
    )


def out_of_memory_text(allocated: int, limit: int, wanted: int) -> str:
    """Returns PyTorch's message when the MPS allocator is at its limit (arguments in bytes)."""
    return (
        f"MPS backend out of memory (MPS allocated: {allocated / 2**20:.2f} MB, other allocations: "
        f"0 bytes, max allowed: {limit / 2**20:.2f} MB). Tried to allocate {wanted / 2**20:.2f} MB "
        "on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for "
        "memory allocations (may cause system failure)."
    )


@dataclass
class Fault:
    """A planned failure.

    Attributes:
        operator: A family of `families` ("convolution"), or a pattern of operator names
            ("aten::conv*"). Under inference mode composite operators arrive whole ("aten::linear",
            not "aten::addmm"); a family has both names.
        move: Instead of an operator: the component during whose move a tensor fails to go from
            the CPU to MPS ("t3", "conds.gen", "*" for any).
        nth: The matching call that fails, counted from 1 from when the fault was set.
        times: How many matching calls fail from there on; None for all of them.
        error: One of `KINDS`. "missing" obeys PYTORCH_ENABLE_MPS_FALLBACK as PyTorch does,
            "unsupported" does not; "wrong" and "nan" spoil the result in silence.
        message: Used instead of the kind's own text.
        device: Where the operator must run for the fault to apply: "mps" or "cpu".
    """

    operator: str | None = None
    move: str | None = None
    nth: int = 1
    times: int | None = 1
    error: str = "runtime"
    message: str | None = None
    device: str = "mps"
    seen: int = field(default=0, repr=False)
    hits: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if (self.operator is None) == (self.move is None):
            raise ValueError("a fault has either an operator or a move")
        if self.error not in KINDS:
            raise ValueError(f"unknown error {self.error!r}; there are {', '.join(KINDS)}")

    def due(self) -> bool:
        """Counts one matching call and returns whether it fails."""
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    def exception(self, operator: str) -> Exception:
        """Returns the error that PyTorch would raise from `operator`."""
        if self.error in ("missing", "unsupported"):
            return NotImplementedError(self.message or missing_text(operator))
        if self.error == "channels":
            return NotImplementedError(self.message or CHANNELS)
        if self.error == "float64":
            return TypeError(self.message or FLOAT64)
        if self.error == "bug":
            return AttributeError(self.message or "'NoneType' object has no attribute 'shape'")
        texts = {
            "placeholder": PLACEHOLDER,
            "out_of_memory": out_of_memory_text(6 * 2**30, 7 * 2**30, 2**30),
            "command_buffer": "MPSCommandBuffer: Internal Error (0000000e:Internal Error)",
        }
        return RuntimeError(self.message or texts.get(self.error, f"MPS failed in {operator}"))


class Faults:
    """The faults in force, from calls of `add` and from a JSON file that may change at any time."""

    def __init__(self, source: Path | None = None) -> None:
        self._added: list[Fault] = []
        self._read: list[Fault] = []
        self._source = source
        self._stamp: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self.fallback_allowed = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1"

    def add(self, **fields: Any) -> Fault:
        """Sets a fault; see `Fault` for the fields. Returns it, to look at its `hits`."""
        fault = Fault(**fields)
        self._added.append(fault)
        return fault

    def replace(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Sets the faults of the configuration again, with counts from zero."""
        self._read = [Fault(**fault) for fault in faults]

    def clear(self) -> None:
        """Removes all faults."""
        self._added.clear()
        self._read.clear()

    def operator(self, name: str, device: str, arguments: Sequence[Any] = ()) -> Fault | None:
        """Returns a fault that spoils this call's result; raises for one that fails it."""
        self._refresh()
        for fault in self._all():
            if fault.operator is None or fault.device != device:
                continue
            if families.matches(fault.operator, name, arguments) and fault.due():
                if fault.error in SILENT:
                    return fault
                if fault.error == "missing" and self.fallback_allowed:
                    continue
                raise fault.exception(name)
        return None

    def moved(self) -> None:
        """Called for each tensor that goes from the CPU to MPS; raises if that must fail."""
        self._refresh()
        for fault in self._all():
            meant = fault.move is not None and fnmatch.fnmatchcase(_moving(), fault.move)
            if meant and fault.due():
                raise fault.exception("aten::_to_copy")

    def _all(self) -> list[Fault]:
        return self._added + self._read if self._read else self._added

    def _refresh(self) -> None:
        if self._source is None:
            return
        try:
            status = self._source.stat()
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return
        with self._lock:
            text = self._source.read_text()
            if text.strip():
                self._stamp = stamp
                self.replace(json.loads(text).get("faults", []))


def _moving() -> str:
    # Only the code that moves a component knows which tensors belong to it.
    device = sys.modules.get("chatterbex.device")
    return (device.moving() if device is not None else None) or ""
