"""Recognises a model that has lost the text and would speak on until the limit."""

from __future__ import annotations

# A second is 25 tokens. Speech repeats a token for two seconds at most, in a long pause.
_SAME = 75
_CYCLE = 100
_LONGEST_CYCLE = 16


class Repetition:
    """Recognises one token, or a short series of tokens, that repeats over and over."""

    def __init__(self) -> None:
        """Starts at the beginning of a speech."""
        self._runs = [0] * (_LONGEST_CYCLE + 1)

    def stuck(self, tokens: list[int]) -> bool:
        """Whether the speech is stuck. Call it after every token.

        Args:
            tokens: all tokens so far.
        """
        last = tokens[-1]
        for period in range(1, min(_LONGEST_CYCLE, len(tokens) - 1) + 1):
            self._runs[period] = self._runs[period] + 1 if tokens[-1 - period] == last else 0
        return self._runs[1] >= _SAME - 1 or max(self._runs) >= _CYCLE
