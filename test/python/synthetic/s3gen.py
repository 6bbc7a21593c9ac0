"""Checkpoints of S3Gen and of the voice encoder with random weights, made by upstream's own classes.

S3Gen has one size, so these files are as large as the published ones (1 GB). The numbers are drawn
from a seed and scaled so that what is computed depends on all of them: speech with a pitch, mel
frames of a sensible size, samples that neither vanish nor clip.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

RECIPE = 7
"""Change it whenever the numbers change, so that the cache holds no old ones."""


def s3gen_state(meanflow: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """All weights of a published S3Gen file, by name."""
    from torch.nn.utils.parametrizations import weight_norm

    from chatterbex import upstream

    published = upstream.s3gen()
    places = [cls.__init__.__globals__ for cls in (published.HiFTGenerator, published.ConvRNNF0Predictor)]
    plain = [place["weight_norm"] for place in places]
    torch.manual_seed(seed)
    try:
        for place in places:
            place["weight_norm"] = weight_norm
        module = published.S3Token2Wav(meanflow=meanflow)
    finally:
        for place, function in zip(places, plain, strict=True):
            place["weight_norm"] = function
    with torch.no_grad():
        _liven(module)
    return {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}


def _liven(module: Any) -> None:
    generator = torch.Generator().manual_seed(1)

    def spread(tensor: torch.Tensor, inputs: int, gain: float = 1.0) -> None:
        tensor.normal_(0.0, gain / math.sqrt(inputs), generator=generator)

    vocoder = module.mel2wav
    for part in vocoder.modules():
        if isinstance(part, (nn.Conv1d, nn.ConvTranspose1d)):
            inputs = part.weight[0].numel()
            if hasattr(part, "parametrizations"):
                length = part.parametrizations.weight.original0
                direction = part.parametrizations.weight.original1
                spread(direction, inputs)
                length.copy_(direction.flatten(1).norm(dim=1).reshape(length.shape) * 0.7)
            else:
                spread(part.weight, inputs, 0.7)
    for layer, gain in [(vocoder.conv_pre, 2.0), *((layer, 1.4) for layer in vocoder.ups)]:
        layer.parametrizations.weight.original0.mul_(gain)
    for layer in vocoder.source_downs:
        layer.weight.mul_(3.0)
    vocoder.f0_predictor.classifier.weight.mul_(5.0)
    vocoder.f0_predictor.classifier.bias.fill_(160.0)
    vocoder.m_source.l_linear.weight.fill_(1.0)
    bins = vocoder.istft_params["n_fft"] // 2 + 1
    vocoder.conv_post.bias[:bins] = -1.5
    vocoder.conv_post.bias[bins:].normal_(0.0, 1.0, generator=generator)
    # Frames of a published model are logarithms of -11 (silence) to 2.
    module.flow.decoder.estimator.final_proj.weight.mul_(5.0)
    module.flow.decoder.estimator.final_proj.bias.fill_(-4.0)
    module.flow.encoder_proj.weight.mul_(3.0)
    if module.flow.decoder.estimator.meanflow:
        # Upstream begins with one that leaves out where a step ends.
        mixer = module.flow.decoder.estimator.time_embed_mixer.weight
        spread(mixer, mixer.shape[1])
    for layer in (
        module.flow.encoder.pre_lookahead_layer.conv1,
        module.flow.encoder.pre_lookahead_layer.conv2,
    ):
        layer.weight.mul_(4.0)
    for part in module.speaker_encoder.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(0.0, 0.1, generator=generator)
            part.running_var.uniform_(0.8, 1.2, generator=generator)


def voice_encoder_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """All weights of a published voice encoder file, by name."""
    from chatterbex import upstream

    torch.manual_seed(seed)
    module = upstream.voice_encoder().VoiceEncoder()
    return {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}


def conditionals(seed: int, seconds: float) -> dict[str, Any]:
    """The ``gen`` part of a ``conds.pt``.

    Args:
        seed: which voice.
        seconds: of reference audio; the published one has 10.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = round(seconds * 25)
    return {
        "prompt_token": torch.randint(0, 6561, (1, tokens), generator=generator),
        "prompt_token_len": torch.tensor([tokens]),
        "prompt_feat": torch.randn(1, 2 * tokens, 80, generator=generator) * 2.0 - 5.0,
        "prompt_feat_len": None,
        "embedding": torch.randn(1, 192, generator=generator),
    }


def write(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Writes weights to a ``.safetensors`` or ``.pt`` file, which appears when it is complete."""
    from safetensors.torch import save_file

    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    if path.suffix == ".safetensors":
        save_file(state, half)
    else:
        torch.save(state, half)
    half.replace(path)
