"""Models and networks that several tests share."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Shelf:
    """Models and networks that many tests use. A process has memory for those of one test."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}
        self._in_use: list[Any] = []

    def end(self) -> None:
        """Ends a test: the next one uses nothing yet, not even in fixtures of a whole module.

        One that used several leaves only the first for the next.
        """
        several = len(self._in_use) > 1
        del self._in_use[1:]
        if several:
            self.clear()
        self._in_use.clear()

    def take(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns the object of this name if it still exists, or else makes it, in place of others."""
        if key not in self._in_use:
            self._in_use.append(key)
        if key not in self._kept:
            self.clear()
            self._kept[key] = make()
        return self._kept[key]

    def clear(self) -> None:
        """Drops what this test does not use."""
        for other in set(self._kept).difference(self._in_use):
            dropped = self._kept.pop(other)
            if hasattr(dropped, "close"):
                dropped.close()
            del dropped
        give_back_memory()


SHELF = Shelf()


def give_back_memory() -> None:
    """Collects garbage, and releases pages that were read from mapped files."""
    gc.collect()
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    mapping: tuple[int, int] | None = None
    for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if fields[0] == "Anonymous:":
            # A mapping without private pages holds only what its file holds.
            if mapping and fields[1] == "0":
                libc.madvise(*map(ctypes.c_size_t, mapping), mmap.MADV_DONTNEED)
            mapping = None
        elif not fields[0].endswith(":"):
            first, last = (int(end, 16) for end in fields[0].split("-"))
            weights = len(fields) == 6 and fields[5].endswith((".safetensors", ".pt"))
            mapping = (first, last - first) if weights else None
