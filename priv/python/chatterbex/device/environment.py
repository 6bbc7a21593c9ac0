"""Variables that PyTorch reads when it is imported, and never again."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Final

from chatterbex.errors import ChatterbexError

_FALLBACK: Final = "PYTORCH_ENABLE_MPS_FALLBACK"
_HIGH: Final = "PYTORCH_MPS_HIGH_WATERMARK_RATIO"
_LOW: Final = "PYTORCH_MPS_LOW_WATERMARK_RATIO"
_DEFAULT_LOW: Final = 1.4
_logger = logging.getLogger("chatterbex.device")


def prepare_environment(
    env: MutableMapping[str, str] | None = None, *, high_watermark: float | None = None
) -> dict[str, str]:
    """Sets what PyTorch is to find in its environment; what the user has set stays.

    Args:
        env: The environment. Default: the process's own.
        high_watermark: How much the MPS allocator may take, as a ratio of the recommended working
            set: 0.0 (no limit; may bring the machine down) to 2.0. Default: PyTorch's, 1.7.

    Returns:
        The variables that were set.

    Raises:
        ChatterbexError: The ratio is out of range ("invalid_option").
    """
    environment = os.environ if env is None else env
    # Single operators that MPS lacks are then computed on the CPU by PyTorch itself.
    wanted = {_FALLBACK: "1"}
    if high_watermark is not None:
        if isinstance(high_watermark, bool) or not 0.0 <= high_watermark <= 2.0:
            raise ChatterbexError(
                "invalid_option",
                f"the MPS high watermark must be a ratio from 0.0 to 2.0, not {high_watermark!r}",
            )
        wanted[_HIGH] = str(float(high_watermark))
        # The allocator refuses to start with a low watermark above the high one.
        if 0.0 < high_watermark < _DEFAULT_LOW:
            wanted[_LOW] = str(float(high_watermark))
    changed = {name: value for name, value in wanted.items() if name not in environment}
    environment.update(changed)
    if changed and env is None and "torch" in sys.modules:
        _logger.warning("PyTorch was imported before %s was set", " and ".join(changed))
    return changed
