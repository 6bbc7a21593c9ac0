"""T3's weights, exactly as the checkpoint stores them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import pages
from ..checkpoint import blank
from ..errors import ChatterbexError
from .backbone import Body
from .conditioning import Front, condition_shapes
from .config import T3Config

# Tensors in checkpoints that speaking does not need.
_UNUSED = re.compile(
    r"text_head\.(weight|bias)"
    r"|tfmr\.(wte|embed_tokens)\.weight"
    r"|tfmr\.h\.\d+\.attn\.(bias|masked_bias)"
    r"|tfmr\.(layers\.\d+\.self_attn\.)?rotary_emb\.\w+"
)

_LISTED = 12


class T3:
    """The contents of a T3 checkpoint, on the CPU.

    Nothing here changes a weight. A pass (`T3CpuPass`, `T3GpuPass`) is made from it for one device.

    Attributes:
        config: its sizes.
        weights: tensors by the checkpoint's names.
        front: makes the embeddings of voices and texts.
    """

    def __init__(self, config: T3Config, weights: Mapping[str, Tensor]) -> None:
        """Keeps checked weights; see `from_state_dict`."""
        self.config = config
        self.weights = dict(weights)
        self.front = Front(config, weights)

    @classmethod
    def from_state_dict(cls, config: T3Config, state: Mapping[str, Any], check_numbers: bool = True) -> T3:
        """A T3 with the weights of a checkpoint.

        Float32 tensors are not copied, so a memory-mapped file stays memory-mapped.

        Args:
            config: the checkpoint's configuration.
            state: tensors by name, or the wrapping `{"model": [tensors by name]}`.
            check_numbers: refuse NaN and infinite weights.

        Raises:
            ChatterbexError: `model_load_failed`, naming what is missing, unknown, of the wrong
                shape or type, or not finite.
        """
        weights = _checked(_shapes(config), unwrap(state), check_numbers)
        pages.release(weights.values())  # all of them were read just now
        return cls(config, weights)


def _shapes(config: T3Config) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(value.shape) for name, value in blank(lambda: Body(config)).state_dict().items()}
    shapes.update(condition_shapes(config))
    shapes["text_emb.weight"] = (config.text_vocab, config.dim)
    if config.learned_positions:
        shapes["text_pos_emb.emb.weight"] = (config.text_positions, config.dim)
    return shapes


def unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a checkpoint by name, out of the `model` list that wraps some checkpoints."""
    inner = state.get("model")
    if isinstance(inner, (list, tuple)) and inner:
        inner = inner[0]
    return inner if isinstance(inner, Mapping) else state


def _checked(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Any], check_numbers: bool
) -> dict[str, Tensor]:
    missing = sorted(set(expected) - set(state))
    unknown = sorted(name for name in state if name not in expected and not _UNUSED.fullmatch(name))
    wrong: list[str] = []
    weights: dict[str, Tensor] = {}
    for name, shape in expected.items():
        value = state.get(name)
        if value is None:
            continue
        if not torch.is_tensor(value) or not value.is_floating_point():
            kind = value.dtype if torch.is_tensor(value) else type(value).__name__
            wrong.append(f"{name}: {kind} instead of float32")
        elif tuple(value.shape) != shape:
            wrong.append(f"{name}: shape {tuple(value.shape)} instead of {shape}")
        else:
            value = value.detach().to(torch.float32)
            # one sum reads a tensor once and is not finite if any part of it is not
            if check_numbers and not math.isfinite(value.sum().item()):
                wrong.append(f"{name}: holds NaN or infinite numbers")
            weights[name] = value
    if missing or unknown or wrong:
        lists = {"missing": missing, "unexpected": unknown, "mismatched": wrong}
        problems = "; ".join(f"{problem}: {_some(names)}" for problem, names in lists.items() if names)
        raise ChatterbexError(
            "model_load_failed",
            f"These are not the T3 weights that this model needs. {problems}. The file may belong to "
            "another model or version, or be damaged: fetch it again with `mix chatterbex.models download`.",
            lists,
        )
    return weights


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
