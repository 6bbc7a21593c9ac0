"""The built-in voice: hibari, a small English model that comes with its package."""

from __future__ import annotations

import platform
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chatterbex.errors import ChatterbexError
from chatterbex.model import Chunk, Failure, Model, Notice, Request, samples
from chatterbex.options import integer, number
from chatterbex.readable import readable, split

if TYPE_CHECKING:
    import numpy as np
    from hibari import Hibari

    from chatterbex.model import Samples

VOICE: Final = "heart"
"""The one voice inside the package; hibari would fetch any other from the network."""
MAX_PHONEMES: Final = 400
"""The most phonemes spoken as one sentence, which is hibari's own limit: about 20 s of speech."""

_CPU_ONLY: Final = "the hibari voice runs on the CPU only"
_DEVICE: Final = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
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
        """Keeps a loaded voice; use ``load`` instead."""
        self.max_batch = integer(options, "max_batch", 16, 1, 1024)
        self.sample_rate = voice.sample_rate
        self._voice = voice
        self._requested = options.get("device") or "auto"
        self._speeches: deque[_Speech] = deque()

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, HibariModel]:
        """Loads the voice from its package; see ``Model.load``. It never uses the network."""
        _check_device(options)
        threads = integer(options, "threads", 1, 1, 1024)
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
        """Adds a request; see ``Model.admit``.

        Raises:
            ChatterbexError: The text is blank ("invalid_text"), the speed is invalid
                ("invalid_option"), or the model lacks the voice ("not_supported").
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
        self._speeches = deque(speech for speech in self._speeches if speech.request.id != request_id)

    def busy(self) -> bool:
        """Returns whether any request is left."""
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
    """A request and its progress."""

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
        """Speaks a sentence; None if the next piece of text has nothing to speak."""
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
    """Reads words that no lexicon contains.

    hibari's network for them reads 24 letters and drops the rest, so long words are read in parts.
    """

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read
        self._max_phonemes: int = read.maxlen  # type: ignore[attr-defined]

    def __call__(self, word: str) -> str | None:
        parts = -(-len(word) // self._max_phonemes)
        if parts <= 1:
            return self._read(word)
        size = -(-len(word) // parts)
        read = (self._read(word[at : at + size]) for at in range(0, len(word), size))
        return "".join(part for part in read if part) or None


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
            f"the device {device} was requested without fallback, but {_CPU_ONLY}; use device "
            "cpu, allow the fallback, or use a Chatterbox model",
            {"device": device},
        )


def _speed(options: Mapping[str, Any]) -> float:
    return 1.0 if (speed := number(options, "speed", 0.5, 2.0)) is None else speed
