"""Punctuation as the Chatterbox models know it from training."""

from __future__ import annotations

from typing import Final

from chatterbex.errors import ChatterbexError

# In this order; a later rule sees what an earlier one left.
_TURBO: Final = (
    ("…", ", "),
    (":", ","),
    ("—", "-"),
    ("–", "-"),
    (" ,", ","),
    ("“", '"'),
    ("”", '"'),
    ("‘", "'"),
    ("’", "'"),
)
_ORIGINAL: Final = (
    ("...", ", "),
    ("…", ", "),
    (":", ","),
    (" - ", ", "),
    (";", ", "),
    *_TURBO[2:],
)
_ENDS: Final = (".", "!", "?", "-", ",")
_WIDE_ENDS: Final = (*_ENDS, "、", "，", "。", "？", "！")

_RULES: Final = {
    "turbo": (_TURBO, _ENDS),
    "english": (_ORIGINAL, _ENDS),
    "multilingual": (_ORIGINAL, _WIDE_ENDS),
}


def tidy(text: str, model: str) -> str:
    """Gives text a capital first letter, single spaces, the model's punctuation, and an end.

    Args:
        text: one piece of speech.
        model: "turbo" (nano too), "english" or "multilingual".

    Raises:
        ChatterbexError: There is nothing to say ("invalid_text"). Upstream would make up a sentence.
    """
    rules, ends = _RULES[model]
    if not text.strip():
        raise ChatterbexError("invalid_text", "the text is blank: there is nothing to say")
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in rules:
        text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(ends) else f"{text}."
