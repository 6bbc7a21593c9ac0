"""Proves a device before it speaks: compares its results with the CPU's, component by component.

    proof = Proof.reference({"t3.logits": ExpectedResult(logits, tolerance(gain=40))})
    report = proof.compare({"t3.logits": logits_of_the_device}, "mps")

**What is compared.** The largest difference between two values, relative to the root mean square of
the reference. A device whose kernels are wrong is off by about 1; rounding is far below that.

**How tolerances are derived.** Float32 rounds each operation by at most `FLOAT32`, and a computation
multiplies that by its *gain*, which grows with the length of its sums, its depth and its conditioning.
The gain is measured, not guessed: run the computation once in float32 and once in float64 from the
same weights, and `gain` returns how far the results differ. The gain depends only on the computation.
Devices may still differ in the order of their sums and in the last bits of `exp` and `sin`. A `MARGIN`
in each tolerance covers this: two float32 results differ by the errors of both (2), sums in the least
favourable order have several times the error of sums in blocks (4), and the device's own functions
round less well than the CPU's (2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chatterbex.device.failure import WrongResultsError

if TYPE_CHECKING:
    import numpy as np
    import torch

    Values = np.ndarray | torch.Tensor

FLOAT32: Final = 2.0**-24
"""The unit roundoff of float32: the largest relative change that rounding makes to a number."""
TENSOR_FLOAT32: Final = 2.0**-11
"""The unit roundoff of TF32, in which CUDA may multiply float32 matrices."""
BFLOAT16: Final = 2.0**-8
"""The unit roundoff of bfloat16."""
MARGIN: Final = 16
"""How far another device may be off, as a multiple of the computation's own error: see above."""


def gain(single: Values, double: Values) -> float:
    """Returns the factor by which a computation multiplies the rounding of float32.

    Args:
        single: Its result in float32.
        double: Its result in float64, from the same inputs.
    """
    exact = _array(double)
    return _difference(_array(single), exact) / _scale(exact) / FLOAT32


def tolerance(gain: float, unit: float = FLOAT32) -> float:
    """Returns the largest difference that rounding explains, relative to the reference.

    Args:
        gain: The computation's gain, as `gain` measures it.
        unit: The unit roundoff of the arithmetic, one of the constants above.
    """
    return MARGIN * gain * unit


@dataclass(frozen=True)
class ExpectedResult:
    """A component's result on the CPU.

    Attributes:
        values: An array or tensor of real numbers, of any shape, on any device.
        tolerance: The largest accepted difference, relative to the root mean square of `values`: see
            `tolerance`. 0 requires equal values, as for tokens.
    """

    values: Values
    tolerance: float


@dataclass(frozen=True)
class Comparison:
    """How close a device came in one component.

    Attributes:
        component: A component such as "t3.logits".
        difference: The largest difference, relative to the root mean square of the reference; None
            if a value is not finite or the shape is wrong.
        tolerance: The largest accepted difference.
        finite: Whether all of the device's values are finite.
        message: What is wrong, or None.
    """

    component: str
    difference: float | None
    tolerance: float
    finite: bool
    message: str | None = None

    @property
    def passed(self) -> bool:
        """Returns whether the device may be used."""
        return self.message is None

    def as_dict(self) -> dict[str, Any]:
        """Returns it for people and programs to read, without its name."""
        return {
            "passed": self.passed,
            "difference": self.difference,
            "tolerance": self.tolerance,
            "finite": self.finite,
            "message": self.message,
        }


