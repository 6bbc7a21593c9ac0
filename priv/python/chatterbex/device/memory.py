"""Measures how much memory a model takes and a device has, and releases unused memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chatterbex.device.tensors import tensors

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Needs:
    """What a model needs on a device.

    Attributes:
        weights: Bytes of its weights.
        row: Bytes for the KV cache of one running request.
        work: Bytes for one step of the vocoder and the flow.
    """

    weights: int
    row: int
    work: int

    def fits(self, free: int, batch: int) -> int:
        """Returns how many requests fit into `free` bytes at a time, at most `batch`; may be 0."""
        left = free - self.weights - self.work
        if left < 0:
            return 0
        return min(batch, left // self.row) if self.row else batch

    def shortage(self, device: str, free: int) -> str:
        """Returns a sentence about the memory that is missing."""
        return (
            f"{device} has {_gibibytes(free)} of memory left; the model takes {_gibibytes(self.weights)} "
            f"and needs {_gibibytes(self.row + self.work)} to speak one request"
        )


def size_of(*components: Any) -> int:
    """Returns the number of bytes in the components' tensors; shared memory counts once."""
    seen: set[Any] = set()
    total = 0
    for component in components:
        for _, tensor in tensors(component):
            identity, size = _storage(tensor)
            if identity not in seen:
                seen.add(identity)
                total += size
    return total


def _storage(tensor: torch.Tensor) -> tuple[Any, int]:
    size = tensor.numel() * tensor.element_size()
    try:
        storage = tensor.untyped_storage()
        pointer, nbytes = storage.data_ptr(), storage.nbytes()
    except (NotImplementedError, RuntimeError):  # a tensor of another class
        return id(tensor), size
    return (str(tensor.device), pointer) if pointer else id(tensor), nbytes or size


def free_memory(device: str) -> int | None:
    """Returns the number of bytes that a device has free for this process, or None if it is unknown."""
    import torch

    kind, _, index = device.partition(":")
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(int(index or 0))[0])
    recommended = getattr(torch.mps, "recommended_max_memory", None)
    if kind == "mps" and recommended is not None:
        return int(recommended()) - int(torch.mps.driver_allocated_memory())
    return None


def empty_cache(device: str) -> None:
    """Returns memory that a device's allocator holds in reserve to the system."""
    import torch

    kind = device.partition(":")[0]
    if kind == "mps":
        torch.mps.empty_cache()
    elif kind == "cuda":
        torch.cuda.empty_cache()


def _gibibytes(size: int) -> str:
    return f"{max(size, 0) / 2**30:.1f} GiB"
