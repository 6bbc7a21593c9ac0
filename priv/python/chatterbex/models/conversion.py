"""Voice conversion: the same speech in another voice."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from chatterbex import voices
from chatterbex.errors import ChatterbexError
from chatterbex.model import Request
from chatterbex.models.chatterbox import ChatterboxModel
from chatterbex.models.speech import Plan, Speech, Traits
from chatterbex.s3gen import FlowOptions
from chatterbex.s3gen.signal import resample
from chatterbex.voices import Audio, Voice

_LONGEST = 120.0  # seconds: the flow's memory grows with the square
_SHORTEST = 0.1


class ConversionModel(ChatterboxModel):
    """Chatterbox's voice conversion.

    A request has no text. Instead it has the option "audio" ({"samples": bytes of float32,
    "sample_rate": int}, at most 120 seconds), the recording to convert, and the option "voice".
    """

    name = "conversion"
    family = voices.ORIGINAL
    s3gen_file = "s3gen.safetensors"
    s3gen_strict = False
    traits = Traits(speaks=False)
    generation_options = frozenset()

    def tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        """Refuses text."""
        del text, options
        raise ChatterbexError("not_supported", "the conversion model does not speak text; give it audio")

    def admit(self, request: Request) -> None:
        """Adds a request; see `Model.admit`.

        Options: "audio", "voice", "seed", and the other models' options for the flow and the chunks.
        """
        options = request.options
        source = options.get("audio")
        if not isinstance(source, Mapping):
            raise ChatterbexError(
                "invalid_option", "conversion needs the option audio, the recording to convert"
            )
        heard = Audio.of(source)
        heard.check(_SHORTEST)
        if heard.seconds > _LONGEST:
            raise ChatterbexError(
                "invalid_option",
                f"the audio is {heard.seconds:.0f} s long; at most {_LONGEST:.0f} s are converted at a time",
                {"seconds": heard.seconds, "most": _LONGEST},
            )
        audio, key = self._voices.requested(options.get("voice"))
        self._scheduler.add(
            Speech(
                request=request,
                traits=self.traits,
                seed=int(options["seed"]),
                plan=Plan.of(options),
                flow=FlowOptions.of(options, self._flow),
                voice_key=key,
                audio=audio,
                source=heard,
            )
        )

    def _voice_of(self, speech: Speech) -> Voice | None:
        """The voice, once the recording to convert has been processed as well."""
        return super()._voice_of(speech) if speech.tokens else None

    def _listen(self, speech: Speech) -> Future[Voice]:
        return self._worker.start(
            (self.name, speech.id), partial(self._hear, speech), alone=self._scheduler.count == 1
        )

    def _hear(self, speech: Speech) -> Voice:
        """Processes both recordings. The tokens of the one to convert take the place of T3's."""
        voice = super()._voice_of(speech) or self._make(speech)
        at_16k = resample(speech.source.samples, orig_sr=speech.source.sample_rate, target_sr=16_000)
        speech.tokens = self._voices.maker.tokens(at_16k)
        speech.finish_reason = "stop"
        return voice
