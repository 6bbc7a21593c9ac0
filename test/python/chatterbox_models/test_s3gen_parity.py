"""S3Gen gives the same results as upstream's own code, with the same weights and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import drained, torch_threads
from shelf import give_back_memory

from chatterbex import s3gen
from chatterbex.device.proof import BFLOAT16, FLOAT32, MARGIN, gain
from chatterbex.s3gen import TOKEN, Decoding, MelTask, Reference, S3GenGpuPass, conformer, signal, together
from chatterbex.s3gen.estimator import Estimator, mish_
from chatterbex.s3gen.gpu import unet
from chatterbex.s3gen.products import BFLOAT16 as BFLOAT16_PRODUCTS
from chatterbex.s3gen.vocoder import Vocoder

SEED = 9


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Gives back the pages of both networks' files after each test."""
    yield
    give_back_memory()


@pytest.fixture(scope="module", params=["meanflow", "guided"])
def pair(request: pytest.FixtureRequest, published: Any, folder: Callable[[str], Path], shelf: Any) -> Any:
    """Ours and upstream's of the same file."""
    shelf.clear()
    meanflow = request.param == "meanflow"
    name, file = ("nano", "s3gen_meanflow.safetensors") if meanflow else ("english", "s3gen.safetensors")
    path = folder(name) / file
    network, analysis = s3gen.load(path, meanflow=meanflow)
    ours = s3gen.S3GenCpuPass(network)
    give_back_memory()
    theirs = published.s3gen(path, meanflow=meanflow)
    give_back_memory()
    return ours, analysis, theirs


def test_mel_frames_and_samples_are_upstreams(
    pair: Any, published: Any, voice: dict[str, Any], reference: Reference, tokens: list[int]
) -> None:
    ours, _, theirs = pair
    prompt, frames = reference.prompt_feat.shape[1], 2 * len(tokens)
    given = {name: value if value is None else value.clone() for name, value in voice.items()}
    with published.noise(SEED, prompt, frames):
        their_mel = theirs.flow_inference(torch.tensor([tokens]), ref_dict=given, finalize=True)
        their_wave, _ = theirs.hift_inference(their_mel)
        their_wave = their_wave[0].clone()
        their_wave[: len(theirs.trim_fade)] *= theirs.trim_fade

    decoding = Decoding(ours, reference, SEED)
    with torch.inference_mode():
        task = MelTask(torch.tensor([tokens]), reference, decoding._noise, final=True)
        [mel] = drained(ours.mel_stages([task]))
    samples = decoding.decode(tokens, final=True)

    assert mel.shape == their_mel.shape == (1, 80, frames)
    assert (mel - their_mel).abs().max() < 1e-3
    assert samples.shape == their_wave.shape == (TOKEN * len(tokens),)
    assert np.abs(samples - their_wave.numpy()).max() < 1e-3
    assert np.abs(samples).max() > 0.02, "the synthetic vocoder says nothing, so this shows nothing"


def test_the_pass_for_gpus_gives_the_same_alone_and_padded_in_a_batch(
    pair: Any, reference: Reference, tokens: list[int]
) -> None:
    """Requests of different lengths, complete and unfinished; padding only changes the rounding."""
    ours, _, _ = pair
    plain = S3GenGpuPass(ours.network)
    requests = [(tokens, True), (tokens[:11], True), (tokens[:20], False), (tokens[3:5], True)]

    def vocoded(way: Any, group: list[tuple[list[int], bool]]) -> list[np.ndarray]:
        parts = [(Decoding(way, reference, SEED + len(one)), one, final) for one, final in group]
        return drained(together(parts))

    expected = [vocoded(ours, [one])[0] for one in requests]
    alone = [vocoded(plain, [one])[0] for one in requests]
    batch = vocoded(plain, requests)
    for one, other, right in zip(alone, batch, expected, strict=True):
        assert one.shape == other.shape == right.shape
        assert right.size
        assert np.abs(one - right).max() < 1e-3
        assert np.abs(other - right).max() < 1e-3


# A tile of the first level has 64 frames or 256, those of the others have less.
@pytest.mark.parametrize("frames", [1, 2, 31, 32, 33, 127, 129, 161, 290])
def test_a_vocoder_in_tiles_matches_the_whole(pair: Any, frames: int) -> None:
    _, _, theirs = pair
    generator = torch.Generator().manual_seed(frames)
    mel = 2 * torch.randn(1, 80, frames, generator=generator) - 5
    source = 0.1 * torch.randn(1, 1, 480 * frames, generator=generator)
    with torch.inference_mode():
        whole = theirs.mel2wav.decode(mel, source)
        tiled = Vocoder(pair[0].network.mel2wav).wave(mel, source)
    assert tiled.shape == whole.shape == (1, 480 * frames)
    assert (tiled - whole).abs().max() < 1e-5
    assert whole.abs().max() > 0.05, "the synthetic vocoder says nothing, so this shows nothing"


def test_packing_leaves_the_weights_as_the_checkpoint_stores_them(meanflow: Any) -> None:
    ours, _ = meanflow
    for name, parameter in ours.network.named_parameters():
        assert parameter.is_contiguous(), name


