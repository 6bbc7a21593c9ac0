"""Memory as PyTorch's MPS allocator uses it: buffers cut from heaps, and kept when free.

The sizes are those of ATen/mps/MPSAllocator.h. What a heap loses by fragmentation is left out, and
so is what Metal itself allocates.
"""

from __future__ import annotations

from dataclasses import dataclass

from .memory import Block, Pool

MEBIBYTE = 2**20
ALIGNMENT = 256
SMALL = MEBIBYTE
"""The largest buffer that is cut from a heap of small ones."""
_SMALL_HEAP = 8 * MEBIBYTE
_LARGE_HEAP = 32 * MEBIBYTE
_LARGEST_HEAP = 1024 * MEBIBYTE
_LARGE = 10 * MEBIBYTE
_ROUNDED = 2 * MEBIBYTE
_LOW_WATERMARK = 1.4


@dataclass(eq=False)
class Heap:
    """Memory from the driver, cut into buffers.

    Attributes:
        small: Whether it is for small buffers.
        size: All of it, in bytes.
        left: What no buffer has.
    """

    small: bool
    size: int
    left: int


class Buffer(Block):
    """A block that is a piece of a heap."""

    __slots__ = ("heap",)

    def __init__(self, pool: Pool, size: int, heap: Heap) -> None:
        super().__init__(pool, size)
        self.heap = heap


class MetalPool(Pool):
    """The device's memory as it is on a Mac.

    A freed buffer stays in its heap for the next request that it fits, so `reserved`, which
    `torch.mps.driver_allocated_memory` tells, is more than what is in use until the cache is
    emptied; and a buffer may be larger than what was asked for.
    """

    def __init__(self, limit: int, recommended: int) -> None:
        super().__init__(limit)
        self._low = _LOW_WATERMARK * recommended
        self._heaps: list[Heap] = []
        # Sizes and heaps of the free buffers; a Buffer object lives as long as its tensors.
        self._free: list[tuple[int, Heap]] = []

    @property
    def reserved(self) -> int:
        """Returns the size of all heaps."""
        return sum(heap.size for heap in self._heaps)

    def allocate(self, size: int) -> Block:
        """Takes `size` bytes, rounded as Metal rounds; raises as PyTorch does above the limit."""
        if size == 0:
            return Block(self, 0)
        size = -(-size // ALIGNMENT) * ALIGNMENT
        if self.reserved + size > self.limit:
            self._release()
            if self.reserved + size > self.limit:
                raise self.exhausted(size)
        return self.taken(self._reused(size) or self._cut(size))

    def free(self, block: Block) -> None:
        """Keeps a buffer for later."""
        super().free(block)
        if isinstance(block, Buffer):
            self._free.append((block.size, block.heap))

    def empty(self) -> None:
        """Releases the heaps without a buffer in use."""
        super().empty()
        self._release()

    def _release(self) -> None:
        for size, heap in self._free:
            heap.left += size
        self._free.clear()
        self._heaps = [heap for heap in self._heaps if heap.left < heap.size]

    def _reused(self, size: int) -> Buffer | None:
        small = size <= SMALL
        fitting = [one for one in self._free if one[1].small == small and one[0] >= size]
        if not fitting:
            return None
        least = min(fitting, key=lambda one: one[0])
        if least[0] > size + _LARGE_HEAP:
            return None
        self._free.remove(least)
        return Buffer(self, *least)

    def _cut(self, size: int) -> Buffer:
        small = size <= SMALL
        fitting = [heap for heap in self._heaps if heap.small == small and heap.left >= size]
        heap = min(fitting, key=lambda one: one.left) if fitting else self._new_heap(size)
        heap.left -= size
        return Buffer(self, size, heap)

    def _new_heap(self, size: int) -> Heap:
        small = size <= SMALL
        if small:
            whole = _SMALL_HEAP
        elif size < _LARGE:
            whole = _LARGE_HEAP
        elif size < _LARGEST_HEAP // 2 and self.reserved < self._low:
            whole = _LARGEST_HEAP
        else:
            whole = -(-size // _ROUNDED) * _ROUNDED
        heap = Heap(small, whole, whole)
        self._heaps.append(heap)
        return heap
