"""Runs one model on its device, and falls back to the CPU when the device fails."""

from __future__ import annotations

import abc
import gc
import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chatterbex.device.attention import eager_attention
from chatterbex.device.choice import Choice, choose
from chatterbex.device.failure import DeviceFailure, classify, summarise
from chatterbex.device.memory import Needs, empty_cache, free_memory, size_of
from chatterbex.device.placement import place, timed
from chatterbex.device.proof import ExpectedResult, Proof, ProofReport
from chatterbex.device.tensors import device_of
from chatterbex.errors import ChatterbexError, ModelBrokenError
from chatterbex.model import Notice

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
L = TypeVar("L")
P = TypeVar("P")
_logger = logging.getLogger("chatterbex.device")


class Subject(abc.ABC, Generic[L, P]):
    """What a runtime needs from a model. L is what `load` returns; P is the passes for one device."""

    @abc.abstractmethod
    def load(self) -> L:
        """Loads the weights from their files, on the CPU, as they are stored."""

    @abc.abstractmethod
    def cpu(self, loaded: L) -> P:
        """Builds the passes for the CPU. They may take ownership of what was loaded."""

    @abc.abstractmethod
    def parts(self, loaded: L) -> MutableMapping[str, Any]:
        """Returns the modules that a device needs, in the order in which they move."""

    @abc.abstractmethod
    def gpu(self, parts: Mapping[str, Any], batch: int, eager_attention: bool) -> P:
        """Builds the passes for up to `batch` requests at a time, on the device that holds the parts."""

    @abc.abstractmethod
    def figures(self, way: P) -> Mapping[str, torch.Tensor]:
        """Computes a small result of every component, each independent of the others' results."""

    @abc.abstractmethod
    def tolerances(self) -> Mapping[str, float]:
        """Returns how far each of the `figures` may differ from the CPU's; see `device.proof`."""

    @abc.abstractmethod
    def warm_up(self, way: P) -> None:
        """Speaks more than 11 seconds, so that failures with long audio appear before the model is ready."""

    @abc.abstractmethod
    def needs(self, parts: Mapping[str, Any]) -> Needs:
        """Returns how much memory it takes to speak on a device."""


