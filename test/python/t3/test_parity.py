"""The same numbers and the same tokens as upstream's own classes with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")

from speaking import (  # noqa: E402
    Listener,
    Recorded,
    alone,
    cpu_pass,
    gpu_pass,
    greedy,
    request,
    upstream_greedy,
)

from chatterbex.device.proof import MARGIN, gain  # noqa: E402
from chatterbex.t3 import T3, T3Config, T3Session, rows_of_request  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

MODELS = ["english", "multilingual_v3", "turbo", "nano"]
WAYS = {
    "cpu": cpu_pass,
    "gpu": gpu_pass,
    "eager": lambda t3, rows: gpu_pass(t3, rows, eager_attention=True),
}
Weights = Callable[..., dict[str, Any]]


@contextmanager
def upstream_logits(published: Any) -> Iterator[list[Any]]:
    """(rows, V) logits of every step that upstream takes."""
    steps: list[Any] = []
    hook = published.speech_head.register_forward_hook(
        lambda _module, _input, output: steps.append(output[:, -1].clone())
    )
    try:
        yield steps
    finally:
        hook.remove()


@pytest.fixture
def both(upstream: Any, weights: Weights) -> Callable[[T3Config], tuple[Any, T3]]:
    """Upstream's and our model, with the same weights."""

    def both(config: T3Config) -> tuple[Any, T3]:
        return upstream.build(config, weights(config)), T3.from_state_dict(config, weights(config))

    return both


def close_to_exact(mine: Any, theirs: Any, exact: Any) -> bool:
    """Whether ours is as close to float64 as upstream's float32 with another order of sums may be."""
    return gain(mine, exact) <= MARGIN * max(1.0, gain(theirs, exact))


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("name", MODELS)
def test_logits_step_by_step(name: str, way: str, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    # a text and a prompt that are longer than what is read at a time
    one = request(config, text=90, prompt=150, max_tokens=40, seed=11, sampling=greedy(config))
    with upstream_logits(published) as theirs:
        drawn = upstream_greedy(upstream, published, config, one)
    recorded = Recorded(WAYS[way](t3, rows_of_request(config)))
    session = T3Session(t3.front, recorded, 1)
    session.admit(one)
    assert Listener(session).run().drawn["a"] == drawn
    with double(published), upstream_logits(published) as exact:
        assert upstream_greedy(upstream, published, config, doubled(one)) == drawn
    assert len(recorded.logits) == 40 <= len(theirs)
    for step, (mine, other, right) in enumerate(zip(recorded.logits, theirs, exact, strict=False)):
        assert close_to_exact(mine, other, right), f"step {step}"


@contextmanager
def double(published: Any) -> Iterator[None]:
    """Upstream computes in float64 while this is open."""
    published.double()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        published.float()


def doubled(one: Any) -> Any:
    """A request with a voice in float64."""
    voice = one.conditionals
    changes = {name: value.double() for name, value in voice.tensors.items() if value.is_floating_point()}
    return replace(one, conditionals=replace(voice, **changes))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_greedy_tokens(name: str, seed: int, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, text=10 + 7 * seed, voice=seed, prompt=5 + 9 * seed, sampling=greedy(config))
    assert alone(t3, one) == upstream_greedy(upstream, published, config, one)


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0, 3.0])
def test_other_weights_of_guidance(weight: float, upstream: Any, both: Any) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    one = request(config, cfg_weight=weight, sampling=greedy(config))
    assert alone(t3, one) == upstream_greedy(upstream, published, config, one)


@pytest.mark.parametrize("penalty", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("name", ["english", "nano"])
def test_other_penalties(name: str, penalty: float, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, sampling=greedy(config, penalty))
    assert alone(t3, one) == upstream_greedy(upstream, published, config, one)


@pytest.mark.parametrize("name", ["english", "turbo"])
def test_a_voice_without_a_speech_prompt(name: str, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, prompt=0, sampling=greedy(config))
    assert one.conditionals.cond_prompt_speech_tokens is None
    assert alone(t3, one) == upstream_greedy(upstream, published, config, one)


def test_exaggeration_has_an_effect_and_matches_upstream(upstream: Any, both: Any) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    neutral = request(config, sampling=greedy(config))
    excited = replace(neutral, conditionals=neutral.conditionals.with_emotion(1.5))
    calm, loud = alone(t3, neutral), alone(t3, excited)
    assert calm != loud
    assert loud == upstream_greedy(upstream, published, config, excited)
