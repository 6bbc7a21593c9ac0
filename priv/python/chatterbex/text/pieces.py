"""GPT-2's byte pieces, for turbo and nano."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chatterbex.errors import ChatterbexError


class TurboTokens:
    """Turns text into token ids with the tokenizer files of turbo and nano."""

    def __init__(self, folder: Path) -> None:
        """Reads the files.

        Args:
            folder: has vocab.json, merges.txt, added_tokens.json and tokenizer_config.json.

        Raises:
            ChatterbexError: A file is damaged ("model_load_failed").
        """
        from tokenizers import AddedToken, Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel

        settings = _json(folder / "tokenizer_config.json")
        added = _json(folder / "added_tokens.json")
        try:
            model = BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        except Exception as error:
            raise damaged(folder / "vocab.json", error) from error
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space")))
        described = {token["content"]: token for token in settings.get("added_tokens_decoder", {}).values()}
        for word, id in sorted(added.items(), key=lambda item: item[1]):
            about = described.get(word, {})
            flags = {
                name: bool(about.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized")
            }
            token = AddedToken(word, **flags)
            (tokenizer.add_special_tokens if about.get("special") else tokenizer.add_tokens)([token])
            if tokenizer.token_to_id(word) != id:
                raise damaged(folder / "added_tokens.json", f"{word} should be {id}")
        self._tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size(with_added_tokens=True)

    def ids(self, text: str) -> list[int]:
        """The ids of the whole text; upstream silently cuts it at 1024."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if not isinstance(value, dict):
        raise damaged(path, "it is not an object")
    return value


def damaged(path: Path, problem: object) -> ChatterbexError:
    """The error for a tokenizer file that cannot be used."""
    return ChatterbexError(
        "model_load_failed",
        f"{path} cannot be read: it is damaged, or of another model ({problem}). "
        "Fetch it again with `mix chatterbex.models download`.",
        {"file": path.name, "path": str(path)},
    )
