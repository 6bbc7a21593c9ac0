"""Fixtures that the T3 tests share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from published_t3 import Upstream

    from chatterbex.t3 import T3, T3Config

_UPSTREAM = {
    "chatterbox": "chatterbox-tts",
    "transformers": "transformers",
    "einops": "einops",
    "tqdm": "tqdm",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models are faster on one thread, and the machine may be shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    """Upstream's T3 classes, or a skip that says what is missing."""
    for module, package in _UPSTREAM.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the Python package {package} is not installed: no upstream to compare with")
    from published_t3 import Upstream

    return Upstream()


@pytest.fixture(scope="session")
def weights() -> Callable[[T3Config], dict[str, Any]]:
    """Makes random weights, once for each configuration and seed."""
    from synthetic import t3 as synthetic

    made: dict[tuple[T3Config, int], dict[str, Any]] = {}

    def weights(config: T3Config, seed: int = 0) -> dict[str, Any]:
        key = (config, seed)
        if key not in made:
            made[key] = synthetic.state_dict(config, seed)
        return dict(made[key])

    return weights


@pytest.fixture
def model(weights: Callable[[T3Config], dict[str, Any]]) -> Callable[..., T3]:
    """Makes our T3 with random weights."""
    from chatterbex.t3 import T3

    def model(config: T3Config, seed: int = 0) -> T3:
        return T3.from_state_dict(config, weights(config, seed))

    return model
