"""The facts about this machine that decide everything else."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from typing import Any, Final

DRIVER: Final = "/proc/driver/nvidia/version"
"""The file by which the NVIDIA driver can be recognised on Linux."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: its name and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class TorchFacts:
    """What PyTorch reports about itself.

    Attributes:
        version: A version such as "2.6.0+cu124".
        mps_built: Whether it was built with MPS.
        mps_available: Whether it can use MPS on this machine.
        mps_memory: Recommended working set in bytes, if known.
        cuda: The CUDA version it was built for, or None.
        gpus: The CUDA devices that it sees.
        cuda_error: The error if listing them failed.
    """

    version: str
    mps_built: bool = False
    mps_available: bool = False
    mps_memory: int | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    cuda_error: str | None = None


@dataclass(frozen=True)
class Machine:
    """This machine.

    Attributes:
        system: "Darwin", "Linux".
        architecture: "arm64", "x86_64".
        processor: The processor's name.
        cores: How many cores this process may use.
        memory: Main memory in bytes, if known.
        macos: (major, minor), or None if it is not macOS or not known.
        nvidia_driver: Whether an NVIDIA driver is loaded.
        torch: What PyTorch reports, or None without PyTorch.
        torch_error: Why PyTorch is installed but cannot be imported.
    """

    system: str
    architecture: str
    processor: str = "CPU"
    cores: int = 1
    memory: int | None = None
    macos: tuple[int, int] | None = None
    nvidia_driver: bool = False
    torch: TorchFacts | None = None
    torch_error: str | None = None


def look() -> Machine:
    """Examines this machine. Imports PyTorch if it is installed."""
    from chatterbex import process
    from chatterbex.device import processor

    torch_facts, torch_error = _torch()
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        processor=processor.name(),
        cores=process.cores(),
        memory=_memory(),
        macos=_macos(),
        nvidia_driver=os.path.exists(DRIVER),
        torch=torch_facts,
        torch_error=torch_error,
    )


def _torch() -> tuple[TorchFacts | None, str | None]:
    if importlib.util.find_spec("torch") is None:
        return None, None
    try:
        import torch
    except (ImportError, OSError) as error:  # a library for another architecture, or an incomplete wheel
        return None, str(error)
    mps = torch.backends.mps
    gpus, cuda_error = _gpus(torch)
    available = mps.is_available()
    return (
        TorchFacts(
            version=torch.__version__,
            mps_built=mps.is_built(),
            mps_available=available,
            mps_memory=_mps_memory(torch) if available else None,
            cuda=torch.version.cuda,
            gpus=gpus,
            cuda_error=cuda_error,
        ),
        None,
    )


def _gpus(torch: Any) -> tuple[tuple[Gpu, ...], str | None]:
    if torch.version.cuda is None:
        return (), None
    try:
        if not torch.cuda.is_available():
            return (), None
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except Exception as error:  # a broken driver may raise anything
        return (), str(error)
    return tuple(Gpu(gpu.name, gpu.total_memory) for gpu in properties), None


def _mps_memory(torch: Any) -> int | None:
    ask = getattr(torch.mps, "recommended_max_memory", None)
    return int(ask()) if ask is not None else None


def _macos() -> tuple[int, int] | None:
    parts = platform.mac_ver()[0].split(".")
    if not parts[0].isdigit():
        return None
    minor = parts[1] if len(parts) > 1 and parts[1].isdigit() else "0"
    return int(parts[0]), int(minor)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
