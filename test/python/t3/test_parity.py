"""The same numbers and the same tokens as upstream's own classes with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")

from speaking import Listener, alone, request, upstream_draws  # noqa: E402

from chatterbex.t3 import T3, Alignment, Sampling, T3Config, T3Session  # noqa: E402
from chatterbex.t3.linear import best_kernel  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

MODELS = ["english", "multilingual_v3", "turbo", "nano"]
KERNELS = ["dense", "onednn"]
Models = Callable[..., T3]
Weights = Callable[..., dict[str, Any]]


def have(kernel: str) -> str:
    if kernel == "onednn" and best_kernel(torch.device("cpu"), torch.float32) != "onednn":
        pytest.skip("this torch has no oneDNN")
    return kernel


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


@contextmanager
def our_logits(t3: T3) -> Iterator[list[Any]]:
    """(rows, V) logits of every step that ours takes."""
    steps: list[Any] = []
    plain = t3.logits

    def spied(x: Any) -> Any:
        logits = plain(x)
        steps.append(logits.clone())
        return logits

    t3.logits = spied
    try:
        yield steps
    finally:
        del t3.logits


@pytest.fixture
def both(upstream: Any, weights: Weights) -> Callable[[T3Config], tuple[Any, T3]]:
    """Upstream's and our model, with the same weights."""

    def both(config: T3Config) -> tuple[Any, T3]:
        return upstream.build(config, weights(config)), T3.from_state_dict(config, weights(config))

    return both


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_step_by_step(name: str, kernel: str, upstream: Any, both: Any) -> None:
    have(kernel)
    config = synthetic.tiny(name)
    published, t3 = both(config)
    # a text and a prompt that are longer than what is read in at a time
    one = request(config, text=90, prompt=150, max_tokens=40, seed=11)
    with upstream_logits(published) as theirs:
        drawn = upstream_draws(upstream, published, config, one)
    with our_logits(t3) as ours:
        assert alone(t3, one, kernel=kernel, together=True) == drawn
    assert len(ours) == 40 <= len(theirs)
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4, msg=f"step {step}")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("eager", [False, True])
def test_eager_attention_gives_the_same(name: str, eager: bool, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, text=70, prompt=80, seed=5)
    drawn = upstream_draws(upstream, published, config, one)
    assert alone(t3, one, eager_attention=eager) == drawn


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_gives_the_same_tokens(name: str, seed: int, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, text=10 + 7 * seed, voice=seed, prompt=5 + 9 * seed, seed=2**31 * seed)
    assert alone(t3, one) == upstream_draws(upstream, published, config, one)


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("english", Sampling(temperature=1.0, min_p=0.1, top_p=0.7)),
        ("english", Sampling(temperature=0.3, min_p=0.0, top_p=0.9, repetition_penalty=2.0)),
        ("english", Sampling(temperature=1.7, min_p=0.0, repetition_penalty=1.0)),
        ("turbo", Sampling(temperature=1.0, top_k=50, top_p=0.8)),
        ("turbo", Sampling(temperature=0.5, top_k=0, top_p=0.6, repetition_penalty=1.7)),
        ("turbo", Sampling(temperature=1.3, top_k=20, top_p=1.0)),
        ("nano", Sampling(temperature=0.8, top_k=0, top_p=1.0, repetition_penalty=1.0)),
        ("nano", Sampling(temperature=0.8, top_k=100_000, top_p=0.9)),
    ],
)
def test_other_ways_of_sampling(name: str, sampling: Sampling, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, sampling=sampling, seed=3)
    assert alone(t3, one) == upstream_draws(upstream, published, config, one)


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0, 3.0])
def test_other_weights_of_guidance(weight: float, upstream: Any, both: Any) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    one = request(config, cfg_weight=weight, seed=3)
    assert alone(t3, one) == upstream_draws(upstream, published, config, one)


def test_greedy_is_what_upstream_gives_when_only_the_likeliest_is_left(upstream: Any, both: Any) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    one = request(config, sampling=replace(config.sampling, temperature=0.0))
    theirs = upstream_draws(upstream, published, config, one, temperature=1.0, min_p=1.0)
    assert alone(t3, one) == theirs


