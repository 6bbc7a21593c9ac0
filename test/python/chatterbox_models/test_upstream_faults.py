"""Faults of upstream's models, shown on its code, and the correct behaviour here. T3 has its own file."""

from __future__ import annotations

import importlib
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from running import TEXT, request, say
from shelf import give_back_memory

from chatterbex import voices
from chatterbex.errors import ChatterbexError
from chatterbex.s3gen import TOKEN, Decoding, Reference
from chatterbex.s3gen.signal import resample

Folder = Callable[[str], Path]
Pair = tuple[Any, Any]


@pytest.fixture
def nano_pair(nano: Any, folder: Folder, published: Any, shelf: Any) -> Pair:
    """Ours and upstream's."""
    return nano, shelf.take("upstream's nano", lambda: published.model(nano, folder("nano")))


@pytest.fixture
def english_pair(english: Any, folder: Folder, published: Any, shelf: Any) -> Pair:
    """Ours and upstream's."""
    return english, shelf.take("upstream's english", lambda: published.model(english, folder("english")))


@pytest.fixture
def person(recording: tuple[np.ndarray, int], tmp_path: Path) -> Callable[[float], tuple[str, voices.Audio]]:
    """A recording of the given seconds: its file, and the form that we use."""

    def person(seconds: float) -> tuple[str, voices.Audio]:
        samples, rate = recording
        samples = np.tile(samples, 3)[: round(seconds * rate)]
        path = tmp_path / f"{seconds}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        return str(path), voices.Audio(samples, rate)

    return person


def given(audio: voices.Audio) -> dict[str, Any]:
    return {"samples": audio.samples.tobytes(), "sample_rate": audio.sample_rate}


def test_without_guidance(english_pair: Pair) -> None:
    ours, theirs = english_pair
    with pytest.raises((RuntimeError, IndexError, AssertionError, ValueError)):
        theirs.generate(TEXT, cfg_weight=0.0)
    assert len(say(ours, request(cfg_weight=0.0, max_tokens=6)).samples())


def test_ids_that_are_not_speech_reach_upstreams_flow(
    english_pair: Pair, published: Any, voice: dict[str, Any], reference: Reference
) -> None:
    """The multilingual model passes on every token of T3 except start and stop."""
    ours, theirs = english_pair
    ids = torch.tensor([5, 6561, 9, 8000, 7, 6562])
    kept = published.module("models.s3tokenizer").drop_invalid_tokens(ids)
    assert kept.tolist() == [9, 8000, 7]
    with pytest.raises(IndexError):
        theirs.s3gen.inference(speech_tokens=kept, ref_dict=dict(voice))
    s3gen = ours._runtime.way.s3gen
    samples = Decoding(s3gen, reference, 1, steps=2).decode(kept.tolist(), final=True)
    assert samples.shape == (2 * TOKEN,)


def test_no_tokens_reach_upstreams_vocoder(
    english_pair: Pair, voice: dict[str, Any], reference: Reference
) -> None:
    ours, theirs = english_pair
    with pytest.raises((RuntimeError, IndexError)):
        theirs.s3gen.inference(speech_tokens=torch.zeros(0, dtype=torch.long), ref_dict=dict(voice))
    s3gen = ours._runtime.way.s3gen
    assert Decoding(s3gen, reference, 1).decode([], final=True).shape == (0,)


def test_a_prompt_that_is_too_short(nano_pair: Pair, person: Any) -> None:
    ours, theirs = nano_pair
    path, audio = person(4.0)
    with pytest.raises(AssertionError):
        theirs.generate(TEXT, audio_prompt_path=path)
    with pytest.raises(ChatterbexError) as caught:
        ours.admit(request(voice=given(audio)))
    assert caught.value.reason == "voice_too_short"
    assert "4.00 s" in caught.value.message


