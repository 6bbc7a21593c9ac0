"""Weights with outliers: a few channels whose numbers are many times the others', as in trained transformers.

A norm's gain is multiplied for every 96th channel, and the weights that read that channel are divided by as
much. The network computes the same in exact arithmetic; what changes is how well it can be rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from chatterbex.t3 import T3Config

EVERY = 96


def t3(state: dict[str, Tensor], config: T3Config, factor: float) -> dict[str, Tensor]:
    """A T3's weights with outliers in front of every product.

    Args:
        state: names to tensors, which stay as they are.
        config: sizes.
        factor: by how much an outlier is larger than the other channels.
    """
    changed = dict(state)
    for norm, readers, inputs in _t3_norms(config):
        _scale(changed, norm, readers, inputs, factor)
    return changed


def flow(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """S3Gen's weights with outliers in front of attention and the feed-forward part of the flow's U-Net."""
    changed = dict(state)
    stem = "flow.decoder.estimator."
    for name in [name for name in state if name.startswith(stem) and name.endswith("norm1.weight")]:
        block = name.removesuffix("norm1.weight")
        qkv = [f"{block}attn1.to_{part}.weight" for part in "qkv"]
        _scale(changed, f"{block}norm1", qkv, 1, factor)
        _scale(changed, f"{block}norm3", [f"{block}ff.net.0.proj.weight"], 1, factor)
    return changed


def _t3_norms(config: T3Config) -> Iterator[tuple[str, list[str], int]]:
    """Each norm, the weights that read it, and which of their dimensions are inputs."""
    for layer in range(config.layers):
        if config.backbone == "llama":
            stem = f"tfmr.layers.{layer}."
            qkv = [f"{stem}self_attn.{part}_proj.weight" for part in "qkv"]
            yield f"{stem}input_layernorm", qkv, 1
            feed = [f"{stem}mlp.{part}_proj.weight" for part in ("gate", "up")]
            yield f"{stem}post_attention_layernorm", feed, 1
        else:
            stem = f"tfmr.h.{layer}."
            yield f"{stem}ln_1", [f"{stem}attn.c_attn.weight"], 0
            yield f"{stem}ln_2", [f"{stem}mlp.c_fc.weight"], 0


def _scale(state: dict[str, Tensor], norm: str, readers: Iterable[str], inputs: int, factor: float) -> None:
    gains = torch.ones(len(state[f"{norm}.weight"]))
    gains[::EVERY] = factor
    for part in ("weight", "bias"):
        if f"{norm}.{part}" in state:
            state[f"{norm}.{part}"] = state[f"{norm}.{part}"] * gains
    for name in readers:
        state[name] = state[name] / (gains if inputs else gains[:, None])
