"""The same token ids as upstream's tokenizers, and no words that are not in the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatterbex.errors import ChatterbexError
from chatterbex.text import EnglishTokens, MultilingualTokens, TurboTokens, languages, most_tokens, tidy
from synthetic import texts

TEXTS = [
    "hello, world",
    "Hello world.",
    "  spaced   out\n\ttext  ",
    "An ellipsis… and more... and: this; that — those – these",
    "“Quotes” and ‘others’ don’t - or do they ,",
    "Ends with a comma,",
    "[laugh] That is funny! [clear throat]",
    "[whispering] There is someone[angry]here",
    "éàü ñ 你好 🎉 naïve",
    "ße",
    "a",
    "12.5 % of $3",
    "こんにちは、世界。",
    "你好！",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("model", "module"), [("turbo", "tts_turbo"), ("english", "tts"), ("multilingual", "mtl_tts")]
)
def test_punctuation_is_upstreams(published: Any, text: str, model: str, module: str) -> None:
    assert tidy(text, model) == published.module(module).punc_norm(text)


@pytest.mark.parametrize("model", ["nano", "turbo"])
def test_a_tag_is_one_token(model: str, folder: Callable[[str], Path]) -> None:
    tokens = TurboTokens(folder(model))
    for tag in (*texts.NOISES, *texts.STYLES):
        ids = tokens.ids(tidy(f"Well [{tag}] hello.", "turbo"))
        assert [id for id in ids if id >= 50_257] == tokens.ids(f"[{tag}]")
    assert tokens.size == 50_276


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_blank_text_is_refused_although_upstream_speaks_a_filler(published: Any, blank: str) -> None:
    said = published.module("tts_turbo").punc_norm("")
    assert said == "You need to add some text for me to talk."
    for model in ("turbo", "english", "multilingual"):
        with pytest.raises(ChatterbexError, match="blank") as caught:
            tidy(blank, model)
        assert caught.value.reason == "invalid_text"


def test_turbos_ids_are_transformers(published: Any, folder: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    ours = TurboTokens(folder("nano"))
    theirs = AutoTokenizer.from_pretrained(folder("nano"))
    assert ours.size == len(theirs) == 50_276
    for text in [*TEXTS, "the world in their hall[sigh]", "x" * 300, " lead", "tail "]:
        assert ours.ids(text) == theirs(text).input_ids, text
    long = "the world " * 700
    assert len(ours.ids(long)) > 1024 >= len(theirs(long, truncation=True).input_ids)


def test_english_ids_are_upstreams(published: Any, folder: Callable[[str], Path]) -> None:
    path = folder("english") / "tokenizer.json"
    theirs = published.module("models.tokenizers").EnTokenizer(str(path))
    ours = EnglishTokens(path)
    for text in TEXTS:
        assert ours.ids(text) == [255, *theirs.text_to_tokens(text)[0].tolist(), 0]


@pytest.fixture
def multilingual(
    published: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[MultilingualTokens, Any]:
    path = folder("multilingual_v3") / "grapheme_mtl_merged_expanded_v1.json"
    module = published.module("models.tokenizers.tokenizer")
    monkeypatch.setattr(module, "hf_hub_download", lambda **_: str(path.parent / "Cangjie5_TC.json"))
    monkeypatch.setattr(module.ChineseCangjieConverter, "_init_segmenter", lambda _: None)
    monkeypatch.setattr(languages, "_segmenter", lambda _: lambda text: text)
    languages._optional.cache_clear()
    yield MultilingualTokens(path), module.MTLTokenizer(str(path))
    languages._optional.cache_clear()


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("fr", "Déjà vu, à l'été."),
        ("de", "Größe Äpfel"),
        ("el", "Καλημέρα κόσμε."),
        ("hi", "नमस्ते दुनिया।"),
        ("ko", "안녕하세요 세계."),
        ("ja", "こんにちは、世界は東京へ。"),
        ("ja", "カタカナ がぎぐ"),
        ("zh", "你好世界，妤!"),
        ("ar", "مرحبا بالعالم"),
        ("he", "שלום עולם"),
        ("ru", "Привет, мир."),
        ("EN", "Hello there."),
    ],
)
def test_multilingual_ids_are_upstreams(
    multilingual: tuple[MultilingualTokens, Any], language: str, text: str
) -> None:
    if language == "ja" and "世" in text:
        pytest.importorskip("pykakasi", reason="pykakasi is not installed: upstream leaves kanji as they are")
    ours, theirs = multilingual
    expected = theirs.text_to_tokens(text, language_id=language.lower())[0].tolist()
    assert ours.ids(text, language) == [255, *expected, 0]


def test_an_unknown_language(folder: Callable[[str], Path]) -> None:
    ours = MultilingualTokens(folder("multilingual_v3") / "grapheme_mtl_merged_expanded_v1.json")
    with pytest.raises(ChatterbexError) as caught:
        ours.ids("saluton", "eo")
    assert caught.value.reason == "unknown_language"
    assert len(languages.LANGUAGES) == 23


def test_chinese_needs_its_table_and_nobody_else_does(own: Callable[[str], Path]) -> None:
    folder = own("multilingual_v3")
    (folder / "Cangjie5_TC.json").unlink()
    ours = MultilingualTokens(folder / "grapheme_mtl_merged_expanded_v1.json")
    assert ours.ids("bonjour", "fr")
    with pytest.raises(ChatterbexError) as caught:
        ours.ids("你好", "zh")
    assert caught.value.reason == "model_files_missing"
    assert "Cangjie5_TC.json" in caught.value.message


def test_kanji_without_their_package_are_refused(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    languages._kakasi.cache_clear()
    monkeypatch.setitem(sys.modules, "pykakasi", None)
    ours = MultilingualTokens(folder("multilingual_v3") / "grapheme_mtl_merged_expanded_v1.json")
    assert ours.ids("こんにちは", "ja")
    with pytest.raises(ChatterbexError, match="--languages ja"):
        ours.ids("世界", "ja")
    languages._kakasi.cache_clear()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [  # that a person takes to read it
        ("Hi.", 0.4),
        ("The quick brown fox jumps over the lazy dog near the river bank.", 3.8),
        ("It costs $1,234.56 on 31/12/2026.", 7.0),
        ("The USA and the EU met the WHO.", 3.2),
        ("Well [laugh] that is [clear throat] funny.", 5.0),
        ("[advertisement] The quick brown fox jumps over the lazy dog.", 4.0),
        ("こんにちは、世界は東京へ。", 2.8),
        ("你好世界，今天天气真不错。", 3.0),
        ("안녕하세요 세계.", 1.6),
        ("مرحبا بالعالم كيف حالك اليوم", 2.4),
        ("नमस्ते दुनिया, आप कैसे हैं?", 2.4),
    ],
)
def test_a_text_has_the_time_that_it_needs_and_not_much_more(text: str, seconds: float) -> None:
    most = most_tokens(text) / 25
    assert 2 * seconds < most < 3 + 5 * seconds
    assert most_tokens(text + text) - most_tokens(text) == pytest.approx(most_tokens(text) - 75)
