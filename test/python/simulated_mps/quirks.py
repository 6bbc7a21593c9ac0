"""Wrong results of MPS without an error, each with the number of its PyTorch issue.

All are off until a test turns them on:

    with simulated_mps.device(quirks=["pytorch-192212"]) as mps:
        ...
        mps.quirks.clear()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from . import families

Arguments = list[Any]


def _contiguous_weight(name: str, arguments: Arguments) -> Arguments:
    """A convolution reads its weight as if it were contiguous (before PyTorch 2.14)."""
    if not families.is_convolution(name) or arguments[1].is_contiguous():
        return arguments
    return [arguments[0], _packed(arguments[1]), *arguments[2:]]


def _channel_slices(name: str, arguments: Arguments) -> Arguments:
    """A convolution treats a slice of a channels-last tensor's channels as a whole tensor."""
    if not families.is_convolution(name):
        return arguments
    data = arguments[0]
    # MPS treats a sequence as an image with one row.
    picture = data.unsqueeze(2) if data.dim() == 3 else data
    if picture.dim() != 4 or not _looks_channels_last(picture):
        return arguments
    if picture.is_contiguous(memory_format=torch.channels_last):
        return arguments
    rows = _packed(picture.permute(0, 2, 3, 1))
    misread = rows.permute(0, 3, 1, 2)
    return [misread.squeeze(2) if data.dim() == 3 else misread, *arguments[1:]]


def _chunks(name: str, arguments: Arguments) -> Arguments:
    """A convolution of a `chunk()` view is only right for the batch's first row."""
    if not families.is_convolution(name):
        return arguments
    data = arguments[0]
    if data.dim() < 3 or len(data) < 2 or not data[0].is_contiguous():
        return arguments
    if data.stride(0) <= data[0].numel():
        return arguments
    return [_packed(data), *arguments[1:]]


def _expanded_operand(name: str, arguments: Arguments) -> Arguments:
    """A matrix product with an expanded operand returns every 16th row, and zeros between them."""
    at = _OPERANDS.get(name)
    if at is None:
        return arguments
    left, right = arguments[at], arguments[at + 1]
    if left.dim() < 2 or not (_is_expanded(left) or _is_expanded(right)):
        return arguments
    kept = torch.arange(left.shape[-2]) % 16 == 0
    return [*arguments[:at], left * kept[:, None], *arguments[at + 1 :]]


# The index of the first of a matrix product's two operands.
_OPERANDS = {
    "aten::mm": 0,
    "aten::bmm": 0,
    "aten::matmul": 0,
    "aten::linear": 0,
    "aten::addmm": 1,
    "aten::addbmm": 1,
    "aten::baddbmm": 1,
}

QUIRKS: dict[str, Callable[[str, Arguments], Arguments]] = {
    "pytorch-192212": _contiguous_weight,
    "pytorch-180984": _channel_slices,
    "pytorch-169342": _chunks,
    "pytorch-180201": _expanded_operand,
}
"""All quirks, by name."""


class Quirks:
    """The quirks that are turned on."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._on: dict[str, Callable[[str, Arguments], Arguments]] = {}
        self.add(*names)

    def add(self, *names: str) -> None:
        """Turns some on; "all" stands for every one."""
        for name in QUIRKS if "all" in names else names:
            if name not in QUIRKS:
                raise ValueError(f"unknown quirk {name!r}; there are {', '.join(QUIRKS)} and all")
            self._on[name] = QUIRKS[name]

    def clear(self) -> None:
        """Turns all off."""
        self._on.clear()

    def misread(self, name: str, arguments: Arguments) -> Arguments:
        """Returns the arguments of an operator as the device reads them."""
        for quirk in self._on.values():
            arguments = quirk(name, arguments)
        return arguments


def _is_expanded(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _packed(tensor: Tensor) -> Tensor:
    """Returns what is found where a tensor begins, read as if it were contiguous."""
    length = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.as_strided((length,), (1,), 0)
    # Beyond the end the device finds arbitrary memory; here it is the beginning again.
    places = (tensor.storage_offset() + torch.arange(tensor.numel())) % length
    return memory[places].view(tensor.shape)


def _looks_channels_last(tensor: Tensor) -> bool:
    """What PyTorch guesses from an image's strides: that it is NHWC, or a slice of that."""
    shape, strides, least = tensor.shape, tensor.stride(), 0
    if strides[1] == 0 or 0 in shape:
        return False
    for at in (1, 3, 2, 0):
        if strides[at] < least or (at == 0 and least == strides[1]):
            return False
        least = strides[at] * max(shape[at], 1)
    return True