@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_greedy_of_the_gpt2_models(penalty: float, upstream: Any, both: Any) -> None:
    config = synthetic.tiny("nano")
    published, t3 = both(config)
    sampling = replace(config.sampling, temperature=0.0, repetition_penalty=penalty)
    one = request(config, sampling=sampling)
    # cold enough that nothing but the likeliest after the penalty is ever drawn
    cold = {"temperature": 1e-4, "top_k": 0, "top_p": 1.0}
    assert alone(t3, one) == upstream_draws(upstream, published, config, one, **cold)


@pytest.mark.parametrize("name", ["english", "turbo"])
def test_a_voice_without_a_speech_prompt(name: str, upstream: Any, both: Any) -> None:
    config = synthetic.tiny(name)
    published, t3 = both(config)
    one = request(config, prompt=0, seed=8)
    assert one.conditionals.cond_prompt_speech_tokens is None
    assert alone(t3, one) == upstream_draws(upstream, published, config, one)


def test_exaggeration_is_heard_and_is_upstreams(upstream: Any, both: Any) -> None:
    config = synthetic.tiny("english")
    published, t3 = both(config)
    neutral = request(config, seed=8)
    excited = replace(neutral, conditionals=neutral.conditionals.with_emotion(1.5))
    calm, loud = alone(t3, neutral), alone(t3, excited)
    assert calm != loud
    assert loud == upstream_draws(upstream, published, config, excited)


class TestAlignment:
    """Upstream's analyzer of the second multilingual model."""

    CONFIG = replace(
        synthetic.tiny("multilingual_v2"),
        text_vocab=2454,  # by which upstream knows the multilingual models
        layers=3,
        alignment=Alignment(((1, 2), (2, 3), (2, 0)), hold_stop=True, tokens_per_text_token=0.0),
    )

    GREEDY = replace(CONFIG.sampling, temperature=0.0)

    @pytest.fixture(autouse=True)
    def _our_heads(self, upstream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        heads = list(self.CONFIG.alignment.heads)
        monkeypatch.setattr(upstream.analyzer, "LLAMA_ALIGNED_HEADS", heads)

    @pytest.mark.parametrize("eager", [False, True])
    def test_the_same_attention_is_seen(
        self, eager: bool, upstream: Any, both: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        published, t3 = both(self.CONFIG)
        analyzers = []
        plain = upstream.analyzer.AlignmentStreamAnalyzer

        def made(*args: Any, **kwargs: Any) -> Any:
            analyzers.append(plain(*args, **kwargs))
            return analyzers[-1]

        monkeypatch.setattr(upstream.t3, "AlignmentStreamAnalyzer", made)
        one = request(self.CONFIG, text=75, max_tokens=25, seed=4, detect_runaway=True)
        theirs = upstream_draws(upstream, published, self.CONFIG, one)

        session = T3Session(t3, 1, eager_attention=eager)
        session.admit(one)
        live = session._order.live["a"]
        seen = []
        see = live.monitor.see

        def spied(attention: Any) -> Any:
            masked = attention.clone()
            masked[:, len(seen) + 1 :] = 0
            seen.append(masked)
            return see(attention)

        live.monitor.see = spied
        listener = Listener(session).run()
        assert listener.drawn["a"] == theirs
        torch.testing.assert_close(torch.cat(seen), analyzers[0].alignment, rtol=1e-4, atol=1e-6)
        assert int(analyzers[0].text_position) == live.monitor.place

    def test_early_stops_are_held_as_upstream_does(self, upstream: Any, weights: Weights) -> None:
        config = self.CONFIG
        one = request(config, max_tokens=20, detect_runaway=True, sampling=self.GREEDY)
        [first] = alone(T3.from_state_dict(config, weights(config)), replace(one, max_tokens=1))
        # a model that would rather stop than say its first token
        state = weights(config)
        state["speech_head.weight"] = state["speech_head.weight"].clone()
        state["speech_head.weight"][config.stop_speech] = 1.01 * state["speech_head.weight"][first]
        impatient = T3.from_state_dict(config, state)
        assert alone(impatient, replace(one, detect_runaway=False)) == [config.stop_speech]

        published = upstream.build(config, state)
        theirs = upstream_draws(upstream, published, config, one, temperature=1.0, min_p=1.0)
        assert theirs[0] == first
        assert alone(impatient, one) == theirs

    def test_version_3_has_no_analyzer(self, model: Models) -> None:
        config = synthetic.tiny("multilingual_v3")
        session = T3Session(model(config), 1)
        session.admit(request(config, detect_runaway=True))
        assert session._order.live["a"].monitor is None
