"""Operators by what they do: one computation has other names with gradients and without."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

_PRODUCTS = "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "addmv", "mv"

PATTERNS: dict[str, tuple[str, ...]] = {
    "linear": tuple(f"aten::{name}" for name in _PRODUCTS),
    "convolution": ("aten::conv[123]d", "aten::convolution", "aten::_convolution"),
    "conv_transpose": ("aten::conv_transpose[123]d", "aten::convolution", "aten::_convolution"),
    "attention": ("aten::scaled_dot_product_attention", "aten::_scaled_dot_product_*"),
    "stft": ("aten::stft", "aten::_fft_r2c"),
    "istft": ("aten::istft", "aten::_fft_c2r"),
    "fft": ("aten::stft", "aten::istft", "aten::fft_*", "aten::_fft_*"),
}
"""Patterns of operator names, by family."""

# Where aten::convolution says whether it is a transposed one.
_TRANSPOSED_AT = 6


def matches(wanted: str, name: str, arguments: Sequence[Any] = ()) -> bool:
    """Whether a call is one of `wanted`: a family, or a pattern of operator names."""
    patterns = PATTERNS.get(wanted)
    if patterns is None:
        return fnmatch.fnmatchcase(name, wanted)
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        return False
    if wanted in ("convolution", "conv_transpose") and name.endswith("convolution"):
        return bool(arguments[_TRANSPOSED_AT]) == (wanted == "conv_transpose")
    return True


def is_convolution(name: str) -> bool:
    """Whether an operator is a convolution, transposed or not."""
    return any(
        fnmatch.fnmatchcase(name, pattern)
        for family in ("convolution", "conv_transpose")
        for pattern in PATTERNS[family]
    )
