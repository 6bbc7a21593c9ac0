"""The grapheme tokenizers of the English and the multilingual model."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from chatterbex.errors import ChatterbexError
from chatterbex.text import languages
from chatterbex.text.pieces import damaged

_START, _STOP, _SPACE = "[START]", "[STOP]", "[SPACE]"


class EnglishTokens:
    """Turns text into token ids with ``tokenizer.json``, between start and stop tokens."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            ChatterbexError: It is damaged, or no tokenizer of these models ("model_load_failed").
        """
        self._tokenizer, self._start, self._stop = _read(path)
        self.size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def ids(self, text: str) -> list[int]:
        """The ids of some text."""
        ids = self._tokenizer.encode(text.replace(" ", _SPACE)).ids
        return [self._start, *ids, self._stop]


class MultilingualTokens:
    """Turns text into token ids with ``grapheme_mtl_merged_expanded_v1.json``, after language-specific steps.

    The data for a language (Cangjie codes, readings of kanji) is loaded when it is first spoken.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file. The data for languages is in the same folder.

        Raises:
            ChatterbexError: It is damaged, or no tokenizer of these models ("model_load_failed").
        """
        self._tokenizer, self._start, self._stop = _read(path)
        self.size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._folder = path.parent

    def ids(self, text: str, language: str) -> list[int]:
        """The ids of some text.

        Args:
            text: what to say.
            language: its code, such as "en".

        Raises:
            ChatterbexError: The model does not speak the language ("unknown_language"), or the
                language's data is missing ("not_set_up", "model_files_missing").
        """
        code = language.lower()
        if code not in languages.LANGUAGES:
            raise ChatterbexError(
                "unknown_language",
                f"the model does not speak {language!r}; it speaks {', '.join(languages.LANGUAGES)}",
                {"language": language},
            )
        text = unicodedata.normalize("NFKD", text.lower())
        text = languages.prepared(text, code, self._folder)
        ids = self._tokenizer.encode(f"[{code}]{text}".replace(" ", _SPACE)).ids
        return [self._start, *ids, self._stop]


def _read(path: Path) -> tuple[Any, int, int]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise damaged(path, error) from error
    start, stop = tokenizer.token_to_id(_START), tokenizer.token_to_id(_STOP)
    if start is None or stop is None:
        raise damaged(path, f"it has no {_START} or no {_STOP}")
    return tokenizer, start, stop
