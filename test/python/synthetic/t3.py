"""T3 checkpoints with random weights, in the layout of the published files.

Every name and shape that the published files have is there, those that speaking does not need
too, so that upstream's own classes load them strictly. The numbers are drawn from a seed and
scaled so that attention matters and the choice of a token is neither certain nor even.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from chatterbex.t3 import T3Config

FILES = {
    "english": "t3_cfg.safetensors",
    "multilingual_v2": "t3_mtl23ls_v2.safetensors",
    "multilingual_v3": "t3_mtl23ls_v3.safetensors",
    "turbo": "t3_turbo_v1.safetensors",
    "nano": "t3_nano_v1.safetensors",
}
"""The file that holds each model's T3."""


def full(name: str) -> T3Config:
    """The published configuration of a model."""
    return getattr(T3Config, name.partition("_")[0])()


def small(name: str) -> T3Config:
    """The same model with 2 layers of 128, and the published numbers of tokens."""
    return replace(full(name), layers=2, dim=128, heads=2, ffn=256)


def tiny(name: str) -> T3Config:
    """A smaller `small` model, for tests that make many."""
    config = replace(small(name), positions=640, text_vocab=300, max_text_tokens=200, max_speech_tokens=400)
    if config.perceiver_queries:
        config = replace(config, perceiver_queries=8)
    return config


def shapes(config: T3Config) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor in a published file of such a model."""
    dim, ffn = config.dim, config.ffn
    found: dict[str, tuple[int, ...]] = {
        "text_emb.weight": (config.text_vocab, dim),
        "speech_emb.weight": (config.speech_vocab, dim),
        "text_head.weight": (config.text_vocab, dim),
        "speech_head.weight": (config.speech_vocab, dim),
        "cond_enc.spkr_enc.weight": (dim, config.speaker_dim),
        "cond_enc.spkr_enc.bias": (dim,),
    }
    if config.learned_positions:
        found["text_pos_emb.emb.weight"] = (config.max_text_tokens + 2, dim)
        found["speech_pos_emb.emb.weight"] = (config.max_speech_tokens + 4, dim)
    if config.emotion:
        found["cond_enc.emotion_adv_fc.weight"] = (dim, 1)
    if config.perceiver_queries:
        found["cond_enc.perceiver.pre_attention_query"] = (1, config.perceiver_queries, dim)
        for part in ("norm", "to_q", "to_k", "to_v", "proj_out"):
            stem = f"cond_enc.perceiver.attn.{part}"
            found[f"{stem}.weight"] = (dim,) if part == "norm" else (dim, dim)
            found[f"{stem}.bias"] = (dim,)
    if config.backbone == "llama":
        found["tfmr.embed_tokens.weight"] = (8, dim)
        found["tfmr.norm.weight"] = (dim,)
        for layer in range(config.layers):
            stem = f"tfmr.layers.{layer}"
            for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
                found[f"{stem}.self_attn.{part}.weight"] = (dim, dim)
            found[f"{stem}.mlp.gate_proj.weight"] = (ffn, dim)
            found[f"{stem}.mlp.up_proj.weight"] = (ffn, dim)
            found[f"{stem}.mlp.down_proj.weight"] = (dim, ffn)
            found[f"{stem}.input_layernorm.weight"] = (dim,)
            found[f"{stem}.post_attention_layernorm.weight"] = (dim,)
    else:
        found["speech_head.bias"] = (config.speech_vocab,)
        found["tfmr.wte.weight"] = (config.text_vocab, dim)
        found["tfmr.wpe.weight"] = (config.positions, dim)
        found["tfmr.ln_f.weight"] = found["tfmr.ln_f.bias"] = (dim,)
        for layer in range(config.layers):
            stem = f"tfmr.h.{layer}"
            for part, size in {
                "attn.c_attn": (dim, 3 * dim),
                "attn.c_proj": (dim, dim),
                "mlp.c_fc": (dim, ffn),
                "mlp.c_proj": (ffn, dim),
            }.items():
                found[f"{stem}.{part}.weight"] = size
                found[f"{stem}.{part}.bias"] = size[1:]
            for part in ("ln_1", "ln_2"):
                found[f"{stem}.{part}.weight"] = found[f"{stem}.{part}.bias"] = (dim,)
    return found


def state_dict(config: T3Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of every tensor in a published file.

    Args:
        config: sizes.
        seed: what makes them repeatable.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(config).items():
        tensor = torch.empty(shape)
        if len(shape) == 1 and "norm" in name + "".join(name.split("ln_")[1:] and ["norm"]):
            centre = 1.0 if name.endswith("weight") else 0.0
            tensor.normal_(centre, 0.1, generator=generator)
        elif len(shape) == 1:
            tensor.normal_(0.0, 0.1, generator=generator)
        elif "_head" in name:
            tensor.normal_(0.0, 2.5 * shape[1] ** -0.5, generator=generator)
        elif "emb" in name or "wte" in name or "wpe" in name:
            tensor.normal_(0.0, 0.3 if "pos" in name or "wpe" in name else 1.0, generator=generator)
        else:
            inputs = shape[0] if ".c_" in name else shape[-1]
            tensor.normal_(0.0, inputs**-0.5, generator=generator)
        state[name] = tensor
    return state


def conditionals(config: T3Config, seed: int = 0, prompt: int | None = None) -> dict[str, Any]:
    """The `t3` part of a `conds.pt`.

    Args:
        config: which model's.
        seed: which voice.
        prompt: length of the speech prompt; None for the published one, 0 for none.
    """
    generator = torch.Generator().manual_seed(seed)
    if prompt is None:
        prompt = 150 if config.perceiver_queries else 375
    tokens = torch.randint(0, config.speech_codes, (1, prompt), generator=generator)
    speaker = torch.randn(1, config.speaker_dim, generator=generator).abs()
    return {
        "speaker_emb": speaker / speaker.norm(),
        "clap_emb": None,
        "cond_prompt_speech_tokens": tokens if prompt else None,
        "cond_prompt_speech_emb": None,
        "emotion_adv": 0.5 * torch.ones(1, 1, 1),
    }


def text_tokens(config: T3Config, length: int, seed: int = 0) -> list[int]:
    """Random text of `length` tokens, with start and stop if the model has them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, min(config.text_vocab, 250), (length,), generator=generator).tolist()
    if config.start_text is None:
        return ids
    return [config.start_text, *ids, config.stop_text]


def write(folder: Path, name: str, config: T3Config | None = None, seed: int = 0) -> Path:
    """Writes a model's T3 file, unless a file with the same sizes and seed exists.

    Args:
        folder: where the model's files are; made if it is not there.
        name: which model, a key of `FILES`.
        config: sizes; None for `small`.
        seed: of the weights.

    Returns:
        The file's path.
    """
    from safetensors.torch import save_file

    config = config or small(name)
    path = folder / FILES[name]
    made_with = json.dumps({"sizes": str(shapes(config)), "seed": seed, "recipe": 1})
    stamp = path.with_suffix(".recipe.json")
    if path.exists() and stamp.exists() and stamp.read_text() == made_with:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    save_file(state_dict(config, seed), half)
    half.replace(path)
    stamp.write_text(made_with)
    return path
