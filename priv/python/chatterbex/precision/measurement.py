"""Measures how far a lower precision is from float32 on one checkpoint and its voice.

T3 speaks a text in float32, several times with different seeds. The same tokens are forced on the lower
precision, and the two distributions are compared before each token. The flow speaks tokens of the voice's
own recording, in both precisions with the same noise, and the vocoder turns both mels into samples with the
same source signal. (With separate source signals, a pitch difference of a hundredth of a Hertz would shift
the phase further with each frame. Nobody can hear that, but the samples would soon have nothing in common.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

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


# -- T3 ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def t3_error(
    make: Callable[[str], Pass], precision: str, front: Any, voice: T3Conditionals, text: Sequence[int]
) -> dict[str, float]:
    """Measures how far T3's distributions in a precision are from those in float32.

    Args:
        make: makes a pass in a precision.
        precision: the precision to measure.
        front: T3's embeddings.
        voice: the voice for T3.
        text: tokens of the text.

    Returns:
        "kl_divergence", "changed_tokens" and "positions".
    """
    expected, spoken = _speak(make("float32"), front, voice, text, None)
    lower, _ = _speak(make(precision), front, voice, text, spoken)
    expected, lower = expected.double().log_softmax(1), lower.double().log_softmax(1)
    return {
        "kl_divergence": float((expected.exp() * (expected - lower)).sum(1).mean()),
        "changed_tokens": float((expected.argmax(1) != lower.argmax(1)).double().mean()),
        "positions": len(expected),
    }


def _speak(
    t3: Pass, front: Any, voice: T3Conditionals, text: Sequence[int], forced: list[list[int]] | None
) -> tuple[Tensor, list[list[int]]]:
    """The logits that tokens are drawn from, (positions, V), and the tokens of each speech.

    Args:
        t3: the pass.
        front: T3's embeddings.
        voice: the voice for T3.
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
        precision: the precision to measure.
        voice: the voice. The beginning of its recording is the speech.

    Returns:
        "mel_snr" and "waveform_snr", in dB.
    """
    tokens = voice.prompt_token[:, :_TOKENS]
    task = MelTask(tokens[:, tokens[0] < CODES], voice, Noise(0), final=True)
    [expected] = finish(make("float32").mel_stages([task]))
    measured, noise = make(precision), Noise(0)
    [lower] = finish(measured.mel_stages([task]))
    random = noise.source(0, expected.shape[2], measured.harmonics, FRAME)
    source, _ = measured.source(measured.pitch(expected), noise.phases(measured.harmonics), random)
    waves = [measured.wave(mel, source) for mel in (expected, lower)]  # the vocoder is in float32
    return {"mel_snr": snr(expected, lower), "waveform_snr": snr(*waves)}


def snr(expected: Tensor, actual: Tensor) -> float:
    """The ratio of a signal, less its mean, to its difference from another, in dB."""
    signal = (expected - expected.mean()).double().square().sum()
    return float(10 * torch.log10(signal / (actual - expected).double().square().sum()))
