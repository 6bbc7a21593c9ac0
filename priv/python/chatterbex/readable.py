"""Cuts text into pieces that the built-in voice can turn into phonemes in bounded time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

MAX_TEXT: Final = 600
"""The most characters turned into phonemes at once. The time for that grows with their square."""
MAX_RUN: Final = 32
"""The most characters without a space that are read unchanged. For "1/1/1/..." the time is cubic."""
MAX_DIGITS: Final = 24
"""The most digits of a number that is read as one; hibari has no words for numbers above 10^36."""

_LINK: Final = re.compile(r"\[[^\[\]]{1,200}\]\([^()]{0,200}\)")
_RUN: Final = re.compile(rf"\S{{{MAX_RUN + 1},}}")
_NUMBER: Final = re.compile(rf"\d(?:,?\d){{{MAX_DIGITS},}}")
_CLAUSE: Final = re.compile(r"(?<=[,;:—])\s+")
_SPACE: Final = re.compile(r"\s+")


def readable(sentences: list[str]) -> Iterator[str]:
    """Cuts sentences into pieces that hibari reads in bounded time.

    Ordinary sentences pass unchanged. Sentences longer than ``MAX_TEXT`` characters are cut at
    clauses or spaces. Runs without a space longer than ``MAX_RUN`` are split, numbers with more than
    ``MAX_DIGITS`` digits are read digit by digit, and digits of other shapes become plain ones.
    Text inside ``[word](/phonemes/)`` is left alone.

    Args:
        sentences: Sentences, none of them blank.

    Yields:
        The pieces, lazily and in order.
    """
    for sentence in sentences:
        parted, at = [], 0
        for link in _LINK.finditer(sentence):
            parted += [_part(sentence[at : link.start()]), link.group()]
            at = link.end()
        yield from split("".join([*parted, _part(sentence[at:])]), MAX_TEXT)


def _part(text: str) -> str:
    if not text.isascii():
        text = "".join(map(_plain_digit, text))
    text = _NUMBER.sub(lambda number: " ".join(number.group().replace(",", "")), text)
    return _RUN.sub(_part_run, text)


def _plain_digit(sign: str) -> str:
    # hibari treats signs such as a circled one as part of a number, and then can't read it. Signs
    # that it has words for are kept.
    if sign.isdigit() and not sign.isdecimal() and sign not in "²³":
        return f" {unicodedata.digit(sign)} "
    return sign


def _part_run(run: re.Match[str]) -> str:
    left, parts = run.group(), []
    while len(left) > MAX_RUN:
        # The best place is after the last sign within reach, because a reader would pause there.
        at = next((i for i in range(MAX_RUN, MAX_RUN // 2, -1) if not left[i - 1].isalnum()), MAX_RUN)
        parts.append(left[:at])
        left = left[at:]
    return " ".join([*parts, left])


def split(text: str, limit: int) -> Iterator[str]:
    """Cuts text or phonemes into pieces within a limit.

    It cuts at the ends of clauses. A clause that is too long is cut at spaces, though not inside
    ``[word](/phonemes/)``. A word that is too long is cut anywhere.

    Args:
        text: What to cut.
        limit: The most characters in a piece, at least 1.

    Yields:
        The pieces, in order.
    """
    if len(text) <= limit:
        yield text
        return
    yield from _pack(_parts(_CLAUSE, text), limit, lambda clause: _split_words(clause, limit))


def _split_words(clause: str, limit: int) -> Iterator[str]:
    yield from _pack(
        _parts(_SPACE, clause),
        limit,
        lambda word: (word[at : at + limit] for at in range(0, len(word), limit)),
    )


def _parts(separator: re.Pattern[str], text: str) -> list[str]:
    """Splits text at a separator, but not inside ``[word](/phonemes/)``."""
    parts, at = [], 0
    links = [link.span() for link in _LINK.finditer(text)]
    for found in separator.finditer(text):
        while links and links[0][1] <= found.start():
            del links[0]
        if not links or found.end() <= links[0][0]:
            parts.append(text[at : found.start()])
            at = found.end()
    return [part for part in (*parts, text[at:]) if part]


def _pack(parts: list[str], limit: int, cut: Callable[[str], Iterator[str]]) -> Iterator[str]:
    """Joins neighbours with spaces up to the limit. A longer part is cut on its own."""
    packed = ""
    for part in parts:
        if packed and len(packed) + 1 + len(part) > limit:
            yield packed
            packed = ""
        if len(part) > limit:
            yield from cut(part)
        else:
            packed = f"{packed} {part}" if packed else part
    if packed:
        yield packed
