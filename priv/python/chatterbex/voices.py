"""Makes voices from reference audio, and keeps the voices that were made before."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatterbex import checkpoint, torchaudio_parts, upstream
from chatterbex.device import size_of
from chatterbex.errors import ChatterbexError
from chatterbex.lanes import side_by_side
from chatterbex.loudness import loudness, normalised
from chatterbex.s3gen import RATE, Analysis, Reference
from chatterbex.s3gen.signal import resample
from chatterbex.t3 import T3Conditionals

_RATE_16 = 16_000
_PROMPT_SECONDS = 10  # what S3Gen listens to
_QUIETEST = 1e-4  # peak of audio that is called silent: -80 dB
_FORMAT = "1"


@dataclass(frozen=True)
class Family:
    """How a family of models makes its voices. Models of one family can share voices.

    Attributes:
        name: the mark in saved voices.
        shortest: reference audio must be longer than this, in seconds.
        loudness: loudness that reference audio is normalised to, in LUFS, or None to leave it as it is.
        t3_seconds: length of the audio for T3's speech prompt, in seconds.
        t3_tokens: the most tokens in that prompt.
    """

    name: str
    shortest: float
    loudness: float | None
    t3_seconds: int
    t3_tokens: int


TURBO = Family("turbo", shortest=5.0, loudness=-27.0, t3_seconds=15, t3_tokens=375)
"""Turbo and nano."""
ORIGINAL = Family("original", shortest=1.0, loudness=None, t3_seconds=6, t3_tokens=150)
"""English, multilingual and conversion."""


@dataclass(frozen=True)
class Voice:
    """A voice.

    Attributes:
        family: name of the family of models that it is for.
        t3: T3's part of the voice; None if only the sound of a voice is needed.
        gen: S3Gen's part of the voice.
    """

    family: str
    t3: T3Conditionals | None
    gen: Reference

    @classmethod
    def from_pickle(cls, path: Path, family: Family) -> Voice:
        """The voice in an upstream ``conds.pt``.

        Raises:
            ChatterbexError: The file is missing, damaged or not allowed, or not a voice.
        """
        values = checkpoint.read_pickle(path)
        if not isinstance(values, Mapping) or not all(
            isinstance(values.get(part), Mapping) for part in ("t3", "gen")
        ):
            raise ChatterbexError(
                "model_load_failed",
                f"{path} is not a voice: it should have the parts 't3' and 'gen'.",
                {"path": str(path)},
            )
        try:
            t3 = T3Conditionals.from_mapping(values["t3"])
            gen = Reference.from_mapping(values["gen"])
        except ChatterbexError as error:
            message = f"{path}: {error.message}"
            raise ChatterbexError(error.reason, message, {**error.details, "path": str(path)}) from error
        if not torch.isfinite(t3.speaker_emb).all():
            raise ChatterbexError(
                "model_load_failed", f"{path} has numbers that are not finite.", {"path": str(path)}
            )
        return cls(family.name, t3, gen)

    def dump(self, about: Mapping[str, str] | None = None) -> bytes:
        """The voice as the bytes of a safetensors file, which holds no code.

        Args:
            about: what to keep with it, such as its name and licence.
        """
        from safetensors.torch import save

        tensors = {f"gen.{name}": value for name, value in self.gen.tensors.items()}
        if self.t3 is not None:
            tensors.update({f"t3.{name}": value for name, value in self.t3.tensors.items()})
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        marks = {**(about or {}), "chatterbex_voice": _FORMAT, "family": self.family}
        return save(tensors, metadata=marks)

    @classmethod
    def parse(cls, data: bytes, family: Family) -> Voice:
        """The voice in bytes that `dump` made.

        Raises:
            ChatterbexError: It is damaged ("voice_unreadable") or of another family
                ("not_supported").
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(data)
            marks = _marks(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(f"it is damaged or not a saved voice ({error})") from error
        if marks.get("chatterbex_voice") != _FORMAT:
            raise _unreadable("it is a safetensors file, but not a voice of this version")
        if marks.get("family") != family.name:
            raise ChatterbexError(
                "not_supported",
                f"The voice was made for the models of the family {marks.get('family')!r}, and this model "
                f"is of the family {family.name!r}. Clone the voice again with this model.",
                {"family": str(marks.get("family")), "wanted": family.name},
            )
        parts: dict[str, dict[str, Any]] = {"t3": {}, "gen": {}}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            parts.setdefault(part, {})[key] = value
        try:
            t3 = T3Conditionals.from_mapping(parts["t3"]) if parts["t3"] else None
            return cls(family.name, t3, Reference.from_mapping(parts["gen"]))
        except ChatterbexError as error:
            raise _unreadable(error.message) from error


def _marks(data: bytes) -> dict[str, str]:
    import json

    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


@dataclass(frozen=True)
class Audio:
    """Reference audio.

    Attributes:
        samples: mono float32.
        sample_rate: of the samples, in Hz.
        norm_loudness: whether to normalise the audio to the family's loudness, if it has one.
    """

    samples: np.ndarray
    sample_rate: int
    norm_loudness: bool = True

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Audio:
        """Audio as it comes from a command.

        Args:
            value: "samples" (bytes of float32, or an array), "sample_rate", and optionally
                "norm_loudness" (bool, default True).

        Raises:
            ChatterbexError: It is not audio ("voice_unreadable"), or "norm_loudness" is not a bool
                ("invalid_option").
        """
        norm_loudness = value.get("norm_loudness")
        if norm_loudness is not None and not isinstance(norm_loudness, bool):
            raise ChatterbexError(
                "invalid_option", f"norm_loudness must be true or false, not {norm_loudness!r}"
            )
        data, rate = value.get("samples"), value.get("sample_rate")
        if not isinstance(rate, int) or isinstance(rate, bool) or not 4_000 <= rate <= 768_000:
            raise _unreadable(f"its sample rate is {rate!r}, not a number of samples a second")
        if isinstance(data, (bytes, bytearray, memoryview)):
            if len(data) % 4:
                raise _unreadable("its samples are not whole 32-bit floats")
            samples = np.frombuffer(data, dtype="<f4").astype(np.float32)
        elif isinstance(data, np.ndarray) and data.ndim == 1:
            samples = np.ascontiguousarray(data, dtype=np.float32)
        else:
            raise _unreadable("it has no samples")
        return cls(samples, rate, norm_loudness is not False)

    @property
    def key(self) -> str:
        """The cache key of a voice made from this audio. It includes how the voice is made."""
        return self.digest if self.norm_loudness else f"{self.digest}:as-loud-as-it-is"

    @property
    def digest(self) -> str:
        """A hash of the samples and their rate."""
        digest = hashlib.sha256(f"{self.sample_rate}:".encode())
        digest.update(self.samples.tobytes())
        return digest.hexdigest()

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return len(self.samples) / self.sample_rate

    def check(self, shortest: float) -> None:
        """Refuses audio that no voice can be made from.

        Raises:
            ChatterbexError: "voice_too_short", or "voice_unreadable" for silence and for samples
                that are not finite numbers.
        """
        if self.seconds <= shortest:
            raise ChatterbexError(
                "voice_too_short",
                f"The reference audio is {self.seconds:.2f} s long; more than {shortest:g} s are needed.",
                {"seconds": self.seconds, "needed": shortest},
            )
        peak = float(np.max(np.abs(self.samples)))
        if not math.isfinite(peak):
            raise _unreadable("it has samples that are not finite numbers")
        if peak < _QUIETEST:
            raise _unreadable("it is silent")

    def quality(self) -> dict[str, Any]:
        """Measures the recording: seconds, peak, LUFS, and the shares of clipped and quiet samples."""
        peak = float(np.max(np.abs(self.samples), initial=0.0))
        level = np.abs(self.samples)
        at_24k = resample(self.samples, orig_sr=self.sample_rate, target_sr=RATE)
        lufs = loudness(at_24k, RATE)
        return {
            "seconds": self.seconds,
            "peak": peak,
            "loudness": lufs if math.isfinite(lufs) else None,
            "clipped": float(np.mean(level >= 0.999)) if len(level) else 0.0,
            "quiet": float(np.mean(level < 0.01)) if len(level) else 1.0,
        }


class VoiceMaker:
    """Makes voices from reference audio, on the CPU."""

    def __init__(self, family: Family, analysis: Analysis, encoder: Any | None) -> None:
        """Keeps the networks.

        Args:
            family: of the voices.
            analysis: S3Gen's.
            encoder: upstream's voice encoder, or None if the voices have no T3 part.
        """
        self.family = family
        self._analysis = analysis
        self._encoder = encoder

    def tokens(self, audio_16k: np.ndarray) -> list[int]:
        """The speech tokens of 16 kHz audio."""
        return self._analysis.tokens(audio_16k)[0].tolist()

    def make(self, audio: Audio) -> Voice:
        """The voice of a recording.

        Raises:
            ChatterbexError: The recording is too short, silent or damaged; or it asks to keep its
                loudness, which this family never changes ("not_supported").
        """
        family = self.family
        if family.loudness is None and not audio.norm_loudness:
            raise ChatterbexError(
                "not_supported",
                f"Models of the family {family.name!r} never change the loudness of a recording: "
                "leave norm_loudness out.",
            )
        audio.check(family.shortest)
        at_24k = resample(audio.samples, orig_sr=audio.sample_rate, target_sr=RATE)
        if family.loudness is not None and audio.norm_loudness:
            at_24k = normalised(at_24k, RATE, family.loudness)
        if self._encoder is None:
            return Voice(family.name, None, self._for_s3gen(at_24k))
        gen, t3 = side_by_side(lambda: self._for_s3gen(at_24k), lambda: self._for_t3(at_24k))
        if not torch.isfinite(t3.speaker_emb).all():
            raise _unreadable("no speaker could be recognised in it")
        return Voice(family.name, t3, gen)

    def _for_s3gen(self, at_24k: np.ndarray) -> Reference:
        prompt = at_24k[: _PROMPT_SECONDS * RATE]
        return self._analysis.reference(prompt, _to_16k(prompt))

    def _for_t3(self, at_24k: np.ndarray) -> T3Conditionals:
        family = self.family
        at_16k = resample(at_24k, orig_sr=RATE, target_sr=_RATE_16)
        tokens = self._analysis.tokens(at_16k[: family.t3_seconds * _RATE_16], family.t3_tokens)
        speaker = torch.from_numpy(self._encoder.embeds_from_wavs([at_16k], sample_rate=_RATE_16))
        return T3Conditionals(
            speaker_emb=speaker.float().mean(dim=0, keepdim=True),
            cond_prompt_speech_tokens=tokens,
            emotion_adv=torch.full((1, 1, 1), 0.5),
        )


def load_encoder(path: Path) -> Any:
    """Upstream's voice encoder from ``ve.safetensors`` or ``ve.pt``.

    Raises:
        ChatterbexError: The file is missing, damaged or of another model.
    """
    weights = checkpoint.read_weights(path)
    encoder = checkpoint.blank(lambda: upstream.voice_encoder().VoiceEncoder())
    return checkpoint.fill(encoder, weights, path)


def _to_16k(prompt: np.ndarray) -> np.ndarray:
    """Uses torchaudio's filter, as upstream's S3Gen does; everything else is resampled by soxr."""
    return torchaudio_parts.resample(torch.from_numpy(prompt), RATE, _RATE_16).numpy()


class VoiceCache:
    """The most recently used voices, by key. Any thread may use it.

    They stay on the CPU: a voice is small, and each pass makes its own copy.

    Attributes:
        limit: the most voices to keep.
    """

    def __init__(self, limit: int = 32) -> None:
        """Starts empty."""
        self.limit = limit
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._voices)

    @property
    def bytes(self) -> int:
        """How much memory the voices take."""
        with self._lock:
            voices = list(self._voices.values())
        return size_of(*voices)

    def get(self, key: str) -> Voice | None:
        """The voice with this key, if it is still cached."""
        with self._lock:
            voice = self._voices.get(key)
            if voice is not None:
                self._voices.move_to_end(key)
            return voice

    def put(self, key: str, voice: Voice) -> Voice:
        """Keeps a voice, and returns it."""
        with self._lock:
            self._voices[key] = voice
            self._voices.move_to_end(key)
            while len(self._voices) > self.limit:
                self._voices.popitem(last=False)
        return voice


