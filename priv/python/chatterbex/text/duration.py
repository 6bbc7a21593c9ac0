"""Estimates how long a text may take to say."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SOUND: Final = re.compile(r"\[[a-z ]+\]")

# Speech tokens, 25 per second. Read aloud, a letter takes 1.7 tokens, and a syllable of Chinese, Japanese or
# Korean 5. These figures are for a slow reader, who spells capitals and says digits and signs as words.
_LEAST: Final = 75
_SOUNDS: Final = 75
_SPACE: Final = 1
_LETTER: Final = 4
_CAPITAL: Final = 10
_PAUSE: Final = 10
_WIDE: Final = 15
_DIGIT: Final = 15
_SIGN: Final = 25


def most_tokens(text: str) -> int:
    """The number of speech tokens in the slowest plausible reading of a text.

    Args:
        text: one piece of speech, perhaps with sounds such as "[laugh]".
    """
    rest, sounds = _SOUND.subn("", text)
    return _LEAST + sounds * _SOUNDS + sum(map(_tokens, rest))


def _tokens(character: str) -> int:
    if character.isspace():
        return _SPACE
    kind = unicodedata.category(character)
    match kind[0]:
        case "L" | "M":
            if unicodedata.east_asian_width(character) in ("W", "F"):
                return _WIDE
            return _CAPITAL if kind == "Lu" else _LETTER
        case "N":
            return _DIGIT
        case "P":
            return _PAUSE
        case _:
            return _SIGN
