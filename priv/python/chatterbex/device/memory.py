"""How much memory a model takes, how much a device has, and giving back what is not used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from chatterbex.device.tensors import tensors

if TYPE_CHECKING:
    import torch

HEADROOM: Final = 512 * 2**20
"""Bytes that speaking needs above the weights: keys and values, and the vocoder's layers."""


def size_of(*components: Any) -> int:
    """Returns how many bytes the tensors of some components take; shared memory counts once."""
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
        pointer, whole = storage.data_ptr(), storage.nbytes()
    except (NotImplementedError, RuntimeError):  # packed for oneDNN, or a tensor of another class
        return id(tensor), size
    return (str(tensor.device), pointer) if pointer else id(tensor), whole or size


def free_memory(device: str) -> int | None:
    """Returns how many bytes a device has left for us, or None where it does not tell."""
    import torch

    kind, _, index = device.partition(":")
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(int(index or 0))[0])
    recommended = getattr(torch.mps, "recommended_max_memory", None)
    if kind == "mps" and recommended is not None:
        return int(recommended()) - int(torch.mps.driver_allocated_memory())
    return None


def shortage(components: Iterable[Any], device: str, headroom: int = HEADROOM) -> str | None:
    """Tells why some components do not fit on a device.

    A Mac that is pushed past its working set does not fail: it swaps, or the process is killed.

    Args:
        components: What is to be moved there.
        device: Such as "mps" or "cuda:0".
        headroom: Bytes that must be left for the work itself.

    Returns:
        What is missing, or None where it fits or the device does not tell.
    """
    free = free_memory(device)
    if free is None:
        return None
    size = size_of(*components)
    if size + headroom <= free:
        return None
    return (
        f"{device} has {_gibibytes(free)} of memory left; the model takes {_gibibytes(size)} and "
        f"needs {_gibibytes(headroom)} to work in"
    )


def empty_cache(device: str) -> None:
    """Gives memory that a device's allocator keeps in reserve back to the system."""
    import torch

    kind = device.partition(":")[0]
    if kind == "mps":
        torch.mps.empty_cache()
    elif kind == "cuda":
        torch.cuda.empty_cache()


def _gibibytes(size: int) -> str:
    return f"{max(size, 0) / 2**30:.1f} GiB"