# around the number of queries per block
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 255, 256, 257, 600])
def test_attention_in_parts_matches_the_whole(pair: Any, length: int) -> None:
    ours, _, theirs = pair
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(1, length, 512, generator=generator)
    no_mask = torch.ones((0, 0, 0), dtype=torch.bool)
    with torch.inference_mode():
        x, positions = theirs.flow.encoder.embed.pos_enc(x)
        expected, *_ = theirs.flow.encoder.encoders[0](x, no_mask, positions, no_mask)
        given = conformer.layer(ours.network.flow.encoder.encoders[0], x, positions)
    assert torch.allclose(given, expected, atol=1e-4)
    assert (expected - x).abs().max() > 0.1, "the synthetic layer does nothing, so this shows nothing"


# around the number of positions per thread
@pytest.mark.parametrize("length", [1, 2, 3, 159, 160, 161, 350])
def test_the_flows_network_in_parts_gives_the_whole(pair: Any, length: int) -> None:
    ours, _, theirs = pair
    batch = 1 if ours.network.meanflow else 2
    generator = torch.Generator().manual_seed(length)
    x, mu, condition = torch.randn(3, batch, 80, length, generator=generator)
    speaker = torch.randn(batch, 80, generator=generator)
    now, then = torch.tensor([0.3]), torch.tensor([0.8])
    mask = torch.ones(batch, 1, length)
    network = deepcopy(theirs.flow.decoder.estimator)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # those of the synthetic checkpoint are zeros
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    results = []
    with torch.inference_mode():
        end = then.expand(batch) if ours.network.meanflow else None
        expected = network(x, mask, mu, now.expand(batch), speaker, condition, end)
        time = ours._time(network, 0.3, x)
        if ours.network.meanflow:
            time = network.time_embed_mixer(torch.cat([time, ours._time(network, 0.8, x)], dim=1))
        joined = torch.cat([x, mu, speaker[:, :, None].expand_as(mu), condition], dim=1)
        packed, coarse = Estimator(network), Estimator(network, BFLOAT16_PRODUCTS)
        for threads in (1, 2):
            with torch_threads(threads):
                results.append((packed(joined, time), coarse(joined, time), unet(network, joined, time)))
        del packed, coarse
        give_back_memory()
        # Upstream's own refuses float64.
        exact = unet(network.double(), joined.double(), time.double())
    assert expected.abs().max() > 0.1, "the synthetic network says nothing, so this shows nothing"
    for given, half, plain in results:
        assert given.shape == expected.shape == x.shape
        assert rounded_alike(given, expected, exact)
        assert rounded_alike(plain, expected, exact), "the pass for GPUs"
        # The same sums multiply a coarser rounding.
        assert rounded_alike(half, expected, exact, unit=BFLOAT16), "in bfloat16"
        assert not rounded_alike(half, expected, exact), "this is float32"


def rounded_alike(
    ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, unit: float = FLOAT32
) -> bool:
    """Whether ours is as close to float64 as upstream's float32 with another order of sums may be.

    Args:
        ours: what is judged.
        theirs: upstream's, in float32.
        exact: in float64.
        unit: the unit roundoff of ours.
    """
    return gain(ours, exact) * FLOAT32 / unit <= MARGIN * max(1.0, gain(theirs, exact))


def test_an_activation_without_a_logarithm_is_the_same() -> None:
    x = torch.cat([torch.linspace(-120, 120, 100_001), torch.tensor([-1e30, 1e30])])
    assert torch.allclose(mish_(x.clone()), torch.nn.functional.mish(x), rtol=1e-5, atol=1e-7)


def test_tables_without_a_file_match_a_normally_built_module(pair: Any) -> None:
    ours, analysis, theirs = pair
    mine = torch.nn.ModuleDict({"s3gen": ours.network, "analysis": analysis})
    checked = []
    for name, module in theirs.named_modules():
        saved = {*module._parameters, *(module._buffers.keys() - module._non_persistent_buffers_set)}
        tables = {**vars(module), **module._buffers}
        for key, value in tables.items():
            if not isinstance(value, torch.Tensor) or key in saved:
                continue
            part = "analysis" if name.startswith(("tokenizer", "speaker_encoder")) else "s3gen"
            place = mine.get_submodule(f"{part}.{name}".rstrip("."))
            assert torch.equal(getattr(place, key), value), f"{name}.{key}"
            checked.append(f"{name}.{key}".lstrip("."))
    assert sorted(checked) == [
        "flow.encoder.embed.pos_enc.pe",
        "flow.encoder.up_embed.pos_enc.pe",
        "mel2wav.stft_window",
        "tokenizer.encoder.freqs_cis",
        "trim_fade",
    ]
    assert torch.equal(analysis.tokenizer._mel_filters, theirs.tokenizer._mel_filters)
    assert torch.equal(analysis.tokenizer.window, theirs.tokenizer.window)


