"""Work in stages: a generator that yields between stages and returns the result."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def advance(work: Generator[None, None, T]) -> T | None:
    """Runs one stage. Returns the result after the last stage, and None before."""
    try:
        next(work)
    except StopIteration as stop:
        return stop.value
    return None


def finish(work: Generator[None, None, T]) -> T:
    """Runs all remaining stages and returns the result."""
    while True:
        result = advance(work)
        if result is not None:
            return result
