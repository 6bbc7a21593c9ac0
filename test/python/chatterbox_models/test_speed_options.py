"""Options that trade quality for speed have the same effect as in upstream's code, and no other effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import drained, load, request, say
from shelf import give_back_memory

from chatterbex import checkpoint, s3gen
from chatterbex.errors import ChatterbexError
from chatterbex.models import passes, scheduler
from chatterbex.models.conversion import ConversionModel
from chatterbex.models.english import EnglishModel
from chatterbex.models.multilingual import MultilingualModel
from chatterbex.models.turbo import NanoModel
from chatterbex.s3gen import (
    TOKEN,
    Decoding,
    FlowOptions,
    MelTask,
    Reference,
    S3GenGpuPass,
    flow_options,
    together,
)
from synthetic import s3gen as synthetic_s3gen

Folder = Callable[[str], Path]
SEED = 9


def prompt_of(seconds: float) -> dict[str, Any]:
    """The ``gen`` half of a voice with a prompt of `seconds` seconds."""
    return synthetic_s3gen.conditionals(seed=8, seconds=seconds)


@pytest.fixture
def long_voice(own: Callable[[str], Path]) -> Callable[[str], Path]:
    """A model's folder whose built-in voice has a prompt of 4 seconds; the usual one has 1."""

    def with_long_voice(name: str) -> Path:
        path = own(name)
        conditionals = torch.load(path / "conds.pt", weights_only=True)
        (path / "conds.pt").unlink()
        torch.save({**conditionals, "gen": prompt_of(4.0)}, path / "conds.pt")
        return path

    return with_long_voice


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The tokens and mel frames of the prompt of each decoding; the samples are made up."""
    seen: list[tuple[int, int]] = []

    class Listening(Decoding):
        def stages(self, tokens: Any, final: bool) -> Iterator[None]:
            seen.append((self._reference.prompt_token.shape[1], self._reference.prompt_feat.shape[1]))
            yield
            return np.ones(len(tokens) * TOKEN, np.float32)

    monkeypatch.setattr(flow_options, "Decoding", Listening)
    return seen


def steps_of_chunks(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of flow steps of each chunk from now on."""
    counts: list[int] = []
    way = model._runtime.way.s3gen
    plain, slope = way.mel_stages, way.slope

    def mel_stages(*given: Any, **named: Any) -> Any:
        counts.append(0)
        return plain(*given, **named)

    def counting(*given: Any) -> Any:
        counts[-1] += 1
        return slope(*given)

    monkeypatch.setattr(way, "mel_stages", mel_stages)
    monkeypatch.setattr(way, "slope", counting)
    return counts


# -- as upstream ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("meanflow", "steps"), [(True, 1), (True, 3), (False, 3)])
def test_a_short_prompt_and_other_steps_match_upstream(
    meanflow: bool, steps: int, published: Any, folder: Folder, shelf: Any, tokens: list[int]
) -> None:
    shelf.clear()
    name, file = ("nano", "s3gen_meanflow.safetensors") if meanflow else ("english", "s3gen.safetensors")
    way = s3gen.S3GenCpuPass(s3gen.load(folder(name) / file, meanflow=meanflow)[0])
    theirs = published.s3gen(folder(name) / file, meanflow=meanflow)
    voice = prompt_of(4.0)
    cut = {
        **voice,
        "prompt_token": voice["prompt_token"][:, :75],
        "prompt_token_len": torch.tensor([75]),
        "prompt_feat": voice["prompt_feat"][:, :150],
    }
    with published.noise(SEED, 150, 2 * len(tokens)):
        their_mel = theirs.flow_inference(
            torch.tensor([tokens]), ref_dict=cut, n_cfm_timesteps=steps, finalize=True
        )
        their_wave, _ = theirs.hift_inference(their_mel)
    wave = their_wave[0].clone()
    wave[: len(theirs.trim_fade)] *= theirs.trim_fade

    options = FlowOptions.of({"reference_seconds": 3, "flow_steps": steps})
    decoding = options.decoding(way, Reference.from_mapping(voice), SEED, stream=False)
    with torch.inference_mode():
        task = MelTask(torch.tensor([tokens]), decoding._reference, decoding._noise, final=True)
        [mel] = drained(way.mel_stages([task], steps=decoding.steps))
    samples = decoding.decode(tokens, final=True)
    assert mel.shape == their_mel.shape
    assert (mel - their_mel).abs().max() < 1e-3
    assert np.abs(samples - wave.numpy()).max() < 1e-3
    assert np.abs(samples).max() > 0.02


