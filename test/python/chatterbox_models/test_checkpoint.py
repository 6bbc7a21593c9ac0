"""Files that are missing, damaged or hostile, and modules that are filled from them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from chatterbex import checkpoint
from chatterbex.errors import ChatterbexError
from chatterbex.models.conversion import ConversionModel
from chatterbex.models.english import EnglishModel
from chatterbex.models.multilingual import MultilingualModel
from chatterbex.models.turbo import NanoModel, TurboModel

RAN: list[str] = []


class Evil:
    def __reduce__(self) -> Any:
        return (RAN.append, ("the pickle ran",))


def load(folder: Path, model: Any = NanoModel, **options: Any) -> Any:
    loading = model.load({"checkpoint": str(folder), "device": "cpu", "max_batch": 1, **options})
    while True:
        try:
            next(loading)
        except StopIteration as stop:
            return stop.value


def replaced(path: Path, write: Callable[[Path], None]) -> None:
    path.unlink()
    write(path)


def cut(path: Path) -> None:
    data = path.read_bytes()
    replaced(path, lambda fresh: fresh.write_bytes(data[: len(data) // 2]))


def altered(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = checkpoint.read_safetensors(path)
    weights = {name: value.clone() for name, value in weights.items()}
    change(weights)
    replaced(path, lambda fresh: save_file(weights, fresh))


def poison(weights: dict[str, torch.Tensor]) -> None:
    weights["proj.weight"][3, 4] = float("nan")


def spoil_voice(path: Path, part: str, name: str) -> None:
    voice = torch.load(path, weights_only=True)
    voice[part][name].view(-1)[7] = nan
    replaced(path, lambda fresh: torch.save(voice, fresh))


def endless(weights: dict[str, torch.Tensor]) -> None:
    weights["proj.bias"][0] = float("inf")


HOSTILE: dict[str, tuple[str, str, Callable[[Path], None], str]] = {
    "missing": ("ve.safetensors", "model_files_missing", lambda path: path.unlink(), "missing"),
    "empty": ("ve.safetensors", "model_files_missing", lambda path: replaced(path, Path.touch), "empty"),
    "a folder": ("conds.pt", "model_files_missing", lambda path: replaced(path, Path.mkdir), "folder"),
    "a link to itself": (
        "conds.pt",
        "model_files_missing",
        lambda path: replaced(path, lambda fresh: fresh.symlink_to(fresh.name)),
        "leads to itself",
    ),
    "a link to nothing": (
        "conds.pt",
        "model_files_missing",
        lambda path: replaced(path, lambda fresh: fresh.symlink_to("nowhere")),
        "leads nowhere",
    ),
    "cut safetensors": ("ve.safetensors", "model_load_failed", cut, "cut short"),
    "cut pickle": ("conds.pt", "model_load_failed", cut, "cut short"),
    "no pickle": (
        "conds.pt",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: fresh.write_bytes(b"hello " * 99)),
        "conds.pt",
    ),
    "a web page": (
        "ve.safetensors",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: fresh.write_text("<html>404</html>" * 9)),
        "ve.safetensors",
    ),
    "a pickle that runs code": (
        "conds.pt",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: torch.save({"t3": Evil()}, fresh)),
        "refused",
    ),
    "a bare pickle that runs code": (
        "conds.pt",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: fresh.write_bytes(pickle.dumps(Evil()))),
        "refused",
    ),
    "no voice": (
        "conds.pt",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: torch.save({"t3": {}}, fresh)),
        "'gen'",
    ),
    "a voice of other sizes": (
        "conds.pt",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: torch.save({"t3": {}, "gen": {}}, fresh)),
        "speaker_emb",
    ),
    "NaN": ("ve.safetensors", "model_load_failed", lambda path: altered(path, poison), "proj.weight"),
    "infinity": ("ve.safetensors", "model_load_failed", lambda path: altered(path, endless), "proj.bias"),
    "a weight too few": (
        "ve.safetensors",
        "model_load_failed",
        lambda path: altered(path, lambda weights: weights.pop("proj.bias")),
        "missing: proj.bias",
    ),
    "a weight too many": (
        "ve.safetensors",
        "model_load_failed",
        lambda path: altered(path, lambda weights: weights.update(extra=torch.ones(2))),
        "unexpected: extra",
    ),
    "another shape": (
        "ve.safetensors",
        "model_load_failed",
        lambda path: altered(path, lambda weights: weights.update({"proj.bias": torch.ones(7)})),
        "proj.bias [7] instead of [256]",
    ),
    "whole numbers": (
        "ve.safetensors",
        "model_load_failed",
        lambda path: altered(
            path, lambda weights: weights.update({"proj.bias": torch.ones(256, dtype=torch.int64)})
        ),
        "proj.bias int64 instead of float32",
    ),
    "NaN in the vocoder": (
        "s3gen_meanflow.safetensors",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: save_file({"mel2wav.x": torch.tensor([nan])}, fresh)),
        "mel2wav.x",
    ),
    "a vocoder of eight bits": (
        "s3gen_meanflow.safetensors",
        "model_load_failed",
        lambda path: replaced(
            path, lambda fresh: save_file({"flow.x": torch.ones(2).to(torch.float8_e4m3fn)}, fresh)
        ),
        "flow.x (float8_e4m3fn)",
    ),
    "a vocoder that is another's": (
        "s3gen_meanflow.safetensors",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: save_file({"flow.x": torch.ones(2)}, fresh)),
        "unexpected: flow.x",
    ),
    "NaN in T3": (
        "t3_nano_v1.safetensors",
        "model_load_failed",
        lambda path: altered(path, lambda weights: weights["tfmr.ln_f.bias"].fill_(nan)),
        "tfmr.ln_f.bias: holds NaN",
    ),
    "whole numbers in T3": (
        "t3_nano_v1.safetensors",
        "model_load_failed",
        lambda path: altered(
            path, lambda weights: weights.update({"tfmr.ln_f.bias": weights["tfmr.ln_f.bias"].long()})
        ),
        "tfmr.ln_f.bias: torch.int64 instead of float32",
    ),
    "NaN in a voice": (
        "conds.pt",
        "model_load_failed",
        lambda path: spoil_voice(path, "gen", "prompt_feat"),
        "not finite",
    ),
    "NaN in a speaker": (
        "conds.pt",
        "model_load_failed",
        lambda path: spoil_voice(path, "t3", "speaker_emb"),
        "not finite",
    ),
    "T3 cut": ("t3_nano_v1.safetensors", "model_load_failed", cut, "t3_nano_v1.safetensors"),
    "a tokenizer that is none": (
        "vocab.json",
        "model_load_failed",
        lambda path: replaced(path, lambda fresh: fresh.write_text("[1, 2]")),
        "vocab.json",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_cannot_be_used_is_named(own: Callable[[str], Path], case: str) -> None:
    name, reason, damage, said = HOSTILE[case]
    folder = own("nano")
    before = torch.load
    damage(folder / name)
    with pytest.raises(ChatterbexError) as caught:
        load(folder)
    assert caught.value.reason == reason, caught.value.message
    assert name in caught.value.message
    assert said in caught.value.message
    assert "mix chatterbex.models" in caught.value.message or "conds.pt" in caught.value.message
    assert torch.load is before
    assert RAN == []


def test_the_files_of_the_multilingual_model_are_pickles_and_run_nothing(own: Callable[[str], Path]) -> None:
    from chatterbex.models.multilingual import MultilingualModel

    folder = own("multilingual_v3")
    for name in ("s3gen.pt", "ve.pt"):
        replaced(folder / name, lambda fresh: torch.save({"model": [Evil()]}, fresh))
        with pytest.raises(ChatterbexError, match=rf"{name} was refused"):
            load(folder, MultilingualModel)
        if name == "s3gen.pt":
            folder = own("multilingual_v3")
    assert RAN == []


def test_a_folder_without_permission(own: Callable[[str], Path]) -> None:
    folder = own("nano")
    folder.chmod(0)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("root may read everything")
        with pytest.raises(ChatterbexError) as caught:
            load(folder)
    finally:
        folder.chmod(0o755)
    assert caught.value.reason == "model_files_missing"


def test_a_file_without_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.safetensors").write_bytes(b"x")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ChatterbexError, match="no permission to read it"):
        checkpoint.check_files(tmp_path, ["a.safetensors"])


def test_all_missing_files_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ChatterbexError) as caught:
        checkpoint.check_files(tmp_path, checkpoint.REQUIRED_FILES["nano"])
    assert caught.value.details["files"] == list(checkpoint.REQUIRED_FILES["nano"])
    with pytest.raises(ChatterbexError, match="does not exist"):
        checkpoint.check_files(tmp_path / "nowhere", ["a"])
    with pytest.raises(ChatterbexError, match="checkpoint:"):
        load(Path())  # an empty name is no folder


def test_torch_load_is_patched_only_while_a_checkpoint_loads(tmp_path: Path) -> None:
    before, path = torch.load, tmp_path / "a.pt"
    torch.save({"a": torch.ones(2)}, path)
    with checkpoint.safe_torch_load():
        assert torch.load is not before
        with checkpoint.safe_torch_load():
            assert torch.load(path, weights_only=False, map_location="meta")["a"].device.type == "cpu"
        assert torch.load is not before
        torch.save(Evil(), path)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=False)
    assert torch.load is before
    with pytest.raises(ZeroDivisionError), checkpoint.safe_torch_load():
        raise ZeroDivisionError
    assert torch.load is before
    assert RAN == []


def test_a_file_saved_on_a_cuda_machine_loads_on_one_without(tmp_path: Path) -> None:
    path = tmp_path / "ve.pt"
    torch.save({"a": torch.arange(3.0)}, path)
    # A checkpoint from a CUDA machine differs only in the location's name.
    import zipfile

    moved = tmp_path / "cuda.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(moved, "w", zipfile.ZIP_STORED) as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
                assert b"cuda:0" in data
            target.writestr(item.filename.replace("ve/", "cuda/"), data)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(moved, weights_only=True)
    assert checkpoint.read_weights(moved)["a"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.ones(3, dtype=dtype), "n": torch.tensor(4)}, tmp_path / "a.safetensors")
    weights = checkpoint.read_weights(tmp_path / "a.safetensors")
    assert weights["a"].dtype == torch.float32
    assert weights["n"].dtype == torch.int64


def test_a_blank_module_draws_no_numbers_and_needs_no_memory() -> None:
    state = torch.get_rng_state()
    made = checkpoint.blank(lambda: torch.nn.LSTM(400, 400, num_layers=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(value.is_meta for value in made.parameters())
    assert checkpoint.left_blank(made)
    weights = torch.nn.LSTM(400, 400, num_layers=3).state_dict()
    filled = checkpoint.fill(made, weights, Path("a.pt"))
    assert not checkpoint.left_blank(filled)
    assert filled.weight_ih_l0.data_ptr() == weights["weight_ih_l0"].data_ptr()
    assert not any(value.requires_grad for value in filled.parameters())


@pytest.mark.parametrize(
    ("key", "model", "extra"),
    [
        ("english", EnglishModel, {}),
        ("conversion", ConversionModel, {}),
        ("turbo", TurboModel, {}),
        ("nano", NanoModel, {}),
        ("multilingual-v2", MultilingualModel, {"version": "v2"}),
        ("multilingual-v3", MultilingualModel, {"version": "v3"}),
        *[
            (f"multilingual-{pack}", MultilingualModel, {"pack": pack})
            for pack in ("zh-cmn", "es-mx-latam", "pt-br", "es-es", "pt-pt", "hi")
        ],
    ],
)
def test_downloads_are_what_a_model_loads(
    key: str, model: Any, extra: dict[str, str], tmp_path: Path
) -> None:
    for name in checkpoint.REQUIRED_FILES[key]:
        (tmp_path / name).touch()
    loaded = {model.s3gen_file, "conds.pt", *model.files(tmp_path, extra)}
    if model.t3_name:
        loaded |= {model.t3_file(tmp_path, extra), model.encoder_file}
    assert loaded == set(checkpoint.REQUIRED_FILES[key])