@dataclass(frozen=True)
class ProofReport:
    """What was compared on a device, and how close it was.

    Attributes:
        device: A device such as "mps" or "cuda:0".
        comparisons: The comparisons, in the order of the references.
    """

    device: str
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Returns whether every component passed."""
        return all(comparison.passed for comparison in self.comparisons)

    @property
    def reason(self) -> str | None:
        """Returns what is wrong, component by component, or None."""
        wrong = [
            f"{comparison.component} {comparison.message}"
            for comparison in self.comparisons
            if not comparison.passed
        ]
        return f"{self.device} computes wrong results: {'; '.join(wrong)}" if wrong else None

    def as_dict(self) -> dict[str, Any]:
        """Returns it for people and programs to read: strings, numbers, booleans and None."""
        return {
            "device": self.device,
            "passed": self.passed,
            "components": {comparison.component: comparison.as_dict() for comparison in self.comparisons},
        }


class Proof:
    """The CPU's results, to compare with those of devices."""

    def __init__(self, references: Mapping[str, tuple[np.ndarray, float]]) -> None:
        self._references = dict(references)

    @classmethod
    def reference(cls, references: Mapping[str, ExpectedResult]) -> Proof:
        """Copies and keeps the CPU's results.

        Args:
            references: The results, by component.

        Raises:
            ValueError: A reference is empty or not finite.
        """
        kept = {}
        for component, reference in references.items():
            values = _array(reference.values)
            if values.size == 0 or not _finite(values):
                raise ValueError(f"the reference for {component} must be some finite numbers")
            kept[component] = values, reference.tolerance
        return cls(kept)

    def compare(self, results: Mapping[str, Values], device: str) -> ProofReport:
        """Compares a device's results with the CPU's.

        Args:
            results: What the device computed, for each component that has a reference.
            device: Such as "mps" or "cuda:0".

        Returns:
            The report. Every component has passed.

        Raises:
            WrongResultsError: A result is wrong or not finite. The error has the report.
            ValueError: The components differ from those of the references.
        """
        if results.keys() != self._references.keys():
            raise ValueError(f"there are references for {sorted(self._references)}, not {sorted(results)}")
        report = ProofReport(device, tuple(self._comparisons(results)))
        if report.reason is not None:
            raise WrongResultsError(report.reason, report.as_dict())
        return report

    def _comparisons(self, results: Mapping[str, Values]) -> Iterator[Comparison]:
        for component, (expected, tolerance) in self._references.items():
            yield _compare(component, _array(results[component]), expected, tolerance)


def finite(samples: Values) -> bool:
    """Returns whether all numbers are finite: neither NaN nor infinite."""
    return _finite(_array(samples))


def require_finite(component: str, samples: Values, device: str) -> None:
    """Checks what a device computed while speaking.

    Args:
        component: The component that computed it, such as "s3gen".
        samples: The numbers that it computed.
        device: A device such as "mps" or "cuda:0".

    Raises:
        WrongResultsError: A number is NaN or infinite.
    """
    values = _array(samples)
    if not _finite(values):
        message = f"{device} computes wrong results: {component} {_not_finite(values)}"
        raise WrongResultsError(message)


def _compare(component: str, result: np.ndarray, expected: np.ndarray, tolerance: float) -> Comparison:
    finite = _finite(result)
    if result.shape != expected.shape:
        message = f"has the shape {result.shape} instead of {expected.shape}"
        return Comparison(component, None, tolerance, finite, message)
    if not finite:
        return Comparison(component, None, tolerance, False, _not_finite(result))
    difference = _difference(result, expected) / _scale(expected)
    message = None
    if difference > tolerance:
        message = f"differs from the CPU by {difference:.2g} (rounding explains {tolerance:.2g})"
    return Comparison(component, difference, tolerance, True, message)


def _array(values: Values) -> np.ndarray:
    import numpy as np

    if hasattr(values, "detach"):
        # On the CPU first: MPS has no float64.
        values = values.detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64)


def _finite(values: np.ndarray) -> bool:
    import numpy as np

    return bool(np.isfinite(values).all())


def _not_finite(values: np.ndarray) -> str:
    import numpy as np

    return f"has {int((~np.isfinite(values)).sum())} of {values.size} numbers that are not finite"


def _difference(result: np.ndarray, expected: np.ndarray) -> float:
    return float(abs(result - expected).max())


def _scale(values: np.ndarray) -> float:
    # Compared with only zeros, any difference is large.
    return float((values**2).mean() ** 0.5) or 1.0
