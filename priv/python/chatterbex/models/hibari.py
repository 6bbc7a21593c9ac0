"""The built-in voice: hibari, a small English model that comes with its package."""

from __future__ import annotations

import platform
import re
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chatterbex.errors import ChatterbexError
from chatterbex.models.base import Chunk, Failure, Model, Notice, Request, samples

if TYPE_CHECKING:
    import numpy as np
    from hibari import Hibari

    from chatterbex.models.base import Samples

VOICE: Final = "heart"
"""The one voice inside the package; hibari would fetch any other from the network."""
MAX_PHONEMES: Final = 400
"""Phonemes that are spoken as one sentence, as hibari itself has it: about 20 s of speech."""
MAX_TEXT: Final = 600
"""Characters that are turned into phonemes at once; that work is quadratic in them."""
MAX_RUN: Final = 32
"""Characters without a space that are read as they are; for "1/1/1/..." it is cubic in them."""
MAX_DIGITS: Final = 24
"""Digits of a number that is read as one; hibari knows no word for those above 10^36."""

_CPU_ONLY: Final = "the hibari voice runs on the CPU only"
_DEVICE: Final = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_LINK: Final = re.compile(r"\[[^\[\]]{1,200}\]\([^()]{0,200}\)")
_RUN: Final = re.compile(rf"\S{{{MAX_RUN + 1},}}")
_NUMBER: Final = re.compile(rf"\d(?:,?\d){{{MAX_DIGITS},}}")
_CLAUSE: Final = re.compile(r"(?<=[,;:—])\s+")
_SPACE: Final = re.compile(r"\s+")
_REPEATED: Final = re.compile(r'([;:,.!?—…"“”()])\1{3,}')
_UNVOICED: Final = frozenset(' ;:,.!?—…"()“”ˈˌːʰʲ\u0303↓→↗↘')


