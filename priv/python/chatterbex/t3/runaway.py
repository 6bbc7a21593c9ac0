"""Telling when a model has lost the text and would go on until the limit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import Alignment

# A second is 25 tokens. Speech holds still for two seconds at most, in a long pause.
_SAME = 75
_CYCLE = 100
_LONGEST_CYCLE = 16


class Repetition:
    """Sees one token, or a short series of tokens, said over and over."""

    def __init__(self) -> None:
        """At the beginning of a speech."""
        self._runs = [0] * (_LONGEST_CYCLE + 1)

    def stuck(self, tokens: list[int]) -> bool:
        """Whether the speech is stuck; asked after every token.

        Args:
            tokens: all tokens so far.
        """
        last = tokens[-1]
        for period in range(1, min(_LONGEST_CYCLE, len(tokens) - 1) + 1):
            self._runs[period] = self._runs[period] + 1 if tokens[-1 - period] == last else 0
        return self._runs[1] >= _SAME - 1 or max(self._runs) >= _CYCLE


@dataclass
class Verdict:
    """What the attention says before a token is drawn."""

    hold_stop: bool = False
    runaway: bool = False


class AlignmentMonitor:
    """Follows where in the text the speech is, by the attention of a few heads.

    In these heads a speech position looks at the text that it speaks, so their attention draws a
    diagonal. Two shapes mean that the text is over and the model does not know: the last text
    tokens looked at for long, and earlier text looked at again.
    """

    # These figures are the ones that the multilingual model was released with.
    _BACK, _AHEAD = -4, 7  # how far the place may jump in one step
    _NEAR_END = 3  # text tokens before the end that count as the end
    _TAIL = 5.0  # attention on one of the last tokens, summed over time
    _AGAIN = 5.0  # attention on earlier text after the end, summed over time
    _LEAST_TEXT = 5  # shorter texts may stop whenever they like

    def __init__(self, alignment: Alignment, text: int) -> None:
        """At the beginning of a speech.

        Args:
            alignment: what is watched and what it may decide.
            text: number of text tokens.
        """
        self._alignment = alignment
        self._text = text
        self._steps = 0
        self._complete = False
        self._tail = torch.zeros(min(self._NEAR_END, text))
        self._again = 0.0
        self.place = 0

    def see(self, attention: Tensor) -> Verdict:
        """Takes in what was looked at since the last time.

        Args:
            attention: (t, text) float32 on the CPU; t is 1 but for the first time.
        """
        attention = attention.clone()
        attention[:, self._steps + 1 :] = 0  # speech cannot be further than one token a step
        self._steps += 1
        if self._complete:
            self._tail += attention[:, -self._NEAR_END :].sum(dim=0)
            earlier = attention[:, : -self._LEAST_TEXT]
            if earlier.shape[1]:
                self._again += float(earlier.amax(dim=1).sum())
        place = int(attention[-1].argmax())
        if self._BACK < place - self.place < self._AHEAD:
            self.place = place
        self._complete = self._complete or self.place >= self._text - self._NEAR_END

        believed = self._steps > self._alignment.tokens_per_text_token * self._text
        lost = float(self._tail.max()) >= self._TAIL or self._again > self._AGAIN
        return Verdict(
            hold_stop=self._alignment.hold_stop
            and self._text > self._LEAST_TEXT
            and place < self._text - self._NEAR_END,
            runaway=lost and believed,
        )
