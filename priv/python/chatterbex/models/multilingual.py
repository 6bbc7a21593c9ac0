"""Multilingual Chatterbox in 23 languages, and the packs for single languages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chatterbex import checkpoint, voices
from chatterbex.errors import ChatterbexError
from chatterbex.models.chatterbox import ChatterboxModel
from chatterbex.models.speech import Traits
from chatterbex.t3 import T3Config
from chatterbex.text import MultilingualTokens, tidy

_VERSIONS: Final = ("v2", "v3")
_PACKS: Final = {"zh-cmn": "zh", "es-mx-latam": "es", "pt-br": "pt", "es-es": "es", "pt-pt": "pt", "hi": "hi"}


class MultilingualModel(ChatterboxModel):
    """Chatterbox Multilingual.

    Load it with "version" ("v3", the default, or "v2") or with "pack", the name of a language pack
    ("zh-cmn", "es-mx-latam", "pt-br", "es-es", "pt-pt" or "hi"). A request has "language", the code
    of its language. With a pack you can leave it out.
    """

    name = "multilingual"
    family = voices.ORIGINAL
    t3_name = "t3_mtl23ls_v3.safetensors"
    t3_config = T3Config.multilingual
    s3gen_file = "s3gen.pt"
    encoder_file = "ve.pt"
    # The last token pays little attention to the text, and sounds like 40 ms of noise.
    traits = Traits(dropped=1)
    generation_options = frozenset(
        {"temperature", "repetition_penalty", "top_p", "min_p", "cfg_weight", "exaggeration"}
    )

    @classmethod
    def strict(cls, extra: Mapping[str, Any]) -> bool:
        """The S3Gen of a language pack may have unknown weights; its T3 may not."""
        return _pack(extra) is None

    @classmethod
    def files(cls, folder: Path, extra: Mapping[str, Any]) -> tuple[str, ...]:
        """The required files. A language pack's T3 may have any name that begins with t3."""
        return checkpoint.needed_files(
            f"multilingual-{_version(extra)}", t3=cls.t3_file(folder, extra), s3gen=cls.s3gen(extra).name
        )

    @classmethod
    def t3_file(cls, folder: Path, extra: Mapping[str, Any]) -> str:
        """The file of T3, or the path of a fine-tune."""
        if extra.get("t3"):
            return extra["t3"]
        name = f"t3_mtl23ls_{_version(extra)}.safetensors"
        if _pack(extra) is None or (folder / name).exists():
            return name
        try:
            found = sorted(path.name for path in folder.glob("t3*.safetensors"))
        except OSError:
            found = []
        return found[0] if len(found) == 1 else name

    @staticmethod
    def tokenizer(folder: Path) -> MultilingualTokens:
        """The tokenizer."""
        return MultilingualTokens(folder / "grapheme_mtl_merged_expanded_v1.json")

    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Converts text in the request's language to text tokens."""
        language = options.get("language") or _PACKS.get(_pack(self._extra) or "")
        if not isinstance(language, str):
            raise ChatterbexError(
                "unknown_language", 'the multilingual model needs a language, such as language: "fr"'
            )
        return self._text.ids(tidy(text, "multilingual"), language)


def _version(extra: Mapping[str, Any]) -> str:
    version = extra.get("version") or "v3"
    if version not in _VERSIONS:
        raise ChatterbexError("invalid_option", f"version must be v2 or v3, not {version!r}")
    return version


def _pack(extra: Mapping[str, Any]) -> str | None:
    pack = extra.get("pack")
    if pack is not None and pack not in _PACKS:
        raise ChatterbexError("invalid_option", f"pack must be one of {', '.join(_PACKS)}, not {pack!r}")
    return pack
