"""Giving back the memory of weights that are mapped from their file and were packed since.

Checking a file for numbers that are not finite reads all of it, and what was read stays in the process's
memory. The pages are unchanged copies of the file, so the system can have them back: whoever touches one
again gets it from the file. On systems other than Linux nothing is done: they take such pages when they need
memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def release(tensors: Iterable[torch.Tensor]) -> None:
    """Gives back the pages of some tensors that nobody changed.

    Args:
        tensors: on the CPU. Those that are not mapped from a checkpoint are left alone.
    """
    if sys.platform != "linux":
        return
    tensors = [tensor for tensor in tensors if tensor.device.type == "cpu"]
    mapped = list(_mappings())
    libc = ctypes.CDLL(None)
    for tensor in tensors:
        start, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if any(first <= start and start + size <= last for first, last in mapped):
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
            if length > 0:
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _mappings() -> Iterator[tuple[int, int]]:
    """Where checkpoints are mapped: anything else would lose its numbers."""
    with open("/proc/self/maps", "rb") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            name = os.fsdecode(fields[5].rstrip(b"\n")) if len(fields) == 6 else ""
            if name.startswith("/") and name.endswith((".safetensors", ".pt")):
                first, last = (int(end, 16) for end in fields[0].split(b"-"))
                yield first, last
