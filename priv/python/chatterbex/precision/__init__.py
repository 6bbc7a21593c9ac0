"""The precision of a model: what the option means, and what "auto" decides.

- ``Precision``: the precision of each part. ``on_cpu``, ``on_gpu``: what the option means on a device.
- ``measure``: compares a lower precision with float32 on a checkpoint, and gives a ``Verdict``.
- ``Verdicts``: keeps verdicts on disk.
"""

from __future__ import annotations

from chatterbex.precision.kept import Verdicts
from chatterbex.precision.levels import PRECISIONS, Precision, on_cpu, on_gpu
from chatterbex.precision.measurement import ROWS, TEXT
from chatterbex.precision.verdict import LIMITS, Limits, Verdict, measure

__all__ = [
    "LIMITS",
    "PRECISIONS",
    "ROWS",
    "TEXT",
    "Limits",
    "Precision",
    "Verdict",
    "Verdicts",
    "measure",
    "on_cpu",
    "on_gpu",
]