def test_english_with_the_distilled_flow_sounds_as_upstream_says_it(
    published: Any, folder: Folder, own: Callable[[str], Path], shelf: Any
) -> None:
    """Upstream's English model with the S3Gen of its turbo. The tokens stay the model's own."""
    shelf.clear()
    model = load(EnglishModel, folder("english"))
    usual = say(model, request(max_tokens=20, temperature=0.0)).metadata()["tokens"]
    model.close()
    del model
    give_back_memory()
    path = own("english")
    (path / "s3gen.safetensors").unlink()
    (path / "s3gen_meanflow.safetensors").symlink_to(folder("nano") / "s3gen_meanflow.safetensors")
    model = load(EnglishModel, path, flow="meanflow")
    said = say(model, request(max_tokens=20, temperature=0.0))
    tokens = said.metadata()["tokens"]
    assert tokens == usual
    tts = published.model(model, path)
    prompt = model._residents.voice.gen.prompt_feat.shape[1]
    with published.noise(3, prompt, 2 * tokens):
        expected = published.say(tts, "Hello world, this is a test.", model, max_tokens=20)
    assert said.samples().shape == expected.shape
    assert np.abs(said.samples() - expected).max() < 1e-3
    assert np.abs(expected).max() > 0.02
    model.close()


# -- the prompt -------------------------------------------------------------------------------------


def test_a_prompt_is_cut_at_the_same_point_in_tokens_and_frames() -> None:
    reference = Reference.from_mapping(prompt_of(4.0))
    for seconds, kept in ((3, 75), (3.02, 75), (3.5, 87), (4, 100), (10, 100)):
        cut = reference.beginning(seconds)
        assert torch.equal(cut.prompt_token, reference.prompt_token[:, :kept])
        assert torch.equal(cut.prompt_feat, reference.prompt_feat[:, : 2 * kept])
        assert torch.equal(cut.embedding, reference.embedding)


def test_every_voice_is_cut_and_t3_hears_all_of_it(
    long_voice: Callable[[str], Path],
    recording: tuple[np.ndarray, int],
    prompts: list[tuple[int, int]],
) -> None:
    model = load(NanoModel, long_voice("nano"))
    samples, rate = recording
    audio = np.concatenate([samples, 0.4 * samples[::-1]]).astype(np.float32)
    cloned = {"samples": audio.tobytes(), "sample_rate": rate}
    saved = {"saved": model.call("clone", cloned).result()["voice"]}
    for voice, whole in ((None, 100), (cloned, 209), (saved, 209)):
        prompts.clear()
        usual = say(model, request(voice=voice))
        short = say(model, request(voice=voice, reference_seconds=3))
        [full, cut] = prompts
        assert full[0] == pytest.approx(whole, abs=2)
        assert full[1] == 2 * full[0]
        assert cut == (75, 150)
        assert short.metadata()["tokens"] == usual.metadata()["tokens"]
        assert short.metadata()["voice"] == usual.metadata()["voice"]
    model.close()


def test_options_of_the_load_are_the_defaults_of_requests(
    long_voice: Callable[[str], Path],
    prompts: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    shelf: Any,
) -> None:
    shelf.clear()
    model = load(NanoModel, long_voice("nano"), reference_seconds=3.2, flow_steps=4, first_chunk_steps=1)
    say(model, request())
    say(model, request(reference_seconds=3.6))
    assert prompts == [(80, 160), (90, 180)]
    monkeypatch.undo()
    counts = steps_of_chunks(model, monkeypatch)
    say(model, request())
    say(model, request(flow_steps=3))
    say(model, request(stream=True, chunk_tokens=8))
    assert counts[:3] == [4, 3, 1]
    assert set(counts[3:]) == {4}
    model.close()
    with pytest.raises(ChatterbexError, match=r"reference_seconds must be a number from 3 to 10, not 2"):
        load(NanoModel, long_voice("nano"), reference_seconds=2)


