"""Failures that reach the caller, each with a reason, a message and details."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, Final

REASONS: Final = frozenset(
    {
        "invalid_option",
        "invalid_text",
        "invalid_audio",
        "unknown_model",
        "unknown_language",
        "voice_unreadable",
        "voice_too_short",
        "not_supported",
        "not_set_up",
        "native_not_loaded",
        "model_files_missing",
        "model_load_failed",
        "device_unavailable",
        "out_of_memory",
        "overloaded",
        "not_running",
        "noconnection",
        "timeout",
        "cancelled",
        "engine_crashed",
        "generation_failed",
        "file_error",
    }
)
"""Every reason that an error may carry."""

_MAX_TRACEBACK: Final = 8_000
_MAX_MESSAGE: Final = 2_000


class ChatterbexError(Exception):
    """A failure with a reason that the caller can act on.

    Attributes:
        reason: One of ``REASONS``.
        message: What was wrong, what was expected, and what to do.
        details: Further facts: strings, numbers, booleans, lists and dicts of them.
    """

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Makes the error.

        Args:
            reason: One of ``REASONS``.
            message: What was wrong, what was expected, and what to do.
            details: Further facts. Default: none.

        Raises:
            ValueError: The reason is not one of ``REASONS``.
        """
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def payload(self) -> dict[str, Any]:
        """Returns the payload of a "failed" event: reason, message and details."""
        return {"reason": self.reason, "message": self.message, "details": self.details}


class ModelBrokenError(ChatterbexError):
    """The model cannot work any more: the engine fails its requests and drops it."""


def wrap(exception: BaseException, reason: str) -> ChatterbexError:
    """Turns any exception into a ``ChatterbexError``.

    Args:
        exception: What was raised. A ``ChatterbexError`` is returned unchanged.
        reason: The reason for an exception that has none. Running out of memory always gives
            "out_of_memory".

    Returns:
        An error whose details carry "exception" (the class) and "traceback" (its last 8,000
        characters).
    """
    if isinstance(exception, ChatterbexError):
        return exception
    name = type(exception).__name__
    message = str(exception).strip()[:_MAX_MESSAGE]
    trace = "".join(traceback.format_exception(exception))[-_MAX_TRACEBACK:]
    return ChatterbexError(
        "out_of_memory" if out_of_memory(exception) else reason,
        f"{name}: {message}" if message else name,
        {"exception": name, "traceback": trace},
    )


def out_of_memory(exception: BaseException) -> bool:
    """Returns whether an exception means that the machine or its accelerator ran out of memory.

    Torch's own class is recognised by its name, because torch may not be installed. MPS raises a
    plain ``RuntimeError`` instead.
    """
    if isinstance(exception, MemoryError):
        return True
    if any(cls.__name__ == "OutOfMemoryError" for cls in type(exception).__mro__):
        return True
    return isinstance(exception, RuntimeError) and "out of memory" in str(exception).lower()
