"""Speech recognition for tests: pocketsphinx with the English model in its package."""

from __future__ import annotations

import functools
import json
import re
import sys
import wave
from collections.abc import Iterable

import numpy as np
from pocketsphinx import Decoder

_RATE = 16_000


@functools.lru_cache(maxsize=1)
def _decoder() -> Decoder:
    return Decoder(samprate=_RATE, loglevel="FATAL")


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """24 kHz (or another multiple of 8 kHz) to 16 kHz, by a windowed sinc low-pass filter."""
    up, down = 2, rate // 8_000
    spread = np.zeros(len(samples) * up, np.float64)
    spread[::up] = samples
    at = np.arange(-32 * down, 32 * down + 1)
    low_pass = np.sinc(at / down) / down * np.hamming(len(at)) * up
    return np.convolve(spread, low_pass, "same")[::down]


def hear(samples: np.ndarray, rate: int = 24_000) -> str:
    """The words that were understood, in lower case."""
    # Quiet before and after, as in a recording; the recogniser measures the level there.
    quiet = np.zeros(_RATE // 4)
    sound = np.concatenate([quiet, resample(samples, rate), quiet])
    pcm = (np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes()
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return re.sub(r"\(\d+\)", "", hypothesis.hypstr) if hypothesis else ""


def words(text: str) -> list[str]:
    """The words of a text, as the recogniser writes them."""
    return re.findall(r"[a-z']+", text.lower().replace("’", "'"))


def errors(said: str, heard: str) -> int:
    """The number of words to replace, add or leave out to get from one to the other."""
    one, two = words(said), words(heard)
    row = list(range(len(two) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def understood(pairs: Iterable[tuple[str, str]]) -> float:
    """The share of words understood, 0 to 1, over pairs of (said, heard)."""
    pairs = list(pairs)
    wrong = sum(errors(said, heard) for said, heard in pairs)
    return 1 - wrong / sum(len(words(said)) for said, _ in pairs)


@functools.cache
def _hear_file(path: str) -> str:
    with wave.open(path) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return hear(pcm / 32_768, file.getframerate())


def main() -> None:
    """Reads groups of ``[text, wav file]`` from standard input, and writes how each group is understood."""
    groups = []
    for group in json.load(sys.stdin):
        pairs = [(said, _hear_file(path)) for said, path in group]
        groups.append({"understood": understood(pairs), "heard": [heard for _, heard in pairs]})
    json.dump(groups, sys.stdout)


if __name__ == "__main__":
    main()
