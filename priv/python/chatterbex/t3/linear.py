"""The one place where T3 multiplies by its big matrices.

A `Linear` holds the weights as the checkpoint has them. A `Matmul` is what the layers call: one
or more `Linear` of the same input as a single product, computed by a *kernel*. Another kernel
(int8, a hand-written one) is added to `KERNELS` and nothing else changes.

Two kernels are here:

- `dense`: what torch does with the weights as they are. Works everywhere.
- `onednn`: float32 on CPU with weights packed once for oneDNN. Packed, one row costs what reading
  the weights costs, eight rows little more, and a row's result does not depend on how many
  other rows are computed with it, which plain BLAS does not give (a session checks it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Product(Protocol):
    """A weight in a kernel's own form."""

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, N)."""

    def weight(self) -> Tensor:
        """The weight as (N, K), exactly as it was given."""


class _DenseProduct:
    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool) -> None:
        self._weight, self._bias, self._gelu = weight, bias, gelu

    def __call__(self, x: Tensor) -> Tensor:
        y = F.linear(x, self._weight, self._bias)
        return F.gelu(y, approximate="tanh") if self._gelu else y

    def weight(self) -> Tensor:
        return self._weight


class _OneDnnProduct:
    # Rows for which oneDNN lays the weights out. Any other number works as well; for 1 to 16 rows
    # this layout was the fastest or close to it, on one thread and on two.
    _ROWS = 2

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, self._ROWS)
        self._bias = bias
        self._then = ("gelu", [], "tanh") if gelu else ("none", [], "")
        self._product = torch.ops.mkldnn._linear_pointwise

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x, self._packed, self._bias, *self._then)

    def weight(self) -> Tensor:
        return self._packed.to_dense()


# Of a weight (N, K), a bias (N,), and whether GPT-2's GELU, by tanh, follows.
Kernel = Callable[[Tensor, "Tensor | None", bool], Product]

KERNELS: dict[str, Kernel] = {"dense": _DenseProduct, "onednn": _OneDnnProduct}


def best_kernel(device: torch.device, dtype: torch.dtype) -> str:
    """The name of the fastest kernel that works there."""
    if device.type == "cpu" and dtype == torch.float32 and _onednn_works():
        return "onednn"
    return "dense"


def _onednn_works() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    try:
        weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
        x = torch.ones(2, 4)
        product = _OneDnnProduct(weight, torch.ones(3), gelu=False)
        same = torch.equal(product(x), F.linear(x, weight, torch.ones(3)))
        return same and torch.equal(product.weight(), weight)
    except (AttributeError, RuntimeError):  # another torch, built without it or with it renamed
        return False


class Linear(nn.Module):
    """The weights of one linear layer, as a checkpoint has them."""

    def __init__(self, inputs: int, outputs: int, bias: bool, inputs_first: bool = False) -> None:
        """Makes room for the weights.

        Args:
            inputs: K.
            outputs: N.
            bias: whether there is one.
            inputs_first: the checkpoint has (K, N), as GPT-2's do, and not (N, K).
        """
        super().__init__()
        self.inputs_first = inputs_first
        self.outputs = outputs
        shape = (inputs, outputs) if inputs_first else (outputs, inputs)
        self.weight = nn.Parameter(torch.empty(shape), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The plain product, for layers that run once per voice."""
        return F.linear(x, self.rows, self.bias)

    @property
    def rows(self) -> Tensor:
        """The weight as (N, K); a view."""
        return self.weight.t() if self.inputs_first else self.weight

    def hold(self, rows: Tensor) -> None:
        """Takes `rows`, (N, K), as its weight."""
        data = rows.t() if self.inputs_first else rows
        self.weight = nn.Parameter(data, requires_grad=False)


class Matmul:
    """One product of one input with the weights of one or more `Linear`."""

    def __init__(self, *parts: Linear, gelu: bool = False) -> None:
        """Joins linear layers that have the same input; their outputs stand side by side.

        Args:
            parts: the layers.
            gelu: whether GPT-2's GELU follows.
        """
        self._parts, self._gelu = parts, gelu
        self._product: Product | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) to (M, N)."""
        if self._product is None:
            raise RuntimeError("T3.prepare was not called")
        return self._product(x)

    def prepare(self, kernel: str) -> None:
        """Gives the weights to a kernel, which may keep them in a form of its own.

        The parts let go of their weights if the kernel has copied them, so that there is one
        copy in memory.

        Args:
            kernel: name in `KERNELS`.
        """
        if self._product is not None:
            return
        parts = self._parts
        if len(parts) == 1:
            weight, bias = parts[0].rows, parts[0].bias
        else:
            weight = torch.cat([part.rows for part in parts])
            bias = torch.cat([part.bias for part in parts]) if parts[0].bias is not None else None
        self._product = KERNELS[kernel](weight.detach(), None if bias is None else bias.detach(), self._gelu)
        if len(parts) == 1 and kernel == "dense":
            return
        if kernel == "dense":
            outputs = [part.outputs for part in parts]
            for part, rows in zip(parts, weight.split(outputs), strict=True):
                part.hold(rows.detach())
        else:
            for part in parts:
                part.weight = None

    def restore(self) -> None:
        """Undoes `prepare`: the parts hold their weights again."""
        if self._product is None:
            return
        if self._parts[0].weight is None:
            weight = self._product.weight()
            outputs = [part.outputs for part in self._parts]
            for part, rows in zip(self._parts, weight.split(outputs), strict=True):
                part.hold(rows)
        self._product = None