def test_nothing_is_a_plain_attribute_that_would_stay_behind_in_a_move(pair: Any) -> None:
    ours, _, _ = pair
    for name, module in ours.network.named_modules():
        plain = [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)]
        assert not plain, f"{name}: {plain}"


def test_reference_audio_gives_upstreams_reference(pair: Any, recording: tuple[np.ndarray, int]) -> None:
    _, analysis, theirs = pair
    samples, rate = recording
    at_24k = signal.resample(samples, orig_sr=rate, target_sr=24_000)
    # A frame more than twice the tokens, as most recordings have.
    at_24k = at_24k[: 24_000 * 3 + 500]
    with torch.inference_mode():
        expected = theirs.embed_ref(at_24k, 24_000, device="cpu")
    from chatterbex.voices import _to_16k

    ours = analysis.reference(at_24k, _to_16k(at_24k))
    count = ours.prompt_token.shape[1]
    assert torch.equal(ours.prompt_token, expected["prompt_token"][:, :count])
    assert ours.prompt_feat.shape[1] == 2 * count
    assert torch.allclose(ours.prompt_feat, expected["prompt_feat"][:, : 2 * count], atol=1e-4)
    assert torch.allclose(ours.embedding, expected["embedding"], atol=1e-4)


@pytest.mark.parametrize("extra", [False, True])
def test_conditionals_of_upstream_are_read_whatever_types_they_were_cast_to(
    voice: dict[str, Any], extra: bool
) -> None:
    given = {**voice, "prompt_token": voice["prompt_token"].float()}
    if extra:
        given["prompt_feat"] = torch.cat([voice["prompt_feat"], torch.zeros(1, 1, 80)], dim=1)
    ours = Reference.from_mapping(given)
    assert ours.prompt_token.dtype == torch.int64
    assert torch.equal(ours.prompt_token, voice["prompt_token"])
    assert torch.equal(ours.prompt_feat, voice["prompt_feat"])


def test_a_layer_of_ours_in_place_of_diffusers_is_the_same(published: Any) -> None:
    from diffusers.models.attention_processor import Attention

    from chatterbex.s3gen import layers

    torch.manual_seed(0)
    theirs = Attention(query_dim=32, heads=2, dim_head=16)
    ours = layers.Attention(32, heads=2, dim_head=16)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 9, 32)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    bias = torch.zeros(2, 9, 9)
    bias[:, :, 5:] = -1e10
    assert torch.allclose(ours(x, attention_mask=bias), theirs(x, attention_mask=bias), atol=1e-6)


def test_signal_functions_are_librosas(published: Any, recording: tuple[np.ndarray, int]) -> None:
    import librosa

    samples, rate = recording
    for target in (24_000, 22_050, 44_100):
        expected = librosa.resample(samples, orig_sr=rate, target_sr=target)
        assert np.array_equal(signal.resample(samples, orig_sr=rate, target_sr=target), expected)
    for shape in (
        {"sr": 24_000, "n_fft": 1920, "n_mels": 80, "fmin": 0, "fmax": 8000},
        {"sr": 16_000, "n_fft": 400, "n_mels": 128},
        {"sr": 16_000, "n_fft": 400, "n_mels": 40, "fmin": 0, "fmax": 8000},
    ):
        assert np.abs(signal.mel_filters(**shape) - librosa.filters.mel(**shape)).max() < 1e-7
    for quiet in (20, 40, 60):
        assert (
            signal.trim(samples, top_db=quiet)[1].tolist()
            == librosa.effects.trim(samples, top_db=quiet)[1].tolist()
        )
    size = {"n_fft": 400, "hop_length": 160, "win_length": 400}
    assert (
        np.abs(signal.stft(samples, **size) - librosa.stft(samples, pad_mode="reflect", **size)).max() < 1e-4
    )


def test_weights_merge_as_the_layers_would_have_done() -> None:
    from torch.nn.utils.parametrizations import weight_norm

    from chatterbex import checkpoint

    torch.manual_seed(0)
    layer = weight_norm(torch.nn.ConvTranspose1d(6, 4, 5))
    state = {f"conv.{name}": value for name, value in layer.state_dict().items()}
    merged = checkpoint.merge_weight_norm(state)
    assert set(merged) == {"conv.weight", "conv.bias"}
    assert torch.equal(merged["conv.weight"], layer.weight)
    old = {
        "conv.weight_g": layer.parametrizations.weight.original0,
        "conv.weight_v": layer.parametrizations.weight.original1,
    }
    assert torch.equal(checkpoint.merge_weight_norm(old)["conv.weight"], layer.weight)


def test_s3gen_of_upstream_cannot_stream(
    pair: Any, published: Any, voice: dict[str, Any], tokens: list[int]
) -> None:
    """Its unfinished path drops encoder frames and leaves their mask: the reason for our own."""
    _, _, theirs = pair
    with published.noise(SEED, 50, 2 * len(tokens)), pytest.raises(RuntimeError, match="must match"):
        theirs.flow_inference(torch.tensor([tokens]), ref_dict=dict(voice), finalize=False)


def test_the_package_is_complete() -> None:
    assert {name for name in s3gen.__all__ if not hasattr(s3gen, name)} == set()
