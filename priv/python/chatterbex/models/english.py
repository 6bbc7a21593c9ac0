"""The first Chatterbox: English, with exaggeration and guidance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatterbex import voices
from chatterbex.models.chatterbox import ChatterboxModel
from chatterbex.t3 import T3Config
from chatterbex.text import EnglishTokens, tidy


class EnglishModel(ChatterboxModel):
    """Chatterbox."""

    name = "english"
    family = voices.ORIGINAL
    t3_name = "t3_cfg.safetensors"
    t3_config = T3Config.english
    s3gen_file = "s3gen.safetensors"
    s3gen_strict = False
    generation_options = frozenset(
        {"temperature", "repetition_penalty", "top_p", "min_p", "cfg_weight", "exaggeration"}
    )

    @staticmethod
    def tokenizer(folder: Path) -> EnglishTokens:
        """The tokenizer."""
        return EnglishTokens(folder / "tokenizer.json")

    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Converts text to text tokens."""
        del options
        return self._text.ids(tidy(text, "english"))
