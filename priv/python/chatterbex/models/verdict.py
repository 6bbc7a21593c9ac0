"""Measures how far a lower precision is from float32 on one checkpoint and its voice, and decides its use.

T3 speaks a text in float32, several times with different seeds. The same tokens are forced on the lower
precision, and the two distributions are compared before each token. The flow speaks tokens of the voice's
own recording, in both precisions with the same noise, and the vocoder turns both mels into samples with the
same source signal. (With separate source signals, a pitch difference of a hundredth of a Hertz would shift
the phase further with each frame. Nobody can hear that, but the samples would soon have nothing in common.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from chatterbex.device import processor
from chatterbex.models.precision import Precision
from chatterbex.replacement import beside
from chatterbex.s3gen import CODES, FRAME, MelTask, Reference, S3GenPass
from chatterbex.s3gen.noise import Noise
from chatterbex.stages import finish
from chatterbex.t3 import T3Conditionals
from chatterbex.t3 import native as t3_native
from chatterbex.t3.passes import PIECE, Pass

TEXT: Final = (
    "The river rose in the night, and by the morning the lower meadow was a lake. Nobody in the village had "
    "seen such a flood since the old bridge was built."
)
"""The text that T3 speaks."""

_POSITIONS: Final = 512  # how many are compared
ROWS: Final = 8
"""How many sequences T3 has open meanwhile."""
_TOKENS: Final = 100  # 4 s of speech
_FOLDERS: Final = ("models", "s3gen", "t3")  # whose code the figures depend on

_logger = logging.getLogger("chatterbex.models")


@dataclass(frozen=True)
class Limits:
    """What a lower precision may cost.

    Attributes:
        kl_divergence: the largest mean divergence of T3's distributions from those in float32, in nats.
        changed_tokens: the largest share of positions where another token is the likeliest.
        mel_snr: the smallest ratio of the mel in float32 to the difference, in dB. The mel's mean does not
            count as signal.
        waveform_snr: the smallest ratio of the samples in float32 to the difference, in dB.
    """

    kl_divergence: float = 0.002
    changed_tokens: float = 0.01
    mel_snr: float = 35.0
    waveform_snr: float = 30.0


LIMITS: Final = Limits()


@dataclass(frozen=True)
class Verdict:
    """The measurements, and the precisions that they allow.

    Attributes:
        t3: {"precision", "passed", "kl_divergence", "changed_tokens", "positions"}; None for a model without
            T3. A figure that is not finite is None.
        flow: {"precision", "passed", "mel_snr", "waveform_snr"}; None if the processor has no lower
            precision for it.
        limits: see `Limits`.
        processor: its name.
    """

    t3: dict[str, Any] | None
    flow: dict[str, Any] | None
    limits: dict[str, float]
    processor: str

    @property
    def precision(self) -> Precision:
        """The precision for each part: the lower one if it passed."""
        parts = {"t3": self.t3, "flow": self.flow}
        return Precision(**{name: one["precision"] for name, one in parts.items() if one and one["passed"]})


def measure(
    t3: Callable[[str], Pass] | None,
    flow: Callable[[str], S3GenPass],
    *,
    front: Any,
    voice: Any,
    text: Sequence[int],
    limits: Limits = LIMITS,
) -> Verdict:
    """Measures the lower precisions of a model on this CPU.

    Args:
        t3: makes T3's pass in a precision, with `ROWS` rows; None for a model without T3. Only one pass is
            kept at a time.
        flow: makes S3Gen's pass in a precision.
        front: T3's embeddings, or None.
        voice: a `voices.Voice`.
        text: tokens of `TEXT`.
        limits: the limits to pass.
    """
    speaking = flowing = None
    if t3 is not None:
        speaking = _judged("int8", t3_error(t3, "int8", front, voice.t3, text), limits)
    if processor.multiplies_bfloat16():
        flowing = _judged("bfloat16", flow_error(flow, "bfloat16", voice.gen), limits)
    return Verdict(speaking, flowing, asdict(limits), processor.name())


def _judged(precision: str, figures: Mapping[str, float], limits: Limits) -> dict[str, Any]:
    passed = all(
        value >= limit if name.endswith("_snr") else value <= limit  # not so for NaN either
        for name, limit in asdict(limits).items()
        if (value := figures.get(name)) is not None
    )
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"precision": precision, "passed": passed, **finite}


# -- T3 ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def t3_error(
    make: Callable[[str], Pass], precision: str, front: Any, voice: T3Conditionals, text: Sequence[int]
) -> dict[str, float]:
    """Measures how far T3's distributions in a precision are from those in float32.

    Args:
        make: makes a pass in a precision.
        precision: the lower one.
        front: T3's embeddings.
        voice: who speaks.
        text: tokens of the text.

    Returns:
        "kl_divergence", "changed_tokens" and "positions".
    """
    expected, spoken = _speak(make("float32"), front, voice, text, None)
    given, _ = _speak(make(precision), front, voice, text, spoken)
    expected, given = expected.double().log_softmax(1), given.double().log_softmax(1)
    return {
        "kl_divergence": float((expected.exp() * (expected - given)).sum(1).mean()),
        "changed_tokens": float((expected.argmax(1) != given.argmax(1)).double().mean()),
        "positions": len(expected),
    }


def _speak(
    t3: Pass, front: Any, voice: T3Conditionals, text: Sequence[int], forced: list[list[int]] | None
) -> tuple[Tensor, list[list[int]]]:
    """The logits that tokens are drawn from, (positions, V), and the tokens of each speech.

    Args:
        t3: the pass.
        front: T3's embeddings.
        voice: who speaks.
        text: tokens of the text.
        forced: the speech tokens; None to draw them.
    """
    config = front.config
    slots, first = _read(t3, front, voice, text)
    prefixes = [t3.prefix(slot) for slot in slots]
    length, rows = slots[0].length, len(slots)
    for slot in slots:
        t3.close(slot)
    steps = max(1, min(_POSITIONS * rows // ROWS, config.positions - length - 1, config.max_speech_tokens))
    samplers = [t3_native.Sampler(config, config.sampling, seed) for seed in range(ROWS // rows)]
    speeches: list[list[int]] = [[] for _ in samplers]
    open_slots = [[t3.open(length + steps, prefix) for prefix in prefixes] for _ in samplers]
    logits, scores = [], dict.fromkeys(range(len(samplers)), first)
    for step in range(1, steps + 1):
        for number, ours in scores.items():
            guided = ours[:1] + config.cfg_weight * (ours[:1] - ours[1:]) if rows > 1 else ours
            logits.append(guided)
            token = forced[number][step - 1] if forced else samplers[number].draw(guided)
            speeches[number].append(token)
        going = [number for number in scores if speeches[number][-1] != config.stop_speech]
        if not going or step == steps:
            break
        tokens = [speeches[number][-1] for number in going for _ in range(rows)]
        continued = t3.step(
            [slot for number in going for slot in open_slots[number]], tokens, [step] * len(tokens)
        )
        scores = dict(zip(going, continued.split(rows), strict=True))
    for slot in (slot for slots in open_slots for slot in slots):
        t3.close(slot)
    return torch.cat(logits), speeches


def _read(t3: Pass, front: Any, voice: T3Conditionals, text: Sequence[int]) -> tuple[list[Any], Tensor]:
    """Slots that have read the voice and the text, and their logits."""
    spoken, written = front.voice(voice)[None], front.text(text, guided=front.config.cfg_weight > 0)
    slot = t3.open(spoken.shape[1])
    for piece in spoken.split(PIECE, dim=1):
        t3.read([slot], piece, want=False)
    prefix = t3.prefix(slot)
    t3.close(slot)
    slots = [t3.open(spoken.shape[1] + written.shape[1], prefix) for _ in written]
    for piece in written.split(PIECE, dim=1):
        logits = t3.read(slots, piece, want=True)
    return slots, logits


# -- S3Gen ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def flow_error(make: Callable[[str], S3GenPass], precision: str, voice: Reference) -> dict[str, float]:
    """Measures how far the mel of a precision, and the samples made from it, are from those of float32.

    Args:
        make: makes a pass in a precision.
        precision: the lower one.
        voice: who speaks. The beginning of its recording is the speech.

    Returns:
        "mel_snr" and "waveform_snr", in dB.
    """
    tokens = voice.prompt_token[:, :_TOKENS]
    task = MelTask(tokens[:, tokens[0] < CODES], voice, Noise(0), final=True)
    [expected] = finish(make("float32").mel_stages([task]))
    lower, noise = make(precision), Noise(0)
    [given] = finish(lower.mel_stages([task]))
    random = noise.source(0, expected.shape[2], lower.harmonics, FRAME)
    source, _ = lower.source(lower.pitch(expected), noise.phases(lower.harmonics), random)
    waves = [lower.wave(mel, source) for mel in (expected, given)]  # the vocoder is in float32
    return {"mel_snr": snr(expected, given), "waveform_snr": snr(*waves)}


def snr(expected: Tensor, given: Tensor) -> float:
    """The ratio of a signal, less its mean, to its difference from another, in dB."""
    signal = (expected - expected.mean()).double().square().sum()
    return float(10 * torch.log10(signal / (given - expected).double().square().sum()))


# -- keeping -------------------------------------------------------------------------------------------


class Verdicts:
    """Verdicts on one model's files, kept in a folder.

    The key of each is a digest of everything that it depends on: the files, the text, the limits, our code,
    and what PyTorch and the processor compute with.
    """

    def __init__(self, folder: Path | None, model: str, place: Path, files: Iterable[str]) -> None:
        """Reads nothing yet.

        Args:
            folder: the folder for the verdicts; None to keep none.
            model: the model's name.
            place: the model's folder.
            files: names in the model's folder, or paths.
        """
        self._folder, self._model, self._place = folder, model, place
        self._files = [place / file for file in files]

    def of(self, text: Sequence[int], measure: Callable[[], Verdict], limits: Limits = LIMITS) -> Verdict:
        """The kept verdict. If there is none, measures one and keeps it."""
        if self._folder is None:
            return measure()
        path = self._folder / f"{self._model}-{self._digest(text, limits)}.json"
        kept = _verdict(_load(path))
        if kept is not None:
            return kept
        verdict = measure()
        _save(path, {"model": self._model, "folder": str(self._place), **asdict(verdict)})
        return verdict

    def _digest(self, text: Sequence[int], limits: Limits) -> str:
        depends = {
            "files": self._digests(),
            "text": list(text),
            "limits": asdict(limits),
            "code": _code(),
            "torch": torch.__version__,
            "processor": [t3_native.instruction_sets()[0], processor.multiplies_bfloat16()],
        }
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]

    def _digests(self) -> list[list[str]]:
        """Name and checksum of each file. An unchanged file is not read again."""
        path = self._folder / "files.json"
        known, found = _load(path) or {}, []
        before = dict(known)
        for file in self._files:
            facts = file.stat()
            about = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
            entry = known.get(str(file))
            if not isinstance(entry, list) or entry[:-1] != about:
                known[str(file)] = entry = [*about, _checksum(file)]
            found.append([file.name, entry[-1]])
        if known != before:
            _save(path, known)
        return found


def _verdict(value: Mapping[str, Any] | None) -> Verdict | None:
    """The verdict in a file, or None if it holds none."""
    try:
        verdict = Verdict(**{name: value[name] for name in Verdict.__dataclass_fields__})
        precision = verdict.precision
    except (AttributeError, KeyError, TypeError):
        return None
    known = precision.t3 in ("float32", "int8") and precision.flow in ("float32", "bfloat16")
    return verdict if known else None


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _code() -> str:
    package = Path(__file__).resolve().parents[1]
    ours = sorted(path for folder in _FOLDERS for path in (package / folder).glob("*.py"))
    digest = hashlib.sha256()
    for path in (*ours, t3_native.library_path()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _logger.debug("%s cannot be read: %s", path, error)
        return None
    return value if isinstance(value, dict) else None


def _save(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file atomically. If that fails, the model is measured again next time."""
    half = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(value, indent=2), encoding="utf-8")
        half.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        _logger.warning("the verdict on precision cannot be kept in %s: %s", path.parent, error)
