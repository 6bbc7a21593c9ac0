"""Whole models on synthetic checkpoints: upstream's sound, streams, batches, voices and failures."""

from __future__ import annotations

import threading
import wave
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from running import CLOSE, TEXT, Heard, finish, load, request, say, step, torch_threads
from safetensors.torch import load_file, save_file
from shelf import give_back_memory

from chatterbex import loudness, registry, voices
from chatterbex.errors import ChatterbexError
from chatterbex.model import Request
from chatterbex.models import chatterbox
from chatterbex.models.multilingual import MultilingualModel
from chatterbex.models.speech import derived
from chatterbex.s3gen import FRAME, TOKEN, Decoding, flow_options
from chatterbex.t3.native import Sampler
from chatterbex.watermark import watermarker

Folder = Callable[[str], Path]


@pytest.fixture
def model_of(folder: Folder, shelf: Any) -> Callable[[str], Any]:
    """A model by the name of its files."""

    def model_of(name: str) -> Any:
        kind, _, version = name.partition("_")
        options = {"version": version} if version else {}
        return shelf.take(name, lambda: load(registry.find(kind), folder(name), **options))

    return model_of


Vocoded = list[tuple[list[int], bool, int]]


@pytest.fixture
def vocoded(monkeypatch: pytest.MonkeyPatch) -> Vocoded:
    """The tokens of each chunk, whether it is the last, and the seed; the samples are made up."""
    chunks: Vocoded = []

    class Listening(Decoding):
        def stages(self, tokens: Any, final: bool) -> Iterator[None]:
            chunks.append((list(tokens), final, self._noise.seed))
            yield
            frames = 2 * len(tokens) - (0 if final else 2 * self._s3gen.look_ahead + self._hold)
            frames = max(frames, self.frames)
            samples = np.ones((frames - self.frames) * FRAME, np.float32)
            self.frames = frames
            return samples

    monkeypatch.setattr(flow_options, "Decoding", Listening)
    return chunks


@pytest.fixture
def long_recording(recording: tuple[np.ndarray, int]) -> voices.Audio:
    samples, rate = recording
    return voices.Audio(np.concatenate([samples, 0.4 * samples[::-1]]).astype(np.float32), rate)


def spoken_for(audio: voices.Audio) -> dict[str, Any]:
    return {"samples": audio.samples.tobytes(), "sample_rate": audio.sample_rate}


# -- as upstream ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nano", {}),
        ("turbo", {}),
        ("english", {}),
        ("multilingual_v2", {"language": "fr"}),
        ("multilingual_v3", {"language": "de"}),
    ],
)
def test_a_text_sounds_as_upstream_says_it(
    name: str, options: dict[str, Any], model_of: Callable[[str], Any], published: Any, folder: Folder
) -> None:
    model = model_of(name)
    said = say(model, request(max_tokens=20, temperature=0.0, **options))
    ours, tokens = said.samples(), said.metadata()["tokens"]
    tts = published.model(model, folder(name))
    prompt = model._residents.voice.gen.prompt_feat.shape[1]
    with published.noise(3, prompt, 2 * (tokens + model.traits.silence)):
        expected = published.say(tts, TEXT, model, max_tokens=20, **options)
    unheard = 1 if name.startswith("multilingual") else 0  # the last token is noise there
    assert ours.shape == (TOKEN * (tokens + model.traits.silence - unheard),)
    assert expected.shape == (TOKEN * (tokens + model.traits.silence),)
    assert np.abs(ours - expected[: len(ours)]).max() < 1e-3
    assert np.abs(ours).max() > 0.02


