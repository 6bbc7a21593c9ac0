"""Whole models on synthetic checkpoints: upstream's sound, streams, batches, voices and failures."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from running import TEXT, Heard, load, request, say, step

from chatterbex import registry, voices
from chatterbex.errors import ChatterbexError
from chatterbex.models.english import EnglishModel
from chatterbex.models.multilingual import MultilingualModel
from chatterbex.models.turbo import NanoModel
from chatterbex.s3gen import TOKEN
from chatterbex.watermark import watermarker

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def nano(folder: Folder) -> Iterator[Any]:
    model = load(NanoModel, folder("nano"))
    yield model
    model.close()


@pytest.fixture(scope="module")
def english(folder: Folder) -> Iterator[Any]:
    model = load(EnglishModel, folder("english"))
    yield model
    model.close()


@pytest.fixture
def long_recording(recording: tuple[np.ndarray, int]) -> voices.Audio:
    samples, rate = recording
    return voices.Audio(np.concatenate([samples, 0.4 * samples[::-1]]).astype(np.float32), rate)


def spoken_for(audio: voices.Audio) -> dict[str, Any]:
    return {"samples": audio.samples.tobytes(), "sample_rate": audio.sample_rate}


# -- as upstream ------------------------------------------------------------------------------------


def upstreams(published: Any, model: Any, folder: Path) -> Any:
    """Upstream's own model of the same files; its T3 is built in the size of ours."""
    from published_t3 import Upstream
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    t3 = model._runtime.components["t3"]
    state = load_file(folder / model.t3_file(folder, {}))
    body = Upstream().build(t3.config, state)
    if hasattr(body.tfmr, "wte"):
        del body.tfmr.wte
    network = published.s3gen(folder / model.s3gen_file, meanflow=model.meanflow)
    encoder = published.module("models.voice_encoder").VoiceEncoder()
    encoder.load_state_dict(load_file(folder / "ve.safetensors"))
    if model.meanflow:
        module, words = published.module("tts_turbo"), AutoTokenizer.from_pretrained(folder)
        words.pad_token = words.eos_token
        kind = module.ChatterboxTurboTTS
    else:
        module = published.module("tts")
        words = published.module("models.tokenizers").EnTokenizer(str(folder / "tokenizer.json"))
        kind = module.ChatterboxTTS
    conditionals = module.Conditionals.load(folder / "conds.pt")
    return kind(body, network, encoder.eval(), words, "cpu", conditionals)


def theirs(published: Any, tts: Any, seed: int, prompt: int, frames: int, most: int) -> np.ndarray:
    turbo = hasattr(tts.t3, "inference_turbo") and "Turbo" in type(tts).__name__
    name = "inference_turbo" if turbo else "inference"
    plain = getattr(tts.t3, name)
    limit = {"max_gen_len": most - 1} if turbo else {"max_new_tokens": most}
    torch.manual_seed(seed)
    with (
        published.noise(seed, prompt, frames),
        mock.patch.object(tts.t3, name, lambda **options: plain(**{**options, **limit})),
        mock.patch(f"{published.PACKAGE}.models.t3.t3.tqdm", lambda steps, **_: steps),
    ):
        return tts.generate(TEXT).squeeze(0).numpy()


