"""Small tokenizers in the formats, with the special tokens and the counts, of the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOISES = ("clear throat", "sigh", "shush", "cough", "groan", "sniff", "gasp", "chuckle", "laugh")
STYLES = ("whispering", "angry", "fear", "surprised", "crying", "happy", "sarcastic", "dramatic")
STYLES = (*STYLES, "narration", "advertisement")
LANGUAGES = [
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
]

_GPT2_WORDS = 50_257
_MERGES = (
    "t h",
    "Ġ t",
    "Ġ a",
    "h e",
    "i n",
    "Ġt he",
    "r e",
    "o n",
    "e r",
    "l l",
    "Ġ w",
    "o r",
    "l d",
    "Ġw or",
)


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in GPT-2's vocabulary, in the order of the bytes."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters.update({byte: chr(256 + at) for at, byte in enumerate(others)})
    return [letters[byte] for byte in range(256)]


def write_turbo(folder: Path) -> None:
    """Writes the five tokenizer files of turbo and nano."""
    words = [*byte_letters(), *("".join(merge.split()) for merge in _MERGES)]
    words += [f"<filler {at}>" for at in range(_GPT2_WORDS - 1 - len(words))]
    words.append("<|endoftext|>")
    added = {f"[{tag}]": id for id, tag in enumerate((*NOISES, *STYLES), _GPT2_WORDS)}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {str(_GPT2_WORDS - 1): {"content": "<|endoftext|>", **plain, "special": True}}
    decoder.update({str(id): {"content": word, **plain, "special": False} for word, id in added.items()})
    _write(folder / "vocab.json", {word: id for id, word in enumerate(words)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *_MERGES, ""]), encoding="utf-8")
    _write(folder / "added_tokens.json", added)
    end = "<|endoftext|>"
    _write(folder / "special_tokens_map.json", {"bos_token": end, "eos_token": end, "unk_token": end})
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": decoder,
            "bos_token": end,
            "clean_up_tokenization_spaces": True,
            "eos_token": end,
            "errors": "replace",
            "model_max_length": 1024,
            "pad_token": None,
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": end,
        },
    )


def write_english(path: Path) -> None:
    """Writes a ``tokenizer.json`` of 704 words."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-()$%&*/"
    _grapheme(path, 704, list(letters), [])


def write_multilingual(path: Path) -> None:
    """Writes a ``grapheme_mtl_merged_expanded_v1.json`` of 2454 words."""
    ranges = ((0x61, 0x7B), (0x30, 0x3A), (0xDF, 0x100), (0x300, 0x340), (0x3B1, 0x3CA), (0x430, 0x460))
    ranges += ((0x5D0, 0x5EB), (0x621, 0x64B), (0x901, 0x970), (0x3041, 0x3097), (0x30A1, 0x30FB))
    ranges += ((0x1100, 0x1200), (0x3099, 0x309B))
    letters = [chr(code) for first, last in ranges for code in range(first, last)]
    tags = [f"[{language}]" for language in LANGUAGES]
    tags += [f"[cj_{letter}]" for letter in "abcdefghijklmnopqrstuvwxyz0123456789."]
    _grapheme(path, 2454, [*".,!?'\"-()、，。？！¿¡", *letters], tags)


def write_cangjie(path: Path) -> None:
    """Writes a ``Cangjie5_TC.json`` of a few characters, two of which share a code."""
    _write(path, ["你\tonf", "好\tvnd", "世\tpt", "界\twoll", "妤\tvnd"])


def _grapheme(path: Path, size: int, letters: list[str], tags: list[str]) -> None:
    special = {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2, "[START]": 255}
    vocabulary = dict(special)
    waiting = [*dict.fromkeys([*letters, "th", "he", "in", "er"]), *tags]
    waiting += [f"<filler {at}>" for at in range(size)]
    free = (id for id in range(size) if id not in special.values())
    vocabulary.update({word: id for id, word in zip(free, waiting, strict=False)})
    added = [
        {
            "id": vocabulary[word],
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for word in [*special, *tags]
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "[UNK]",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "vocab": vocabulary,
        "merges": ["t h", "h e", "i n", "e r"],
    }
    _write(
        path,
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": sorted(added, key=lambda token: token["id"]),
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": model,
        },
    )


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
