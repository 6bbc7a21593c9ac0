"""The contract between the engine and a model: ``Model``, and the values that pass between them."""

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
        id: Identifies the request in every answer about it.
        text: What to say.
        stream: Whether the caller wants chunks as soon as they are ready. A model may use it to
            choose the sizes of its chunks; if it is false, the engine joins them.
        options: The model's own options, and "seed" (int, always present): the same seed gives
            the same audio, whatever else is in the batch.
    """

    id: int
    text: str
    stream: bool
    options: Mapping[str, Any]


@dataclass
class Chunk:
    """Some audio of a request, in order.

    Attributes:
        request_id: The request that the audio belongs to.
        samples: float32, 1-D, mono, -1 to 1, at the model's sample rate; may be empty.
        metadata: About this chunk, or about the whole request if ``last`` is true.
        last: Whether the request is done. Exactly one chunk of a request that succeeds is last.
    """

    request_id: int
    samples: Samples
    metadata: dict[str, Any] = field(default_factory=dict)
    last: bool = False


@dataclass
class Failure:
    """The end of a failed request. The model has already forgotten the request.

    Attributes:
        request_id: The request that failed.
        error: Why it failed.
    """

    request_id: int
    error: ChatterbexError

    @classmethod
    def of(cls, request_id: int, exception: Exception) -> Failure:
        """Makes a failure from any exception; an unknown exception becomes "generation_failed"."""
        return cls(request_id, wrap(exception, "generation_failed"))


@dataclass
class Notice:
    """News about the model itself, sent to the caller that loaded it.

    Attributes:
        name: The event's name, such as "fallback".
        payload: What happened: strings, numbers, booleans, lists and dicts of them.
    """

    name: str
    payload: dict[str, Any]


class Model(abc.ABC):
    """A loaded model and the batch that it is running.

    The engine calls every method from one thread. It admits requests between steps, at most
    ``max_batch`` at a time, and steps the model as long as it is busy. An exception that escapes
    ``step`` fails every admitted request and leaves the model loaded; a ``ModelBrokenError`` ends
    the model as well. If a model knows which request is at fault, it returns a ``Failure`` for that
    request alone.
    """

    name: ClassVar[str]
    """The name under which the model is registered."""
    sample_rate: int = 24_000
    """The sample rate of its audio, in Hz."""
    max_batch: int = 1
    """How many requests may be admitted at a time, at least 1."""

    @classmethod
    @abc.abstractmethod
    def load(cls, options: Mapping[str, Any]) -> Generator[str, None, Model]:
        """Loads the model, in phases.

        Each yield names the phase that begins now. This shows progress before the wait and gives
        other models a step in between. The engine times the phases.

        Args:
            options: "device" (str: auto, cpu, mps, cuda, cuda:N), "fallback" (bool), "threads"
                (int from 1), "max_batch" (int from 1) and the model's own. All are optional.

        Returns:
            The model, ready: warmed up, on its device.

        Raises:
            ChatterbexError: The model cannot be loaded. Any other exception becomes
                "model_load_failed"; a missing Python package becomes "not_set_up".
        """

    @abc.abstractmethod
    def admit(self, request: Request) -> None:
        """Adds a request to the running batch. Its work begins with the next step.

        Raises:
            ChatterbexError: The request is invalid. The model has not kept it.
        """

    @abc.abstractmethod
    def step(self) -> list[Chunk | Failure | Notice]:
        """Does a small piece of work and returns the outcomes, if any.

        A step is, for example, one decode step for the whole batch, one chunk of vocoding, or one
        sentence. Between two steps the engine executes commands and other models take their turn.
        """

    @abc.abstractmethod
    def cancel(self, request_id: int) -> None:
        """Forgets a request. An unknown id is not an error."""

    @abc.abstractmethod
    def busy(self) -> bool:
        """Returns whether a step would have work to do; true while any request is admitted."""

    @abc.abstractmethod
    def info(self) -> dict[str, Any]:
        """Describes the model.

        Returns:
            "device" ({"requested", "actual", "reason"}), "components", "memory" and "versions",
            made of strings, numbers, booleans, lists and dicts; and "parallel" (int from 1, default
            1): the number of pieces of one text that the model speaks together with a gain in speed.
            The engine adds "model", "sample_rate", "max_batch" and "load" ({phase: seconds}).
        """

    def call(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any] | Future[dict[str, Any]]:
        """Calls another function of this model, such as making a voice.

        Args:
            function: The function's name.
            arguments: Its arguments.

        Returns:
            The answer. If it takes longer than a few steps, a future, and the model keeps stepping
            meanwhile. See `chatterbex.worker`.

        Raises:
            ChatterbexError: The call failed; "not_supported" for an unknown function.
        """
        del arguments
        raise ChatterbexError("not_supported", f"the model {self.name} has no function {function!r}")

    def close(self) -> None:
        """Releases memory and files. The model is not used afterwards. By default it does nothing."""
        return


def samples(audio: npt.ArrayLike) -> Samples:
    """Converts audio to the format in which it leaves a model.

    Args:
        audio: One channel, as anything that numpy accepts; shapes such as (1, n) are flattened.

    Returns:
        float32, C-contiguous, 1-D, from -1 to 1. It is not copied if it already has this format.

    Raises:
        ChatterbexError: The audio has several channels, or samples that are not finite numbers
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
