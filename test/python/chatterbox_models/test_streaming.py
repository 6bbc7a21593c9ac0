"""Chunks: their number of samples, their joints, and how close they come to the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from chatterbex.s3gen import FRAME, TOKEN, Decoding, Reference
from chatterbex.s3gen import decoding as decoding_module
from chatterbex.s3gen.noise import Noise

SEED = 5
# How far a stream may be from the whole, as the root mean square of the difference by the standard
# deviation of the whole:
# - mel frames: those of a chunk are made without the frames that follow, which every frame looks at;
# - samples, where the mel frames are the same: the vocoder misses what it looks at beyond HELD;
# - what the flow is steered by, where the look-ahead shows. (Random weights give it little weight
#   behind that, and frames that lack it would be held back anyway.)
MEL = 0.25
WAVE = 0.025
STEERING = 0.2


def streamed(
    s3gen: Any, reference: Reference, tokens: list[int], size: int, **options: Any
) -> tuple[np.ndarray, list[int]]:
    decoding = Decoding(s3gen, reference, SEED, **options)
    chunks = [decoding.decode(tokens[:count], final=False) for count in range(size, len(tokens), size)]
    chunks.append(decoding.decode(tokens, final=True))
    joints = np.cumsum([len(chunk) for chunk in chunks])[:-1].tolist()
    return np.concatenate(chunks), [at for at in joints if at]


def apart(one: Any, other: Any) -> float:
    one, other = np.asarray(one), np.asarray(other)
    return float(np.sqrt(np.mean((one - other) ** 2)) / np.std(other))


Spoken = list[torch.Tensor]


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> Spoken:
    """The mel frames whose samples were returned."""
    frames: Spoken = []
    plain = Decoding._vocode

    def vocode(self: Any, mel: torch.Tensor, final: bool) -> np.ndarray:
        begin = self.frames
        samples = plain(self, mel, final)
        frames.append(mel[:, :, begin : self.frames].clone())
        return samples

    monkeypatch.setattr(Decoding, "_vocode", vocode)
    return frames


@pytest.fixture
def foresight(
    meanflow: Any, reference: Reference, tokens: list[int], spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """From now on the flow gives every chunk the frames of the whole; returns the whole's samples."""
    samples = Decoding(meanflow[0], reference, SEED).decode(tokens, final=True)
    frames = torch.cat(spoken, dim=2)
    spoken.clear()

    def mel_stages(tasks: Any, steps: None) -> Any:
        yield
        [task] = tasks
        count = task.tokens.shape[1]
        return [frames[:, :, : 2 * (count if task.final else count - 3)]]

    monkeypatch.setattr(meanflow[0], "mel_stages", mel_stages)
    return samples


@pytest.fixture
def whole(meanflow: Any, reference: Reference, tokens: list[int], shelf: Any) -> np.ndarray:
    return shelf.take("whole", lambda: Decoding(meanflow[0], reference, SEED).decode(tokens, final=True))


@pytest.mark.parametrize("size", [1, 3, 7, 10, 27, 28, 40])
def test_a_stream_has_every_sample_once(
    meanflow: Any, reference: Reference, tokens: list[int], size: int
) -> None:
    few = tokens if size > 3 else tokens[:12]
    samples, _ = streamed(meanflow[0], reference, few, size)
    assert samples.shape == (TOKEN * len(few),)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_a_stream_in_one_chunk_is_the_whole(
    meanflow: Any, reference: Reference, tokens: list[int], whole: np.ndarray
) -> None:
    samples, _ = streamed(meanflow[0], reference, tokens, len(tokens))
    assert np.array_equal(samples, whole)


@pytest.mark.parametrize("size", [8, 12])
def test_a_stream_has_no_step_at_its_joints(
    meanflow: Any, reference: Reference, tokens: list[int], size: int
) -> None:
    samples, joints = streamed(meanflow[0], reference, tokens, size)
    assert joints
    steps = np.abs(np.diff(samples))
    inside = np.delete(steps, [at - 1 for at in joints])
    assert max(steps[at - 1] for at in joints) <= inside.max()


