"""Counting what MPS compiles: one graph for each operator and the shapes that it works on."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from . import state

Key = tuple[str, tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]


class Shapes:
    """The distinct calls that were made: operator, and the shapes of its inputs and outputs.

    `len` is how many there are. Views are not counted, and neither are copies between devices:
    neither needs a graph. In inference mode composite operators count whole ("aten::linear").

    Attributes:
        calls: How often each was made.
    """

    def __init__(self) -> None:
        self.calls: Counter[Key] = Counter()

    def __len__(self) -> int:
        return len(self.calls)

    def by_operator(self) -> Counter[str]:
        """Returns how many distinct shapes each operator had."""
        return Counter(name for name, _taken, _given in self.calls)

    def add(self, name: str, taken: list[Any], given: Any) -> None:
        """Counts one call."""
        self.calls[name, tuple(tuple(one.shape) for one in taken), tuple(_shapes(given))] += 1


@contextlib.contextmanager
def counting_shapes() -> Iterator[Shapes]:
    """Counts the distinct calls on the device in use, inside a `with` block."""
    shapes, counted = Shapes(), state.current().shapes
    counted.append(shapes)
    try:
        yield shapes
    finally:
        counted.remove(shapes)


def _shapes(value: Any) -> Iterator[tuple[int, ...]]:
    if isinstance(value, torch.Tensor):
        yield tuple(value.shape)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _shapes(one)
