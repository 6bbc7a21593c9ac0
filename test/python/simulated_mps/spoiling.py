"""Wrong results: those of an operator with the fault "wrong" or "nan"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .faults import Fault


def spoil(fault: Fault, result: Any, arguments: Sequence[Any] = ()) -> Any:
    """Returns a faulty operator's result; in-place results are spoiled in place."""
    if isinstance(result, (list, tuple)):
        return type(result)(spoil(fault, one, arguments) for one in result)
    if not isinstance(result, torch.Tensor) or not (result.is_floating_point() or result.is_complex()):
        return result
    wrong = _nan(result) if fault.error == "nan" else _moved(result)
    return result.copy_(wrong) if any(result is one for one in arguments) else wrong


def _nan(result: torch.Tensor) -> torch.Tensor:
    nan = float("nan")
    return torch.full_like(result, complex(nan, nan) if result.is_complex() else nan)


def _moved(result: torch.Tensor) -> torch.Tensor:
    # Not only an offset: normalisation and softmax would remove it again.
    return (result.roll(1, -1) if result.dim() else result) + 1
