"""S3Gen on a GPU: upstream's own layers."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from chatterbex.s3gen.passes import S3GenPass

_NO_MASK = torch.ones((0, 0, 0), dtype=torch.bool)

# Lengths are multiples of this many tokens or frames: on MPS each new shape is compiled.
_WHOLE = 32

_FAR = -1e10  # added to attention scores of padding

WORK_OF_TOKEN: Final = 3 * 2**20
"""Bytes that decoding holds at once for each token of a request. The simulated device counts 0.5 MiB for up
to 300 tokens and 1 MiB for 1000, and a real device's kernels need more."""


class S3GenGpuPass(S3GenPass):
    """The pass through S3Gen on CUDA and MPS. It also runs on CPU tensors, for comparison."""

    def padded(self, length: int) -> int:
        """The next multiple of 32."""
        return -(-length // _WHOLE) * _WHOLE

    def layers(self, layers: nn.ModuleList, x: Tensor, positions: Tensor, inside: Tensor | None) -> Tensor:
        """See `S3GenPass.layers`."""
        mask = _NO_MASK if inside is None else inside
        for layer in layers:
            x, *_ = layer(x, mask, positions, _NO_MASK)
        return x

    def slope(self, x: Tensor, time: Tensor, inside: Tensor | None) -> Tensor:
        """See `S3GenPass.slope`."""
        return unet(self.network.flow.decoder.estimator, x, time, inside)

    def wave(self, mel: Tensor, source: Tensor) -> Tensor:
        """See `S3GenPass.wave`."""
        return self.network.mel2wav.decode(mel, source)[0]


def unet(net: Any, x: Tensor, time: Tensor, inside: Tensor | None = None) -> Tensor:
    """Upstream's `ConditionalDecoder`; see `S3GenPass.slope`."""
    mask, bias = x.new_ones((1, 1, x.shape[2])), None
    if inside is not None:
        mask = inside.to(x.dtype)
        bias = (1 - mask) * _FAR  # (B, 1, T)

    def through(resnet: nn.Module, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        x = resnet(x, mask, time).transpose(1, 2).contiguous()
        for block in blocks:
            x = block(x, attention_mask=bias)
        return x.transpose(1, 2).contiguous()

    skipped = []
    for resnet, blocks, down in net.down_blocks:
        x = through(resnet, blocks, x)
        skipped.append(x)
        x = down(x * mask)
    for resnet, blocks in net.mid_blocks:
        x = through(resnet, blocks, x)
    for resnet, blocks, up in net.up_blocks:
        skip = skipped.pop()
        x = up(through(resnet, blocks, torch.cat([x[:, :, : skip.shape[2]], skip], dim=1)) * mask)
    return net.final_proj(net.final_block(x, mask))
