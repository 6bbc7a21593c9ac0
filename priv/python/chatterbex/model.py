"""What a model is to the engine: the ``Model`` contract and the values that cross it."""

from __future__ import annotations

import abc
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from chatterbex.errors import ChatterbexError, wrap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One text to be spoken.

    Attributes:
        id: Names the request in every answer about it.
        text: What to say.
        stream: Whether the caller wants chunks as they come. A model may use it to choose the
            sizes of its chunks; the engine joins them where it is false.
        options: The model's own options, and "seed" (int, always present): the same seed gives
            the same audio, whoever else is in the batch.
    """

    id: int
    text: str
    stream: bool
    options: Mapping[str, Any]


@dataclass
class Chunk:
    """Some audio of a request, in order.

    Attributes:
        request_id: Whose audio it is.
        samples: float32, 1-D, mono, -1 to 1, at the model's sample rate; may be empty.
        metadata: About this chunk; about the whole request where ``last`` is true.
        last: Whether the request is done. Exactly one chunk of a request that succeeds is last.
    """

    request_id: int
    samples: Samples
    metadata: dict[str, Any] = field(default_factory=dict)
    last: bool = False


@dataclass
class Failure:
    """The end of a request that did not succeed; the model has forgotten it.

    Attributes:
        request_id: Whose failure it is.
        error: Why.
    """

    request_id: int
    error: ChatterbexError

    @classmethod
    def of(cls, request_id: int, exception: Exception) -> Failure:
        """Makes a failure from any exception; one of no known kind is "generation_failed"."""
        return cls(request_id, wrap(exception, "generation_failed"))


@dataclass
class Notice:
    """News about the model itself, sent to whoever loaded it.

    Attributes:
        name: The event's name, such as "fallback".
        payload: What happened: strings, numbers, booleans, lists and dicts of them.
    """

    name: str
    payload: dict[str, Any]


class Model(abc.ABC):
    """A loaded model and the batch that it is running.

    The engine calls every method from one thread. It admits requests between steps, at most
    ``max_batch`` at a time, and steps the model for as long as it is busy. An exception that
    escapes ``step`` fails every admitted request and leaves the model loaded; a
    ``ModelBrokenError`` ends the model as well. Where a model can tell whose fault it is, it
    returns a ``Failure`` for that request alone.
    """

    name: ClassVar[str]
    """The name under which the model is registered."""
    sample_rate: int = 24_000
    """Samples a second of all its audio."""
    max_batch: int = 1
    """How many requests may be admitted at a time, from 1 on."""

    @classmethod
    @abc.abstractmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, Model]:
        """Loads the model, in phases.

        Each yield names the phase that begins now, so that progress is seen before the wait, and
        other models get a step in between. The engine times the phases.

        Args:
            options: "device" (str: auto, cpu, mps, cuda, cuda:N), "fallback" (bool), "threads"
                (int from 1), "max_batch" (int from 1) and the model's own; each may be missing.

        Returns:
            The model, ready: warmed up, on its device.

        Raises:
            ChatterbexError: It cannot be loaded. Any other exception becomes
                "model_load_failed", a missing Python package "not_set_up".
        """

    @abc.abstractmethod
    def admit(self, request: Request) -> None:
        """Takes a request into the running batch; its first work is done in the next step.

        Raises:
            ChatterbexError: The request is bad. The model has then not kept it.
        """

    @abc.abstractmethod
    def step(self) -> list[Chunk | Failure | Notice]:
        """Does a small piece of work and returns what came of it, perhaps nothing.

        One decode step for the whole batch, one chunk of vocoding, or one sentence: between two
        steps commands are seen and other models have their turn.
        """

    @abc.abstractmethod
    def cancel(self, request_id: int) -> None:
        """Forgets a request. An id that is not known is no error."""

    @abc.abstractmethod
    def busy(self) -> bool:
        """Tells whether there is work for a step; true while any request is admitted."""

    @abc.abstractmethod
    def info(self) -> dict[str, Any]:
        """Describes the model.

        Returns:
            "device" ({"requested", "actual", "reason"}), "components", "memory" and "versions",
            of strings, numbers, booleans, lists and dicts of them; and "parallel" (int from 1, default
            1), how many pieces of one text it gains from speaking at a time. The engine adds
            "model", "sample_rate", "max_batch" and "load" ({phase: seconds}).
        """

    def call(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any] | Future[dict[str, Any]]:
        """Does something else that this model can do, such as making a voice.

        Args:
            function: What to do.
            arguments: What it needs.

        Returns:
            The answer, or a future of it where that takes longer than a few steps: the model goes on
            stepping meanwhile. See `chatterbex.worker`.

        Raises:
            ChatterbexError: It went wrong; "not_supported" for an unknown function.
        """
        del arguments
        raise ChatterbexError("not_supported", f"the model {self.name} has no function {function!r}")

    def close(self) -> None:
        """Lets go of memory and files; the model is not used afterwards. Default: nothing."""
        return


def samples(audio: npt.ArrayLike) -> Samples:
    """Brings audio into the one form that leaves a model.

    Args:
        audio: One channel, as anything numpy takes; shapes such as (1, n) are flattened.

    Returns:
        float32, C-contiguous, 1-D, within -1 to 1. Not copied where it is so already.

    Raises:
        ChatterbexError: There are several channels, or samples that are not finite numbers
            ("generation_failed").
    """
    import numpy as np

    array = np.ascontiguousarray(audio, dtype=np.float32)
    if array.size > max(array.shape, default=1):
        raise ChatterbexError(
            "generation_failed", f"one channel of audio was expected, not shape {array.shape}"
        )
    array = array.reshape(-1)
    if array.size == 0:
        return array
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ChatterbexError("generation_failed", "the model gave samples that are not numbers")
    return array if low >= -1.0 and high <= 1.0 else array.clip(-1.0, 1.0)
