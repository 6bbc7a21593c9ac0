"""The first Chatterbox: English, with exaggeration and guidance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatterbex import checkpoint, voices
from chatterbex.models.chatterbox import ChatterboxModel
from chatterbex.t3 import T3Config
from chatterbex.text import EnglishTokens, tidy


class EnglishModel(ChatterboxModel):
    """Chatterbox."""

    name = "english"
    family = voices.ORIGINAL
    s3gen_file = "s3gen.safetensors"
    s3gen_strict = False
    generation_options = frozenset(
        {"temperature", "repetition_penalty", "top_p", "min_p", "cfg_weight", "exaggeration"}
    )

    @classmethod
    def files(cls, folder: Path, extra: Mapping[str, Any]) -> tuple[str, ...]:
        """The files that must be there."""
        del folder, extra
        return checkpoint.REQUIRED_FILES["english"]

    @classmethod
    def t3_file(cls, folder: Path, extra: Mapping[str, Any]) -> str:
        """The file of T3."""
        del folder, extra
        return "t3_cfg.safetensors"

    @classmethod
    def t3_config(cls, extra: Mapping[str, Any]) -> T3Config:
        """The published sizes of T3."""
        del extra
        return T3Config.english()

    @classmethod
    def load_text(cls, folder: Path) -> EnglishTokens:
        """The tokenizer."""
        return EnglishTokens(folder / "tokenizer.json")

    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Text to text tokens."""
        del options
        return self._text.ids(tidy(text, "english"))
