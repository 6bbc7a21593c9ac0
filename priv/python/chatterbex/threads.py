"""How many threads torch computes with, for one thread of the process."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """Sets the number for this thread only.

    In a new thread the first operation takes the number that was set last in the process, whichever
    thread set it. So this asks for the number first: what is set then stays.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)
