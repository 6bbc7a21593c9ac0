"""Turns one request's speech tokens into samples, whole or in chunks.

The flow looks at a text as a whole, so each chunk is computed from all tokens so far; samples that were
already sent do not change. The vocoder looks some frames to either side. So it gets the frames before
the chunk again, with their source signal, and the last frames of a chunk are held back until it has
seen the frames after them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from torch import Tensor

from chatterbex.s3gen.network import CODES, FRAME
from chatterbex.s3gen.noise import Noise
from chatterbex.s3gen.passes import MelTask, S3GenPass
from chatterbex.s3gen.reference import Reference
from chatterbex.stages import advance, finish

LEFT = 16
"""How many frames before a chunk the vocoder gets again: more than it looks back."""
HELD = 6
"""How many frames at the end of a chunk are held back until the next chunk."""
_FADE = 2 * FRAME  # samples over which a held end fades into its final version


class Decoding:
    """Turns the speech tokens of one request into samples.

    Attributes:
        frames: mel frames whose samples were returned.
    """

    def __init__(
        self,
        s3gen: S3GenPass,
        reference: Reference,
        seed: int,
        *,
        steps: int | None = None,
        first_steps: int | None = None,
        finish: Callable[[np.ndarray], np.ndarray] | None = None,
        held: int = HELD,
    ) -> None:
        """Starts at the beginning of the speech.

        Args:
            s3gen: the pass through the networks.
            reference: the voice.
            seed: of the noise.
            steps: the flow's steps; None for the usual number.
            first_steps: the flow's steps for the first samples; None or 0 for as many as later.
            finish: processes samples, with those around them, before they are returned: the watermark.
                It must keep their number.
            held: how many frames at the end of a chunk are held back until the next chunk.
        """
        self.frames = 0
        self._s3gen = s3gen
        self._reference = reference.to(s3gen.device)
        self._noise = Noise(seed)
        self._steps = steps
        self._first_steps = first_steps or steps
        self._finish = finish
        self._hold = held
        self._mel: Tensor | None = None  # the last LEFT frames before `frames`, as they were spoken
        self._source: Tensor | None = None  # their source signal
        self._phases = self._noise.phases(s3gen.harmonics)
        self._held = np.zeros(0, np.float32)

    @property
    def steps(self) -> int:
        """The flow's steps for the next samples. Only decodings with the same number can run together."""
        return (self._steps if self.frames else self._first_steps) or self._s3gen.steps

    def worth(self, tokens: int) -> int:
        """How many samples the next chunk would return at `tokens` tokens in total, if more follow."""
        ready = 2 * (tokens - self._s3gen.look_ahead) - self._hold
        return max(0, ready - self.frames) * FRAME if ready >= 2 else 0

    def decode(self, tokens: Sequence[int], final: bool) -> np.ndarray:
        """The samples after those already returned.

        Args:
            tokens: all tokens so far, from the first.
            final: whether no more tokens will come. Nothing can be decoded after that.

        Returns:
            float32, 1-D, perhaps empty. In total there are 960 samples for every token.
        """
        return finish(self.stages(tokens, final))

    def stages(self, tokens: Sequence[int], final: bool) -> Generator[None, None, np.ndarray]:
        """`decode` in stages: yields between them, and returns the samples.

        Do not use this object for anything else before a stage has ended.
        """
        [samples] = yield from together([(self, tokens, final)])
        if isinstance(samples, Exception):
            raise samples
        return samples

    def _task(self, tokens: Sequence[int], final: bool) -> MelTask | None:
        """The flow's task; None if there is nothing to hear yet."""
        heard = [token for token in tokens if 0 <= token < CODES]
        if not heard or not (final or self.worth(len(heard))):
            return None
        numbers = torch.tensor([heard], device=self._s3gen.device)
        return MelTask(numbers, self._reference, self._noise, final)

    def _vocode(self, mel: Tensor, final: bool) -> np.ndarray:
        """Samples from all mel frames so far. Those already spoken do not change."""
        s3gen, begin, end = self._s3gen, self.frames, mel.shape[2]
        new = mel[:, :, begin:]
        context = 0 if self._mel is None else self._mel.shape[2]
        window = new if self._mel is None else torch.cat([self._mel, new], dim=2)
        noise = self._noise.source(begin, end, s3gen.harmonics, FRAME).to(s3gen.device)
        source, phases = s3gen.source(s3gen.pitch(window)[context:], self._phases, noise)
        if self._source is not None:
            source = torch.cat([self._source, source], dim=2)
        wave = s3gen.wave(window, source)
        if begin == 0:
            fade = s3gen.network.trim_fade[: wave.shape[0]]
            wave[: fade.shape[0]] *= fade
        out = wave.float().cpu().numpy()
        if self._finish is not None:
            out = self._finish(out)
        out = self._joined(out[context * FRAME :])

        stop = end if final else end - self._hold
        last = stop - begin + context  # of the window's frames, those up to here are spoken
        self._mel = window[:, :, max(0, last - LEFT) : last]
        self._source = source[:, :, max(0, last - LEFT) * FRAME : last * FRAME]
        self._phases = phases[stop - begin]
        self._held = out[(stop - begin) * FRAME :]
        self.frames = stop
        return np.ascontiguousarray(out[: (stop - begin) * FRAME], dtype=np.float32)

    def _joined(self, out: np.ndarray) -> np.ndarray:
        """Fades from the held samples to their final version, without a step or a gap."""
        length = min(_FADE, len(self._held), len(out))
        if length == 0:
            return out
        rise = (0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)).astype(np.float32)
        out = out.copy()
        out[:length] = self._held[:length] * (1 - rise) + out[:length] * rise
        return out


def together(
    parts: Sequence[tuple[Decoding, Sequence[int], bool]],
) -> Generator[None, None, list[np.ndarray | Exception]]:
    """`Decoding.stages` of several requests, whose flow is computed together.

    Args:
        parts: each a decoding, all of its tokens so far, and whether no more will come. They must have the
            same pass and the same `steps`.

    Returns:
        The samples of each, or what its vocoding raised.
    """
    out: list[np.ndarray | Exception] = [np.zeros(0, np.float32)] * len(parts)
    with torch.inference_mode():
        tasks = {
            number: decoding._task(tokens, final) for number, (decoding, tokens, final) in enumerate(parts)
        }
    tasks = {number: task for number, task in tasks.items() if task is not None}
    if not tasks:
        return out
    first = parts[0][0]
    flow = first._s3gen.mel_stages(list(tasks.values()), steps=first.steps)
    while True:
        with torch.inference_mode():
            mels = advance(flow)
        if mels is not None:
            break
        yield
    for number, mel in zip(tasks, mels, strict=True):
        decoding, _, final = parts[number]
        try:
            with torch.inference_mode():
                out[number] = decoding._vocode(mel, final)
        except Exception as error:
            out[number] = error
        if number != list(tasks)[-1]:
            yield
    return out