class HibariModel(Model):
    """The model "hibari": one step speaks one sentence of one request; requests take turns.

    Options of ``load``: "threads" (int from 1, default 1: more threads gain little on a model
    this small), "max_batch" (int from 1, default 16), "device" (default "auto") and "fallback"
    (bool, default true; false refuses any device but auto and cpu).

    Options of a request: "seed" (int), "speed" (0.5 to 2.0, default 1.0) and "voice" (None or
    "heart"). In its text, ``[word](/phonemes/)`` sets how a word is pronounced.

    Metadata of a chunk: "sentence" (int, from 0). Of the whole: "model", "voice", "seed",
    "speed", "sentences" (int), "generation_ms" (float, time spent on this request alone) and
    "rtf" (float, that time per second of audio).
    """

    name = "hibari"

    def __init__(self, voice: Hibari, options: Mapping[str, Any]) -> None:
        """Takes a voice that is loaded; use ``load``."""
        self.max_batch = _whole(options, "max_batch", 16)
        self.sample_rate = voice.sample_rate
        self._voice = voice
        self._requested = options.get("device") or "auto"
        self._speeches: deque[_Speech] = deque()

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, HibariModel]:
        """Loads the voice from its package; see ``Model.load``. It never uses the network."""
        _check_device(options)
        threads = _whole(options, "threads", 1)
        yield "import"
        from hibari import Hibari
        from hibari.g2p import G2P
        from hibari.g2p.oov import OOV

        yield "model"
        voice = Hibari(voice=VOICE, threads=threads, g2p=G2P(oov=_Unknown(OOV())))
        model = cls(voice, options)
        yield "warmup"
        model.admit(Request(0, "Hello, Zorblax.", stream=False, options={"seed": 0}))
        while model.busy():
            for outcome in model.step():
                if isinstance(outcome, Failure):
                    raise outcome.error
        return model

    def admit(self, request: Request) -> None:
        """Takes a request; see ``Model.admit``.

        Raises:
            ChatterbexError: The text is blank ("invalid_text"), the speed is none
                ("invalid_option"), or the voice is another ("not_supported").
        """
        voice = request.options.get("voice")
        if voice not in (None, VOICE):
            raise ChatterbexError(
                "not_supported",
                f"the model hibari has one voice, {VOICE!r}, and can't speak as {voice!r}; "
                "leave the option voice out, or use a Chatterbox model",
            )
        self._speeches.append(_Speech(self._voice, request, _speed(request.options)))

    def step(self) -> list[Chunk | Failure | Notice]:
        """Speaks the next sentence of the request whose turn it is."""
        if not self._speeches:
            return []
        speech = self._speeches.popleft()
        try:
            chunk = speech.step()
        except Exception as error:
            return [Failure.of(speech.request.id, error)]
        if chunk is None or not chunk.last:
            self._speeches.append(speech)
        return [] if chunk is None else [chunk]

    def cancel(self, request_id: int) -> None:
        """Forgets a request; see ``Model.cancel``."""
        self._speeches = deque(one for one in self._speeches if one.request.id != request_id)

    def busy(self) -> bool:
        """Tells whether any request is left."""
        return bool(self._speeches)

    def info(self) -> dict[str, Any]:
        """Describes the model; see ``Model.info``."""
        import hibari
        import numpy as np
        import onnxruntime

        reason = None if self._requested in ("auto", "cpu") else _CPU_ONLY
        return {
            "device": {"requested": self._requested, "actual": "cpu", "reason": reason},
            "components": {"phonemes": "cpu", "voice": "cpu"},
            "memory": {},
            "versions": {
                "python": platform.python_version(),
                "hibari-tts": hibari.__version__,
                "numpy": np.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
            "voices": [VOICE],
        }

    def close(self) -> None:
        """Forgets all requests."""
        self._speeches.clear()


@dataclass
class _Speech:
    """A request and how far it has come."""

    voice: Hibari
    request: Request
    speed: float
    sentences: int = 0
    size: int = 0
    seconds: float = 0.0
    phonemes: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        import numpy as np

        # Each request has its own generator, so that its audio does not depend on the batch.
        self.rng: np.random.Generator = np.random.default_rng(int(self.request.options["seed"]) % 2**64)
        self.texts: Iterator[str] = readable(self.voice.split_sentences(self.request.text))
        self.text = next(self.texts, None)
        if self.text is None:
            raise self._nothing()

    def step(self) -> Chunk | None:
        """Speaks a sentence; None where the next piece of text has nothing to be spoken."""
        began = time.perf_counter()
        if not self.phonemes and self.text is not None:
            self.phonemes.extend(self._phonemes(self.text))
            self.text = next(self.texts, None)
        audio = self._speak(self.phonemes.popleft()) if self.phonemes else None
        self.seconds += time.perf_counter() - began
        last = not self.phonemes and self.text is None
        if audio is None:
            return Chunk(self.request.id, _silence(), self._metadata(), last) if last else None
        metadata = self._metadata() if last else {"sentence": self.sentences - 1}
        return Chunk(self.request.id, audio, metadata, last)

    def _phonemes(self, text: str) -> Iterator[str]:
        phonemes = _REPEATED.sub(r"\1\1\1", self.voice.g2p(text))
        for sentence in split(phonemes, MAX_PHONEMES):
            if any(c in self.voice.vocab and c not in _UNVOICED for c in sentence):
                yield sentence

    def _speak(self, phonemes: str) -> Samples:
        audio = samples(self.voice.from_ids(self.voice.ids(phonemes), self.speed, self.rng))
        self.sentences += 1
        self.size += audio.size
        return audio

    def _metadata(self) -> dict[str, Any]:
        if not self.size:
            raise self._nothing()
        return {
            "model": HibariModel.name,
            "voice": VOICE,
            "seed": self.request.options["seed"],
            "speed": self.speed,
            "sentences": self.sentences,
            "generation_ms": self.seconds * 1000,
            "rtf": self.seconds * self.voice.sample_rate / self.size,
        }

    @staticmethod
    def _nothing() -> ChatterbexError:
        return ChatterbexError(
            "invalid_text",
            "there is nothing in the text that the hibari voice can say; it reads English words and numbers",
        )


class _Unknown:
    """Reads words that are in no lexicon.

    hibari's network for them reads 24 letters and drops the rest; here long words are read in
    parts instead.
    """

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read
        self._most: int = read.maxlen  # type: ignore[attr-defined]

    def __call__(self, word: str) -> str | None:
        parts = -(-len(word) // self._most)
        if parts <= 1:
            return self._read(word)
        size = -(-len(word) // parts)
        read = (self._read(word[at : at + size]) for at in range(0, len(word), size))
        return "".join(part for part in read if part) or None


def readable(sentences: list[str]) -> Iterator[str]:
    """Cuts sentences into pieces that hibari reads in bounded time.

    Ordinary sentences pass unchanged. Longer ones than ``MAX_TEXT`` characters are cut at clauses
    or spaces; runs without a space above ``MAX_RUN`` are parted, numbers above ``MAX_DIGITS``
    digits are read digit by digit, and digits of other shapes become plain ones. What is inside
    ``[word](/phonemes/)`` is left alone.

    Args:
        sentences: Sentences, none of them blank.

    Yields:
        The pieces, lazily and in order.
    """
    for sentence in sentences:
        parted, at = [], 0
        for link in _LINK.finditer(sentence):
            parted += [_part(sentence[at : link.start()]), link.group()]
            at = link.end()
        yield from split("".join([*parted, _part(sentence[at:])]), MAX_TEXT)


def _part(text: str) -> str:
    if not text.isascii():
        text = "".join(map(_plain_digit, text))
    text = _NUMBER.sub(lambda number: " ".join(number.group().replace(",", "")), text)
    return _RUN.sub(_part_run, text)


def _plain_digit(sign: str) -> str:
    # hibari takes signs such as a circled one for part of a number, and can't read it then. Those
    # that it has words for are left.
    if sign.isdigit() and not sign.isdecimal() and sign not in "²³":
        return f" {unicodedata.digit(sign)} "
    return sign


def _part_run(run: re.Match[str]) -> str:
    left, parts = run.group(), []
    while len(left) > MAX_RUN:
        # The best place is after the last sign within reach, for it is where a reader would stop.
        at = next((i for i in range(MAX_RUN, MAX_RUN // 2, -1) if not left[i - 1].isalnum()), MAX_RUN)
        parts.append(left[:at])
        left = left[at:]
    return " ".join([*parts, left])


def split(text: str, limit: int) -> Iterator[str]:
    """Cuts text or phonemes so that no piece is above a limit.

    Cuts are made at the ends of clauses; within a clause that is too long at spaces, though not
    inside ``[word](/phonemes/)``; and within a word that is too long anywhere.

    Args:
        text: What to cut.
        limit: The most characters of a piece, from 1 on.

    Yields:
        The pieces, in order.
    """
    if len(text) <= limit:
        yield text
        return
    yield from _pack(_parts(_CLAUSE, text), limit, lambda clause: _split_words(clause, limit))


def _split_words(clause: str, limit: int) -> Iterator[str]:
    yield from _pack(
        _parts(_SPACE, clause),
        limit,
        lambda word: (word[at : at + limit] for at in range(0, len(word), limit)),
    )


def _parts(separator: re.Pattern[str], text: str) -> list[str]:
    """Splits text at a separator, but not inside ``[word](/phonemes/)``."""
    parts, at = [], 0
    links = [link.span() for link in _LINK.finditer(text)]
    for found in separator.finditer(text):
        while links and links[0][1] <= found.start():
            del links[0]
        if not links or found.end() <= links[0][0]:
            parts.append(text[at : found.start()])
            at = found.end()
    return [part for part in (*parts, text[at:]) if part]


def _pack(parts: list[str], limit: int, cut: Callable[[str], Iterator[str]]) -> Iterator[str]:
    """Joins neighbours with spaces up to the limit; a part above it is cut on its own."""
    packed = ""
    for part in parts:
        if packed and len(packed) + 1 + len(part) > limit:
            yield packed
            packed = ""
        if len(part) > limit:
            yield from cut(part)
        else:
            packed = f"{packed} {part}" if packed else part
    if packed:
        yield packed


def _silence() -> Samples:
    import numpy as np

    return np.zeros(0, np.float32)


def _check_device(options: Mapping[str, Any]) -> None:
    device = options.get("device") or "auto"
    if not (isinstance(device, str) and _DEVICE.fullmatch(device)):
        raise ChatterbexError(
            "invalid_option", f"device must be auto, cpu, mps, cuda or cuda:N, not {device!r}"
        )
    if options.get("fallback") is False and device not in ("auto", "cpu"):
        raise ChatterbexError(
            "device_unavailable",
            f"the device {device} was asked for without fallback, but {_CPU_ONLY}; use device "
            "cpu, allow the fallback, or use a Chatterbox model",
            {"device": device},
        )


def _whole(options: Mapping[str, Any], key: str, default: int) -> int:
    value = options.get(key)
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise ChatterbexError("invalid_option", f"{key} must be a whole number from 1 on, not {value!r}")
    return value


def _speed(options: Mapping[str, Any]) -> float:
    speed = options.get("speed")
    if speed is None:
        return 1.0
    if type(speed) not in (int, float) or not 0.5 <= speed <= 2.0:
        raise ChatterbexError("invalid_option", f"speed must be from 0.5 to 2.0, not {speed!r}")
    return float(speed)
