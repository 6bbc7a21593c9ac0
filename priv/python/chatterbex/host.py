"""One model in the engine: how it loads, its waiting requests and its running ones."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chatterbex import registry
from chatterbex.device.memory import empty_cache
from chatterbex.errors import ChatterbexError, ModelBrokenError, wrap
from chatterbex.model import Chunk, Failure, Model, Notice, Request, samples
from chatterbex.worker import wait_a_moment

if TYPE_CHECKING:
    from chatterbex.model import Samples

Emit = Callable[[int, str, dict[str, Any], bool], None]
"""Receives an event: id, name, payload, and whether it is the last with that id."""

_logger = logging.getLogger("chatterbex")


@dataclass
class Call:
    """A call of a model's function, still to be made."""

    id: int
    function: str
    arguments: Mapping[str, Any]


@dataclass
class _Running:
    """An admitted request and its audio so far."""

    request: Request
    parts: list[Samples] = field(default_factory=list)


class Host:
    """Looks after one model, from the load command to its end.

    Requests and calls may arrive while the model loads; they wait. A step is one phase of loading,
    or one call and one step of the model.

    Attributes:
        id: The id of the command that loads the model.
        name: The model's registered name.
        ended: Whether the model failed or was ended. The host cannot be used after that.
    """

    def __init__(self, id: int, name: str, options: Mapping[str, Any], emit: Emit) -> None:
        self.id = id
        self.name = name
        self.ended = False
        self._options = options
        self._emit = emit
        self._model: Model | None = None
        self._loader: Generator[str, None, Model] | None = None
        self._began = time.perf_counter()
        self._phase: str | None = None
        self._load: dict[str, float] = {}
        self._calls: dict[int, Call] = {}
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._waiting: dict[int, Request] = {}
        self._live: dict[int, _Running] = {}

    # -- what the engine calls ------------------------------------------------------------------

    @property
    def loading(self) -> bool:
        """Whether the model is still loading."""
        return self._model is None

    def busy(self) -> bool:
        """Returns whether a step would do anything."""
        if self._model is None or self._calls or self._answers or self._waiting or self._live:
            return True
        try:
            return self._model.busy()
        except Exception:
            return True  # the next step meets the same exception and handles it

    def has(self, id: int) -> bool:
        """Returns whether a request or call with this id is waiting or running here."""
        return any(id in works for works in (self._live, self._waiting, self._calls, self._answers))

    def add(self, work: Request | Call) -> None:
        """Queues a request or a call."""
        if isinstance(work, Request):
            self._waiting[work.id] = work
        else:
            self._calls[work.id] = work

    def forget(self, id: int) -> None:
        """Drops a request or a call, without an event."""
        self._waiting.pop(id, None)
        self._calls.pop(id, None)
        answer = self._answers.pop(id, None)
        if answer is not None:
            answer.cancel()
        if self._live.pop(id, None) is not None and self._model is not None:
            self._cancel(self._model, id)

    def info(self) -> dict[str, Any]:
        """Describes the model: "state" ("loading" or "ready"), the model's own info, and load times."""
        about: dict[str, Any] = {"model": self.name, "load": dict(self._load)}
        if self._model is None:
            return {**about, "state": "loading", "phase": self._phase}
        return {
            "state": "ready",
            "sample_rate": self._model.sample_rate,
            "max_batch": self._model.max_batch,
            **self._model.info(),
            **about,
        }

    def step(self) -> None:
        """Does one piece of work."""
        if self._model is None:
            self._step_load()
        else:
            self._step_model(self._model)

    def end(self, error: ChatterbexError) -> None:
        """Fails all waiting and running work and releases the model. Sends no event for the model itself."""
        self.ended = True
        device = self._device()
        for id in (*self._calls, *self._answers, *self._live, *self._waiting):
            self._fail(id, error)
        for part in (self._loader, self._model):
            try:
                if part is not None:
                    part.close()
            except Exception:
                _logger.exception("closing the model %s failed", self.name)
        self._loader = self._model = None
        self._calls, self._answers, self._waiting, self._live = {}, {}, {}, {}
        part = None  # or the model would outlive the collection
        _give_memory_back(device)

    def _device(self) -> str:
        try:
            return str(self._model.info()["device"]["actual"]) if self._model else "cpu"
        except Exception:
            return "cpu"  # a broken model may not even know that

    # -- loading --------------------------------------------------------------------------------

    def _step_load(self) -> None:
        began = time.perf_counter()
        try:
            if self._loader is None:
                self._loader = registry.find(self.name).load(self._options)
            phase = next(self._loader)
        except StopIteration as stop:
            self._time(self._phase, began)
            self._loaded(stop.value)
        except ModuleNotFoundError as error:
            self._break(registry.missing_package(f"the model {self.name}", error))
        except Exception as error:
            self._break(wrap(error, "model_load_failed"))
        else:
            # Work before the first announced phase, such as importing the model's own module,
            # counts towards that phase.
            self._time(self._phase or phase, began)
            self._phase = phase
            payload = {"phase": phase, "seconds": time.perf_counter() - self._began}
            self._emit(self.id, "loading", payload, False)

    def _loaded(self, model: object) -> None:
        self._loader = self._phase = None
        try:
            if not isinstance(model, Model):
                raise TypeError(f"loading gave {model!r} in place of a model")
            self._model = model
            info = self.info()
        except Exception as error:
            self._break(wrap(error, "model_load_failed"))
        else:
            self._emit(self.id, "loaded", info, False)

    def _time(self, phase: str | None, began: float) -> None:
        if phase is not None:
            self._load[phase] = self._load.get(phase, 0.0) + time.perf_counter() - began

    def _break(self, error: ChatterbexError) -> None:
        """Ends a model that failed. Its own event comes before those of its requests.

        A caller whose request just failed may ask about the model at once.
        """
        self._fail(self.id, error)
        self.end(error)

    # -- work -----------------------------------------------------------------------------------

    def _step_model(self, model: Model) -> None:
        if self._calls:
            self._call(model, self._calls.pop(next(iter(self._calls))))
        self._answer()
        while self._waiting and len(self._live) < model.max_batch:
            self._admit(model, self._waiting.pop(next(iter(self._waiting))))
        try:
            outcomes = model.step() if self._live or model.busy() else []
            for outcome in outcomes:
                self._take(model, outcome)
            if self._live and not model.busy():
                # An error now is better than a caller that waits forever.
                raise RuntimeError("the model lost a request")
        except Exception as error:
            self._step_failed(model, error)

    def _call(self, model: Model, call: Call) -> None:
        try:
            answer = model.call(call.function, call.arguments)
        except Exception as error:
            self._fail(call.id, wrap(error, "generation_failed"))
            return
        if isinstance(answer, Future):
            self._answers[call.id] = answer
        else:
            self._emit(call.id, "done", answer, True)

    def _answer(self) -> None:
        """Sends the answers that are ready. If there is nothing else to do, waits a moment for one."""
        if self._answers and not (self._calls or self._waiting or self._live):
            wait_a_moment(list(self._answers.values()))
        for id in [id for id, answer in self._answers.items() if answer.done()]:
            try:
                self._emit(id, "done", self._answers.pop(id).result(), True)
            except Exception as error:
                self._fail(id, wrap(error, "generation_failed"))

    def _admit(self, model: Model, request: Request) -> None:
        try:
            model.admit(request)
        except Exception as error:
            self._fail(request.id, wrap(error, "generation_failed"))
        else:
            self._live[request.id] = _Running(request)
            self._emit(request.id, "started", {}, False)

    def _take(self, model: Model, outcome: Chunk | Failure | Notice) -> None:
        """Passes on the outcome of a step; outcomes of cancelled requests are dropped."""
        if isinstance(outcome, Notice):
            self._emit(self.id, outcome.name, outcome.payload, False)
        elif outcome.request_id not in self._live:
            return
        elif isinstance(outcome, Failure):
            del self._live[outcome.request_id]
            self._fail(outcome.request_id, outcome.error)
        else:
            self._take_chunk(model, outcome)

    def _take_chunk(self, model: Model, chunk: Chunk) -> None:
        id = chunk.request_id
        running = self._live[id]
        try:
            audio = samples(chunk.samples)
        except Exception as error:
            self._fail(id, wrap(error, "generation_failed"))
            self.forget(id)
            return
        if not running.request.stream:
            running.parts.append(audio)
        elif audio.size:
            self._emit(id, "chunk", {"samples": audio, "metadata": chunk.metadata}, False)
        if chunk.last:
            del self._live[id]
            whole = _join(running.parts)
            payload = {"samples": whole, "sample_rate": model.sample_rate, "metadata": chunk.metadata}
            self._emit(id, "done", payload, True)

    def _step_failed(self, model: Model, exception: Exception) -> None:
        """Fails the whole batch, because the cause is unknown, and the model if it is left unusable."""
        error = wrap(exception, "generation_failed")
        batch = list(self._live)
        self._live.clear()
        for id in batch:
            self._cancel(model, id)
        if not self.ended and self._is_broken(model, error):
            self._break(error)
        for id in batch:
            self._fail(id, error)

    @staticmethod
    def _is_broken(model: Model, error: ChatterbexError) -> bool:
        try:
            return isinstance(error, ModelBrokenError) or model.busy()
        except Exception:
            return True

    def _cancel(self, model: Model, id: int) -> None:
        """Makes the model forget a request. A model that fails to do so can no longer be trusted."""
        if self.ended:
            return
        try:
            model.cancel(id)
        except Exception as error:
            self._break(wrap(error, "generation_failed"))

    def _fail(self, id: int, error: ChatterbexError) -> None:
        self._emit(id, "failed", error.payload(), True)


def _give_memory_back(device: str) -> None:
    """Frees what a model left behind, and makes allocators return the memory that they hold in reserve."""
    gc.collect()  # weights are large, and models may have reference cycles
    if device != "cpu" and "torch" in sys.modules:
        try:
            empty_cache(device)
        except Exception:
            _logger.debug("%s did not release its memory", device, exc_info=True)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it, and needs it
    if trim is not None:
        trim(0)


def _join(parts: list[Samples]) -> Samples:
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
