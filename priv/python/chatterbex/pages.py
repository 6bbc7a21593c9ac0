"""Releases the memory of weights that are mapped from their file and have since been packed.

Checking a file for numbers that are not finite reads all of it, and those pages stay in the process's memory.
They are unchanged copies of the file, so the system can have them back: the next access reads them from the
file again. Nothing is done on systems other than Linux, which reclaim such pages when they need memory.
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
    """Releases the pages of unchanged tensors.

    Args:
        tensors: on the CPU. Tensors that are not mapped from a checkpoint are left alone.
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
    """Where checkpoints are mapped. Any other memory would lose its contents."""
    with open("/proc/self/maps", "rb") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            name = os.fsdecode(fields[5].rstrip(b"\n")) if len(fields) == 6 else ""
            if name.startswith("/") and name.endswith((".safetensors", ".pt")):
                first, last = (int(end, 16) for end in fields[0].split(b"-"))
                yield first, last
