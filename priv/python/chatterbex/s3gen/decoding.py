"""One request's way from speech tokens to samples, whole or in chunks.

The flow looks at a text as a whole, so a chunk is computed from all tokens so far, and what was
sent stays as it was sent. The vocoder looks some frames to either side: it is given frames from
before the chunk again, with the source signal that they had, and the last frames of a chunk are
held back until it has seen what follows them.
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
"""Frames before a chunk that the vocoder is given again: more than it looks back."""
HELD = 6
"""Frames at the end of a chunk that wait for what follows."""
_FADE = 2 * FRAME  # samples over which a held end turns into its better self


class Decoding:
    """Speech tokens of one request to samples.

    Attributes:
        frames: mel frames whose samples were given out.
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
        """Begins with nothing.

        Args:
            s3gen: the way through the networks.
            reference: the voice.
            seed: of the noise.
            steps: of the flow; None for the usual number.
            first_steps: of the flow, for the first samples that are given out; None or 0 for as many as
                later.
            finish: what is done to samples before they are given out, with those around them:
                the watermark. It must keep their number.
            held: frames at the end of a chunk that wait for what follows.
        """
        self.frames = 0
        self._s3gen = s3gen
        self._reference = reference.to(s3gen.device)
        self._noise = Noise(seed)
        self._steps = steps
        self._first_steps = first_steps or steps
        self._finish = finish
        self._hold = held
        self._mel: Tensor | None = None  # frames up to `frames` as they were spoken, the last LEFT of them
        self._source: Tensor | None = None  # their source signal
        self._phases = self._noise.phases(s3gen.harmonics)
        self._held = np.zeros(0, np.float32)

    @property
    def steps(self) -> int:
        """Steps of the flow for the samples that come next. Only decodings with as many go together."""
        return (self._steps if self.frames else self._first_steps) or self._s3gen.steps

    def worth(self, tokens: int) -> int:
        """How many samples a chunk of so many tokens in all would give out, when more follow."""
        ready = 2 * (tokens - self._s3gen.look_ahead) - self._hold
        return max(0, ready - self.frames) * FRAME if ready >= 2 else 0

    def decode(self, tokens: Sequence[int], final: bool) -> np.ndarray:
        """The samples that follow those already given out.

        Args:
            tokens: all tokens so far, from the first one on.
            final: whether these are all. Nothing more can be decoded then.

        Returns:
            float32, 1-D, perhaps empty; in the end there are 960 for every token in all.
        """
        return finish(self.stages(tokens, final))

    def stages(self, tokens: Sequence[int], final: bool) -> Generator[None, None, np.ndarray]:
        """`decode` in pieces: yields between two, returns the samples.

        A piece must be over before anything else is asked of this object.
        """
        [samples] = yield from together([(self, tokens, final)])
        if isinstance(samples, Exception):
            raise samples
        return samples

    def _task(self, tokens: Sequence[int], final: bool) -> MelTask | None:
        """What the flow has to do; None where nothing is to be heard yet."""
        heard = [token for token in tokens if 0 <= token < CODES]
        if not heard or not (final or self.worth(len(heard))):
            return None
        numbers = torch.tensor([heard], device=self._s3gen.device)
        return MelTask(numbers, self._reference, self._noise, final)

    def _vocode(self, mel: Tensor, final: bool) -> np.ndarray:
        """Samples from all mel frames so far, of which those already spoken are left as they were."""
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

        given = end if final else end - self._hold
        last = given - begin + context  # of the window's frames, those up to here are spoken
        self._mel = window[:, :, max(0, last - LEFT) : last]
        self._source = source[:, :, max(0, last - LEFT) * FRAME : last * FRAME]
        self._phases = phases[given - begin]
        self._held = out[(given - begin) * FRAME :]
        self.frames = given
        return np.ascontiguousarray(out[: (given - begin) * FRAME], dtype=np.float32)

    def _joined(self, out: np.ndarray) -> np.ndarray:
        """Turns what was held back into what it has become, gradually: no step, no gap."""
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
        parts: of one pass and with the same `steps`: a decoding, all of its tokens so far, and whether
            these are all.

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
