"""Variables that PyTorch reads once, when it is imported."""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from typing import Final

_FALLBACK: Final = "PYTORCH_ENABLE_MPS_FALLBACK"
_HIGH: Final = "PYTORCH_MPS_HIGH_WATERMARK_RATIO"
_LOW: Final = "PYTORCH_MPS_LOW_WATERMARK_RATIO"
_DEFAULT_LOW: Final = 1.4


def prepare_environment(env: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """Sets variables for PyTorch. Variables that the user has set are kept.

    Args:
        env: The environment. Default: the process's own. If it has PYTORCH_MPS_HIGH_WATERMARK_RATIO,
            the low watermark is set to match. That is how much memory the MPS allocator may use, as a
            ratio of the recommended working set (0.0, no limit, to 2.0; PyTorch's default is 1.7).

    Returns:
        The variables that were set.
    """
    environment = os.environ if env is None else env
    # With this, PyTorch itself computes single operators that MPS lacks on the CPU.
    settings = {_FALLBACK: "1"}
    # The allocator refuses to start with a low watermark above the high one.
    high = _ratio(environment.get(_HIGH))
    if 0.0 < high < _DEFAULT_LOW:
        settings[_LOW] = str(high)
    changed = {name: value for name, value in settings.items() if name not in environment}
    environment.update(changed)
    return changed


def _ratio(text: str | None) -> float:
    """Reads a watermark. PyTorch itself refuses an invalid one."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
