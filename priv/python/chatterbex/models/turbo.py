"""Chatterbox Turbo and Nano: English, with sounds such as [laugh], two steps of flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatterbex import checkpoint, voices
from chatterbex.models.chatterbox import ChatterboxModel
from chatterbex.t3 import T3Config
from chatterbex.text import TurboTokens, tidy


class TurboModel(ChatterboxModel):
    """Chatterbox Turbo."""

    name = "turbo"
    family = voices.TURBO
    s3gen_file = "s3gen_meanflow.safetensors"
    meanflow = True
    silence = 3
    generation_options = frozenset({"temperature", "repetition_penalty", "top_p", "top_k"})

    @classmethod
    def files(cls, folder: Path, extra: Mapping[str, Any]) -> tuple[str, ...]:
        """The files that must be there."""
        del folder, extra
        return checkpoint.REQUIRED_FILES[cls.name]

    @classmethod
    def t3_file(cls, folder: Path, extra: Mapping[str, Any]) -> str:
        """The file of T3."""
        del folder, extra
        return f"t3_{cls.name}_v1.safetensors"

    @classmethod
    def t3_config(cls, extra: Mapping[str, Any]) -> T3Config:
        """The published sizes of T3."""
        del extra
        return T3Config.turbo()

    @classmethod
    def load_text(cls, folder: Path) -> TurboTokens:
        """The tokenizer."""
        return TurboTokens(folder)

    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Text to text tokens."""
        del options
        return self._text.ids(tidy(text, "turbo"))


class NanoModel(TurboModel):
    """Chatterbox Nano: the same with a smaller T3."""

    name = "nano"

    @classmethod
    def t3_config(cls, extra: Mapping[str, Any]) -> T3Config:
        """The published sizes of T3."""
        del extra
        return T3Config.nano()