# -- steps ------------------------------------------------------------------------------------------


def test_only_the_first_chunk_of_a_stream_has_the_first_steps(
    nano: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: dict[str, Any] = {"stream": True, "chunk_tokens": 8, "chunk_growth": 1.0}
    mels: list[torch.Tensor] = []
    vocode = Decoding._vocode

    def keeping(self: Decoding, mel: torch.Tensor, final: bool) -> np.ndarray:
        mels.append(mel)
        return vocode(self, mel, final)

    monkeypatch.setattr(Decoding, "_vocode", keeping)
    usual = say(nano, request(**plan))
    chunks = len(mels)
    counts = steps_of_chunks(nano, monkeypatch)
    quick = say(nano, request(first_chunk_steps=1, **plan))
    assert counts == [1] + [2] * (len(counts) - 1)
    assert len(counts) > 2
    assert len(quick.samples()) == len(usual.samples())
    first = len(quick.chunks[1][0].samples)
    assert first == len(usual.chunks[1][0].samples)
    assert not np.array_equal(quick.samples()[:first], usual.samples()[:first])
    assert not torch.equal(mels[chunks], mels[0])
    assert torch.equal(mels[-1], mels[chunks - 1]), "what follows is computed from all tokens again"
    for same in ({"first_chunk_steps": 2}, {"first_chunk_steps": 0}):
        assert np.array_equal(say(nano, request(**plan, **same)).samples(), usual.samples())


def test_only_a_stream_has_a_first_chunk(nano: Any) -> None:
    usual = say(nano, request()).samples()
    for same in ({"first_chunk_steps": 1}, {"flow_steps": 2}, {"reference_seconds": 10}):
        assert np.array_equal(say(nano, request(**same)).samples(), usual), same
    assert not np.array_equal(say(nano, request(flow_steps=1)).samples(), usual)


def test_speech_is_converted_in_fewer_steps(
    long_voice: Callable[[str], Path], recording: tuple[np.ndarray, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(ConversionModel, long_voice("conversion"))
    samples, rate = recording
    audio = {"samples": samples[:rate].tobytes(), "sample_rate": rate}
    counts = steps_of_chunks(model, monkeypatch)
    said = say(model, request(text="", audio=audio, flow_steps=1, reference_seconds=3))
    assert counts == [1]
    assert len(said.samples()) == said.metadata()["tokens"] * TOKEN
    with pytest.raises(ChatterbexError, match="flow_steps must be a whole number from 1 to 50, not 0"):
        model.admit(request(text="", audio=audio, flow_steps=0))
    model.close()


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("reference_seconds", (2.9, 10.1, "5", True, float("nan"))),
        ("flow_steps", (0, 51, 2.0, True)),
        ("first_chunk_steps", (-1, 51, "1")),
    ],
)
def test_values_out_of_range(nano: Any, option: str, bad: tuple[Any, ...]) -> None:
    for value in bad:
        with pytest.raises(ChatterbexError, match=option) as caught:
            nano.admit(request(**{option: value}))
        assert caught.value.reason == "invalid_option"
    assert not nano.busy()


# -- on devices, in company -------------------------------------------------------------------------


def test_requests_with_other_prompts_are_computed_together(meanflow: Any, tokens: list[int]) -> None:
    ours, _ = meanflow
    reference = Reference.from_mapping(prompt_of(4.0))
    asked = [FlowOptions(), FlowOptions(reference_seconds=3.0), FlowOptions(reference_seconds=3.4)]
    for way in (ours, S3GenGpuPass(ours.network)):
        parts = [
            (one.decoding(way, reference, SEED + number, stream=False), tokens[: 20 + number], True)
            for number, one in enumerate(asked)
        ]
        if way is ours:  # it takes one at a time
            expected = [decoding.decode(said, final) for decoding, said, final in parts]
        else:
            for one, right in zip(drained(together(parts)), expected, strict=True):
                assert np.abs(one - right).max() < 1e-3
    assert not np.array_equal(expected[0][:TOKEN], expected[1][:TOKEN])


def test_only_requests_with_as_many_steps_are_computed_together(
    accelerator: Any, long_voice: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = long_voice("nano")
    asked: list[dict[str, Any]] = [
        {"flow_steps": 1},
        {"flow_steps": 2, "reference_seconds": 3},
        {"reference_seconds": 3.4},
        {"stream": True, "first_chunk_steps": 1, "chunk_tokens": 8},
    ]
    short = {"max_tokens": 14}
    cpu = load(NanoModel, path)
    alone = [say(cpu, request(id, **short, **options)).samples(id) for id, options in enumerate(asked)]
    cpu.close()
    if accelerator.exact:
        monkeypatch.setattr(passes, "_WARM_UP", 10)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    sizes: list[list[int]] = []

    def grouped(parts: Any) -> Any:
        sizes.append([decoding.steps for decoding, _, _ in parts])
        return together(parts)

    monkeypatch.setattr(scheduler, "together", grouped)
    model = load(NanoModel, path, device=accelerator.name)
    said = say(model, *(request(id, **short, **options) for id, options in enumerate(asked)))
    assert model.info()["device"]["actual"] == accelerator.name
    assert all(len(set(steps)) == 1 for steps in sizes), sizes
    assert max(len(steps) for steps in sizes) > 1, sizes
    for id, right in enumerate(alone):
        assert said.samples(id).shape == right.shape
        if id < 3:  # the chunks of a stream come when others leave time for them
            assert np.abs(said.samples(id) - right).max() < 1e-3
    model.close()


# -- the files of the distilled flow ----------------------------------------------------------------


def test_a_missing_distilled_flow_is_reported_with_its_command(own: Callable[[str], Path]) -> None:
    with pytest.raises(ChatterbexError) as caught:
        load(EnglishModel, own("english"), flow="meanflow")
    assert caught.value.reason == "model_files_missing"
    assert caught.value.details["files"] == ["s3gen_meanflow.safetensors"]
    assert "mix chatterbex.models download english --flow meanflow" in caught.value.message
    asked = MultilingualModel.download({"pack": "hi", "flow": "meanflow"})
    assert asked == "download multilingual --language-pack hi --flow meanflow"


@pytest.mark.parametrize(
    ("key", "model", "extra"),
    [
        ("english", EnglishModel, {}),
        ("conversion", ConversionModel, {}),
        ("multilingual-v3", MultilingualModel, {}),
        ("multilingual-hi", MultilingualModel, {"pack": "hi"}),
    ],
)
def test_the_distilled_flow_is_in_the_place_of_the_models_own(
    key: str, model: Any, extra: dict[str, str], tmp_path: Path
) -> None:
    needed = set(checkpoint.REQUIRED_FILES[key])
    for name in needed:
        (tmp_path / name).touch()
    assert set(model.files(tmp_path, {**extra, "flow": "cfm"})) == needed
    assert set(model.files(tmp_path, {**extra, "flow": "meanflow"})) == (
        needed - {model.s3gen_file} | {"s3gen_meanflow.safetensors"}
    )
    assert model.s3gen({**extra, "flow": "meanflow"}).meanflow


@pytest.mark.parametrize(
    ("model", "flow", "reason"),
    [
        (EnglishModel, "turbo", "invalid_option"),
        (NanoModel, "meanflow", "not_supported"),
        (NanoModel, "cfm", "not_supported"),
    ],
)
def test_flows_that_a_model_does_not_have(model: Any, flow: str, reason: str) -> None:
    with pytest.raises(ChatterbexError) as caught:
        model.s3gen({"flow": flow})
    assert caught.value.reason == reason
