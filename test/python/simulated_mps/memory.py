"""What the simulated device has allocated: one block for each storage, however many views."""

from __future__ import annotations

from . import faults


class Pool:
    """The device's memory, to the byte, with a limit like the allocator's high watermark."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allocated = 0
        self.peak = 0
        self.emptied = 0

    @property
    def reserved(self) -> int:
        """Returns what was taken from the driver, whether or not it is in use."""
        return self.allocated

    def allocate(self, size: int) -> Block:
        """Takes `size` bytes; raises PyTorch's own out-of-memory error above the limit."""
        if self.allocated + size > self.limit:
            raise self.exhausted(size)
        return self.taken(Block(self, size))

    def taken(self, block: Block) -> Block:
        """Counts a block."""
        self.allocated += block.size
        self.peak = max(self.peak, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Frees a block."""
        self.allocated -= block.size

    def empty(self) -> None:
        """Returns unused memory to the driver."""
        self.emptied += 1

    def exhausted(self, size: int) -> RuntimeError:
        """Returns PyTorch's own error about `size` bytes that are not available."""
        return RuntimeError(faults.out_of_memory_text(self.reserved, self.limit, size))


class Block:
    """An allocation that frees itself when the last tensor that shares it is gone.

    Not a weak reference to the tensor: `torch.utils.swap_tensors` refuses tensors that have one.
    """

    __slots__ = ("pool", "size")

    def __init__(self, pool: Pool, size: int) -> None:
        self.pool = pool
        self.size = size

    def __del__(self) -> None:
        self.pool.free(self)
