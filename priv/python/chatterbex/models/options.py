"""Checking what a request or a load asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chatterbex.errors import ChatterbexError


def whole(options: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number from `least` to `most`, or the default where there is none.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ChatterbexError(
            "invalid_option", f"{name} must be a whole number from {least} to {most}, not {value!r}"
        )
    return value


def number(options: Mapping[str, Any], name: str) -> float | None:
    """A number, or None where there is none.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ChatterbexError("invalid_option", f"{name} must be a number, not {value!r}")
    return float(value)


def within(options: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A number from `least` to `most`, or the default where there is none.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = options.get(name)
    if value is None:
        return default
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not least <= value <= most:
        raise ChatterbexError("invalid_option", f"{name} must be from {least:g} to {most:g}, not {value!r}")
    return value
