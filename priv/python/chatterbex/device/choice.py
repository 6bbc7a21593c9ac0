"""Chooses a device, and says why it is not the requested one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chatterbex.device.detection import Device, detect
from chatterbex.device.probing import ProbeReport
from chatterbex.device.probing import probe as _probe
from chatterbex.errors import ChatterbexError

_NAMES: Final = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_PREFERRED: Final = ("cuda", "mps")


@dataclass(frozen=True)
class Choice:
    """The device to use.

    Attributes:
        requested: The requested device.
        actual: The device to use: "cpu", "mps", "cuda:0".
        reason: Why it is not the requested device, or for "auto" why it is the CPU; else None.
        warning: A known problem of the device, else None.
        report: The probe of the device to use; None for the CPU.
    """

    requested: str
    actual: str
    reason: str | None = None
    warning: str | None = None
    report: ProbeReport | None = None

    @property
    def fell_back(self) -> bool:
        """Returns whether another device was requested by name."""
        return self.requested != "auto" and self.reason is not None


def normalise(requested: Any) -> str:
    """Returns a device as written in options.

    Raises:
        ChatterbexError: There is no such device ("invalid_option").
    """
    if not isinstance(requested, str) or _NAMES.fullmatch(requested) is None:
        raise ChatterbexError(
            "invalid_option",
            f'device must be "auto", "cpu", "mps", "cuda" or "cuda:N", not {requested!r}',
        )
    return requested


def choose(
    requested: str = "auto",
    fallback: bool = True,
    *,
    devices: Sequence[Device] | None = None,
    probe: Callable[[str], ProbeReport] = _probe,
) -> Choice:
    """Chooses a device.

    "auto" tries CUDA, then MPS, then the CPU, and uses the first that passes its probe. A device
    that was requested by name falls back to the CPU if it does not exist or fails its probe.

    Args:
        requested: "auto", "cpu", "mps", "cuda" (the first) or "cuda:N".
        fallback: Whether a device that was requested by name may fall back to the CPU.
        devices: The available devices. Default: `detect`.
        probe: Probes a device.

    Raises:
        ChatterbexError: There is no such device ("invalid_option"), or it cannot be used and
            fallback is off ("device_unavailable").
    """
    normalise(requested)
    if requested == "cpu":
        return Choice(requested, "cpu")
    found = detect() if devices is None else devices
    if requested == "auto":
        return _automatic(found, probe)
    device, reason = _named(requested, found)
    report = None
    if device is not None:
        report = probe(device.device)
        if report.ok:
            return Choice(requested, device.device, None, device.warning, report)
        reason = report.reason
    reason = reason or f"{requested} cannot be used"
    if not fallback:
        raise ChatterbexError(
            "device_unavailable",
            f"{requested} cannot be used: {reason}. Choose another device, or set fallback: true to "
            "use the CPU instead",
            {
                "requested": requested,
                "reason": reason,
                "probe": None if report is None else report.as_dict(),
            },
        )
    return Choice(requested, "cpu", reason, device.warning if device else None)


def _named(requested: str, found: Sequence[Device]) -> tuple[Device | None, str | None]:
    name = "cuda:0" if requested == "cuda" else requested
    kind = requested.partition(":")[0]
    same = [device for device in found if device.kind == kind]
    for device in same:
        if device.available and device.device == name:
            return device, None
    usable = [device.device for device in same if device.available]
    if usable:
        return None, f"there is no {requested}, only {', '.join(usable)}"
    return None, next((device.reason for device in same if device.reason), None)


def _automatic(found: Sequence[Device], probe: Callable[[str], ProbeReport]) -> Choice:
    reasons = []
    for kind in _PREFERRED:
        for device in found:
            if device.kind != kind:
                continue
            if not device.available:
                reasons.append(f"{device.device}: {device.reason}")
                continue
            report = probe(device.device)
            if report.ok:
                return Choice("auto", device.device, None, device.warning, report)
            reasons.append(str(report.reason))
    return Choice("auto", "cpu", "; ".join(reasons) or None)
