"""Checks the options of a request or a load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chatterbex.errors import ChatterbexError


def integer(options: Mapping[str, Any], name: str, default: int, minimum: int, maximum: int) -> int:
    """Reads a whole number from `minimum` to `maximum`, or returns the default if the option is missing.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = default if options.get(name) is None else options[name]
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise _wrong(name, f"a whole number from {minimum} to {maximum}", value)
    return value


def number(
    options: Mapping[str, Any], name: str, minimum: float = -math.inf, maximum: float = math.inf
) -> float | None:
    """Reads a number from `minimum` to `maximum`, or returns None if the option is missing.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = options.get(name)
    if value is None:
        return None
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not minimum <= value <= maximum:
        bounds = "" if math.isinf(minimum) else f" from {minimum:g} to {maximum:g}"
        raise _wrong(name, f"a number{bounds}", value)
    return float(value)


def choice(options: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """Reads one of the choices, or returns the first one if the option is missing.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = choices[0] if options.get(name) is None else options[name]
    if value not in choices:
        raise _wrong(name, f"one of {', '.join(choices)}", value)
    return value


def _wrong(name: str, expected: str, value: Any) -> ChatterbexError:
    return ChatterbexError("invalid_option", f"{name} must be {expected}, not {value!r}")
