"""Sets how many threads torch computes with, for one thread of the process."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """Sets the number for this thread only.

    In a new thread, the first operation adopts the number that was last set anywhere in the process.
    So this reads the number first; the number that is set after that stays.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)
