"""Fine-tunes: the user's own T3 with the model's other files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from running import load, request, say
from safetensors.torch import load_file, save_file

from chatterbex.errors import ChatterbexError
from chatterbex.models.english import EnglishModel
from chatterbex.models.multilingual import MultilingualModel
from chatterbex.models.turbo import NanoModel, TurboModel
from synthetic import t3 as synthetic

Folder = Callable[[str], Path]


@contextmanager
def loaded(model: Any, folder: Path, **options: Any) -> Iterator[Any]:
    made = load(model, folder, **options)
    try:
        yield made
    finally:
        made.close()


def tuned(path: Path, name: str, seed: int = 9, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Writes a T3 with other weights, and returns them."""
    state = synthetic.state_dict(synthetic.small(name), seed)
    state = {key: value.to(dtype) for key, value in state.items()}
    save_file(state, path)
    return state


def refused(model: Any, folder: Path, t3: Path) -> ChatterbexError:
    with pytest.raises(ChatterbexError) as caught:
        load(model, folder, t3=str(t3))
    return caught.value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("model", "name", "options"),
    [
        (NanoModel, "nano", {}),
        (TurboModel, "turbo", {}),
        (EnglishModel, "english", {}),
        (MultilingualModel, "multilingual_v3", {"language": "de"}),
    ],
)
def test_a_file_stands_in_for_the_models_t3(
    model: Any, name: str, options: dict[str, str], dtype: torch.dtype, own: Folder, tmp_path: Path
) -> None:
    folder, path = own(name), tmp_path / "tuned.safetensors"
    state = tuned(path, name, dtype=dtype)
    (folder / synthetic.FILES[name]).unlink()  # it is not needed
    with loaded(model, folder, t3=str(path)) as it:
        first = say(it, request(max_tokens=4, **options)).samples()
    # The same file, loaded as the model's own, speaks the same.
    save_file({key: value.float() for key, value in state.items()}, folder / synthetic.FILES[name])
    with loaded(model, folder) as it:
        assert (say(it, request(max_tokens=4, **options)).samples() == first).all()


def grown(folder: Path, words: int) -> None:
    """Gives an English tokenizer more words."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first = 1 + max(*vocabulary.values(), *(added["id"] for added in tokenizer["added_tokens"]))
    vocabulary.update({f"<word {id}>": id for id in range(first, first + words)})
    path.unlink()
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def grow(path: Path, words: int) -> None:
    """Gives a T3 more text tokens."""
    state = load_file(path)
    for name in ("text_emb.weight", "text_head.weight"):
        state[name] = torch.cat([state[name], torch.randn(words, state[name].shape[1])])
    save_file(state, path)


def test_a_fine_tune_may_have_more_tokens(own: Folder, tmp_path: Path, caplog: Any) -> None:
    folder, path = own("english"), tmp_path / "tuned.safetensors"
    tuned(path, "english")
    grow(path, 16)
    grown(folder, 16)
    with loaded(EnglishModel, folder, t3=str(path)) as it:
        assert len(say(it, request(max_tokens=4)).samples())
    assert "the fine-tuned T3 knows" not in caplog.text


def test_a_tokenizer_with_more_words_than_t3_knows(own: Folder, tmp_path: Path) -> None:
    folder, path = own("english"), tmp_path / "tuned.safetensors"
    tuned(path, "english")
    grown(folder, 16)
    error = refused(EnglishModel, folder, path)
    assert error.reason == "model_load_failed"
    assert "The tokenizer has 720 tokens, and the fine-tuned T3 knows 704." in error.message
    assert error.details == {"tokenizer": 720, "t3": 704}


def test_a_tokenizer_with_fewer_tokens_is_reported(own: Folder, tmp_path: Path, caplog: Any) -> None:
    folder, path = own("english"), tmp_path / "tuned.safetensors"
    tuned(path, "english")
    grow(path, 16)
    with loaded(EnglishModel, folder, t3=str(path)):
        assert "The tokenizer has 704 tokens, and the fine-tuned T3 knows 720." in caplog.text


@pytest.mark.parametrize(
    ("model", "name", "other", "said"),
    [
        (
            EnglishModel,
            "english",
            "nano",
            "holds the T3 of turbo or nano, and this model needs one of english",
        ),
        (
            NanoModel,
            "nano",
            "english",
            "holds the T3 of english or multilingual, and this model needs one of",
        ),
        (MultilingualModel, "multilingual_v3", "english", "2454 tokens, and the fine-tuned T3 knows 704"),
    ],
)
def test_the_t3_of_another_model_is_refused(
    model: Any, name: str, other: str, said: str, folder: Folder, tmp_path: Path
) -> None:
    path = tmp_path / "tuned.safetensors"
    tuned(path, other)
    error = refused(model, folder(name), path)
    assert error.reason == "model_load_failed"
    assert said in error.message
    assert "model that it was made from" in error.message


def test_a_file_that_is_not_a_t3_is_refused(folder: Folder, tmp_path: Path) -> None:
    nano, path = folder("nano"), tmp_path / "tuned.safetensors"
    error = refused(NanoModel, nano, path)
    assert (error.reason, error.details["files"]) == ("model_files_missing", [str(path)])
    path.write_bytes((nano / "t3_nano_v1.safetensors").read_bytes()[:5000])
    error = refused(NanoModel, nano, path)
    assert error.reason == "model_load_failed"
    assert f"{path} cannot be read: it is damaged, cut short" in error.message
    error = refused(NanoModel, nano, nano / "ve.safetensors")
    assert error.reason == "model_load_failed"
    assert "ve.safetensors" in error.message
    assert "speech_emb.weight" in error.message
    # As trainers store them: only an adapter, and the names of a wrapping module.
    state = tuned(path, "nano")
    for wrong in (
        {"lora_A.weight": torch.ones(2, 2)},
        {f"t3.{name}": value for name, value in state.items()},
    ):
        save_file(wrong, path)
        error = refused(NanoModel, nano, path)
        assert error.reason == "model_load_failed"
        assert next(iter(sorted(wrong))) in error.message