def test_prompts_stay_float32(nano_pair: Pair, person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = nano_pair
    _, audio = person(6.0)
    # With NumPy 2, normalising a prompt's loudness makes it float64, which no network accepts.
    loud = type(theirs).norm_loudness(theirs, audio.samples, audio.sample_rate)
    assert loud.dtype == np.float64
    with pytest.raises(RuntimeError, match="Double"):
        theirs.s3gen.tokenizer.forward([loud], max_len=375)
    with pytest.raises(ValueError, match="float64"):
        theirs.ve.embeds_from_wavs([loud], sample_rate=16_000)
    seen: list[np.dtype] = []
    plain = ours._voices.maker._analysis.reference

    def spied(*waves: np.ndarray) -> Reference:
        seen.extend(wave.dtype for wave in waves)
        return plain(*waves)

    monkeypatch.setattr(ours._voices.maker._analysis, "reference", spied)
    made = ours._voices.maker.make(voices.Audio(audio.samples.astype(np.float64), audio.sample_rate))
    assert made.gen.prompt_feat.dtype == torch.float32
    assert made.t3.speaker_emb.dtype == torch.float32
    assert set(seen) == {np.dtype(np.float32)}


def test_a_voice_keeps_no_graph_and_is_made_once(nano_pair: Pair, person: Any) -> None:
    ours, theirs = nano_pair
    path, audio = person(5.1)
    give_back_memory()
    # Upstream keeps gradients for all weights; a graph of all of them needs gigabytes.
    *_, weight = theirs.s3gen.speaker_encoder.parameters()
    weight.requires_grad_(True)
    try:
        with (
            mock.patch.object(theirs, "prepare_conditionals", wraps=theirs.prepare_conditionals) as prepared,
            mock.patch.object(theirs.t3, "inference_turbo", return_value=torch.tensor([5, 6, 7])),
            mock.patch.object(theirs.s3gen, "inference", return_value=(torch.zeros(1, 24_000), None)),
        ):
            for _ in range(2):
                theirs.generate(TEXT, audio_prompt_path=path)
                give_back_memory()
    finally:
        weight.requires_grad_(False)
    assert prepared.call_count == 2
    assert theirs.conds.gen["embedding"].grad_fn is not None

    with mock.patch.object(ours._voices.maker, "make", wraps=ours._voices.maker.make) as made:
        for _ in range(2):
            say(ours, request(voice=given(audio), max_tokens=2))
    assert made.call_count == 1
    voice = ours._voices.cache.get(audio.digest)
    for value in (*voice.gen.tensors.values(), *voice.t3.tensors.values()):
        assert value.grad_fn is None
        assert not value.requires_grad


def test_the_watermark_is_made_without_gradients(nano_pair: Pair, recording: tuple[np.ndarray, int]) -> None:
    ours, theirs = nano_pair
    samples = resample(recording[0], orig_sr=recording[1], target_sr=24_000)
    graphs: list[bool] = []

    def see(*_: Any) -> None:
        graphs.append(torch.is_grad_enabled())

    theirs.watermarker.perth_net.encoder.register_forward_hook(see)
    theirs.watermarker.apply_watermark(samples, sample_rate=24_000)
    hook = ours._watermarker._net.encoder.register_forward_hook(see)
    ours._watermarker.apply(samples, 24_000)
    hook.remove()
    assert graphs == [True, False]


def test_token_ids_do_not_go_through_half_precision(
    nano_pair: Pair, voice: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = nano_pair
    ids = voice["prompt_token"]
    seen: list[torch.Tensor] = []

    def stop(**values: Any) -> Any:
        seen.append(values["prompt_token"])
        raise InterruptedError

    monkeypatch.setattr(theirs.s3gen.flow, "inference", stop)
    with mock.patch.object(type(theirs.s3gen), "dtype", torch.float16), pytest.raises(InterruptedError):
        theirs.s3gen.flow_inference(torch.tensor([[1, 2]]), ref_dict=dict(voice), finalize=True)
    assert not torch.equal(seen[0].long(), ids)
    assert torch.equal(Reference.from_mapping(voice).prompt_token, ids)
    assert {value.dtype for value in ours._runtime.way.s3gen.network.parameters()} == {torch.float32}


def test_nothing_is_printed(nano_pair: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = nano_pair
    with mock.patch.object(theirs.t3, "inference_turbo", return_value=torch.tensor([5, 6, 7])):
        theirs.generate(TEXT)
    captured = capfd.readouterr()
    assert captured.out + captured.err
    say(ours, request(stream=True))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_language_fetches_nothing_that_it_does_not_need(
    folder: Folder, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatterbex.text import MultilingualTokens

    path = folder("multilingual_v3") / "grapheme_mtl_merged_expanded_v1.json"
    module = published.module("models.tokenizers.tokenizer")
    fetched: list[str] = []

    def fetch(*, filename: str, **_: Any) -> str:
        fetched.append(filename)
        raise OSError("there is no network")

    monkeypatch.setattr(module, "hf_hub_download", fetch)
    monkeypatch.setattr(importlib.import_module("huggingface_hub"), "hf_hub_download", fetch)
    module.MTLTokenizer(str(path)).text_to_tokens("bonjour", language_id="fr")
    assert fetched == ["Cangjie5_TC.json"]
    MultilingualTokens(path).ids("bonjour", "fr")
    assert fetched == ["Cangjie5_TC.json"]
