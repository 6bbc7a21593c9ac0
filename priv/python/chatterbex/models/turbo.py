"""Chatterbox Turbo and Nano: English, with sounds such as [laugh], two steps of flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatterbex import voices
from chatterbex.models.chatterbox import ChatterboxModel
from chatterbex.models.speech import Traits
from chatterbex.t3 import T3Config
from chatterbex.text import TurboTokens, tidy


class TurboModel(ChatterboxModel):
    """Chatterbox Turbo."""

    name = "turbo"
    family = voices.TURBO
    t3_name = "t3_turbo_v1.safetensors"
    t3_config = T3Config.turbo
    tokenizer = TurboTokens
    s3gen_file = "s3gen_meanflow.safetensors"
    meanflow = True
    traits = Traits(silence=3)
    generation_options = frozenset({"temperature", "repetition_penalty", "top_p", "top_k", "norm_loudness"})

    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Converts text to text tokens."""
        del options
        return self._text.ids(tidy(text, "turbo"))


class NanoModel(TurboModel):
    """Chatterbox Nano: the same with a smaller T3."""

    name = "nano"
    t3_name = "t3_nano_v1.safetensors"
    t3_config = T3Config.nano
