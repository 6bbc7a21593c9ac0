"""Decides which implementation of attention to trust."""

from __future__ import annotations

import re
from typing import Final

# PyTorch 2.8 brought kernels for a few queries to MPS. They read keys out of bounds, or use the wrong
# strides for the query: pytorch/pytorch issues 163597 and 174861, pull request 169222.
_RIGHT: Final = ((2, 6), (2, 7))
_RIGHT_FROM: Final = (2, 11)


def eager_attention(device: str, torch_version: str) -> bool:
    """Returns whether attention must be written out instead of left to PyTorch's fused kernels.

    Args:
        device: A device such as "mps" or "cuda:0".
        torch_version: A version such as "2.6.0" or "2.8.0+cu128".

    Returns:
        True on MPS, unless this version is known to be correct with a single query: 2.6, 2.7 and
        releases from 2.11 on.
    """
    if device.partition(":")[0] != "mps":
        return False
    release = re.match(r"(\d+)\.(\d+)(?:\.\d+)*(?=$|\+)", torch_version)
    if release is None:  # a pre-release may lack the fix
        return True
    version = (int(release[1]), int(release[2]))
    return version not in _RIGHT and version < _RIGHT_FROM