class Voices:
    """The voices that one model speaks with: the built-in one, saved ones, and cloned ones.

    Attributes:
        maker: makes voices from recordings.
        cache: keeps the most recently used voices.
    """

    def __init__(self, maker: VoiceMaker, built_in: Voice, front: Any | None, limit: int) -> None:
        """Starts with the built-in voice.

        Args:
            maker: of the model's family.
            built_in: the voice that comes with the model.
            front: T3's embeddings, or None for a model that does not speak text.
            limit: the most other voices to keep.
        """
        self.maker = maker
        self.cache = VoiceCache(limit)
        self._built_in = built_in
        self._front = front

    def __len__(self) -> int:
        return len(self.cache)

    @property
    def bytes(self) -> int:
        """How much memory the kept voices take."""
        return self.cache.bytes

    def requested(self, value: Any, norm_loudness: Any = None) -> tuple[Audio | bytes | None, str | None]:
        """The recording or saved voice that a request asks for, and its key; None for the built-in voice.

        Raises:
            ChatterbexError: It is neither ("invalid_option"), or no voice can be made from the recording.
        """
        if value is None:
            return None, None
        if isinstance(value, Mapping) and isinstance(value.get("saved"), (bytes, bytearray)):
            data = bytes(value["saved"])
            return data, hashlib.sha256(b"saved:" + data).hexdigest()
        if isinstance(value, Mapping) and "samples" in value:
            audio = Audio.of({**value, "norm_loudness": norm_loudness})
            audio.check(self.maker.family.shortest)
            return audio, audio.key
        raise ChatterbexError(
            "invalid_option",
            "voice must be nothing, audio ({'samples', 'sample_rate'}) or a saved voice ({'saved'})",
        )

    def ready(self, source: Audio | bytes | None, key: str | None) -> Voice | None:
        """The voice that `requested` returned, or None for a recording that must be cloned first."""
        if key is None:
            return self._built_in
        voice = self.cache.get(key)
        if voice is None and isinstance(source, bytes):
            voice = self.cache.put(key, self._parsed(source))
        return voice

    def make(self, audio: Audio) -> Voice:
        """Clones the voice of a recording, which takes seconds, and caches it."""
        return self.cache.put(audio.key, self.maker.make(audio))

    def _parsed(self, data: bytes) -> Voice:
        voice = Voice.parse(data, self.maker.family)
        if self._front is not None:
            if voice.t3 is None:
                raise ChatterbexError("not_supported", "The saved voice has no part for speaking text.")
            self._front.check(voice.t3)
        return voice


def _unreadable(problem: str) -> ChatterbexError:
    return ChatterbexError(
        "voice_unreadable",
        f"The voice cannot be used: {problem}. Give a recording of one person speaking clearly.",
        {"problem": problem},
    )