class Runtime(Generic[L, P]):
    """Where a model runs, and what happens when that fails.

    The device is chosen first. The model is loaded on the CPU, and passes are built for that device. On a
    GPU they must compute what the CPU computes before the model is ready. When a device fails, its passes
    and weights are dropped, the weights are loaded again, and the passes for the CPU are built. The model
    then stays there.

    Attributes:
        requested: The requested device.
        actual: The device in use: "cpu", "mps", "cuda:0".
        reason: Why it is not the requested device, else None.
        warning: A known problem of the device, else None.
        batch: How many requests may be spoken at a time.
        limited: Why that is less than requested, else None.
        proof: The comparison with the CPU; None if there was none.
        seconds: How long moving each part, "proof" and "warm-up" took.
    """

    def __init__(
        self,
        subject: Subject[L, P],
        *,
        requested: str = "auto",
        fallback: bool = True,
        batch: int = 1,
        changed: Callable[[], None] = lambda: None,
        chooser: Callable[[str, bool], Choice] = choose,
    ) -> None:
        """Prepares a runtime; `start` starts it.

        Args:
            subject: The model.
            requested: "auto", "cpu", "mps", "cuda" or "cuda:N".
            fallback: Whether to fall back to the CPU. If not, a failure is an error, and the model
                stays on its device.
            batch: How many requests should be spoken at a time.
            changed: Called when `way` was replaced. Drop everything made for the old one.
            chooser: Chooses a device.
        """
        self.requested = requested
        self.fallback = fallback
        self.actual = "cpu"
        self.reason: str | None = None
        self.warning: str | None = None
        self.batch = batch
        self.limited: str | None = None
        self.proof: ProofReport | None = None
        self.seconds: dict[str, float] = {}
        self._subject = subject
        self._requested_batch = batch
        self._changed = changed
        self._chooser = chooser
        self._eager = False
        self._way: P | None = None
        self._parts: MutableMapping[str, Any] = {}
        self._notices: list[Notice] = []

    # -- starting -------------------------------------------------------------------------------

    def start(self, loaded: L) -> None:
        """Chooses a device and builds the passes for it.

        Args:
            loaded: What the subject's `load` returned. The caller must not keep it.

        Raises:
            ChatterbexError: The device cannot be used and fallback is off
                ("device_unavailable", "out_of_memory").
        """
        choice = self._chooser(self.requested, self.fallback)
        self.reason, self.warning = choice.reason, choice.warning
        if choice.warning is not None:
            _logger.info("%s: %s", choice.actual, choice.warning)
        if choice.fell_back:
            self._fell_back(self.requested, str(choice.reason), None, "choosing", None)
        if choice.actual == "cpu":
            self._use(self._subject.cpu(loaded))
            return
        self._eager = _eager(choice)
        failure = self._settle(choice.actual, loaded)
        if failure is None:
            return
        reason, component, when, cause = failure
        if not self.fallback:
            self._drop(choice.actual)
            kind = cause.kind if cause is not None else "out_of_memory"
            code = "out_of_memory" if kind == "out_of_memory" else "device_unavailable"
            raise self._refusal(code, reason, cause, component)
        del loaded
        self._retreat(choice.actual)
        self._fell_back(choice.actual, reason, component, when, cause)

    def _settle(self, device: str, loaded: L) -> tuple[str, str | None, str, DeviceFailure | None] | None:
        """Moves to a device and proves it. If it fails, returns why, in which component, when and how."""
        self._parts = self._subject.parts(loaded)
        needs = self._subject.needs(self._parts)
        free = free_memory(device)
        batch = self._requested_batch if free is None else needs.fits(free, self._requested_batch)
        if batch == 0:
            return needs.shortage(device, free), "memory", "moving", None
        with timed(self.seconds, "proof"):
            figures = self._subject.figures(self._subject.gpu(self._parts, 1, self._eager))
            limits = self._subject.tolerances()
            proof = Proof.reference(
                {name: ExpectedResult(figure, limits[name]) for name, figure in figures.items()}
            )
        report = place(self._parts, device)
        self.seconds.update(report.seconds)
        if not report.ok:
            return str(report.reason), report.component, "moving", report.failure
        step = "proof"
        try:
            way = self._subject.gpu(self._parts, batch, self._eager)
            self.proof = proof.compare(self._subject.figures(way), device)
            step = "warm-up"
            with timed(self.seconds, step):
                self._subject.warm_up(way)
        except Exception as error:
            failure = summarise(error)
            return f"the {step} on {device} failed: {failure.message}", step, step, failure
        self.actual, self.batch = device, batch
        if batch < self._requested_batch:
            self._limit(batch, f"no more fit into {free / 2**30:.1f} GiB of memory")
        self._use(way)
        return None

    # -- running --------------------------------------------------------------------------------

    @property
    def way(self) -> P:
        """Returns the passes that the model speaks with now."""
        if self._way is None:
            raise ModelBrokenError("engine_crashed", "the model is not loaded. Load it again.")
        return self._way

    @property
    def ready(self) -> bool:
        """Returns whether there are passes to speak with."""
        return self._way is not None

    @property
    def pending(self) -> bool:
        """Returns whether there are notices; a model with some is busy."""
        return bool(self._notices)

    def take_notices(self) -> list[Notice]:
        """Removes the notices and returns them, for the caller that loaded the model."""
        notices, self._notices = self._notices, []
        return notices

    def run(
        self,
        step: Callable[[], T],
        *,
        component: str | None = None,
        when: str = "generating",
        restart: Callable[[], Any] | None = None,
    ) -> T:
        """Runs a step. If the device fails, runs it again: with fewer requests at a time, or on the CPU.

        Args:
            step: The step. When it is called again, it must not keep anything on the failed device.
            component: The component that it runs.
            when: What the model is doing, for the error.
            restart: Called before the step runs again: restarts the running requests.

        Raises:
            ChatterbexError: The device failed and fallback is off ("device_unavailable",
                "out_of_memory"), or the model was lost.
            Exception: What the step raised, if it was not a failure of the device.
        """
        while True:
            device = self.actual
            try:
                return step()
            except Exception as error:
                failure = classify(error, device)
                if failure is None:
                    raise
            # The failed step's memory is only free here, where the exception is no longer being handled.
            reason = f"{when} on {device} failed"
            reason += f" in {component}: " if component else ": "
            reason += failure.message
            if failure.kind == "out_of_memory" and self.batch > 1:
                self._halve(device, reason)
            elif not self.fallback:
                _quietly_empty(device)
                raise self._refusal(failure.reason, reason, failure, component)
            else:
                self._retreat(device)
                self._fell_back(device, reason, component, when, failure)
            if restart is not None:
                restart()

    def after_request(self) -> None:
        """Call it at the end of each request, because MPS keeps its memory until told to release it."""
        if self.actual == "mps":
            _quietly_empty(self.actual)

    def close(self) -> None:
        """Releases everything."""
        self._way = None
        self._parts = {}

    def _use(self, way: P) -> None:
        self._way = way
        self._changed()

    def _halve(self, device: str, reason: str) -> None:
        """Speaks fewer requests at a time, on the same device."""
        self._way = None
        self._changed()
        gc.collect()
        _quietly_empty(device)
        self._limit(self.batch // 2, reason)
        self._use(self._subject.gpu(self._parts, self.batch, self._eager))

    def _limit(self, batch: int, reason: str) -> None:
        self.batch = batch
        self.limited = f"{batch} requests at a time instead of {self._requested_batch}: {reason}"
        _logger.warning("%s", self.limited)

    def _drop(self, device: str) -> None:
        self._way = None
        self._parts = {}
        self._changed()
        gc.collect()  # modules have cycles, and the CPU needs their memory now
        _quietly_empty(device)

    def _retreat(self, device: str) -> None:
        """Loads the model again, for the CPU."""
        import torch

        self._drop(device)
        self.actual, self.batch, self.limited = "cpu", self._requested_batch, None
        try:
            # A failing step may run in inference mode, and weights made there cannot be used outside it.
            with torch.inference_mode(False), torch.no_grad():
                way = self._subject.cpu(self._subject.load())
        except Exception as error:
            raise ModelBrokenError(
                "device_unavailable",
                f"the model was lost on {device}, and loading it again for the CPU failed: {error}. "
                "Load it again.",
                {"device": device, "exception": repr(error)},
            ) from error
        self._use(way)

    # -- reporting ------------------------------------------------------------------------------

    def info(self, components: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the device part of `Model.info`.

        Args:
            components: Everything that holds tensors, by name.

        Returns:
            "device" ({"requested", "actual", "reason", "warning", "proof", "limited"}), "components"
            (where each is), "memory" (bytes of each) and "versions".
        """
        import torch

        return {
            "device": {
                "requested": self.requested,
                "actual": self.actual,
                "reason": self.reason,
                "warning": self.warning,
                "proof": self.proof.as_dict() if self.proof is not None and self.actual != "cpu" else None,
                "limited": self.limited,
            },
            "components": {name: device_of(component) or "cpu" for name, component in components.items()},
            "memory": {name: size_of(component) for name, component in components.items()},
            "versions": {"torch": torch.__version__},
        }

    def _fell_back(
        self,
        device: str,
        reason: str,
        component: str | None,
        when: str,
        failure: DeviceFailure | None,
    ) -> None:
        self.reason = reason
        # The host logs the warning, because it knows the model's owner.
        _logger.debug("running on the CPU instead of %s: %s", device, reason)
        if failure is not None:
            _logger.debug("the failure: %s", failure.traceback)
        self._notices.append(
            Notice(
                "fallback",
                {
                    "from": device,
                    "to": "cpu",
                    "reason": reason,
                    "component": component,
                    "when": when,
                    "kind": None if failure is None else failure.kind,
                    "exception": None if failure is None else failure.exception,
                },
            )
        )

    def _refusal(
        self, reason: str, explanation: str, failure: DeviceFailure | None, component: str | None
    ) -> ChatterbexError:
        details: dict[str, Any] = {
            "device": self.requested,
            "reason": explanation,
            "component": component,
        }
        if failure is not None:
            details["exception"] = failure.exception
            details["traceback"] = failure.traceback
        explanation = explanation.rstrip(".!")
        return ChatterbexError(
            reason, f"{explanation}. With fallback: true, the model would use the CPU instead", details
        )


def _eager(choice: Choice) -> bool:
    """Returns whether attention must be written out on the chosen device."""
    import torch

    if choice.report is not None:
        return choice.report.eager_attention
    return eager_attention(choice.actual, torch.__version__)


def _quietly_empty(device: str) -> None:
    try:
        empty_cache(device)
    except RuntimeError:
        _logger.debug("%s did not release its memory", device, exc_info=True)