@pytest.mark.parametrize(
    ("name", "options"), [("nano", {}), ("nano", {"norm_loudness": False}), ("english", {})]
)
def test_a_voice_is_made_as_upstream_makes_it(
    name: str,
    options: dict[str, bool],
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
    tts = published.model(model, folder(name))
    tts.prepare_conditionals(str(path), **options)
    give_back_memory()

    with wave.open(str(path)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    samples = (data / 32768).astype(np.float32)
    ours = model._voices.maker.make(voices.Audio(samples, long_recording.sample_rate, **options))

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
    assert abs(loudness.loudness(long_recording.samples, rate) - expected) < 1e-3
    assert loudness.loudness(np.zeros(rate, np.float32), rate) == -np.inf
    assert loudness.loudness(long_recording.samples[:100], rate) == -np.inf


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


def test_the_multilingual_model_requires_a_language(model_of: Callable[[str], Any]) -> None:
    model = model_of("multilingual_v3")
    with pytest.raises(ChatterbexError, match="language"):
        model.admit(request())
    with pytest.raises(ChatterbexError) as caught:
        model.admit(request(language="xx"))
    assert caught.value.reason == "unknown_language"
    assert not model.busy()


def test_a_language_pack_is_found_by_its_t3(own: Callable[[str], Path]) -> None:
    path = own("multilingual_v3")
    (path / "t3_mtl23ls_v3.safetensors").rename(path / "t3_pt_br.safetensors")
    model = load(MultilingualModel, path, pack="pt-br")
    assert model.tokenize("Olá", {}) == model.tokenize("Olá", {"language": "pt"})
    with pytest.raises(ChatterbexError, match="t3_mtl23ls_v3"):
        load(MultilingualModel, path)


def test_a_language_packs_files_may_differ_within_what_upstream_accepts(
    own: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """S3Gen's may lack computed tables and have unknown weights; T3's may not."""
    path = own("multilingual_v3")
    weights = torch.load(path / "s3gen.pt", weights_only=True, mmap=True)
    for table in ("tokenizer._mel_filters", "tokenizer.window"):
        del weights[table]
    weights["flow.of_later"] = torch.ones(2)
    (path / "s3gen.pt").unlink()
    torch.save(weights, path / "s3gen.pt")
    del weights
    load(MultilingualModel, path, pack="hi").close()
    assert "flow.of_later" in caplog.text
    with pytest.raises(ChatterbexError, match=r"unexpected: flow\.of_later"):
        load(MultilingualModel, path)
    t3 = path / "t3_mtl23ls_v3.safetensors"
    more = {**load_file(t3), "of_later": torch.ones(2)}
    t3.unlink()
    save_file(more, t3)
    del more
    with pytest.raises(ChatterbexError, match="unexpected: of_later"):
        load(MultilingualModel, path, pack="hi")


def test_speech_is_converted(folder: Folder, recording: tuple[np.ndarray, int], published: Any) -> None:
    model = load(registry.find("conversion"), folder("conversion"))
    samples, rate = recording
    samples = samples[: rate + 300]
    audio = {"samples": samples.tobytes(), "sample_rate": rate}
    said = say(model, request(text="", audio=audio))
    for bad in (
        None,
        {"samples": b"", "sample_rate": rate},
        {"samples": bytes(4 * 16_000), "sample_rate": 16_000},
    ):
        with pytest.raises(ChatterbexError):
            model.admit(request(text="", audio=bad))
    model.close()
    del model
    give_back_memory()
    theirs = published.s3gen(folder("conversion") / "s3gen.safetensors", meanflow=False)
    tokens, _ = theirs.tokenizer(torch.from_numpy(samples)[None])
    assert said.metadata()["tokens"] == tokens.shape[1]
    conditionals = torch.load(folder("conversion") / "conds.pt", weights_only=True)["gen"]
    prompt, frames = conditionals["prompt_feat"].shape[1], 2 * tokens.shape[1]
    with published.noise(3, prompt, frames):
        expected, _ = theirs.inference(speech_tokens=tokens, ref_dict=conditionals)
    expected = watermarker().apply(expected[0].numpy(), 24_000)
    assert np.abs(said.samples() - expected).max() < 1e-3


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


@pytest.mark.parametrize("name", ["nano", "turbo"])
def test_a_stream_speaks_the_tokens_of_the_whole_at_every_chunk_size(
    name: str, model_of: Callable[[str], Any], vocoded: Vocoded
) -> None:
    model = model_of(name)
    whole = say(model, request())
    [(tokens, final, _)] = vocoded
    assert final
    assert len(tokens) == whole.metadata()["tokens"] + model.traits.silence
    for size in range(1, len(tokens) + 1):
        vocoded.clear()
        streamed = say(model, request(stream=True, chunk_tokens=size, chunk_growth=1.0))
        assert vocoded[-1] == (tokens, True, 3), size
        assert all(not final and part == tokens[: len(part)] for part, final, _ in vocoded[:-1]), size
        assert len(streamed.samples()) == len(whole.samples()) == len(tokens) * TOKEN, size
        parts = [len(part) for part, _, _ in vocoded]
        assert len(parts) > 1 or size > 18, size
        assert parts == sorted(set(parts)), size


def test_a_request_sounds_the_same_in_any_company(nano: Any) -> None:
    alone = say(nano, request(1, seed=11)).samples()
    together = say(nano, request(1, seed=11), request(2, "Another text.", seed=5), request(3, stream=True))
    # With other requests it gets fewer threads, and another order of sums.
    assert np.abs(together.samples(1) - alone).max() < CLOSE
    assert not np.array_equal(say(nano, request(1, seed=12)).samples()[:2000], alone[:2000])


def test_a_cancelled_request_ends_within_a_step(nano: Any) -> None:
    alone = say(nano, request(1)).samples()
    heard = Heard()
    for id in (1, 2):
        nano.admit(request(id, stream=id == 2))
    for _ in range(9):
        step(nano, heard)
    nano.cancel(2)
    nano.cancel(77)
    finish(nano, heard)
    assert np.abs(heard.samples(1) - alone).max() < CLOSE
    assert not any(chunk.last for chunk in heard.chunks.get(2, []))
    assert not nano.busy()


def test_a_voice_is_made_once_and_saved_voices_are_the_same(nano: Any, long_recording: voices.Audio) -> None:
    audio = spoken_for(long_recording)
    first = say(nano, request(voice=audio))
    with mock.patch.object(nano._voices.maker, "make", side_effect=AssertionError("made again")):
        again = say(nano, request(voice=audio))
    assert np.array_equal(first.samples(), again.samples())
    assert not np.array_equal(first.samples(), say(nano, request()).samples())
    cloned = nano.call("clone", {**audio, "about": {"name": "ann"}}).result()
    assert cloned["family"] == "turbo"
    assert cloned["quality"]["seconds"] == pytest.approx(long_recording.seconds)
    saved = say(nano, request(voice={"saved": cloned["voice"]}))
    assert np.array_equal(saved.samples(), first.samples())


def test_a_recording_that_keeps_its_loudness_is_another_voice(
    nano: Any, long_recording: voices.Audio
) -> None:
    audio = spoken_for(long_recording)
    usual, kept = (say(nano, request(voice=audio, norm_loudness=choice)) for choice in (True, False))
    assert not np.array_equal(usual.samples(), kept.samples())
    with mock.patch.object(nano._voices.maker, "make", side_effect=AssertionError("made again")):
        assert np.array_equal(say(nano, request(voice=audio)).samples(), usual.samples())
        again = say(nano, request(voice=audio, norm_loudness=False))
    assert np.array_equal(again.samples(), kept.samples())
    # A clone is cached for requests in the same way; a saved voice is already a voice.
    cloned = nano.call("clone", {**audio, "norm_loudness": False}).result()["voice"]
    for choice in ({}, {"norm_loudness": True}, {"norm_loudness": False}):
        said = say(nano, request(voice={"saved": cloned}, **choice))
        assert np.array_equal(said.samples(), kept.samples())
    assert np.array_equal(say(nano, request(voice=audio)).samples(), usual.samples())


def test_a_loudness_to_keep_is_checked(nano: Any, long_recording: voices.Audio) -> None:
    with pytest.raises(ChatterbexError, match="true or false") as caught:
        nano.admit(request(voice=spoken_for(long_recording), norm_loudness="no"))
    assert caught.value.reason == "invalid_option"


def test_english_has_no_loudness_option(english: Any, long_recording: voices.Audio) -> None:
    audio = spoken_for(long_recording)
    for refused in (
        lambda: english.admit(request(voice=audio, norm_loudness=False)),
        lambda: english.call("clone", {**audio, "norm_loudness": False}).result(),
    ):
        with pytest.raises(ChatterbexError, match="norm_loudness") as caught:
            refused()
        assert caught.value.reason == "not_supported"


@pytest.fixture
def listening(nano: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event; voices are not made before it is set."""
    go_on, make = threading.Event(), nano._voices.maker.make

    def made(audio: Any) -> Any:
        assert go_on.wait(120), "nobody said that it may go on"
        return make(audio)

    monkeypatch.setattr(nano._voices.maker, "make", made)
    monkeypatch.setattr(nano._voices, "cache", voices.VoiceCache())
    return go_on


def test_others_speak_to_their_end_while_a_voice_is_cloned(
    nano: Any, long_recording: voices.Audio, listening: threading.Event
) -> None:
    answer = nano.call("clone", spoken_for(long_recording))
    assert len(say(nano, request()).samples())
    assert not answer.done()
    listening.set()
    assert answer.result(120)["family"] == "turbo"


def test_a_voice_is_made_with_all_threads_if_nothing_else_speaks(
    nano: Any, long_recording: voices.Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, threads = nano._voices.maker.make(long_recording), []

    def make(audio: Any) -> Any:
        threads.append(torch.get_num_threads())
        return made

    monkeypatch.setattr(nano._voices.maker, "make", make)
    monkeypatch.setattr(nano._voices, "cache", voices.VoiceCache())
    audio = spoken_for(long_recording)
    with torch_threads(2):
        nano.call("clone", audio).result(120)
        nano.admit(request())
        nano.call("clone", audio).result(120)
        nano.cancel(1)
    assert threads == [2, 1]


def test_others_speak_to_their_end_while_a_requests_voice_is_made(
    nano: Any, long_recording: voices.Audio, listening: threading.Event
) -> None:
    audio = spoken_for(long_recording)
    heard = Heard()
    for id, voice in ((1, audio), (2, None), (3, audio), (4, audio)):
        nano.admit(request(id, voice=voice))
    while 2 not in heard.chunks:
        step(nano, heard)
    assert list(heard.chunks) == [2]
    nano.cancel(4)
    listening.set()
    finish(nano, heard)
    assert np.abs(heard.samples(1) - heard.samples(3)).max() < CLOSE
    assert set(heard.chunks) == {1, 2, 3}


def test_a_failed_voice_fails_all_requests_that_wait_for_it(
    nano: Any, long_recording: voices.Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano._voices, "cache", voices.VoiceCache())
    monkeypatch.setattr(nano._voices.maker, "make", mock.Mock(side_effect=RuntimeError("nobody speaks")))
    heard = say(nano, request(1, voice=spoken_for(long_recording)), request(2))
    assert "nobody speaks" in heard.failures[1].message
    assert len(heard.samples(2))


@pytest.fixture
def saved(folder: Folder) -> bytes:
    """A voice of the family of turbo and nano."""
    return voices.Voice.from_pickle(folder("nano") / "conds.pt", voices.TURBO).dump()


def test_a_voice_of_another_family_is_refused(english: Any, saved: bytes) -> None:
    heard = say(english, request(voice={"saved": saved}, max_tokens=5))
    assert heard.failures[1].reason == "not_supported"
    assert "turbo" in heard.failures[1].message


def test_a_broken_voice_is_refused(nano: Any, saved: bytes) -> None:
    for broken in (b"", saved[:50], b"x" * 1000):
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
def test_audio_that_cannot_become_a_voice(nano: Any, samples: Any, rate: Any, reason: str) -> None:
    audio = {"samples": samples.astype(np.float32).tobytes(), "sample_rate": rate}
    with pytest.raises(ChatterbexError) as caught:
        nano.admit(request(voice=audio))
    assert caught.value.reason == reason
    assert not nano.busy()


def test_voices_are_kept_up_to_a_number() -> None:
    from chatterbex.s3gen import Reference

    cache = voices.VoiceCache(limit=2)
    made = voices.Voice(
        "turbo", None, Reference(torch.zeros(1, 1), torch.zeros(1, 2, 80), torch.zeros(1, 192))
    )
    assert cache.bytes == 0
    for key in "ab":
        cache.put(key, made)
    assert cache.get("a") is not None
    cache.put("c", made)
    assert len(cache) == 2
    assert cache.get("b") is None
    # Both are the same one.
    assert cache.bytes == 4 * (1 + 2 * 80 + 192)


def test_two_hundred_requests_leave_nothing_behind(
    nano: Any, long_recording: voices.Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts objects, because the operating system's figure depends on other programs."""
    import gc

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    kept = nano._voices.cache
    monkeypatch.setattr(kept, "limit", 2)
    made = nano._voices.maker.make(long_recording)
    ann = nano._residents.voice.t3
    saved = [
        replace(made, t3=replace(ann, speaker_emb=ann.speaker_emb.roll(turn))).dump() for turn in range(7)
    ]

    for id in range(200):
        heard, spoken = Heard(), nano._scheduler._session.stats.tokens
        nano.admit(request(id, max_tokens=2, seed=id, voice={"saved": saved[id % 7]}))
        while nano.busy() and (id % 20 == 0 or nano._scheduler._session.stats.tokens == spoken):
            step(nano, heard)
        assert nano._scheduler._session.stats.tokens > spoken
        nano.cancel(id)
        if id == 20:
            before, held = tensors(), nano._scheduler._session.nbytes
    assert len(kept) == 2
    assert tensors() <= before + 8
    assert nano._scheduler._session.nbytes == held
    assert not nano.busy()


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": "hot"},
        {"cfg_weight": 0.5},
        {"exaggeration": 0.5},
        {"min_p": 0.1},
        {"max_tokens": 0},
        {"retries": 11},
        {"retries": True},
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


# -- pieces that run away or are silent -------------------------------------------------------------------


@pytest.fixture
def seeds(nano: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The logits that T3 draws from, and texts of at most 12 tokens."""
    given: list[int] = []
    admit = nano._scheduler._session.admit

    def spied(one: Any) -> None:
        given.append(one.seed)
        admit(one)

    monkeypatch.setattr(nano._scheduler._session, "admit", spied)
    monkeypatch.setattr(chatterbox, "most_tokens", lambda text: 12)
    return given


def test_a_runaway_is_spoken_again_with_seeds_that_follow_from_the_first(
    nano: Any, seeds: list[int], vocoded: Vocoded, caplog: pytest.LogCaptureFixture
) -> None:
    """With random weights, speech never ends by itself."""
    for _ in range(2):  # in the same way each time
        seeds.clear()
        told = say(nano, request(max_tokens=None)).metadata()
        assert (told["finish_reason"], told["retries"], told["tokens"], told["seed"]) == ("runaway", 2, 12, 3)
        assert seeds == [3, derived(3, 1), derived(3, 2)]
        assert len(set(seeds)) == 3
    assert "came out without an end after 12 tokens; spoken again with another seed, 2 of 2" in caplog.text
    say(nano, request(max_tokens=12, seed=seeds[2]))
    assert vocoded[0] == vocoded[1] == vocoded[2]
    assert vocoded[0][1:] == (True, seeds[2])


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_as_often_as_was_asked_for(nano: Any, seeds: list[int], vocoded: Vocoded, retries: int) -> None:
    told = say(nano, request(max_tokens=None, retries=retries)).metadata()
    assert told["retries"] == retries
    assert len(seeds) == retries + 1
    assert len(vocoded) == 1


def test_it_happens_only_when_needed_and_without_output(
    nano: Any, seeds: list[int], vocoded: Vocoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other() -> Request:
        return request(2, "Another text.", seed=5, max_tokens=20)

    say(nano, other())
    alone = vocoded.pop()
    seeds.clear()
    draw = Sampler.draw

    def ends(self: Sampler, logits: torch.Tensor) -> int:
        """Speech never ends with the first seed, and after five tokens with the next."""
        token = draw(self, logits)
        over = self._draw.seed == derived(3, 1) and len(self.drawn) > 5
        return nano._residents.front.config.stop_speech if over else token

    monkeypatch.setattr(Sampler, "draw", ends)
    heard = say(nano, request(1, max_tokens=None), other())
    told = heard.metadata(1)
    assert (told["finish_reason"], told["retries"], told["tokens"]) == ("stop", 1, 5)
    assert seeds == [3, 5, derived(3, 1)]
    assert alone in vocoded
    assert heard.metadata(2)["retries"] == 0


def test_sent_audio_is_not_spoken_again(nano: Any, seeds: list[int], vocoded: Vocoded) -> None:
    said = say(nano, request(max_tokens=None, stream=True, chunk_tokens=8))
    told = said.metadata()
    assert len(said.chunks[1]) > 1
    assert (told["finish_reason"], told["retries"], seeds) == ("runaway", 0, [3])


def test_reaching_the_callers_limit_is_not_a_runaway(nano: Any, seeds: list[int], vocoded: Vocoded) -> None:
    told = say(nano, request(max_tokens=20)).metadata()
    assert (told["finish_reason"], told["retries"], told["tokens"]) == ("limit", 0, 20)


@pytest.mark.parametrize("silent", [1, 9])
def test_silence_is_spoken_again(
    nano: Any, seeds: list[int], monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    apply, calls = nano._watermarker.apply, count()

    def mute(samples: np.ndarray, rate: int) -> np.ndarray:
        return apply(samples, rate) * (next(calls) >= silent)

    monkeypatch.setattr(nano._watermarker, "apply", mute)
    said = say(nano, request(max_tokens=12))
    told = said.metadata()
    retries = min(silent, 2)
    assert (told["finish_reason"], told["retries"]) == ("silent" if silent > 2 else "limit", retries)
    assert seeds == [3, derived(3, 1), derived(3, 2)][: retries + 1]
    assert np.abs(said.samples()).max() == 0 if silent > 2 else np.abs(said.samples()).max() > 0.01


# -- faults of upstream that we do not have -------------------------------------------------------------


def test_temperature_of_zero(nano: Any) -> None:
    one = say(nano, request(temperature=0.0, seed=1, max_tokens=8)).metadata()["tokens"]
    assert one == 8


def test_a_text_cut_at_the_limit_is_reported(nano: Any, caplog: pytest.LogCaptureFixture) -> None:
    said = say(nano, request(max_tokens=5))
    assert said.metadata()["finish_reason"] == "limit"
    assert "cut short after 5 speech tokens" in caplog.text


def test_a_text_without_a_sound_is_an_error(nano: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbex.t3 import TokenEvent

    def stop(self: Any, threads: int | None) -> list[TokenEvent]:
        del threads
        live = self.live
        for id in live:
            self.cancel(id)
        return [TokenEvent(id, None, "stop") for id in live]

    monkeypatch.setattr(type(nano._scheduler._session), "step", stop)
    heard = say(nano, request())
    assert heard.failures[1].reason == "generation_failed"
    assert "without a sound, 3 times" in heard.failures[1].message
    assert heard.failures[1].details["retries"] == 2
