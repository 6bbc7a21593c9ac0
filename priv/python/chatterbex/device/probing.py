"""Probes a device: runs small pieces of a model's work on it and compares them with the CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chatterbex.device.attention import eager_attention
from chatterbex.device.memory import empty_cache

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONG: Final = 66_000
"""Above 65536, the longest that a convolution can be on MPS before macOS 15.1."""
# Lengths of keys: whole blocks of the fused kernels, parts of one, and more than one pass.
_LENGTHS: Final = (32, 38, 70, 1025)
_TOLERANCE: Final = 1e-2  # CUDA convolves in TF32 unless told otherwise


@dataclass(frozen=True)
class Check:
    """One check of a probe.

    Attributes:
        name: The check's name.
        ok: Whether the result is the same as on the CPU.
        message: What went wrong, else None.
        required: Whether the device cannot be used without it.
        seconds: How long it took.
        difference: The largest difference from the CPU; None if nothing could be compared.
    """

    name: str
    ok: bool
    message: str | None = None
    required: bool = True
    seconds: float = 0.0
    difference: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns it for people and programs to read, without its name."""
        return {
            "ok": self.ok,
            "message": self.message,
            "required": self.required,
            "seconds": self.seconds,
            "difference": self.difference,
        }


@dataclass(frozen=True)
class ProbeReport:
    """What works on a device.

    Attributes:
        device: The device.
        checks: The checks, in order.
        eager_attention: Whether attention must be written out on this device.
    """

    device: str
    checks: tuple[Check, ...] = field(default_factory=tuple)
    eager_attention: bool = False

    @property
    def ok(self) -> bool:
        """Returns whether the device can be used."""
        return all(check.ok for check in self.checks if check.required)

    @property
    def reason(self) -> str | None:
        """Returns why it cannot be used, else None."""
        failed = [
            f"{check.name}: {check.message}" for check in self.checks if check.required and not check.ok
        ]
        return f"the probe of {self.device} failed ({'; '.join(failed)})" if failed else None

    def as_dict(self) -> dict[str, Any]:
        """Returns it for people and programs to read."""
        return {
            "device": self.device,
            "ok": self.ok,
            "eager_attention": self.eager_attention,
            "checks": {check.name: check.as_dict() for check in self.checks},
        }


Step = Callable[["torch.device"], Iterator["Tensor"]]


def probe(device: str, report: Callable[[str, Check | None], None] | None = None) -> ProbeReport:
    """Probes a device.

    Every check computes tensors on the device and again on the CPU. They must agree and be finite.

    Args:
        device: A device such as "mps", "cuda:0" or "cpu".
        report: Called with a check's name before it runs, and with its result afterwards, because a
            broken device may end the whole process.
    """
    import torch

    checks = []
    with torch.inference_mode():
        for name, step, required in _STEPS:
            if report is not None:
                report(name, None)
            checks.append(_try(name, step, device, required))
            if report is not None:
                report(name, checks[-1])
    try:
        empty_cache(device)
    except RuntimeError as error:
        checks.append(Check("empty_cache", False, _message(error)))
    fused = next(check for check in checks if check.name == "fused_attention")
    eager = eager_attention(device, torch.__version__) or not fused.ok
    return ProbeReport(device, tuple(checks), eager)


def _try(name: str, step: Step, device: str, required: bool) -> Check:
    import torch

    began = time.perf_counter()
    message = difference = None
    try:
        results = list(step(torch.device(device)))
        expected = list(step(torch.device("cpu")))
        difference = _difference(results, expected)
        if not difference <= _TOLERANCE:  # NaN must fail too
            message = f"differs from the CPU by {difference:.3g}"
    except Exception as error:  # any exception fails the check
        message = _message(error)
    finite = difference if difference is not None and math.isfinite(difference) else None
    return Check(name, message is None, message, required, time.perf_counter() - began, finite)


def _message(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:300]


def _difference(results: list[Tensor], expected: list[Tensor]) -> float:
    worst = 0.0
    for result, right in zip(results, expected, strict=True):
        on_cpu = result.cpu()
        if on_cpu.shape != right.shape:
            raise RuntimeError(f"gave the shape {tuple(on_cpu.shape)} instead of {tuple(right.shape)}")
        found = float((on_cpu - right).abs().max())
        worst = found if math.isnan(found) else max(worst, found)
        if math.isnan(worst):
            break
    return worst


def _noise(*shape: int) -> Tensor:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def _matmul(device: torch.device) -> Iterator[Tensor]:
    yield _noise(33, 80).to(device) @ _noise(80, 65).to(device) / 80


def _stft(device: torch.device) -> Iterator[Tensor]:
    import torch

    window = torch.hann_window(16).to(device)
    sound = _noise(1, 480).to(device)
    spectrum = torch.stft(sound, 16, 4, 16, window=window, return_complex=True)
    yield torch.view_as_real(spectrum)
    yield torch.istft(spectrum, 16, 4, 16, window=window)


def _long_convolution(device: torch.device) -> Iterator[Tensor]:
    import torch

    sound, weight = _noise(1, 2, LONG).to(device), _noise(2, 2, 7).to(device)
    yield torch.nn.functional.conv1d(sound, weight, padding=3) / 7


def _attention(device: torch.device) -> Iterator[Tensor]:
    for query, keys, values in _queries(device):
        scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
        yield scores.softmax(-1) @ values


def _fused_attention(device: torch.device) -> Iterator[Tensor]:
    import torch

    for query, keys, values in _queries(device):
        yield torch.nn.functional.scaled_dot_product_attention(query, keys, values)


def _queries(device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for length in _LENGTHS:
        # Laid out as in a model: heads are not the outer dimension in memory, and the cache is longer.
        query = _noise(1, 1, 4, 64).to(device).transpose(1, 2)
        cache = _noise(2, 1, 4, length + 10, 64).to(device)
        keys, values = cache[:, :, :, :length].unbind(0)
        yield query, keys, values


_STEPS: Final[tuple[tuple[str, Step, bool], ...]] = (
    ("matmul", _matmul, True),
    ("stft", _stft, True),
    ("long_conv1d", _long_convolution, True),
    ("attention", _attention, True),
    # If this one is wrong, attention is written out.
    ("fused_attention", _fused_attention, False),
)
