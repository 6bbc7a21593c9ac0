"""Checks the options of a request or a load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chatterbex.errors import ChatterbexError


def whole(options: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """Reads a whole number from `least` to `most`, or returns the default if the option is missing.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = default if options.get(name) is None else options[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(name, f"a whole number from {least} to {most}", value)
    return value


def number(
    options: Mapping[str, Any], name: str, least: float = -math.inf, most: float = math.inf
) -> float | None:
    """Reads a number from `least` to `most`, or returns None if the option is missing.

    Raises:
        ChatterbexError: It is something else ("invalid_option").
    """
    value = options.get(name)
    if value is None:
        return None
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not least <= value <= most:
        bounds = "" if math.isinf(least) else f" from {least:g} to {most:g}"
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
