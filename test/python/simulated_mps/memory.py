"""What the simulated device has allocated: one block for each storage, however many views."""

from __future__ import annotations

from . import faults


class Pool:
    """The device's memory, with a limit as the allocator's high watermark sets one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allocated = 0
        self.peak = 0
        self.emptied = 0

    def allocate(self, size: int) -> Block:
        """Takes `size` bytes; raises PyTorch's own out-of-memory error above the limit."""
        if self.allocated + size > self.limit:
            raise RuntimeError(faults.out_of_memory_text(self.allocated, self.limit, size))
        return Block(self, size)


class Block:
    """An allocation that gives itself back when the last tensor that shares it is gone.

    Not a weak reference to the tensor: `torch.utils.swap_tensors` refuses tensors that have one.
    """

    __slots__ = ("pool", "size")

    def __init__(self, pool: Pool, size: int) -> None:
        self.pool = pool
        self.size = size
        pool.allocated += size
        pool.peak = max(pool.peak, pool.allocated)

    def __del__(self) -> None:
        self.pool.allocated -= self.size
