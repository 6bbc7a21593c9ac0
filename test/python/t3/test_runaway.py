"""Seeing that a model has lost the text."""

from __future__ import annotations

import random
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no monitor to test")

from chatterbex.t3 import Alignment  # noqa: E402
from chatterbex.t3.runaway import AlignmentMonitor, Repetition, Verdict  # noqa: E402

MULTILINGUAL = Alignment(hold_stop=True, tokens_per_text_token=0.0)


def stuck_at(tokens: list[int]) -> int | None:
    """After how many tokens a speech is called stuck."""
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


def diagonal(step: int, rate: float, text: int, sharpness: float = 0.8) -> Any:
    """(1, text) attention of a speech that goes through the text evenly, then rests at its end."""
    place = min(text - 1, int(step * rate))
    row = torch.full((1, text), (1 - sharpness) / (2 * text))
    row[0, place] = sharpness
    return row


def run(monitor: AlignmentMonitor, rows: list[Any]) -> list[Verdict]:
    return [monitor.see(row) for row in rows]


def test_stops_are_held_until_the_text_is_nearly_over() -> None:
    text = 30
    monitor = AlignmentMonitor(MULTILINGUAL, text)
    verdicts = run(monitor, [diagonal(step, 0.5, text) for step in range(57)])
    held = [verdict.hold_stop for verdict in verdicts]
    assert held == [step * 0.5 < text - 3 for step in range(57)]
    assert not any(verdict.runaway for verdict in verdicts)
    assert monitor.place == 28


def test_a_short_text_may_stop_at_once() -> None:
    assert not AlignmentMonitor(MULTILINGUAL, 5).see(diagonal(0, 0.5, 5)).hold_stop


def test_resting_at_the_end_of_the_text_is_a_runaway() -> None:
    text = 30
    verdicts = run(AlignmentMonitor(MULTILINGUAL, text), [diagonal(step, 0.5, text) for step in range(90)])
    ran = [step for step, verdict in enumerate(verdicts) if verdict.runaway]
    # 5 of attention on the last token, 0.8 a step
    assert ran[0] == 58 + 6


def test_going_back_after_the_end_is_a_runaway() -> None:
    text = 30
    rows = [diagonal(step, 0.5, text) for step in range(57)]
    rows += [diagonal(step, 0.5, text) for step in range(30)]
    verdicts = run(AlignmentMonitor(MULTILINGUAL, text), rows)
    ran = [step for step, verdict in enumerate(verdicts) if verdict.runaway]
    assert 57 <= ran[0] <= 65


def test_english_is_believed_for_as_long_as_the_text_could_take() -> None:
    text = 30
    monitor = AlignmentMonitor(Alignment(tokens_per_text_token=2.0), text)
    verdicts = run(monitor, [diagonal(step, 1.0, text) for step in range(80)])
    ran = [step for step, verdict in enumerate(verdicts) if verdict.runaway]
    assert ran[0] == 2 * text
    assert not any(verdict.hold_stop for verdict in verdicts)


@pytest.mark.parametrize("seed", range(30))
def test_the_same_verdicts_as_upstream(seed: int, upstream: Any, caplog: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    text, before = 6 + 3 * seed, 4
    rate, sharpness = 0.2 + 0.05 * seed, 0.3 + 0.02 * seed

    class Transformer:
        class Layer:
            class Attention:
                def register_forward_hook(self, _hook: Any) -> None:
                    """Nothing is hooked: the attention is given by hand."""

            self_attn = Attention()

        layers = [Layer()] * 40

    theirs = upstream.analyzer.AlignmentStreamAnalyzer(
        Transformer(), None, (before, before + text), eos_idx=1
    )
    ours = AlignmentMonitor(MULTILINGUAL, text)
    for step in range(int(text / rate) + 40):
        row = diagonal(step, rate, text, sharpness)
        row = row + 0.1 * torch.rand(1, text, generator=generator)
        if seed % 3 == 2 and step > text / rate + 3:  # start again
            row = diagonal(step - int(text / rate), rate, text, sharpness)
        if step == 0:
            row = row.repeat(2, 1)
        whole = torch.zeros(before + text + 2 if step == 0 else 1, before + text + 2 + step)
        whole[-row.shape[0] :, before : before + text] = row
        theirs.last_aligned_attns = [whole] * 3
        # tokens that differ, so that only the attention decides
        judged = theirs.step(torch.zeros(1, 3), next_token=step)
        verdict = ours.see(row)
        assert verdict.runaway == (judged[0, 1] > 0)
        assert verdict.hold_stop == (int(row[-1, : step + 1].argmax()) < text - 3 and text > 5)
        if not verdict.runaway:
            assert verdict.hold_stop == (judged[0, 1] < 0)
        assert ours.place == int(theirs.text_position)
