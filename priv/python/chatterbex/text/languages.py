"""Prepares the text of some languages before it is cut into graphemes."""

from __future__ import annotations

import importlib
import json
import logging
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from chatterbex.errors import ChatterbexError

LANGUAGES: Final = (
    "ar",
    "da",
    "de",
    "el",
    "en",
    "es",
    "fi",
    "fr",
    "he",
    "hi",
    "it",
    "ja",
    "ko",
    "ms",
    "nl",
    "no",
    "pl",
    "pt",
    "ru",
    "sv",
    "sw",
    "tr",
    "zh",
)
"""Codes of the languages that the multilingual models speak."""

_logger = logging.getLogger("chatterbex.text")


def prepared(text: str, language: str, folder: Path) -> str:
    """Converts text to the form that the multilingual models were trained on.

    Args:
        text: lower case, decomposed (NFKD).
        language: a code of ``LANGUAGES``.
        folder: the model's folder, with ``Cangjie5_TC.json`` for Chinese.

    Raises:
        ChatterbexError: A file or package for the language is missing.
    """
    match language:
        case "zh":
            return _chinese(text, folder)
        case "ja":
            return _japanese(text)
        case "ko":
            return _korean(text)
        case "he":
            return _optional("dicta_onnx", language, _hebrew)(text)
        case "ru":
            return _optional("russian_text_stresser.text_stresser", language, _russian)(text)
        case _:
            return text


# -- Chinese: every character by its Cangjie code -------------------------------------------------


def _chinese(text: str, folder: Path) -> str:
    codes = _cangjie(folder / "Cangjie5_TC.json")
    words = _optional("spacy_pkuseg", "zh", _segmenter)(text)
    out = []
    for letter in words:
        code = codes.get(letter) if unicodedata.category(letter) == "Lo" else None
        out.append(letter if code is None else "".join(f"[cj_{part}]" for part in f"{code}."))
    return "".join(out)


@lru_cache(maxsize=4)
def _cangjie(path: Path) -> dict[str, str]:
    """Maps characters to codes. If several share a code, all but the first have a number after it."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        pairs = [entry.split("\t")[:2] for entry in entries]
    except FileNotFoundError as error:
        raise ChatterbexError(
            "model_files_missing",
            f"{path} is missing; Chinese cannot be read without it. "
            "Fetch it with `mix chatterbex.models download multilingual`.",
            {"file": path.name, "path": str(path)},
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ChatterbexError(
            "model_load_failed",
            f"{path} cannot be read: it is damaged ({error}). "
            "Fetch it again with `mix chatterbex.models download multilingual`.",
            {"file": path.name, "path": str(path)},
        ) from error
    codes: dict[str, str] = {}
    last: dict[str, str] = {}
    order: dict[str, list[str]] = {}
    for letter, code in pairs:
        last[letter] = code
        order.setdefault(code, []).append(letter)
    for letter, code in last.items():
        at = order[code].index(letter)
        codes[letter] = f"{code}{at}" if at else code
    return codes


def _segmenter(package: Any) -> Callable[[str], str]:
    cut = package.pkuseg().cut
    return lambda text: " ".join(cut(text))


# -- Japanese: kanji by their readings ------------------------------------------------------------


def _japanese(text: str) -> str:
    if not any(_is_kanji(letter) for letter in text):
        return unicodedata.normalize("NFKD", text)
    out = []
    for part in _kakasi().convert(text):
        written, read = part["orig"], part["hira"]
        if not any(_is_kanji(letter) for letter in written):
            out.append(written)
        else:
            # Otherwise these two would be read as particles of the word before.
            out.append(f" {read}" if read.startswith(("は", "へ")) else read)
    return unicodedata.normalize("NFKD", "".join(out))


@lru_cache(maxsize=1)
def _kakasi() -> Any:
    try:
        import pykakasi
    except ImportError as error:
        raise ChatterbexError(
            "not_set_up",
            "Japanese text with kanji needs the Python package pykakasi. "
            "Run `mix chatterbex.setup --languages ja`, or write the text in kana.",
            {"package": "pykakasi"},
        ) from error
    return pykakasi.kakasi()


def _is_kanji(letter: str) -> bool:
    return "\u4e00" <= letter <= "\u9fff"


# -- Korean: syllables by their letters -----------------------------------------------------------


def _korean(text: str) -> str:
    """NFKD has already split the syllables; only trimming is left."""
    return text.strip()


# -- packages that make it better -----------------------------------------------------------------


def _hebrew(package: Any) -> Callable[[str], str]:
    return package.Dicta().add_diacritics


def _russian(package: Any) -> Callable[[str], str]:
    return package.RussianTextStresser().stress_text


@lru_cache(maxsize=8)
def _optional(
    package: str, language: str, make: Callable[[Any], Callable[[str], str]]
) -> Callable[[str], str]:
    """A package's function on text. If it is missing or fails, leaves the text alone and warns once."""
    name = package.partition(".")[0]
    try:
        work = make(importlib.import_module(package))
    except ImportError:
        _logger.info("%s is read without the Python package %s, which would make it better", language, name)
        return lambda text: text
    except Exception as error:
        _logger.warning("%s is read without %s, which does not work: %s", language, name, error)
        return lambda text: text

    def safely(text: str) -> str:
        try:
            return work(text)
        except Exception as error:
            _logger.warning("%s failed and was left out: %s", name, error)
            return text

    return safely
