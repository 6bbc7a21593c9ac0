"""Turns text into the tokens of the Chatterbox models."""

from __future__ import annotations

from chatterbex.text.duration import most_tokens
from chatterbex.text.graphemes import EnglishTokens, MultilingualTokens
from chatterbex.text.pieces import TurboTokens
from chatterbex.text.punctuation import tidy

__all__ = ["EnglishTokens", "MultilingualTokens", "TurboTokens", "most_tokens", "tidy"]
