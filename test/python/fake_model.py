"""A model for tests of the engine and everything above it: its text tells it what to do.

Give the engine ``{"extra_models": {"fake": "fake_model:FakeModel"}}`` and a ``sys.path`` with this
folder. What it speaks is its text: one sample for each byte of the UTF-8, of value byte / 256
(exact in float32), so that an answer can be checked to belong to its question. Words in the text,
with or without punctuation after them, change how:

    steps:5         in 5 steps, so 5 chunks when streaming (default 1)
    sleep:20        each step takes 20 ms
    hold            no step before ``call("release")`` counts; ``call("held")`` tells how many wait
    big:240000      so many samples in place of the text's
    refuse          ``admit`` raises
    fail            the request alone fails, with a ValueError; fail:timeout with that reason
    oom             the request alone fails, with a MemoryError
    raise           a RuntimeError escapes ``step``
    crash           SystemExit escapes ``step``, and with that the engine's
    broken          the model breaks
    lose            the model forgets the request without an answer
    nan             a sample is not a number
    shape           the samples have two channels
    unsendable      the metadata hold an object that cannot leave Python
    notice          a "fallback" notice comes before the audio
    print:word      "word" is printed; log:word and warn:word likewise are logged as an error, warned of
    eval: 1 + 1     the rest is evaluated; its repr comes as "value" in the metadata

``call("spoken")`` tells the texts that were spoken last, at most 100, in order.

Options of ``load``: "max_batch" (default 4), "phases" (list of names, default ["one", "two"]) and
"load" ("abort", "fail", "missing", "crash", "none" or "oom": how loading goes wrong).
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chatterbex.errors import ChatterbexError, ModelBrokenError
from chatterbex.model import Chunk, Failure, Model, Notice, Request


def expected(text: str) -> np.ndarray:
    """The fake model's samples for a text."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.float32) / 256


@dataclass
class _Speech:
    request: Request
    words: dict[str, str]
    samples: np.ndarray
    steps: int
    done: int = 0


class FakeModel(Model):
    """See the module."""

    name = "fake"

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.max_batch = options.get("max_batch") or 4
        self.options = dict(options)
        self.closed = False
        self.speeches: dict[int, _Speech] = {}
        self.released = 0
        self.spoken: deque[str] = deque(maxlen=100)

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, FakeModel]:
        yield from options.get("phases") or ["one", "two"]
        match options.get("load"):
            case "abort":
                os.abort()
            case "fail":
                raise ValueError("told to fail")
            case "missing":
                raise ModuleNotFoundError("No module named 'no_such_package'", name="no_such_package")
            case "crash":
                raise SystemExit("told to crash")
            case "oom":
                raise MemoryError
            case "none":
                return None  # type: ignore[return-value]
        return cls(options)

    def admit(self, request: Request) -> None:
        words = dict.fromkeys((word.rstrip(".,!?") for word in request.text.split()), "")
        words.update(word.split(":", 1) for word in words.copy() if ":" in word)  # type: ignore[arg-type]
        if "refuse" in words:
            raise ChatterbexError("invalid_text", "told to refuse")
        samples = np.zeros(int(words["big"]), np.float32) if "big" in words else expected(request.text)
        self.speeches[request.id] = _Speech(request, words, samples, int(words.get("steps", 1)))

    def step(self) -> list[Chunk | Failure | Notice]:
        """One step of every request, as a model with a batch would."""
        out: list[Chunk | Failure | Notice] = []
        for speech in list(self.speeches.values()):
            id, words = speech.request.id, speech.words
            if "hold" in words and not self.released:
                time.sleep(0.001)
                continue
            if "raise" in words:
                raise RuntimeError("told to raise")
            if "crash" in words:
                raise SystemExit("told to crash")
            if "broken" in words:
                raise ModelBrokenError("generation_failed", "told to break")
            try:
                out += self._speak(speech)
            except Exception as error:
                out.append(Failure.of(id, error))
                del self.speeches[id]
                continue
            speech.done += 1
            if speech.done == speech.steps or "lose" in words:
                self.spoken.append(speech.request.text)
                del self.speeches[id]
        return out

    def _speak(self, speech: _Speech) -> list[Chunk | Notice]:
        request, words, out = speech.request, speech.words, []
        time.sleep(int(words.get("sleep", 0)) / 1000)
        if "fail" in words:
            if words["fail"]:
                raise ChatterbexError(words["fail"], "told to fail", {"told": True})
            raise ValueError("told to fail")
        if "oom" in words:
            raise MemoryError
        if "lose" in words:
            return []
        if "notice" in words:
            out.append(Notice("fallback", {"from": "mps", "to": "cpu", "reason": "told to"}))
        if "print" in words:
            print(words["print"])
        if "log" in words:
            logging.getLogger("fake").error(words["log"])
        if "warn" in words:
            warnings.warn(words["warn"], stacklevel=1)
        size = len(speech.samples)
        at, to = (size * i // speech.steps for i in (speech.done, speech.done + 1))
        samples = speech.samples[at:to]
        if "nan" in words:
            samples = np.full(3, np.nan, np.float32)
        if "shape" in words:
            samples = np.zeros((2, 3), np.float32)
        last = speech.done + 1 == speech.steps
        metadata: dict[str, Any] = {"step": speech.done}
        if last:
            metadata |= {"model": self.name, "seed": request.options["seed"], "steps": speech.steps}
            metadata["thread"] = threading.get_native_id()
        if "unsendable" in words:
            metadata["object"] = object()
        if "eval" in words:
            metadata["value"] = repr(eval(request.text.split("eval:", 1)[1]))
        return [*out, Chunk(request.id, samples, metadata, last)]

    def cancel(self, request_id: int) -> None:
        self.speeches.pop(request_id, None)

    def busy(self) -> bool:
        return bool(self.speeches)

    def info(self) -> dict[str, Any]:
        device = {"requested": self.options.get("device"), "actual": "cpu", "reason": None}
        return {"device": device, "components": {}, "memory": {}, "versions": {}}

    def call(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        match function:
            case "echo":
                return {"arguments": dict(arguments), "thread": threading.get_native_id()}
            case "release":
                self.released += 1
                return {"released": self.released}
            case "held":
                return {"held": sum("hold" in speech.words for speech in self.speeches.values())}
            case "spoken":
                return {"spoken": list(self.spoken)}
            case "fail":
                raise ValueError("told to fail")
        return super().call(function, arguments)

    def close(self) -> None:
        self.closed = True
        self.speeches.clear()


class PlacedModel(FakeModel):
    """The same, on the requested device; "cuda" fails as soon as it speaks."""

    name = "placed"

    def _speak(self, speech: _Speech) -> list[Chunk | Notice]:
        out = super()._speak(speech)
        if self.options.get("device") == "cuda":
            out.insert(0, Notice("fallback", {"from": "cuda", "to": "cpu", "reason": "told to"}))
        return out

    def info(self) -> dict[str, Any]:
        about = super().info()
        return {**about, "device": {**about["device"], "actual": self.options.get("device")}}
