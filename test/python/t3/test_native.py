"""The native engine against the same network in float64, and against itself, bit for bit."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no network to compare with")
import torch.nn.functional as F  # noqa: E402
from filters import at_least, best  # noqa: E402
from portable import portable, portable_weights  # noqa: E402

from chatterbex.t3 import (  # noqa: E402
    Sampling,
    T3Config,
    native,
)
from chatterbex.t3.native import Sampler, T3Engine  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

if not native.library_path().is_file():
    pytest.skip(f"{native.library_path()} is not built (mix compile): no engine", allow_module_level=True)

VOCAB = 301


def sized(backbone: str, **sizes: Any) -> T3Config:
    base = T3Config.nano() if backbone == "gpt2" else T3Config.english()
    sizes = {"layers": 3, "dim": 128, "heads": 2, "ffn": 200, "speech_vocab": VOCAB, **sizes}
    return replace(base, positions=256, text_vocab=40, max_text_tokens=30, max_speech_tokens=30, **sizes)


BACKBONES = ("gpt2", "llama")
CONFIGS = {name: sized(name) for name in BACKBONES}
PRECISIONS = ("float32", "int8")
WEIGHTS = {name: synthetic.state_dict(config, 1) for name, config in CONFIGS.items()}


def engine(backbone: str, **options: Any) -> T3Engine:
    return T3Engine(CONFIGS[backbone], WEIGHTS[backbone], **{"threads": 1, **options})


def rows(count: int, seed: int = 0, dim: int = 128) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def bits(array: np.ndarray) -> bytes:
    return array.astype(np.float32).tobytes()


# -- the network in float64 -------------------------------------------------------------------------


def rotation(config: T3Config, count: int) -> Any:
    """(T, 32) complex numbers on the unit circle."""
    rope = config.rope
    exponents = torch.arange(0, 64, 2, dtype=torch.float64) / 64
    frequencies = rope.theta**-exponents
    wavelengths = 2 * math.pi / frequencies
    ramp = (rope.original_positions / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    ramp = ramp.clamp(0, 1)
    frequencies = (1 - ramp) * frequencies / rope.factor + ramp * frequencies
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def exact(config: T3Config, weights: dict[str, Any], x: np.ndarray) -> Any:
    """(T, V) logits of one sequence."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = torch.from_numpy(x).double()
    count, dim = x.shape
    llama = config.backbone == "llama"

    def norm(x: Any, name: str) -> Any:
        if llama:
            return F.rms_norm(x, (dim,), w[f"{name}.weight"], config.norm_eps)
        return F.layer_norm(x, (dim,), w[f"{name}.weight"], w[f"{name}.bias"], config.norm_eps)

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    for layer in range(config.layers):
        stem = f"tfmr.layers.{layer}" if llama else f"tfmr.h.{layer}"
        h = norm(x, f"{stem}.input_layernorm" if llama else f"{stem}.ln_1")
        if llama:
            parts = [h @ w[f"{stem}.self_attn.{part}_proj.weight"].T for part in "qkv"]
        else:
            parts = linear(h, f"{stem}.attn.c_attn").split(dim, dim=1)
        q, k, v = (part.unflatten(1, (config.heads, 64)).transpose(0, 1) for part in parts)
        if llama:
            turn = rotation(config, count)
            q, k = (torch.complex(part[..., :32], part[..., 32:]) * turn for part in (q, k))
            q, k = (torch.cat((part.real, part.imag), dim=-1) for part in (q, k))
        scores = (q @ k.transpose(1, 2)) / 8
        scores = scores.masked_fill(torch.ones(count, count).triu(1).bool(), float("-inf"))
        h = (scores.softmax(dim=-1) @ v).transpose(0, 1).flatten(1)
        x = x + (h @ w[f"{stem}.self_attn.o_proj.weight"].T if llama else linear(h, f"{stem}.attn.c_proj"))
        h = norm(x, f"{stem}.post_attention_layernorm" if llama else f"{stem}.ln_2")
        if llama:
            gate, up = (h @ w[f"{stem}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            x = x + (F.silu(gate) * up) @ w[f"{stem}.mlp.down_proj.weight"].T
        else:
            h = F.gelu(linear(h, f"{stem}.mlp.c_fc"), approximate="tanh")
            x = x + linear(h, f"{stem}.mlp.c_proj")
    x = norm(x, "tfmr.norm" if llama else "tfmr.ln_f")
    logits = x @ w["speech_head.weight"].T
    return logits if llama else logits + w["speech_head.bias"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_are_those_of_the_network(backbone: str) -> None:
    config = CONFIGS[backbone]
    x = rows(70)
    expected = exact(config, WEIGHTS[backbone], x)
    ours = engine(backbone)
    sequence = ours.open(70)
    first = ours.forward([sequence], x[:50], [50])
    # a hundred roundings of numbers about as great as the logits
    most = 100 * np.finfo(np.float32).eps * float(expected.abs().max())
    assert np.abs(first.logits[0] - expected[49].numpy()).max() < most
    for i in range(50, 70):
        step = ours.forward([sequence], x[i : i + 1])
        assert step.finite.all()
        assert np.abs(step.logits[0] - expected[i].numpy()).max() < most
    assert ours.length(sequence) == 70


@pytest.mark.parametrize("backbone", BACKBONES)
def test_8_bits_are_close_and_need_a_quarter_of_the_memory(backbone: str) -> None:
    x = rows(40)
    expected = exact(CONFIGS[backbone], WEIGHTS[backbone], x)[39].numpy()
    whole, ours = engine(backbone), engine(backbone, precision="int8")
    logits = ours.forward([ours.open(40)], x, [40]).logits[0]
    # a number is rounded to one of 255 steps, so each product of many is off by less than a hundredth
    assert np.linalg.norm(logits - expected) < 0.03 * np.linalg.norm(expected)
    tables = 256 * 64 * 4 if backbone == "llama" else 0
    assert ours.nbytes[0] - tables < 0.3 * (whole.nbytes[0] - tables)


def test_the_tables_of_rope_follow_the_backbone_of_torch() -> None:
    """Far positions, where a frequency's last bit shows."""
    from chatterbex.t3.backbone import rope_frequencies

    config = replace(CONFIGS["llama"], positions=8192)
    ours = rotation(config, 2)[1].angle().float()
    assert torch.allclose(rope_frequencies(config.rope, 64), ours, rtol=3e-6)


# -- the same bits ----------------------------------------------------------------------------------


def spoken(ours: T3Engine, x: np.ndarray, pieces: list[int]) -> bytes:
    """The bits of a sequence's logits: 40 positions read piece by piece, then 20 one by one."""
    sequence, first, logits = ours.open(60), 0, []
    for piece in pieces:
        step = ours.forward([sequence], x[first : first + piece], [piece], [first + piece == 40])
        first += piece
        logits.append(step.logits)
    logits.extend(ours.forward([sequence], x[i : i + 1]).logits for i in range(40, 60))
    ours.close(sequence)
    return bits(np.concatenate(logits))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_pieces_threads_and_instruction_sets_do_not_change_the_bits(backbone: str, precision: str) -> None:
    x = rows(60)
    expected = spoken(engine(backbone, precision=precision), x, [40])
    for name in native.instruction_sets():
        ours = engine(backbone, precision=precision, instruction_set=name)
        assert spoken(ours, x, [40]) == expected, name
        ours.threads = 2
        for pieces in ([40], [17, 23], [1] * 40, [16, 16, 8], [39, 1]):
            assert spoken(ours, x, pieces) == expected, (name, pieces)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("threads", [1, 2])
def test_other_requests_change_no_bit(backbone: str, threads: int, precision: str) -> None:
    ours = engine(backbone, precision=precision, threads=threads)
    sources = [rows(60, seed) for seed in range(13)]
    alone = [spoken(ours, x, [40]) for x in sources]
    for size in (2, 3, 8, 13):
        sequences = [ours.open(60) for _ in range(size)]
        # some are read together, with different lengths
        counts = [40 - number % 3 for number in range(size)]
        x = np.concatenate([sources[i][:count] for i, count in enumerate(counts)])
        ours.forward(sequences, x, counts, [False] * size)
        logits: list[list[np.ndarray]] = [[] for _ in range(size)]
        places = list(counts)
        while min(places) < 60:
            going = [i for i in range(size) if places[i] < 60]
            x = np.stack([sources[i][places[i]] for i in going])
            step = ours.forward([sequences[i] for i in going], x)
            for i, row in zip(going, step.logits, strict=True):
                places[i] += 1
                if places[i] >= 41 or counts[i] < 40:
                    logits[i].append(row)
        for i in range(size):
            expected = alone[i][-4 * VOCAB * 20 :]
            assert bits(np.stack(logits[i]))[-4 * VOCAB * 20 :] == expected, (size, i)
            ours.close(sequences[i])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("voice", [5, 16, 32, 37])
def test_a_shared_beginning_does_not_change_the_bits(backbone: str, voice: int, precision: str) -> None:
    ours = engine(backbone, precision=precision)
    beginning = rows(voice, 99)
    sources = [np.concatenate((beginning, rows(23, seed))) for seed in range(9)]
    alone = []
    for x in sources:
        sequence = ours.open(voice + 23)
        ours.forward([sequence], x[:-20], [voice + 3], [False])
        alone.append([ours.forward([sequence], x[i : i + 1]).logits[0] for i in range(voice + 3, voice + 23)])
        ours.close(sequence)
    first = ours.open(voice + 23)
    ours.forward([first], sources[0][: voice + 1], [voice + 1], [False])
    prefix = ours.prefix(first, voice)
    before = ours.nbytes[1]
    ours.close(first)
    sequences = [ours.open(voice + 23, prefix) for _ in sources]
    assert [ours.length(sequence) for sequence in sequences] == [voice] * 9
    block = 3 * 128 * 16 * 2 * 4
    assert ours.nbytes[1] - before <= block * (9 if voice % 16 else 0)
    ours.close(prefix)
    for i, sequence in enumerate(sequences):
        ours.forward([sequence], sources[i][voice : voice + 3], [3], [False])
    for step in range(20):
        x = np.stack([source[voice + 3 + step] for source in sources])
        logits = ours.forward(sequences, x).logits
        for i in range(9):
            assert bits(logits[i]) == bits(alone[i][step]), (i, step)
    for sequence in sequences:
        ours.close(sequence)
    assert ours.nbytes[1] == 0


def test_threads_without_subnormal_numbers_do_not_change_the_bits() -> None:
    """A thread that treats subnormal numbers as zero, and threads that it starts, compute like all others."""
    x = rows(60) * np.float32(1e-39)
    ours = engine("llama", threads=2)
    expected = spoken(ours, x, [40])
    assert any(expected)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers: nothing to guard against")
    try:
        assert spoken(ours, x, [40]) == expected
        assert spoken(engine("llama", threads=2), x, [40]) == expected
    finally:
        torch.set_flush_denormal(False)


# -- golden numbers ---------------------------------------------------------------------------------


GOLDEN = {
    ("gpt2", "float32"): "1e8c1e05173ef8ddd9fb5e2153ee379c",
    ("llama", "float32"): "e0163cefdf6ba77d3052acd79d05dce4",
    ("gpt2", "int8"): "6779567236f5f51e854cc42d0d483549",
    ("llama", "int8"): "52600d507361fc3a2d4fc6e4cd42eb7a",
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_golden_logits_and_tokens(backbone: str, precision: str) -> None:
    """The same on every machine. They change only if the order of summation is changed on purpose."""
    config = replace(CONFIGS[backbone], start_speech=VOCAB - 2)
    ours = T3Engine(config, portable_weights(config), threads=2, precision=precision)
    embeddings = portable(0, VOCAB, config.dim)
    sampler = Sampler(config, config.sampling, seed=2**40 + 7)
    sequence, digest = ours.open(64), hashlib.sha256()
    fed = np.arange(30) * 7 % VOCAB
    for _ in range(30):
        logits = ours.forward([sequence], embeddings[fed], [len(fed)]).logits
        digest.update(bits(logits))
        fed = np.array([sampler.draw(logits)])
    digest.update(np.array(sampler.drawn, np.uint32).tobytes())
    assert len(set(sampler.drawn)) > 20
    assert digest.hexdigest()[:32] == GOLDEN[backbone, precision]


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_rows_nan_reaches_nobody(precision: str) -> None:
    ours = engine("llama", precision=precision, threads=2)
    x = rows(3)
    good = ours.forward([ours.open(9) for _ in range(3)], x)
    x[1, 5] = np.nan
    sequences = [ours.open(9) for _ in range(3)]
    bad = ours.forward(sequences, x)
    assert bad.finite.tolist() == [True, False, True]
    assert bits(bad.logits[[0, 2]]) == bits(good.logits[[0, 2]])
    assert np.isnan(bad.logits[1]).all()
    again = ours.forward(sequences, rows(3, 1))
    assert again.finite.tolist() == [True, False, True]


def test_weights_must_be_complete_finite_and_of_the_right_shape() -> None:
    weights = dict(WEIGHTS["gpt2"])
    del weights["tfmr.h.1.mlp.c_fc.bias"], weights["tfmr.ln_f.bias"]
    with pytest.raises(ValueError, match=r"missing: tfmr.h.1.mlp.c_fc.bias, tfmr.ln_f.bias$"):
        T3Engine(CONFIGS["gpt2"], weights)
    for bad in (float("nan"), float("inf")):
        for name in ("tfmr.h.0.attn.c_attn.weight", "tfmr.h.2.ln_1.weight", "speech_head.bias"):
            weights = dict(WEIGHTS["gpt2"])
            weights[name] = weights[name].clone()
            weights[name].view(-1)[-1] = bad
            with pytest.raises(ValueError, match=f"{name}: it holds NaN or infinite numbers"):
                T3Engine(CONFIGS["gpt2"], weights)
    weights = {**WEIGHTS["gpt2"], "speech_head.weight": torch.zeros(VOCAB, 127)}
    with pytest.raises(
        ValueError, match=r"speech_head.weight: its shape is \[301, 127\] and must be \[301, 128\]"
    ):
        T3Engine(CONFIGS["gpt2"], weights)


@pytest.mark.parametrize(
    "sizes",
    [{"heads": 3}, {"dim": 64}, {"layers": 0}, {"ffn": 0}, {"positions": 0}, {"norm_eps": math.nan}],
    ids=str,
)
def test_sizes_must_make_a_model(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        T3Engine(replace(CONFIGS["llama"], **sizes), WEIGHTS["llama"])


def test_the_error_for_an_unknown_instruction_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no instruction set \"mmx\"; it has .*scalar"):
        engine("gpt2", instruction_set="mmx")


def test_calls_must_fit_the_sequences() -> None:
    ours = engine("gpt2")
    one, two = ours.open(5), ours.open(256)
    with pytest.raises(ValueError, match="positions must be from 1 to 256, not 257"):
        ours.open(257)
    with pytest.raises(ValueError, match="no such prefix"):
        ours.open(5, one)
    with pytest.raises(ValueError, match="room for 1 to 5 more, not 6"):
        ours.forward([one], rows(6), [6])
    with pytest.raises(ValueError, match="room for 1 to 5 more, not 0"):
        ours.forward([one, two], rows(1), [0, 1])
    with pytest.raises(ValueError, match="there twice"):
        ours.forward([one, one], rows(2))
    with pytest.raises(ValueError, match="no such sequence"):
        ours.forward([one, 99], rows(2))
    with pytest.raises(ValueError, match="x must have 2 x 128 numbers, not 128"):
        ours.forward([one, two], rows(1))
    with pytest.raises(ValueError, match="as many counts"):
        ours.forward([one, two], rows(2), [2])
    with pytest.raises(ValueError, match="from 1 to 4096 rows, not 0"):
        ours.forward([], rows(0))
    with pytest.raises(ValueError, match="a prefix must have from 1 to the 0 positions"):
        ours.prefix(one, 1)
    assert ours.length(one) == ours.length(two) == 0
    ours.close(one)
    with pytest.raises(ValueError, match="no such sequence"):
        ours.close(one)
    ours.forward([two], rows(1))


def test_tensors_may_have_any_layout() -> None:
    ours = engine("llama")
    expected = bits(ours.forward([ours.open(1)], rows(1)).logits)
    weights = {}
    for number, (name, tensor) in enumerate(WEIGHTS["llama"].items()):
        array = tensor.numpy()
        if array.ndim == 2:
            array = [np.asfortranarray(array), array[::-1][::-1], array.astype(np.float64), array][number % 4]
        weights[name] = array
    ours = T3Engine(CONFIGS["llama"], weights)
    assert bits(ours.forward([ours.open(1)], np.asfortranarray(rows(1))).logits) == expected


# -- drawing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=1000, top_p=0.95),
        Sampling(top_k=50, top_p=0.5, temperature=1.3, repetition_penalty=0.7),
        Sampling(top_k=0, top_p=0.9),
        Sampling(top_k=1000, top_p=1.0),
    ],
    ids=str,
)
def test_gpt2s_filters_are_those_of_before(sampling: Sampling, seed: int) -> None:
    logits = rows(1, seed, 6563)[0] * np.float32(3)
    config = T3Config.turbo()
    scores = logits / np.float32(sampling.temperature)
    expected = best(scores, sampling.top_k or 6563, sampling.top_p)
    start = expected[config.start_speech]
    penalty = np.float32(sampling.repetition_penalty)
    expected[config.start_speech] = start * penalty if start < 0 else start / penalty
    found = Sampler(config, sampling, 0).scores(logits)
    assert_same_but_for_the_brink(found, expected)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "sampling",
    [Sampling(min_p=0.05), Sampling(min_p=0.01, top_p=0.7, temperature=0.6), Sampling(top_p=0.8)],
    ids=str,
)
def test_llamas_filters_are_those_of_before(sampling: Sampling, seed: int) -> None:
    logits = rows(1, seed, 8194)[0] * np.float32(3)
    config = T3Config.english()
    scores = logits.copy()
    start, penalty = scores[config.start_speech], np.float32(sampling.repetition_penalty)
    scores[config.start_speech] = start * penalty if start < 0 else start / penalty
    scores = scores / np.float32(sampling.temperature)
    if sampling.min_p:
        scores = at_least(scores, sampling.min_p)
    expected = best(scores, 8194, sampling.top_p)
    found = Sampler(config, sampling, 0).scores(logits)
    assert_same_but_for_the_brink(found, expected)


def assert_same_but_for_the_brink(found: np.ndarray, expected: np.ndarray) -> None:
    """Sums in float32 and float64 may disagree about the token that reaches `top_p`."""
    both = np.isfinite(found) & np.isfinite(expected)
    assert np.array_equal(found[both], expected[both])
    either = np.isfinite(found) | np.isfinite(expected)
    assert np.count_nonzero(either & ~both) <= 1
    chances = np.exp(np.where(either, np.fmax(found, expected), -np.inf).astype(np.float64))
    assert chances[either & ~both].sum() < 1e-3 * chances.sum()


def test_draws_follow_the_chances_of_the_scores() -> None:
    config, count = T3Config.turbo(), 4000
    logits = rows(1, 3, 40)[0]
    config = replace(config, start_speech=0)
    sampling = Sampling(top_k=12, top_p=0.9, repetition_penalty=1.0)
    sampler = Sampler(config, sampling, seed=5)
    scores = sampler.scores(logits).astype(np.float64)
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    times = np.bincount([sampler.draw(logits) for _ in range(count)], minlength=40)
    assert not times[chances == 0].any()
    deviation = np.sqrt(count * chances * (1 - chances))
    assert (np.abs(times - count * chances) <= 5 * deviation).all()


def test_the_seed_the_attempt_and_the_step_determine_the_token() -> None:
    config = T3Config.turbo()
    logits = rows(1, 0, 6563)

    def tokens(seed: int, attempt: int = 0) -> list[int]:
        sampler = Sampler(config, config.sampling, seed, attempt)
        return [sampler.draw(torch.from_numpy(logits)) for _ in range(20)]

    assert tokens(1) == tokens(1)
    assert len({tuple(tokens(1)), tuple(tokens(2)), tuple(tokens(1, 1)), tuple(tokens(1 + 2**32))}) == 4


def test_greedy_draws_the_likeliest_and_the_penalty_counts() -> None:
    config = replace(T3Config.nano(), start_speech=0)
    scores = np.zeros(10, np.float32)
    scores[3], scores[4] = 1.0, 0.9
    sampler = Sampler(config, Sampling(temperature=0.0, repetition_penalty=1.2), 0)
    assert [sampler.draw(scores) for _ in range(4)] == [3, 4, 3, 3]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_not_sampled(temperature: float, number: float) -> None:
    config = T3Config.nano()
    logits = rows(1, 0, 6563)
    logits[0, 17] = number
    sampler = Sampler(config, replace(config.sampling, temperature=temperature), 0)
    with pytest.raises(FloatingPointError, match="not finite"):
        sampler.draw(logits)
    assert sampler.drawn == []
