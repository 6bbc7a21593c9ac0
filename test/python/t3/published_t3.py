"""Upstream's T3 classes, made in our sizes and with our weights."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import partial
from importlib import import_module
from typing import Any

_PACKAGE = "chatterbox_as_published"


class Upstream:
    """Upstream's T3, imported without the rest of its package."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("chatterbox")
        package = types.ModuleType(_PACKAGE)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[_PACKAGE] = package
        base = f"{_PACKAGE}.models.t3"
        self.t3 = import_module(f"{base}.t3")
        self.cond_enc = import_module(f"{base}.modules.cond_enc")
        self.config = import_module(f"{base}.modules.t3_config")
        self.configs = import_module(f"{base}.llama_configs").LLAMA_CONFIGS
        self.analyzer = import_module(f"{base}.inference.alignment_stream_analyzer")
        self.t3.tqdm = lambda steps, **_: steps

    def build(self, config: Any, state: dict[str, Any] | None = None) -> Any:
        """Upstream's T3 of our sizes, with `state` loaded strictly if given."""
        gpt2 = config.backbone == "gpt2"
        base = dict(self.configs["GPT2_medium" if gpt2 else "Llama_520M"])
        if gpt2:
            base.update(
                n_ctx=config.positions,
                n_positions=config.positions,
                n_embd=config.dim,
                hidden_size=config.dim,
                n_head=config.heads,
                n_layer=config.layers,
                n_inner=config.ffn,
                vocab_size=config.text_vocab,
            )
        else:
            base.update(
                hidden_size=config.dim,
                intermediate_size=config.ffn,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                head_dim=config.head_dim,
                rope_scaling=dict(base["rope_scaling"]),
            )
        self.configs["of_our_sizes"] = base

        hp = self.config.T3Config(text_tokens_dict_size=config.text_vocab)
        hp.llama_config_name = "of_our_sizes"
        hp.speech_tokens_dict_size = config.speech_vocab
        hp.max_text_tokens = config.max_text_tokens
        hp.max_speech_tokens = config.max_speech_tokens
        if gpt2:
            hp.input_pos_emb = None
            hp.speech_cond_prompt_len = 375
            hp.use_perceiver_resampler = False
            hp.emotion_adv = False

        perceiver = self.cond_enc.Perceiver
        self.cond_enc.Perceiver = partial(
            perceiver,
            pre_attention_query_token=config.perceiver_queries,
            pre_attention_query_size=config.dim,
            embedding_dim=config.dim,
            num_attn_heads=config.perceiver_heads,
        )
        try:
            model = self.t3.T3(hp)
        finally:
            self.cond_enc.Perceiver = perceiver
        if state is not None:
            model.load_state_dict(state, strict=True)
        return model.eval()

    def condition(self, values: dict[str, Any]) -> Any:
        """Upstream's conditionals; its models write into them, so they are made each time."""
        return self.cond_enc.T3Cond(**values)
