"""S3Gen on the CPU: the same computations in our own order, over packed weights (ADR 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chatterbex.s3gen import conformer
from chatterbex.s3gen.estimator import Estimator
from chatterbex.s3gen.network import S3Gen
from chatterbex.s3gen.passes import S3GenPass
from chatterbex.s3gen.products import PRODUCTS
from chatterbex.s3gen.vocoder import Vocoder


class S3GenCpuPass(S3GenPass):
    """The pass through S3Gen on the CPU. Packing takes about half a second.

    Attributes:
        precision: of the flow's products. The rest of S3Gen is computed in float32.
    """

    def __init__(self, network: S3Gen, precision: str = "float32") -> None:
        """Packs the weights of a network on the CPU. The network's own weights are not changed.

        Args:
            network: flow and vocoder.
            precision: "float32" or "bfloat16".
        """
        super().__init__(network)
        self.precision = precision
        with torch.inference_mode():
            self._estimator = Estimator(network.flow.decoder.estimator, PRODUCTS[precision])
            self._vocoder = Vocoder(network.mel2wav)

    def padded(self, length: int) -> int:
        """The same length: nothing is padded."""
        return length

    def layers(self, layers: nn.ModuleList, x: Tensor, positions: Tensor, inside: Tensor | None) -> Tensor:
        """See `S3GenPass.layers`."""
        del inside
        for layer in layers:
            x = conformer.layer(layer, x, positions)
        return x

    def slope(self, x: Tensor, time: Tensor, inside: Tensor | None) -> Tensor:
        """See `S3GenPass.slope`."""
        del inside
        return self._estimator(x, time)

    def wave(self, mel: Tensor, source: Tensor) -> Tensor:
        """See `S3GenPass.wave`."""
        return self._vocoder.wave(mel, source)[0]
