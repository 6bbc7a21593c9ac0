"""Finds the devices of this machine, and says why a device cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from chatterbex.device.machine import DRIVER, Machine, look

OLDEST_MACOS: Final = (14, 0)
"""MPS is not used before this version of macOS."""
GOOD_MACOS: Final = (15, 1)
"""Before this version MPS refuses convolutions over long audio."""


@dataclass(frozen=True)
class Device:
    """One device of this machine.

    Attributes:
        device: Its name in the option: "cpu", "mps", "cuda:0" ("cuda" if there is no GPU).
        name: Its name for people.
        available: Whether PyTorch can use it. Only a probe shows whether it works.
        reason: Why it is not available, else None.
        warning: A known problem of an available device, else None.
        memory: Its memory in bytes, if known.
        details: Further facts.
    """

    device: str
    name: str
    available: bool
    reason: str | None = None
    warning: str | None = None
    memory: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Returns "cpu", "mps" or "cuda"."""
        return self.device.partition(":")[0]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as a plain dict."""
        return {
            "device": self.device,
            "name": self.name,
            "available": self.available,
            "reason": self.reason,
            "warning": self.warning,
            "memory": self.memory,
            **self.details,
        }


def detect() -> list[Device]:
    """Returns the devices of this machine, the CPU first. Imports PyTorch if it is installed."""
    return describe(look())


def devices() -> list[dict[str, Any]]:
    """Returns `detect` as plain dicts, as provision/devices.py prints them."""
    return [device.as_dict() for device in detect()]


def describe(machine: Machine) -> list[Device]:
    """Returns the devices of a machine, the CPU first, then MPS, then CUDA."""
    cpu = Device(
        "cpu",
        machine.processor,
        available=True,
        memory=machine.memory,
        details={"cores": machine.cores},
    )
    return [cpu, _mps(machine), *_cuda(machine)]


def _mps(machine: Machine) -> Device:
    torch = machine.torch
    reason = _no_mps(machine)
    old = machine.macos is not None and machine.macos < GOOD_MACOS
    warning = None
    if reason is None and old:
        warning = (
            f"this is macOS {_dotted(machine.macos)}; before {_dotted(GOOD_MACOS)} MPS cannot "
            "convolve more than about 11 seconds of audio at once"
        )
    return Device(
        "mps",
        f"Apple MPS ({machine.processor})" if machine.system == "Darwin" else "Apple MPS",
        available=reason is None,
        reason=reason,
        warning=warning,
        memory=torch.mps_memory if torch is not None and reason is None else None,
    )


def _no_mps(machine: Machine) -> str | None:
    torch = machine.torch
    if torch is None or not torch.mps_available:
        if machine.system != "Darwin":
            here = f"{machine.system} on {machine.architecture}"
            return f"MPS needs macOS on Apple Silicon; this is {here}"
        if machine.architecture != "arm64":
            return (
                f"MPS needs Apple Silicon and a Python built for it; this Python is for "
                f"{machine.architecture}"
            )
    if torch is None:
        return _no_torch(machine, "--mps")
    if not torch.mps_built:
        return f"this PyTorch ({torch.version}) was built without MPS: {_run('--mps')}"
    if machine.macos is not None and machine.macos < OLDEST_MACOS:
        return f"MPS is used from macOS {_dotted(OLDEST_MACOS)} on; this is {_dotted(machine.macos)}"
    if not torch.mps_available:
        return f"PyTorch {torch.version} says that MPS is not available on this Mac"
    return None


def _cuda(machine: Machine) -> list[Device]:
    torch = machine.torch
    if torch is not None and torch.gpus:
        return [
            Device(f"cuda:{index}", gpu.name, available=True, memory=gpu.memory)
            for index, gpu in enumerate(torch.gpus)
        ]
    return [Device("cuda", "NVIDIA CUDA", available=False, reason=_no_cuda(machine))]


def _no_cuda(machine: Machine) -> str:
    if machine.system == "Darwin":
        return "CUDA needs an NVIDIA GPU, and macOS has no driver for one"
    torch = machine.torch
    if not machine.nvidia_driver and (torch is None or torch.cuda_error is None):
        return f"no NVIDIA driver was found (looked for {DRIVER})"
    if torch is None:
        return _no_torch(machine, "--cuda")
    if torch.cuda is None:
        return f"this PyTorch ({torch.version}) was built without CUDA: {_run('--cuda')}"
    if torch.cuda_error is not None:
        return f"CUDA failed to start: {torch.cuda_error}"
    return f"PyTorch {torch.version} (CUDA {torch.cuda}) finds no GPU it can use"


def _no_torch(machine: Machine, flag: str) -> str:
    if machine.torch_error is not None:
        return f"PyTorch cannot be imported ({machine.torch_error}): {_run(flag)}"
    return f"PyTorch is not installed: {_run(flag)}"


def _run(flag: str) -> str:
    return f"run `mix chatterbex.setup {flag}`"


def _dotted(version: tuple[int, int] | None) -> str:
    return "?" if version is None else f"{version[0]}.{version[1]}"
