"""Records steps once as CUDA graphs, and then replays them with one launch.

A step of T3 launches some 320 kernels, and launching them takes longer than computing them. See PyTorch's
"CUDA semantics", section "CUDA Graphs".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_logger = logging.getLogger("chatterbex.t3")

# Relative to the largest logit. A replay runs the same kernels, but cuBLAS may choose others while recording.
_TOLERANCE = 1e-3


@dataclass
class _Recorded:
    graph: Any
    numbers: Tensor
    result: Tensor


class CudaGraphs:
    """Graphs of one pass, by shape.

    Attributes:
        reason: why graphs are not used, or None while they are.
    """

    def __init__(self) -> None:
        """Records nothing yet."""
        self.reason: str | None = None
        self._recorded: dict[Hashable, _Recorded] = {}
        self._pool: Any = None

    def info(self) -> dict[str, Any]:
        """The number of recorded graphs, and the reason if they are not used."""
        return {"recorded": len(self._recorded), "reason": self.reason}

    def run(self, shape: Hashable, numbers: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The result of `compute(numbers)`, replayed if possible.

        Args:
            shape: the key of the graph. `compute` must do the same for all numbers of one shape, and may be
                called several times for one step.
            numbers: on the device.
            compute: launches the kernels.
        """
        if self.reason is not None:
            return compute(numbers)
        recorded = self._recorded.get(shape)
        if recorded is None:
            return self._record(shape, numbers, compute)
        recorded.numbers.copy_(numbers)
        recorded.graph.replay()
        return recorded.result

    def _record(self, shape: Hashable, numbers: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Records a step and compares the replay with the original."""
        expected = compute(numbers)
        try:
            graph = torch.cuda.CUDAGraph()
            kept = numbers.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries allocate what they need before the recording
                compute(kept)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph, pool=self._pool):
                result = compute(kept)
            self._pool = self._pool or graph.pool()
            graph.replay()
            difference = float((result - expected).abs().max() / expected.abs().max().clamp(min=1e-9))
        except RuntimeError as error:
            self._give_up(f"recording a step failed: {str(error).splitlines()[0]}")
            return compute(numbers)
        if not difference <= _TOLERANCE:
            self._give_up(f"a replayed step differs by {difference:.1e} of the largest logit")
            return expected
        self._recorded[shape] = _Recorded(graph, kept, result)
        return result

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._recorded.clear()
        _logger.warning("CUDA graphs are not used: %s", reason)
