"""Detecting that a model has lost the text."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch", reason="torch is not installed: T3 cannot be imported")

from chatterbex.t3.runaway import Repetition


def stuck_at(tokens: list[int]) -> int | None:
    """The number of tokens after which speech is called stuck."""
    repetition = Repetition()
    for count in range(1, len(tokens) + 1):
        if repetition.stuck(tokens[:count]):
            return count
    return None


def test_one_token_over_and_over() -> None:
    assert stuck_at([1, 2, 3] + [4299] * 300) == 3 + 75


@pytest.mark.parametrize("period", [2, 3, 5, 16])
def test_a_short_series_over_and_over(period: int) -> None:
    assert stuck_at(list(range(50)) + list(range(100, 100 + period)) * 100) == 50 + period + 100


def test_speech_with_pauses_is_not_stuck() -> None:
    random.seed(1)
    tokens: list[int] = []
    for _ in range(40):
        tokens += [random.randrange(6561) for _ in range(30)]
        tokens += [4299] * random.randrange(60)
    assert stuck_at(tokens) is None


def test_few_tokens_to_choose_from_are_not_stuck() -> None:
    random.seed(2)
    assert stuck_at([random.randrange(4) for _ in range(4000)]) is None
