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
from shelf import give_back_memory

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
    """Upstream's S3Gen with the weights of a file, strictly; they are read from the file when they are used.

    It keeps no graph, as upstream's would: that takes gigabytes.
    """
    from chatterbex import checkpoint

    made = checkpoint.blank(lambda: module("models.s3gen").S3Gen(meanflow=meanflow))
    made.load_state_dict(_weights(path), strict=True, assign=True)
    return made.eval().requires_grad_(False)


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


def model(ours: Any, folder: Path) -> Any:
    """Upstream's own model of the same files; its T3 is built in the size of ours."""
    from published_t3 import Upstream

    give_back_memory()
    config = ours._residents.front.config
    body = Upstream().build(config, _weights(folder / ours.t3_file(folder, ours._extra)))
    if hasattr(body.tfmr, "wte"):
        del body.tfmr.wte
    network = s3gen(folder / ours.s3gen(ours._extra).name, meanflow=ours.s3gen(ours._extra).meanflow)
    encoder = module("models.voice_encoder").VoiceEncoder()
    encoder.load_state_dict(_weights(folder / ours.encoder_file))
    kind, words = _kind_and_words(ours.name, folder)
    conditionals = sys.modules[kind.__module__].Conditionals.load(folder / "conds.pt")
    tts = kind(body, network, encoder.eval(), words, "cpu", conditionals)
    for part in (body, encoder):
        part.requires_grad_(False)
    if ours.meanflow:
        # With upstream's NumPy version it stays float32; with ours no network would accept it.
        tts.norm_loudness = lambda *given: kind.norm_loudness(tts, *given).astype("float32")
    return tts


def _kind_and_words(name: str, folder: Path) -> tuple[Any, Any]:
    if name in ("nano", "turbo"):
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(folder)
        words.pad_token = words.eos_token
        return module("tts_turbo").ChatterboxTurboTTS, words
    words = module("models.tokenizers.tokenizer")
    if name == "english":
        return module("tts").ChatterboxTTS, words.EnTokenizer(str(folder / "tokenizer.json"))
    with mock.patch.object(words, "ChineseCangjieConverter"):  # which asks the hub for its table
        tokenizer = words.MTLTokenizer(str(folder / "grapheme_mtl_merged_expanded_v1.json"))
    return module("mtl_tts").ChatterboxMultilingualTTS, tokenizer


def _weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True, mmap=True)


def say(tts: Any, text: str, ours: Any, *, max_tokens: int, language: str | None = None) -> Any:
    """The result of upstream's `generate` if the likeliest token is always drawn: (samples,).

    Args:
        tts: of `model`.
        text: what to say.
        ours: our model of the same files.
        max_tokens: the number of tokens to draw.
        language: of the multilingual models.
    """
    turbo = ours.name in ("nano", "turbo")
    name = "inference_turbo" if turbo else "inference"
    plain = getattr(tts.t3, name)
    if turbo:
        changes = {"max_gen_len": max_tokens - 1, "temperature": 1e-4, "top_k": 0, "top_p": 1.0}
    else:
        changes = {"max_new_tokens": max_tokens, "temperature": 1.0, "min_p": 1.0}
    options = {"repetition_penalty": ours.defaults.repetition_penalty}
    with contextlib.ExitStack() as patches:
        patch = patches.enter_context
        patch(mock.patch.object(tts.t3, name, lambda **given: plain(**{**given, **changes})))
        patch(mock.patch(f"{PACKAGE}.models.t3.t3.tqdm", lambda steps, **_: steps))
        if language is not None:
            options["language_id"] = language
            # Its analyzer needs more layers than the model has, and some of its ids are not speech.
            patch(mock.patch.object(type(tts.t3.hp), "is_multilingual", False))
            patch(mock.patch(f"{PACKAGE}.mtl_tts.drop_invalid_tokens", lambda ids: ids[ids < 6561]))
        return tts.generate(text, **options).squeeze(0).numpy()
