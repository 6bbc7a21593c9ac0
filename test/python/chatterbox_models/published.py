"""Upstream's own S3Gen and models, run on the same files and with the same noise as ours."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch

PACKAGE = "chatterbox_as_published"


def module(name: str) -> types.ModuleType:
    """A module of upstream's, with everything it imports, but without its package's ``__init__``."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec("chatterbox")
        package = types.ModuleType(PACKAGE)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[PACKAGE] = package
    return import_module(f"{PACKAGE}.{name}")


def s3gen(path: Path, *, meanflow: bool) -> Any:
    """Upstream's S3Gen with the weights of a file, loaded as upstream does."""
    from safetensors.torch import load_file

    made = module("models.s3gen").S3Gen(meanflow=meanflow)
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    made.load_state_dict(state, strict=True)
    return made.eval()


@contextlib.contextmanager
def noise(seed: int, prompt: int, frames: int) -> Iterator[None]:
    """Upstream draws our noise while this is open.

    Args:
        seed: of the request.
        prompt: frames of the voice.
        frames: frames of the speech.
    """
    from chatterbex.s3gen import FRAME
    from chatterbex.s3gen.noise import Noise

    ours = Noise(seed)
    mel = ours.mel(prompt, frames)
    source = ours.source(0, frames, 9, FRAME)

    def randn_like(like: torch.Tensor, **_: Any) -> torch.Tensor:
        if like.shape == (1, 80, prompt + frames):
            return mel.clone()
        if like.dim() == 3 and like.shape[1] == 9:
            return source
        return torch.zeros_like(like)  # noise that upstream draws and does not use

    def randn(*shape: Any, **_: Any) -> torch.Tensor:
        assert tuple(shape) == (1, 80, frames), shape
        return mel[:, :, prompt:].clone()

    def sample(*_: Any, **__: Any) -> torch.Tensor:
        return (ours.phases(9) * 2 * math.pi).float().reshape(1, 9, 1)

    with (
        mock.patch.object(torch, "randn_like", randn_like),
        mock.patch.object(torch, "randn", randn),
        mock.patch("torch.distributions.uniform.Uniform.sample", sample),
        mock.patch(f"{PACKAGE}.models.s3gen.flow_matching.tqdm", lambda steps, **_: steps),
        mock.patch("builtins.print"),
    ):
        yield
