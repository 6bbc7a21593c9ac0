"""Moving a model: all of it, or none of it."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Final

from chatterbex.device.failure import DeviceFailure, StrayTensorsError, summarise
from chatterbex.device.memory import empty_cache, shortage
from chatterbex.device.tensors import stray_tensors
from chatterbex.errors import ModelBrokenError

ORDER: Final = ("t3", "s3gen", "conds.t3", "conds.gen")
"""What moves first; other components follow in the order they were given."""

_logger = logging.getLogger("chatterbex.device")
_moving: str | None = None


def moving() -> str | None:
    """Returns the name of the component that is being moved to a device just now."""
    return _moving


@dataclass
class PlacementReport:
    """What became of a move.

    Attributes:
        requested: Where to.
        actual: Where everything is now.
        reason: Why it is not where it was to go, else None.
        component: What could not be moved or used: a component's name, "warm-up", "memory"...
        failure: The failure, where one was raised.
        seconds: How long each component took, and "warm-up".
    """

    requested: str
    actual: str
    reason: str | None = None
    component: str | None = None
    failure: DeviceFailure | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Returns whether everything is where it was to go."""
        return self.reason is None


class Placement:
    """The components of a model, which are always on one device together.

    Attributes:
        components: Names to components. One whose `.to` gives a new object is replaced here, so a
            model takes them from here, or has them put into place by a callback.
        device: Where they are: "cpu", "mps", "cuda:0".
    """

    def __init__(
        self,
        components: MutableMapping[str, Any],
        *,
        after: Sequence[Callable[[str], None]] = (),
        exempt: Sequence[str] = (),
        restore: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Takes the components, which are on the CPU.

        Args:
            components: Names to modules, conditionals, dicts of tensors: anything with `.to` that
                takes a device, or a container of such.
            after: Called with the device once all components are there, also on the way back: set
                the model's own `device` here, and drop what was made for the old one.
            exempt: Paths below which tensors may stay on the CPU ("s3gen.tokenizer").
            restore: Loads the components anew, for a device so broken that nothing comes back.
        """
        self.components = components
        self.device = "cpu"
        self._after = tuple(after)
        self._exempt = tuple(exempt)
        self._restore = restore

    def place(
        self,
        device: str,
        *,
        warm_up: Callable[[], Any] | None = None,
        headroom: int | None = None,
    ) -> PlacementReport:
        """Moves everything to a device, or leaves everything on the CPU.

        Args:
            device: Such as "mps" or "cuda:0".
            warm_up: Speaks on the device; if it fails, everything comes back.
            headroom: Bytes that must be left on the device. Default: `memory.HEADROOM`.

        Raises:
            ModelBrokenError: Something is on each side and cannot be brought together.
        """
        report = PlacementReport(device, self.device)
        if device == self.device:
            return report
        step = "memory"
        try:
            limit = {} if headroom is None else {"headroom": headroom}
            report.reason = shortage(self.components.values(), device, **limit)
            if report.reason is not None:
                report.component = step
                return report
            for step in self._order():
                self._move(step, device, report)
            step = "device"
            self._settle(device)
            if warm_up is not None:
                step = "warm-up"
                with _timed(report, step):
                    warm_up()
        except Exception as error:
            report.failure = summarise(error)
            report.component = step
            report.reason = f"{_doing(step, device)} failed: {report.failure.message}"
        except BaseException:
            self.retreat(device)
            raise
        if report.failure is not None:
            # Only here, where no exception is being handled any more, is the memory of the
            # failed attempt free to be given back.
            self.retreat(device)
        report.actual = self.device
        return report

    def retreat(self, device: str | None = None) -> None:
        """Brings everything to the CPU.

        Args:
            device: Where it was going, whose reserves are given back. Default: where it is.

        Raises:
            ModelBrokenError: Something stays behind, and there is nothing to restore it from.
        """
        left = self.device if device is None else device
        problems: list[str] = []
        for name in self._order():
            try:
                self._move(name, "cpu")
            except Exception as error:
                problems.append(f"{name}: {summarise(error).message}")
        if problems and self._restore is not None:
            _logger.warning("loading the model anew, for it is lost: %s", "; ".join(problems))
            try:
                self.components.update(self._restore())
                problems = []
            except Exception as error:
                problems.append(f"loading it anew: {summarise(error).message}")
        try:
            self._settle("cpu")
        except Exception as error:
            problems.append(summarise(error).message)
        gc.collect()  # modules have cycles, and their memory is what the CPU now needs
        with contextlib.suppress(RuntimeError):  # a device that failed may fail at this, too
            empty_cache(left)
        if problems:
            raise ModelBrokenError(
                "device_unavailable",
                f"the model was lost on {left} and did not come back whole: {'; '.join(problems)}. "
                "Load it again.",
                {"device": left, "problems": problems},
            )

    def strays(self, device: str | None = None) -> list[Any]:
        """Returns the tensors that are not on a device. Default: where everything should be."""
        return stray_tensors(self.components, device or self.device, self._exempt)

    def _order(self) -> list[str]:
        first = [name for name in ORDER if name in self.components]
        return first + [name for name in self.components if name not in ORDER]

    def _move(self, name: str, device: str, report: PlacementReport | None = None) -> None:
        global _moving
        _moving = name
        try:
            with _ordinary(), _timed(report, name):
                self.components[name] = move(self.components[name], device)
                strays = stray_tensors({name: self.components[name]}, device, self._exempt)
        finally:
            _moving = None
        if strays:
            raise StrayTensorsError(strays, device)

    def _settle(self, device: str) -> None:
        """Everything is on `device`: tells all who keep something that depends on it."""
        self.device = device
        clear_resamplers(self.components.values())
        for callback in self._after:
            callback(device)
        strays = self.strays(device)
        if strays:
            raise StrayTensorsError(strays, device)


def move(component: Any, device: str) -> Any:
    """Returns a component on a device: the same object where it can be changed.

    Args:
        component: Something with `.to`; a dict, list, tuple or dataclass of such; anything else
            is returned as it is.
        device: Such as "mps", "cuda:0" or "cpu".
    """
    if callable(getattr(component, "to", None)):
        result = component.to(device=device)
        return component if result is None else result
    if isinstance(component, MutableMapping):
        for key, value in component.items():
            component[key] = move(value, device)
    elif isinstance(component, list):
        component[:] = [move(value, device) for value in component]
    elif isinstance(component, tuple):
        moved = [move(value, device) for value in component]
        named = hasattr(component, "_fields")
        return type(component)(*moved) if named else type(component)(moved)
    elif is_dataclass(component) and not isinstance(component, type):
        for key, value in vars(component).items():
            object.__setattr__(component, key, move(value, device))
    return component


def clear_resamplers(components: Any) -> None:
    """Empties the caches of resamplers, which upstream keeps by device and forgets to move.

    They are found beside the classes of the components, for their modules may be imported under
    another name than their own.
    """
    places = [module.__dict__ for name, module in list(sys.modules.items()) if _upstream(name)]
    classes = [cls for component in components for cls in type(component).__mro__]
    places += [getattr(cls.__dict__.get("__init__"), "__globals__", {}) for cls in classes]
    for place in places:
        clear = getattr(place.get("get_resampler"), "cache_clear", None)
        if clear is not None:
            clear()


def _upstream(name: str) -> bool:
    return name.startswith(("chatterbox.", "chatterbex"))


def _doing(step: str, device: str) -> str:
    if step == "warm-up":
        return f"the warm-up on {device}"
    if step == "device":
        return f"settling on {device}"
    if step == "memory":
        return f"asking {device} for its memory"
    return f"moving {step} to {device}"


@contextlib.contextmanager
def _ordinary() -> Iterator[None]:
    """Tensors made in inference mode could not be used outside it, as parameters must be."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        yield


@contextlib.contextmanager
def _timed(report: PlacementReport | None, name: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        if report is not None:
            report.seconds[name] = time.perf_counter() - began
