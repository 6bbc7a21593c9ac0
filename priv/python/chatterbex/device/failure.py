"""Tells a failing device from a fault in the program."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from chatterbex.device.tensors import Stray

_MAX_MESSAGE: Final = 300
_MAX_TRACEBACK: Final = 8_000

# The messages of PyTorch and the drivers below it. Nearly all of them name the device.
_SAID: Final = {
    "mps": re.compile(
        r"\bmps\b|\bMPS|Metal\b|Invalid buffer size|Placeholder (storage|tensor)|IOGPU"
        r"|total bytes of NDArray|command buffer|indices should be either on cpu"
    ),
    "cuda": re.compile(
        r"\bcuda\b|\bCUDA\b|cuDNN|CUDNN_|cuBLAS|CUBLAS_|cuFFT|CUFFT_|cuSOLVER|CUSOLVER_|NVRTC"
        r"|nvrtc|indices should be either on cpu"
    ),
}
# A TypeError is the program's fault, unless a device complains about a type that it does not support.
_TYPES: Final = re.compile(
    r"MPS Tensor to float64|device type tensor to numpy|to the MPS backend", re.IGNORECASE
)
_MEMORY: Final = re.compile(r"out of memory|STATUS_ALLOC_FAILED|Invalid buffer size", re.IGNORECASE)


class StrayTensorsError(RuntimeError):
    """Part of a component did not move to the device with it."""

    def __init__(self, strays: list[Stray], device: str) -> None:
        """Names the first few tensors and where they are."""
        named = ", ".join(f"{stray.path} on {stray.device}" for stray in strays[:3])
        more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        super().__init__(f"not everything is on {device}: {named}{more}")
        self.strays = strays


class WrongResultsError(RuntimeError):
    """A device's results differ from the CPU's, or are not finite.

    Attributes:
        report: What was compared and how close it was, as `ProofReport.as_dict` returns it; None
            if nothing was compared.
    """

    def __init__(self, message: str, report: dict[str, Any] | None = None) -> None:
        """Says which component is wrong, and by how much."""
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class DeviceFailure:
    """Why a device cannot continue.

    Attributes:
        kind: "out_of_memory", "unsupported" (an operator or a type), "placement" (tensors on two
            devices), "wrong_results" (they differ from the CPU's, or are not finite) or "device"
            (anything else).
        message: The first line of the exception's message.
        exception: The exception's class.
        traceback: Its last 8,000 characters.
    """

    kind: str
    message: str
    exception: str
    traceback: str

    @property
    def reason(self) -> str:
        """Returns the reason for an error about it."""
        return "out_of_memory" if self.kind == "out_of_memory" else "device_unavailable"


def classify(error: BaseException, device: str) -> DeviceFailure | None:
    """Decides whether an exception is the device's failure.

    Args:
        error: What was raised during work on the device.
        device: A device such as "mps" or "cuda:0".

    Returns:
        What failed, or None for anything else: a mistake in the program, an invalid request, or
        any failure on the CPU, which has nothing to fall back to.
    """
    kind = device.partition(":")[0]
    if kind not in _SAID:
        return None
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if _is_device(cause, kind):
            return summarise(cause)
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def summarise(error: BaseException) -> DeviceFailure:
    """Describes an exception without keeping the tensors in its frames alive."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if len(first) > _MAX_MESSAGE:
        first = first[: _MAX_MESSAGE - 3] + "..."
    trace = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
    return DeviceFailure(_kind(error, text), first, type(error).__name__, trace)


def _is_device(error: BaseException, kind: str) -> bool:
    if isinstance(error, (StrayTensorsError, WrongResultsError)) or _is_out_of_memory(error):
        return True
    text = str(error)
    if isinstance(error, TypeError):
        return _TYPES.search(text) is not None
    # NotImplementedError is a RuntimeError, and so are all of PyTorch's own.
    return isinstance(error, RuntimeError) and _SAID[kind].search(text) is not None


def _is_out_of_memory(error: BaseException) -> bool:
    return any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)


def _kind(error: BaseException, text: str) -> str:
    if isinstance(error, WrongResultsError):
        return "wrong_results"
    if _is_out_of_memory(error) or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        return "out_of_memory"
    if isinstance(error, (NotImplementedError, TypeError)):
        return "unsupported"
    if isinstance(error, StrayTensorsError) or "Placeholder storage" in text:
        return "placement"
    if "same device" in text or "at least two devices" in text:
        return "placement"
    return "device"
