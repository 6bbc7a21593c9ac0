"""Upstream's faults, shown on upstream's code, and the correct behaviour here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")

from speaking import (  # noqa: E402
    Listener,
    Recorded,
    alone,
    cpu_pass,
    greedy,
    request,
    say,
    upstream_draws,
    upstream_greedy,
)

from chatterbex.t3 import T3, T3Config, T3Session  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

Both = Callable[..., tuple[Any, T3]]


@pytest.fixture
def both(upstream: Any, weights: Callable[..., Any]) -> Both:
    """Upstream's and our model, with the same weights."""

    def both(config: T3Config, **changes: Any) -> tuple[Any, T3]:
        state = {**weights(config), **changes}
        return upstream.build(config, state), T3.from_state_dict(config, state)

    return both


def test_without_guidance_upstream_crashes(upstream: Any, both: Both) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    one = request(config, cfg_weight=0.0, sampling=greedy(config))
    with pytest.raises(RuntimeError):
        upstream_greedy(upstream, published, config, one)
    drawn = alone(t3, one)
    assert len(drawn) == 30
    # what it should give: the guided loop with a weight too small to change a bit
    assert drawn == upstream_greedy(upstream, published, config, one, cfg_weight=1e-30)


@pytest.mark.parametrize(("weight", "rows"), [(0.0, 1), (0.5, 2)])
def test_without_guidance_half_the_rows_are_computed(weight: float, rows: int, both: Both) -> None:
    config = synthetic.tiny("english")
    _, t3 = both(config)
    recorded = Recorded(cpu_pass(t3, 2))
    session = T3Session(t3.front, recorded, 1)
    session.admit(request(config, cfg_weight=weight))
    Listener(session).run()
    assert {len(logits) for logits in recorded.logits} == {rows}


def test_upstream_cuts_without_a_warning_and_ours_warns(
    upstream: Any, both: Both, weights: Callable[..., Any]
) -> None:
    config = replace(synthetic.tiny("nano"), positions=1100, max_speech_tokens=4096)
    bias = weights(config)["speech_head.bias"].clone()
    bias[config.stop_speech] = -100.0
    published, t3 = both(config, **{"speech_head.bias": bias})
    one = request(config, text=5, prompt=5, max_tokens=4096, sampling=greedy(config))
    # upstream's own limit of 1000 loops: the caller gets tokens and no warning
    theirs = upstream_greedy(upstream, published, config, one, max_gen_len=1000)
    assert len(theirs) == 1001
    listener = say(t3, [one])
    assert listener.ended("a") == "limit"
    assert len(listener.drawn["a"]) == 1100 - 1 - 5 - 5 - 1
    assert listener.drawn["a"][:1001] == theirs


@pytest.mark.parametrize("name", ["english", "nano"])
def test_temperature_0(name: str, upstream: Any, both: Both) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    cold = replace(config.sampling, temperature=0.0)
    one, other = (request(config, seed=seed, sampling=cold) for seed in (1, 2))
    if config.guided:  # divides by zero
        with pytest.raises(RuntimeError):
            upstream_draws(upstream, published, config, one)
    else:  # takes 0 for 1: still drawn by chance
        first, second = (upstream_draws(upstream, published, config, x) for x in (one, other))
        assert first != second
    drawn = alone(t3, one)
    assert len(drawn) == 30
    assert alone(t3, other) == drawn


@pytest.mark.parametrize("name", ["multilingual_v3", "english"])
def test_ids_that_are_not_speech(name: str, upstream: Any, both: Both) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, max_tokens=120)
    theirs = upstream_draws(upstream, published, config, one)
    assert max(theirs) >= 6561
    listener = say(t3, [one])
    drawn = listener.drawn["a"]
    assert max(drawn) >= 6561
    assert listener.heard("a") == [token for token in drawn if token < 6561]


def test_a_stop_as_the_first_token(upstream: Any, both: Both, weights: Callable[..., Any]) -> None:
    config = synthetic.tiny("nano")
    bias = weights(config)["speech_head.bias"].clone()
    bias[config.stop_speech] = 40.0  # likelier than anything else
    published, t3 = both(config, **{"speech_head.bias": bias})
    one = request(config, sampling=greedy(config, penalty=100.0))  # but not once it was said
    theirs = upstream_greedy(upstream, published, config, one)
    assert theirs[0] == config.stop_speech
    assert len(theirs) > 1, "upstream speaks on after a stop"
    listener = say(t3, [one])
    assert listener.ended("a") == "stop"
    assert listener.heard("a") == []


@pytest.fixture
def analyzed(upstream: Any, monkeypatch: pytest.MonkeyPatch) -> T3Config:
    """The second multilingual model, which the released package monitors and its source no longer does."""
    monkeypatch.setattr(upstream.analyzer, "LLAMA_ALIGNED_HEADS", [(0, 1), (1, 1), (1, 0)])
    return replace(
        synthetic.tiny("multilingual_v2"), text_vocab=2454
    )  # the number tells the release what it is


def test_the_analyzer_ends_speech_at_two_equal_tokens(
    upstream: Any, analyzed: T3Config, both: Both, weights: Callable[..., Any]
) -> None:
    head = weights(analyzed)["speech_head.weight"].clone()
    head[7] *= 4  # a token that comes often
    published, t3 = both(analyzed, **{"speech_head.weight": head})
    sampling = greedy(analyzed, penalty=1.0)
    for voice in range(40):
        one = request(analyzed, voice=voice, max_tokens=40, detect_runaway=True, sampling=sampling)
        theirs = upstream_greedy(upstream, published, analyzed, one)
        if len(theirs) < 40 and theirs[-3] == theirs[-2]:
            break
    else:
        pytest.fail("no voice makes upstream say a token twice")
    assert theirs[-1] == analyzed.stop_speech
    drawn = alone(t3, one)
    assert drawn[: len(theirs) - 1] == theirs[:-1]
    assert len(drawn) > len(theirs)


def test_the_analyzer_continues_where_the_model_stops(
    upstream: Any, analyzed: T3Config, weights: Callable[..., Any]
) -> None:
    one = request(analyzed, max_tokens=20, sampling=greedy(analyzed), detect_runaway=True)
    [first] = alone(T3.from_state_dict(analyzed, weights(analyzed)), replace(one, max_tokens=1))
    state = weights(analyzed)
    head = state["speech_head.weight"] = state["speech_head.weight"].clone()
    head[analyzed.stop_speech] = 1.01 * head[first]  # a stop is likelier than the first token
    published, t3 = upstream.build(analyzed, state), T3.from_state_dict(analyzed, state)
    theirs = upstream_greedy(upstream, published, analyzed, one)
    assert theirs[0] == first
    assert alone(t3, one) == [analyzed.stop_speech]


def test_conditionals_are_not_written_into(upstream: Any, both: Both) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    one = request(config)
    condition = upstream.condition(dict(one.conditionals.tensors))
    published.prepare_conditioning(condition)
    assert condition.cond_prompt_speech_emb is not None  # upstream keeps its work in the voice
    before = {name: value.clone() for name, value in one.conditionals.tensors.items()}
    alone(t3, one)
    assert set(vars(one.conditionals)) == set(before)
    for name, value in one.conditionals.tensors.items():
        assert torch.equal(value, before[name])
