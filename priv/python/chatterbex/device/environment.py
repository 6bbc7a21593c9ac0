"""Variables that PyTorch reads when it is imported, and never again."""

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
    """Sets what PyTorch is to find in its environment; what the user has set stays.

    Args:
        env: The environment. Default: the process's own. PYTORCH_MPS_HIGH_WATERMARK_RATIO in it, how
            much the MPS allocator may take as a ratio of the recommended working set (0.0, no
            limit, to 2.0; PyTorch's default is 1.7), brings the low one along.

    Returns:
        The variables that were set.
    """
    environment = os.environ if env is None else env
    # Single operators that MPS lacks are then computed on the CPU by PyTorch itself.
    wanted = {_FALLBACK: "1"}
    # The allocator refuses to start with a low watermark above the high one.
    high = _ratio(environment.get(_HIGH))
    if 0.0 < high < _DEFAULT_LOW:
        wanted[_LOW] = str(high)
    changed = {name: value for name, value in wanted.items() if name not in environment}
    environment.update(changed)
    return changed


def _ratio(text: str | None) -> float:
    """Reads a watermark; what is none PyTorch itself refuses."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
