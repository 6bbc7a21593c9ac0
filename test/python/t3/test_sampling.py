"""The samplers against those of transformers, which upstream uses."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no sampler to test")

from filters import at_least, best  # noqa: E402

from chatterbex.t3 import T3Config  # noqa: E402
from chatterbex.t3.native import Sampler  # noqa: E402


@pytest.fixture(scope="module")
def theirs() -> Any:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("the Python package transformers is not installed: nothing to compare with")
    from transformers.generation import logits_process

    return logits_process


def logits(seed: int, spread: float = 3.0, size: int = 6563) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, size, generator=generator) * spread


def numbers(scores: Any) -> Any:
    return scores[0].numpy().copy()


def same(kept: Any, expected: Any) -> bool:
    return np.array_equal(kept, expected[0].numpy())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("min_p", [0.001, 0.05, 0.5, 1.0])
def test_min_p(seed: int, min_p: float, theirs: Any) -> None:
    scores = logits(seed)
    assert same(at_least(numbers(scores), min_p), theirs.MinPLogitsWarper(min_p)(None, scores))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.95, 0.999])
def test_top_p(seed: int, top_p: float, theirs: Any) -> None:
    scores = logits(seed)
    assert same(best(numbers(scores), 6563, top_p), theirs.TopPLogitsWarper(top_p)(None, scores))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("top_k", "top_p"), [(1, 0.95), (50, 0.8), (1000, 0.95), (1000, 1.0)])
def test_top_k_then_top_p(seed: int, top_k: int, top_p: float, theirs: Any) -> None:
    scores = logits(seed, spread=1.0 + seed / 10)
    expected = theirs.TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        expected = theirs.TopPLogitsWarper(top_p)(None, expected)
    assert same(best(numbers(scores), top_k, top_p), expected)


@pytest.mark.parametrize("top_p", [0.6, 1.0])
def test_a_shared_last_place(top_p: float, theirs: Any) -> None:
    scores = logits(1).round()  # a lot of equal ones
    expected = theirs.TopKLogitsWarper(30)(None, scores)
    kept = best(numbers(scores), 30, top_p)
    if top_p < 1:
        expected = theirs.TopPLogitsWarper(top_p)(None, expected)
    else:
        assert np.isfinite(kept).sum() > 30
    assert same(kept, expected)


@pytest.mark.parametrize("name", ["english", "turbo"])
@pytest.mark.parametrize("seed", range(5))
def test_the_whole_chain(name: str, seed: int, theirs: Any) -> None:
    """The remaining tokens and their probabilities after all samplers, in upstream's order."""
    config = getattr(T3Config, name)()
    sampling = config.sampling
    sampler = Sampler(config, sampling, seed)
    said = torch.tensor([[config.start_speech]])
    for step in range(50):
        scores = logits(1000 * seed + step % 7, size=config.speech_vocab)
        penalty = theirs.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        if config.guided:
            chain = [penalty, theirs.TemperatureLogitsWarper(sampling.temperature)]
            chain += [theirs.MinPLogitsWarper(sampling.min_p), theirs.TopPLogitsWarper(1.0)]
        else:
            chain = [theirs.TemperatureLogitsWarper(sampling.temperature)]
            chain += [theirs.TopKLogitsWarper(sampling.top_k)]
            chain += [theirs.TopPLogitsWarper(sampling.top_p), penalty]
        expected = scores
        for link in chain:
            expected = link(said, expected)
        left = torch.from_numpy(sampler.scores(scores))[None]
        chances, theirs_chances = left.softmax(dim=-1), expected.softmax(dim=-1)
        # A sum in another order may admit one more or one less of the least likely tokens.
        assert (chances - theirs_chances).abs().sum() < 2e-3
        token = sampler.draw(scores)
        assert chances[0, token] > 0
        drawn = torch.tensor([sampler.drawn])
        start = torch.tensor([[config.start_speech]])
        said = torch.cat((start, drawn), dim=1) if config.guided else drawn


def test_the_caller_keeps_its_logits_and_its_generator() -> None:
    config = T3Config.turbo()
    scores = logits(0)
    before, state = scores.clone(), torch.random.get_rng_state()
    sampler = Sampler(config, config.sampling, 5)
    for _ in range(5):
        sampler.draw(scores)
    assert torch.equal(scores, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_overflowing_logits_are_not_sampled() -> None:
    config = T3Config.nano()
    sampler = Sampler(config, replace(config.sampling, temperature=0.001), 0)
    with pytest.raises(FloatingPointError):
        sampler.draw(logits(0) * 1e36)
