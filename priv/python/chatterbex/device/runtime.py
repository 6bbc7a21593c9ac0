"""One model's device: chosen, moved to, worked on, and left for the CPU when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from chatterbex.device.attention import eager_attention
from chatterbex.device.choice import Choice, choose
from chatterbex.device.failure import DeviceFailure, classify
from chatterbex.device.memory import empty_cache, size_of
from chatterbex.device.placement import Placement, PlacementReport
from chatterbex.device.tensors import device_of
from chatterbex.errors import ChatterbexError
from chatterbex.models.base import Notice

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_logger = logging.getLogger("chatterbex.device")


class Runtime:
    """Where a model runs, and what happens when that fails.

    A model loads its components on the CPU, hands them over, calls `start`, and does its steps
    inside `run`. When its device fails, all components go to the CPU, the step is done again, and
    the model stays there.

    Attributes:
        requested: What was asked for.
        actual: Where it runs: "cpu", "mps", "cuda:0".
        reason: Why that is not what was asked for, else None.
        warning: What to know of the device, else None.
        choice: How the device was chosen; None before `start`.
        report: How the components got there; None where they did not move.
    """

    def __init__(
        self,
        components: MutableMapping[str, Any],
        *,
        requested: str = "auto",
        fallback: bool = True,
        after: Sequence[Callable[[str], None]] = (),
        exempt: Sequence[str] = (),
        restore: Callable[[], Mapping[str, Any]] | None = None,
        residents: Mapping[str, Any] | None = None,
        chooser: Callable[[str, bool], Choice] = choose,
    ) -> None:
        """Takes a model's components, which are on the CPU.

        Args:
            components: See `Placement`; "t3", "s3gen", "conds.t3" and "conds.gen" move first, in
                this order.
            requested: "auto", "cpu", "mps", "cuda" or "cuda:N".
            fallback: Whether the CPU may stand in. If not, a failure is an error, and the model
                stays where it is.
            after: Called with the device whenever the components have moved.
            exempt: Paths below which tensors may stay on the CPU.
            restore: Loads the components anew where a device has lost them.
            residents: Components that stay on the CPU, for `info`.
            chooser: How a device is chosen.
        """
        self.requested = requested
        self.fallback = fallback
        self.reason: str | None = None
        self.warning: str | None = None
        self.choice: Choice | None = None
        self.report: PlacementReport | None = None
        self._placement = Placement(components, after=after, exempt=exempt, restore=restore)
        self._exempt = exempt
        self._residents = dict(residents or {})
        self._chooser = chooser
        self._notices: list[Notice] = []

    # -- getting there --------------------------------------------------------------------------

    def start(self, warm_up: Callable[[], Any] | None = None, *, headroom: int | None = None) -> None:
        """Chooses a device and moves the components there.

        Args:
            warm_up: Speaks more than 11 seconds, so that what fails only then fails now. Called
                on the device, not on the CPU.
            headroom: Bytes that must be left on the device.

        Raises:
            ChatterbexError: The device cannot be used and the CPU may not stand in
                ("device_unavailable", "out_of_memory").
        """
        choice = self._chooser(self.requested, self.fallback)
        self.choice, self.reason, self.warning = choice, choice.reason, choice.warning
        if choice.warning is not None:
            _logger.info("%s: %s", choice.actual, choice.warning)
        if choice.fell_back:
            self._fell_back(self.requested, str(choice.reason), None, "choosing", None)
        if choice.actual == "cpu":
            return
        report = self._placement.place(choice.actual, warm_up=warm_up, headroom=headroom)
        self.report = report
        if report.ok:
            return
        kind = report.failure.kind if report.failure is not None else "out_of_memory"
        if not self.fallback:
            reason = "out_of_memory" if kind == "out_of_memory" else "device_unavailable"
            raise self._refusal(reason, str(report.reason), report.failure, report.component)
        when = "warm-up" if report.component == "warm-up" else "moving"
        self._fell_back(choice.actual, str(report.reason), report.component, when, report.failure)

    # -- being there ----------------------------------------------------------------------------

    @property
    def actual(self) -> str:
        """Returns where the components are."""
        return self._placement.device

    @property
    def device(self) -> torch.device:
        """Returns `actual` for PyTorch."""
        import torch

        return torch.device(self.actual)

    @property
    def components(self) -> MutableMapping[str, Any]:
        """Returns the components as they are now."""
        return self._placement.components

    @property
    def eager_attention(self) -> bool:
        """Returns whether attention must be written out where the model runs."""
        import torch

        report = self.choice.report if self.choice is not None else None
        if report is not None and report.device == self.actual:
            return report.eager_attention
        return eager_attention(self.actual, torch.__version__)

    @property
    def pending(self) -> bool:
        """Returns whether there are notices; a model with some is busy."""
        return bool(self._notices)

    def take_notices(self) -> list[Notice]:
        """Takes out the news for whoever loaded the model."""
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
        """Does a step; if the device fails at it, does it again on the CPU.

        Args:
            step: What to do. It must not keep what it had on the device when it is called again.
            component: Which component it is about.
            when: What the model was doing.
            restart: Called between the two, on the CPU: begins the running requests anew.

        Raises:
            ChatterbexError: The device failed and the CPU may not stand in
                ("device_unavailable", "out_of_memory"), or the model was lost.
            Exception: What the step raised, if it was no failure of a device, or was one again.
        """
        device = self.actual
        try:
            return step()
        except Exception as error:
            failure = classify(error, device)
            if failure is None:
                raise
        reason = f"{when} on {device} failed"
        reason += f" in {component}: " if component else ": "
        reason += failure.message
        if not self.fallback:
            _quietly_empty(device)
            raise self._refusal(failure.reason, reason, failure, component)
        self._placement.retreat()
        self.reason = reason
        self._fell_back(device, reason, component, when, failure)
        if restart is not None:
            restart()
        return step()

    def after_request(self) -> None:
        """Is called at the end of each request: MPS keeps what it used until told otherwise."""
        if self.actual == "mps":
            _quietly_empty(self.actual)

    # -- telling --------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Returns what `Model.info` says of devices.

        Returns:
            "device" ({"requested", "actual", "reason", "warning"}), "components" (where each is),
            "memory" (bytes of each) and "versions".
        """
        import torch

        parts = {**self.components, **self._residents}
        return {
            "device": {
                "requested": self.requested,
                "actual": self.actual,
                "reason": self.reason,
                "warning": self.warning,
            },
            "components": {name: device_of(one, name, self._exempt) for name, one in parts.items()},
            "memory": {name: size_of(one) for name, one in parts.items()},
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
        # The host warns, for it knows whose model this is.
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
        self, reason: str, said: str, failure: DeviceFailure | None, component: str | None
    ) -> ChatterbexError:
        details: dict[str, Any] = {
            "device": self.requested,
            "reason": said,
            "component": component,
        }
        if failure is not None:
            details["exception"] = failure.exception
            details["traceback"] = failure.traceback
        said = said.rstrip(".!")
        return ChatterbexError(reason, f"{said}. fallback: true would have gone on with the CPU", details)


def _quietly_empty(device: str) -> None:
    try:
        empty_cache(device)
    except RuntimeError:
        _logger.debug("%s would not give back its memory", device, exc_info=True)
