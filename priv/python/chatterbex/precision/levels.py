"""What the option `precision` means on each device.

A precision is the lowest one that a part of the model may compute in. Each part uses the lowest precision
that it has on the device and that is not below this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatterbex.device import processor

PRECISIONS: Final = ("float32", "bfloat16", "int8", "auto")
"""The values of the option. "auto" measures on the CPU (`measure`), and is float32 on GPUs."""


@dataclass(frozen=True)
class Precision:
    """The precision of each part. The vocoder and everything else compute in float32.

    Attributes:
        t3: "float32", "bfloat16" or "int8".
        flow: the precision of the products in S3Gen's flow: "float32" or "bfloat16".
    """

    t3: str = "float32"
    flow: str = "float32"


def on_cpu(requested: str) -> Precision:
    """What a precision other than "auto" means on this CPU."""
    half = requested in ("bfloat16", "int8") and processor.multiplies_bfloat16()
    return Precision("int8" if requested == "int8" else "float32", "bfloat16" if half else "float32")


def on_gpu(requested: str, kind: str) -> Precision:
    """What a precision means on a GPU; `kind` is "cuda" or "mps"."""
    half = requested in ("bfloat16", "int8") and kind == "cuda"
    return Precision("bfloat16" if half else "float32")
