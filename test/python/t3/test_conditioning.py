"""Embeddings of voices: close to the network in float64, and the same bit for bit on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")
import torch.nn.functional as F  # noqa: E402
from portable import portable, portable_weights  # noqa: E402
from speaking import alone, greedy  # noqa: E402

from chatterbex.device.proof import MARGIN, gain  # noqa: E402
from chatterbex.t3 import T3, T3Conditionals, T3Config, T3Request, native  # noqa: E402
from chatterbex.t3.conditioning import Front  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

if not native.library_path().is_file():
    pytest.skip(f"{native.library_path()} is not built (mix compile): no layers", allow_module_level=True)

Weights = Callable[..., dict[str, Any]]


def numbers(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(mine: Any, single: Any, exact: Any) -> bool:
    """Whether ours is as close to float64 as another order of PyTorch's sums in float32 may be."""
    return gain(mine, exact) <= MARGIN * max(1.0, gain(single, exact))


# -- layers -----------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Any, Any, list[Any]]] = {
    "linear": (native.linear, F.linear, [numbers(37, 300), numbers(70, 300, seed=1), numbers(70, seed=2)]),
    "linear without a bias": (native.linear, F.linear, [numbers(3, 1), numbers(128, 1, seed=1)]),
    "layer_norm": (
        lambda x, weight, bias, **options: native.layer_norm(x, weight, bias, 1e-5, **options),
        lambda x, weight, bias: F.layer_norm(x, (128,), weight, bias, 1e-5),
        [numbers(9, 128), numbers(128, seed=1), numbers(128, seed=2)],
    ),
    **{
        f"attention of {width}": (
            native.attention,
            F.scaled_dot_product_attention,
            [numbers(4, 32, width), numbers(4, 150, width, seed=1), numbers(4, 150, width, seed=2)],
        )
        for width in (16, 32, 256)
    },
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_the_network_and_the_same_bits_everywhere(name: str) -> None:
    ours, theirs, arguments = LAYERS[name]
    found = ours(*arguments)
    exact = theirs(*(argument.double() for argument in arguments))
    assert found.shape == exact.shape
    assert close(found, theirs(*arguments), exact)
    for instruction_set in native.instruction_sets():
        again = ours(*arguments, instruction_set=instruction_set)
        assert again.tobytes() == found.tobytes(), instruction_set


def test_rows_may_have_any_layout_and_do_not_affect_each_other() -> None:
    x, weight = numbers(40, 64), numbers(33, 64, seed=1)
    together = native.linear(x, weight)
    alone = [native.linear(x[i : i + 1], weight)[0] for i in range(40)]
    assert np.stack(alone).tobytes() == together.tobytes()
    assert native.linear(x.T.contiguous().T, np.asfortranarray(weight)).tobytes() == together.tobytes()


def test_layers_refuse_wrong_shapes() -> None:
    x, heads = numbers(3, 64), numbers(4, 3, 32)
    for ours, arguments, said in [
        (native.linear, (x, numbers(5, 63)), r"weight must be \(5, 64\), not \(5, 63\)"),
        (native.linear, (x, numbers(5, 64), numbers(4)), r"bias must be \(5,\), not \(4,\)"),
        (native.linear, (x[0], numbers(5, 64)), "x must have 2 dimensions, not 1"),
        (native.linear, (x, numbers(5, 64) * float("nan")), "weight: it holds NaN"),
        (native.layer_norm, (x, numbers(63), numbers(64), 0.0), r"weight must be \(64,\)"),
        (native.layer_norm, (numbers(3, 24), numbers(24), numbers(24), 0.0), "multiple of 16, not 24"),
        (native.attention, (heads, heads[:3], heads), r"k must be \(4, 3, 32\)"),
        (native.attention, (heads, heads, heads[:, :2]), r"v must be \(4, 3, 32\)"),
        (native.attention, (heads, heads[:, :0], heads[:, :0]), "k must have a position"),
        (native.attention, (numbers(2, 3, 8),) * 3, "multiple of 16, not 8"),
    ]:
        with pytest.raises(ValueError, match=said):
            ours(*arguments)


# -- voices -----------------------------------------------------------------------------------------


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def voice_of(config: T3Config, prompt: int = 150) -> T3Conditionals:
    return T3Conditionals.from_mapping(synthetic.conditionals(config, 3, prompt))


@pytest.mark.parametrize("prompt", [0, 150])
@pytest.mark.parametrize("name", ["english", "turbo"])
def test_a_voice_has_the_same_bits_for_all_threads_and_instruction_sets(
    name: str, prompt: int, weights: Weights
) -> None:
    config = synthetic.tiny(name)
    voice = voice_of(config, prompt)
    expected = Front(config, weights(config)).voice(voice)
    assert expected.shape == (Front(config, weights(config)).voice_length(voice), config.dim)
    for instruction_set in native.instruction_sets():
        front = Front(config, weights(config), instruction_set)
        for threads in (1, 2, 3):
            with torch_threads(threads):
                assert torch.equal(front.voice(voice), expected), (instruction_set, threads)


@pytest.mark.parametrize("name", ["english", "multilingual_v3", "turbo"])
def test_a_voice_is_that_of_upstream_and_of_float64(name: str, upstream: Any, weights: Weights) -> None:
    config = synthetic.tiny(name)
    voice = voice_of(config)
    published = upstream.build(config, weights(config))

    def theirs(**changes: Any) -> Any:
        condition = upstream.condition({"speaker_emb": voice.speaker_emb, **voice.tensors, **changes})
        with torch.no_grad():
            return published.prepare_conditioning(condition)[0]

    single = theirs()
    published.double()
    double = {key: value.double() for key, value in voice.tensors.items() if value.is_floating_point()}
    assert close(Front(config, weights(config)).voice(voice), single, theirs(**double))


# -- golden numbers ---------------------------------------------------------------------------------

GOLDEN = {
    "english": "843e7d090b51a1d32f4eef0241836aa5",
    "turbo": "acecaab7320e58aa362a97212818c82e",
}


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_embeddings_and_tokens(name: str, instruction_set: str) -> None:
    """The same on every machine. They change only if the order of summation is changed on purpose."""
    config = synthetic.tiny(name)
    state = {key: torch.from_numpy(array) for key, array in portable_weights(config).items()}
    t3 = T3.from_state_dict(config, state)
    t3.front = Front(config, state, instruction_set)
    voice = T3Conditionals(
        torch.from_numpy(portable(0, 1, config.speaker_dim)),
        torch.arange(70)[None] * 89 % config.speech_codes,
        torch.full((1, 1, 1), 0.75),
    )
    text = [7 * i % 249 + 1 for i in range(40)]
    if config.start_text is not None:
        text = [config.start_text, *text, config.stop_text]
    digest = hashlib.sha256()
    digest.update(t3.front.voice(voice).numpy().tobytes())
    digest.update(t3.front.text(text, config.guided).numpy().tobytes())
    one = T3Request("a", text, voice, seed=2**40 + 7, max_tokens=20, detect_runaway=False)
    for sampling in (greedy(config), config.sampling):
        drawn = alone(t3, replace(one, sampling=sampling), threads=2, instruction_set=instruction_set)
        assert len(drawn) == 20
        digest.update(np.array(drawn, np.uint32).tobytes())
    assert len(set(drawn)) > 10
    assert digest.hexdigest()[:32] == GOLDEN[name]
