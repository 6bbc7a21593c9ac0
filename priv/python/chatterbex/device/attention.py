"""Which attention to trust."""

from __future__ import annotations

import re
from typing import Final

# The kernels for a few queries that 2.8 brought to MPS read keys that are not there, or mistake
# the strides of the query: pytorch/pytorch issues 163597 and 174861, pull request 169222.
_RIGHT: Final = ((2, 6), (2, 7))
_RIGHT_FROM: Final = (2, 11)


def eager_attention(device: str, torch_version: str) -> bool:
    """Tells whether attention must be written out instead of left to PyTorch's fused kernels.

    Args:
        device: Such as "mps" or "cuda:0".
        torch_version: Such as "2.6.0" or "2.8.0+cu128".

    Returns:
        True on MPS, unless this version is known to attend right with a single query: 2.6, 2.7
        and releases from 2.11 on.
    """
    if device.partition(":")[0] != "mps":
        return False
    release = re.match(r"(\d+)\.(\d+)(?:\.\d+)*(?=$|\+)", torch_version)
    if release is None:  # a pre-release may be from before the repair
        return True
    version = (int(release[1]), int(release[2]))
    return version not in _RIGHT and version < _RIGHT_FROM
