"""What the system reports about the processor."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_BFLOAT16: Final = frozenset({"avx512_bf16", "amx_bf16"})


def name(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name, or its architecture if the system does not report a name."""
    return _field("model name", cpuinfo) or platform.processor() or platform.machine() or "CPU"


def multiplies_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Returns whether this processor has instructions that multiply bfloat16.

    This is known only for x86 on Linux; the answer is False everywhere else. Without these instructions
    bfloat16 is slower than float32, and PyTorch's products have not been measured on other processors.
    """
    return not _BFLOAT16.isdisjoint(_field("flags", cpuinfo).split())


def _field(name: str, cpuinfo: Path) -> str:
    """The value of a field for the first processor; "" if it is missing."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name and value.strip():
                    return value.strip()
    except OSError:
        pass
    return ""