@pytest.mark.parametrize("broken", [None, "noise"])
def test_the_mel_frames_of_a_stream_are_close_to_the_wholes(
    meanflow: Any,
    reference: Reference,
    tokens: list[int],
    spoken: Spoken,
    broken: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Decoding(meanflow[0], reference, SEED).decode(tokens, final=True)
    whole = spoken.pop()
    if broken:
        draws = torch.Generator().manual_seed(0)
        monkeypatch.setattr(
            Noise, "mel", lambda _, prompt, frames: torch.randn(1, 80, prompt + frames, generator=draws)
        )
    streamed(meanflow[0], reference, tokens, 8)
    assert (apart(torch.cat(spoken, dim=2), whole) < MEL) == (broken is None)


@pytest.mark.parametrize("broken", [None, "source", "phases", "context", "held"])
def test_the_samples_of_a_stream_are_the_wholes_where_its_mel_frames_are(
    meanflow: Any,
    reference: Reference,
    tokens: list[int],
    foresight: np.ndarray,
    broken: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocode = Decoding._vocode

    def spoilt(self: Any, mel: Any, final: bool) -> np.ndarray:
        if self._source is not None and broken == "source":
            self._source.zero_()
        if broken == "phases":
            self._phases = self._noise.phases(9)
        return vocode(self, mel, final)

    monkeypatch.setattr(Decoding, "_vocode", spoilt)
    if broken == "context":
        monkeypatch.setattr(decoding_module, "LEFT", 1)
    held = 0 if broken == "held" else decoding_module.HELD
    samples, joints = streamed(meanflow[0], reference, tokens, 8, held=held)
    assert len(joints) == 3
    assert (apart(samples, foresight) < WAVE) == (broken is None)


@pytest.mark.parametrize("broken", [None, "look-ahead"])
def test_the_look_ahead_matches_the_whole(meanflow: Any, tokens: list[int], broken: str | None) -> None:
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        whole = meanflow[0].encode([ids], [True])[0]
        given = ([ids[:, :17]], [True]) if broken else ([ids[:, :20]], [False])
        part = meanflow[0].encode(*given)[0]
    last = slice(28, 34)  # frames of the last three tokens that can be spoken
    assert part.shape == (1, 80, 34)
    assert (apart(part[:, :, last], whole[:, :, last]) < STEERING) == (broken is None)


def test_a_position_with_its_look_ahead_is_encoded_as_in_the_whole(meanflow: Any, tokens: list[int]) -> None:
    """The kept part of an unfinished text has its full look-ahead, before any attention."""
    encoder = meanflow[0].network.flow.encoder
    seen: list[torch.Tensor] = []
    first = encoder.encoders[0].norm_mha
    hook = first.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    try:
        with torch.inference_mode():
            meanflow[0].encode([torch.tensor([tokens])], [True])
            meanflow[0].encode([torch.tensor([tokens[:20]])], [False])
    finally:
        hook.remove()
    complete, unfinished = seen
    assert unfinished.shape[1] == 17
    assert torch.allclose(unfinished, complete[:, :17], atol=1e-5)
    mu, _ = meanflow[0].encode([torch.tensor([tokens[:20]])], [False])
    assert mu.shape == (1, 80, 34)


def test_the_vocoder_of_a_window_matches_the_whole(meanflow: Any) -> None:
    """With `LEFT` frames before, and enough after, a window's samples are the whole's."""
    s3gen = meanflow[0]
    noise = Noise(1)
    mel = torch.randn(1, 80, 80, generator=torch.Generator().manual_seed(0)) * 2 - 5
    with torch.inference_mode():
        source, phases = s3gen.source(s3gen.pitch(mel), noise.phases(9), noise.source(0, 80, 9, FRAME))
        complete = s3gen.wave(mel, source)
        first, last = 40 - decoding_module.LEFT, 70
        part = s3gen.wave(mel[:, :, first:last], source[:, :, first * FRAME : last * FRAME])
        inner = slice(40 * FRAME, 52 * FRAME)
        moved = slice((40 - first) * FRAME, (52 - first) * FRAME)
        assert (complete[inner] - part[moved]).abs().max() < 1e-4
        # And the source continues where it was.
        pitch = s3gen.pitch(mel)
        rest, _ = s3gen.source(pitch[40:], phases[40], noise.source(40, 80, 9, FRAME))
        assert (rest - source[:, :, 40 * FRAME :]).abs().max() < 1e-4


def test_the_source_is_upstreams(meanflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pitch that changes and falls silent, for longer than any chunk."""
    s3gen, frames, noise = meanflow[0], 300, Noise(2)
    walk = torch.randn(frames, generator=torch.Generator().manual_seed(0)).cumsum(0) * 8 + 170
    pitch = walk.clamp(70, 380)
    pitch[100:130] = 0.0
    draws = noise.source(0, frames, 9, FRAME)
    phases = (noise.phases(9) * 2 * np.pi).float().reshape(1, 9, 1)
    monkeypatch.setattr(torch, "randn_like", lambda like: draws if like.shape == draws.shape else like * 0)
    monkeypatch.setattr("torch.distributions.uniform.Uniform.sample", lambda *_, **__: phases)
    vocoder = s3gen.network.mel2wav
    with torch.inference_mode():
        expected, _, _ = vocoder.m_source(vocoder.f0_upsamp(pitch[None, None]).transpose(1, 2))
        ours, _ = s3gen.source(pitch, noise.phases(9), draws)
    # Upstream adds up a turn per sample in float32, so upstream is the one that is off.
    assert (ours - expected.transpose(1, 2)).abs().max() < 5e-3
    assert ours.abs().max() > 0.1


def test_noise_is_the_same_at_the_same_place() -> None:
    one, other = Noise(3), Noise(3)
    long = one.mel(50, 300)
    assert torch.equal(other.mel(50, 70), long[:, :, :120])
    assert torch.equal(other.mel(10, 300)[:, :, 10:], long[:, :, 50:])
    whole = one.source(0, 200, 9, FRAME)
    for first, last in ((0, 10), (10, 64), (60, 70), (64, 128), (120, 200)):
        assert torch.equal(other.source(first, last, 9, FRAME), whole[:, :, first * FRAME : last * FRAME])
    assert not torch.equal(Noise(4).mel(50, 70), other.mel(50, 70))
    assert abs(float(long.mean())) < 0.05
    assert abs(float(long.std()) - 1) < 0.05
    assert one.phases(9)[0] == 0


def test_ids_that_are_not_speech_do_not_reach_the_flow(
    meanflow: Any, reference: Reference, tokens: list[int]
) -> None:
    few = tokens[:6]
    clean = Decoding(meanflow[0], reference, 1).decode(few, final=True)
    dirty = Decoding(meanflow[0], reference, 1).decode([6561, *few, 6562, 8193, -1], final=True)
    assert np.array_equal(clean, dirty)


@pytest.mark.parametrize("nothing", [[], [6561, 6562]])
def test_no_tokens_are_no_samples(meanflow: Any, reference: Reference, nothing: list[int]) -> None:
    assert Decoding(meanflow[0], reference, 1).decode(nothing, final=True).shape == (0,)
    assert Decoding(meanflow[0], reference, 1).decode(nothing, final=False).shape == (0,)


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_tokens_are_spoken(meanflow: Any, reference: Reference, count: int) -> None:
    assert Decoding(meanflow[0], reference, 1).decode([7] * count, final=True).shape == (TOKEN * count,)


def test_work_is_done_in_stages_without_a_graph_of_gradients(
    english: Any, reference: Reference, tokens: list[int]
) -> None:
    stages = Decoding(english._runtime.way.s3gen, reference, 1, steps=3).stages(tokens[:6], final=True)
    for _ in range(4):  # the encoder, then every step
        next(stages)
        assert not torch.is_inference_mode_enabled()
    with pytest.raises(StopIteration) as stop:
        next(stages)
    assert stop.value.value.shape == (6 * TOKEN,)


def test_finish_sees_the_samples_around_a_chunk(
    meanflow: Any, reference: Reference, tokens: list[int]
) -> None:
    seen: list[int] = []

    def finish(samples: np.ndarray) -> np.ndarray:
        seen.append(len(samples))
        return samples * 0.5

    samples, _ = streamed(meanflow[0], reference, tokens, 12, finish=finish)
    plain, _ = streamed(meanflow[0], reference, tokens, 12)
    assert np.allclose(samples, 0.5 * plain, atol=1e-6)
    assert seen[1] > len(tokens[12:24]) * TOKEN - 12 * FRAME
