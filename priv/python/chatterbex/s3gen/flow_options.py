"""The options of a request or a load that trade the flow's quality for speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from chatterbex.options import integer, number
from chatterbex.s3gen.decoding import Decoding
from chatterbex.s3gen.passes import S3GenPass
from chatterbex.s3gen.reference import Reference

_MAX_STEPS: Final = 50


@dataclass(frozen=True)
class FlowOptions:
    """Options that trade the flow's quality for speed.

    Attributes:
        reference_seconds: how much of the voice's prompt the flow sees; None for all of it.
        steps: the flow's steps; None for the usual number.
        first_steps: the flow's steps for the first chunk of a stream; None or 0 for as many as later.
    """

    reference_seconds: float | None = None
    steps: int | None = None
    first_steps: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], default: FlowOptions | None = None) -> FlowOptions:
        """Reads "reference_seconds", "flow_steps" and "first_chunk_steps" of a request or a load.

        Args:
            options: its options.
            default: used for a missing option.

        Raises:
            ChatterbexError: One of them is out of range ("invalid_option").
        """
        overrides = {
            "reference_seconds": number(options, "reference_seconds", 3.0, 10.0),
            "steps": _steps(options, "flow_steps", 1),
            "first_steps": _steps(options, "first_chunk_steps", 0),
        }
        return replace(
            default or cls(), **{name: value for name, value in overrides.items() if value is not None}
        )

    def decoding(
        self, way: S3GenPass, voice: Reference, seed: int, *, stream: bool, **arguments: Any
    ) -> Decoding:
        """The decoding of a request; `arguments` has further arguments of `Decoding`."""
        if self.reference_seconds is not None:
            voice = voice.beginning(self.reference_seconds)
        first = self.first_steps if stream else None
        return Decoding(way, voice, seed, steps=self.steps, first_steps=first, **arguments)


def _steps(options: Mapping[str, Any], name: str, minimum: int) -> int | None:
    return None if options.get(name) is None else integer(options, name, minimum, minimum, _MAX_STEPS)
