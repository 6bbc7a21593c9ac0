"""Transcribes recordings with pocketsphinx and the English model in its package.

It runs in its own environment, which has only pocketsphinx. The arguments are WAV files with one
channel, 16,000 Hz and 16 bits. The answer is a JSON list of the transcripts, in lower case.
"""

from __future__ import annotations

import json
import re
import sys
import wave

from pocketsphinx import Decoder

RATE = 16_000
# As in a recording: the recogniser takes the level of the background from what comes first.
QUIET = bytes(RATE // 4 * 2)


def hear(decoder: Decoder, path: str) -> str:
    """Returns the words of one file, or "" if there are none."""
    with wave.open(path) as file:
        form = file.getnchannels(), file.getframerate(), file.getsampwidth()
        if form != (1, RATE, 2):
            raise ValueError(f"{path} must have one channel, {RATE} Hz and 16 bits, not {form}")
        sound = file.readframes(file.getnframes())
    decoder.start_utt()
    decoder.process_raw(QUIET + sound + QUIET, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    # A number tells which pronunciation it was: "a(2)".
    return re.sub(r"\(\d+\)", "", hypothesis.hypstr) if hypothesis else ""


def main() -> None:
    """Answers for the files that the arguments name."""
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    json.dump([hear(decoder, path) for path in sys.argv[1:]], sys.stdout)


if __name__ == "__main__":
    main()