@pytest.mark.parametrize("name", ["nano", "english"])
def test_a_text_sounds_as_upstream_says_it(
    name: str, request_of: Any, published: Any, folder: Folder, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    said = say(model, request_of(max_tokens=20))
    ours, tokens = said.samples(), said.metadata()["tokens"]
    tts = upstreams(published, model, folder(name))
    prompt = model._runtime.components["conds.gen"].prompt_feat.shape[1]
    expected = theirs(published, tts, 3, prompt, 2 * (tokens + model.silence), 20)
    assert ours.shape == expected.shape == (TOKEN * (tokens + model.silence),)
    assert np.abs(ours - expected).max() < 1e-3
    assert np.abs(ours).max() > 0.02


@pytest.fixture
def request_of() -> Any:
    return request


@pytest.mark.parametrize("name", ["nano", "english"])
def test_a_voice_is_made_as_upstream_makes_it(
    name: str,
    published: Any,
    folder: Folder,
    long_recording: voices.Audio,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(name)
    path = tmp_path / "voice.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(long_recording.sample_rate)
        file.writeframes((long_recording.samples * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())
    tts = upstreams(published, model, folder(name))
    tts.prepare_conditionals(str(path))

    with wave.open(str(path)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    ours = model._maker.make(voices.Audio((data / 32768).astype(np.float32), long_recording.sample_rate))

    count = ours.gen.prompt_token.shape[1]
    assert torch.equal(ours.gen.prompt_token, tts.conds.gen["prompt_token"][:, :count])
    assert torch.allclose(ours.gen.prompt_feat, tts.conds.gen["prompt_feat"][:, : 2 * count], atol=1e-3)
    assert torch.allclose(ours.gen.embedding, tts.conds.gen["embedding"], atol=1e-3)
    assert torch.equal(ours.t3.cond_prompt_speech_tokens, tts.conds.t3.cond_prompt_speech_tokens)
    assert torch.allclose(ours.t3.speaker_emb, tts.conds.t3.speaker_emb, atol=1e-4)
    for tensor in (*ours.gen.tensors.values(), *ours.t3.tensors.values()):
        assert not tensor.requires_grad
        assert not tensor.is_inference(), "a voice must be usable outside inference mode, as for a move"


def test_loudness_is_pyloudnorms(published: Any, long_recording: voices.Audio) -> None:
    import pyloudnorm

    rate = long_recording.sample_rate
    expected = pyloudnorm.Meter(rate).integrated_loudness(long_recording.samples)
    assert abs(voices.loudness(long_recording.samples, rate) - expected) < 1e-3
    assert voices.loudness(np.zeros(rate, np.float32), rate) == -np.inf
    assert voices.loudness(long_recording.samples[:100], rate) == -np.inf


# -- every model ------------------------------------------------------------------------------------


def test_the_engine_speaks_with_nano(folder: Folder, make: Any) -> None:
    driver = make()
    model = driver.load("nano", checkpoint=str(folder("nano")), device="cpu")
    whole = driver.say(model, TEXT, seed=3, max_tokens=24)
    streamed = driver.say(model, TEXT, stream=True, seed=3, max_tokens=24)
    driver.run()
    done = driver.payload(whole, "done")
    assert done["sample_rate"] == 24_000
    assert done["samples"].shape == (TOKEN * (done["metadata"]["tokens"] + 3),)
    assert done["metadata"]["finish_reason"] in ("stop", "limit")
    assert watermarker().confidence(done["samples"], 24_000) > 0.9
    chunks = [payload["samples"] for name, payload, _ in driver.events[streamed] if name == "chunk"]
    assert len(chunks) > 1
    assert sum(map(len, chunks)) == len(done["samples"])
    assert driver.payload(streamed, "done")["metadata"]["tokens"] == done["metadata"]["tokens"]
    about = driver.ask("info", model_id=model)[1]
    assert about["device"]["actual"] == "cpu"
    assert set(about["components"].values()) <= {"cpu", None}
    assert about["memory"]["s3gen"] > 100_000_000


@pytest.mark.parametrize(
    ("name", "files", "options", "extra"),
    [
        ("turbo", "turbo", {}, {}),
        ("multilingual", "multilingual_v2", {"language": "fr"}, {"version": "v2"}),
        ("multilingual", "multilingual_v3", {"language": "de"}, {}),
    ],
)
def test_the_other_models_speak(
    name: str, files: str, options: dict[str, Any], extra: dict[str, Any], folder: Folder
) -> None:
    model = load(registry.find(name), folder(files), **extra)
    said = say(model, request(max_tokens=14, **options))
    tokens = said.metadata()["tokens"]
    assert said.samples().shape == (TOKEN * (tokens + model.silence - model.dropped),)
    assert watermarker().confidence(said.samples(), 24_000) > 0.5
    if files == "multilingual_v3":
        with pytest.raises(ChatterbexError, match="language"):
            model.admit(request())
        with pytest.raises(ChatterbexError) as caught:
            model.admit(request(language="xx"))
        assert caught.value.reason == "unknown_language"
        assert not model.busy()
    model.close()


def test_a_language_pack_is_found_by_its_t3(own: Callable[[str], Path]) -> None:
    path = own("multilingual_v3")
    (path / "t3_mtl23ls_v3.safetensors").rename(path / "t3_pt_br.safetensors")
    model = load(MultilingualModel, path, pack="pt-br")
    assert model.tokenize("Olá", {}) == model.tokenize("Olá", {"language": "pt"})
    with pytest.raises(ChatterbexError, match="t3_mtl23ls_v3"):
        load(MultilingualModel, path)


def test_speech_is_converted(folder: Folder, recording: tuple[np.ndarray, int], published: Any) -> None:
    model = load(registry.find("conversion"), folder("conversion"))
    samples, rate = recording
    samples = samples[: rate + 300]
    audio = {"samples": samples.tobytes(), "sample_rate": rate}
    said = say(model, request(text="", audio=audio))
    theirs = published.s3gen(folder("conversion") / "s3gen.safetensors", meanflow=False)
    tokens, _ = theirs.tokenizer(torch.from_numpy(samples)[None])
    assert said.metadata()["tokens"] == tokens.shape[1]
    conditionals = torch.load(folder("conversion") / "conds.pt", weights_only=True)["gen"]
    prompt, frames = conditionals["prompt_feat"].shape[1], 2 * tokens.shape[1]
    with published.noise(3, prompt, frames):
        expected, _ = theirs.inference(speech_tokens=tokens, ref_dict=conditionals)
    expected = watermarker().apply(expected[0].numpy(), 24_000)
    assert np.abs(said.samples() - expected).max() < 1e-3
    for bad in (
        None,
        {"samples": b"", "sample_rate": rate},
        {"samples": bytes(4 * 16_000), "sample_rate": 16_000},
    ):
        with pytest.raises(ChatterbexError):
            model.admit(request(text="", audio=bad))
    model.close()


# -- streams, batches and voices --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 8, 1000])
def test_a_stream_has_the_tokens_and_the_samples_of_the_whole(nano: Any, size: int) -> None:
    whole = say(nano, request())
    streamed = say(nano, request(stream=True, chunk_tokens=size, chunk_growth=1.5))
    assert streamed.metadata()["tokens"] == whole.metadata()["tokens"]
    assert len(streamed.samples()) == len(whole.samples())
    if size == 1000:
        assert np.array_equal(streamed.samples(), whole.samples())
    else:
        assert len(streamed.chunks[1]) > 1


def test_a_request_sounds_the_same_in_any_company(nano: Any) -> None:
    alone = say(nano, request(1, seed=11)).samples()
    together = say(nano, request(1, seed=11), request(2, "Another text.", seed=5), request(3, stream=True))
    assert np.array_equal(together.samples(1), alone)
    assert not np.array_equal(say(nano, request(1, seed=12)).samples()[:2000], alone[:2000])


def test_a_cancelled_request_is_gone_within_a_step(nano: Any) -> None:
    alone = say(nano, request(1)).samples()
    heard = Heard()
    for id in (1, 2):
        nano.admit(request(id, stream=id == 2))
    for _ in range(9):
        step(nano, heard)
    nano.cancel(2)
    nano.cancel(77)
    while nano.busy():
        step(nano, heard)
    assert np.array_equal(heard.samples(1), alone)
    assert not any(chunk.last for chunk in heard.chunks.get(2, []))
    assert not nano.busy()


def test_a_voice_is_made_once_and_saved_voices_are_the_same(nano: Any, long_recording: voices.Audio) -> None:
    audio = spoken_for(long_recording)
    first = say(nano, request(voice=audio))
    with mock.patch.object(nano._maker, "make", side_effect=AssertionError("made again")):
        again = say(nano, request(voice=audio))
    assert np.array_equal(first.samples(), again.samples())
    assert not np.array_equal(first.samples(), say(nano, request()).samples())
    cloned = nano.call("clone", {**audio, "about": {"name": "ann"}})
    assert cloned["family"] == "turbo"
    assert cloned["quality"]["seconds"] == pytest.approx(long_recording.seconds)
    saved = say(nano, request(voice={"saved": cloned["voice"]}))
    assert np.array_equal(saved.samples(), first.samples())


def test_a_voice_of_another_family_is_refused(nano: Any, english: Any, long_recording: voices.Audio) -> None:
    cloned = nano.call("clone", spoken_for(long_recording))["voice"]
    heard = say(english, request(voice={"saved": cloned}, max_tokens=5))
    assert heard.failures[1].reason == "not_supported"
    assert "turbo" in heard.failures[1].message
    for broken in (b"", cloned[:50], b"x" * 1000):
        heard = say(nano, request(voice={"saved": broken}))
        assert heard.failures[1].reason == "voice_unreadable"


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.zeros(24_000 * 6), 24_000, "voice_unreadable"),
        (np.full(24_000 * 6, np.nan), 24_000, "voice_unreadable"),
        (np.ones(24_000 * 5), 24_000, "voice_too_short"),
        (np.zeros(0), 24_000, "voice_too_short"),
        (np.ones(24_000 * 6), 0, "voice_unreadable"),
        (np.ones(24_000 * 6), "24000", "voice_unreadable"),
    ],
)
def test_audio_that_no_voice_can_be_made_of(nano: Any, samples: Any, rate: Any, reason: str) -> None:
    audio = {"samples": samples.astype(np.float32).tobytes(), "sample_rate": rate}
    with pytest.raises(ChatterbexError) as caught:
        nano.admit(request(voice=audio))
    assert caught.value.reason == reason
    assert not nano.busy()


def test_voices_are_kept_up_to_a_number() -> None:
    from chatterbex.s3gen import Reference

    cache = voices.VoiceCache(most=2)
    made = voices.Voice(
        "turbo", None, Reference(torch.zeros(1, 1), torch.zeros(1, 2, 80), torch.zeros(1, 192))
    )
    for key in "ab":
        cache.put(key, made)
    assert cache.get("a") is not None
    cache.put("c", made)
    assert len(cache) == 2
    assert cache.get("b") is None
    cache.to("meta")
    assert cache.get("a").gen.embedding.is_meta
    assert cache.put("d", made).gen.embedding.is_meta


def test_two_hundred_requests_leave_nothing_behind(nano: Any, long_recording: voices.Audio) -> None:
    """Objects are counted, for the operating system's figure depends on who else runs."""
    import gc

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    nano._runtime.components["voices"].most = 2
    say(nano, *(request(id, max_tokens=1, voice=spoken_for(long_recording)) for id in range(3)))
    before = tensors()
    for id in range(200):
        nano.admit(request(id, max_tokens=2, seed=id))
        for _ in range(3):
            step(nano, Heard())
        nano.cancel(id)
    assert tensors() <= before + 8
    assert not nano.busy()


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": "hot"},
        {"cfg_weight": 0.5},
        {"exaggeration": 0.5},
        {"min_p": 0.1},
        {"max_tokens": 0},
        {"chunk_tokens": 0},
        {"chunk_growth": float("nan")},
        {"voice": "ann"},
    ],
)
def test_options_that_nano_cannot_take(nano: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(ChatterbexError) as caught:
        nano.admit(request(**bad))
    assert caught.value.reason in ("invalid_option", "not_supported")
    assert not nano.busy()


def test_a_failing_chunk_fails_its_request_only(nano: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = nano._watermarker.apply
    calls = iter([True, False, False, False])

    def sometimes(samples: np.ndarray, rate: int) -> np.ndarray:
        if next(calls):
            raise RuntimeError("no watermark, no audio")
        return apply(samples, rate)

    monkeypatch.setattr(nano._watermarker, "apply", sometimes)
    heard = say(nano, request(1), request(2))
    assert len(heard.failures) == 1
    [failed] = heard.failures
    assert "no watermark" in heard.failures[failed].message
    assert len(heard.samples(3 - failed))


# -- faults of upstream that ours has not -------------------------------------------------------------


def test_guidance_of_zero(english: Any, published: Any, folder: Folder) -> None:
    tts = upstreams(published, english, folder("english"))
    with pytest.raises((RuntimeError, IndexError, AssertionError, ValueError)):
        tts.generate(TEXT, cfg_weight=0.0)
    assert len(say(english, request(cfg_weight=0.0, max_tokens=6)).samples())


def test_temperature_of_zero(nano: Any) -> None:
    one = say(nano, request(temperature=0.0, seed=1, max_tokens=8)).metadata()["tokens"]
    assert one == 8


def test_a_text_that_is_cut_at_the_limit_is_told_of(nano: Any, caplog: pytest.LogCaptureFixture) -> None:
    said = say(nano, request(max_tokens=5))
    assert said.metadata()["finish_reason"] == "limit"
    assert "cut short after 5 speech tokens" in caplog.text


def test_a_text_without_a_sound_is_an_error(nano: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbex.t3 import TokenEvent

    def stop(self: Any) -> list[TokenEvent]:
        live = self.live
        for id in live:
            self.cancel(id)
        return [TokenEvent(id, None, "stop") for id in live]

    monkeypatch.setattr(type(nano._session), "step", stop)
    heard = say(nano, request())
    assert heard.failures[1].reason == "generation_failed"
    assert "without a sound" in heard.failures[1].message


def test_nothing_is_printed(nano: Any, capsys: pytest.CaptureFixture[str]) -> None:
    say(nano, request(stream=True))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
