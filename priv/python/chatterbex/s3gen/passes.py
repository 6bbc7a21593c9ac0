"""The pass through S3Gen, and how the passes for the CPU and for GPUs differ.

This is our own implementation over upstream's layers, because upstream's own code

- makes its own noise, which a caller cannot pass in, and prints as it runs;
- drops the look-ahead of an unfinished text only after the encoder, when every position has already seen it
  (and then crashes, because the mask keeps its old length);
- builds masks of ones, and asks the device for their sums, several hundred times per request;
- sums the vocoder's phase in float32 over the whole speech.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbex.s3gen.network import FRAME, RATE, S3Gen
from chatterbex.s3gen.noise import Noise
from chatterbex.s3gen.reference import Reference


@dataclass(frozen=True)
class MelTask:
    """Tokens for the flow to turn into mel frames.

    Attributes:
        tokens: (1, N) ids below ``CODES``.
        reference: the voice.
        noise: the request's noise.
        final: whether no token follows. Otherwise, the last `look_ahead` tokens only serve as look-ahead for
            the others.
    """

    tokens: Tensor
    reference: Reference
    noise: Noise
    final: bool


class S3GenPass(abc.ABC):
    """The pass through S3Gen for one device.

    It owns everything that is packed or precomputed for the device.

    Attributes:
        network: the weights.
        steps: the number of steps that the flow was made for.
        look_ahead: how many tokens must follow a token before it can be spoken.
        precision: of the flow's products: "float32" or "bfloat16".
    """

    precision: str = "float32"

    def __init__(self, network: S3Gen) -> None:
        """Keeps the weights, on their device."""
        self.network = network
        self.steps = 2 if network.meanflow else 10
        self.look_ahead: int = network.flow.pre_lookahead_len

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.network.device

    # -- what each pass implements -------------------------------------------------------------

    @abc.abstractmethod
    def padded(self, length: int) -> int:
        """How many tokens or frames are computed for `length` of them."""

    @abc.abstractmethod
    def layers(self, layers: nn.ModuleList, x: Tensor, positions: Tensor, inside: Tensor | None) -> Tensor:
        """The encoder's transformer layers.

        Args:
            layers: upstream's.
            x: (B, T, dim).
            positions: (1, 2T - 1, dim), encodings of the distances T - 1 to 1 - T.
            inside: (B, 1, T) bool, False for padding; None if there is no padding.

        Returns:
            (B, T, dim).
        """

    @abc.abstractmethod
    def slope(self, x: Tensor, time: Tensor, inside: Tensor | None) -> Tensor:
        """The flow's U-Net.

        Args:
            x: (B, 320, T): the flow's state, the encoder's frames, the speaker, and the prompt's frames.
            time: (1, 1024), the embedding of the time.
            inside: as in `layers`.

        Returns:
            (B, 80, T).
        """

    @abc.abstractmethod
    def wave(self, mel: Tensor, source: Tensor) -> Tensor:
        """(1, 80, T) and the source's (1, 1, T * 480) to (T * 480,) samples."""

    # -- tokens to mel ---------------------------------------------------------------------

    def mel_stages(
        self, tasks: Sequence[MelTask], *, steps: int | None = None
    ) -> Generator[None, None, list[Tensor]]:
        """Runs the flow in stages: yields between them, and returns the mel frames of each task, (1, 80, T).

        Args:
            tasks: they are computed together. A pass without padding accepts one at a time.
            steps: the flow's steps; None for the usual number.
        """
        prompts = [task.reference.prompt_feat.shape[1] for task in tasks]
        embeddings = torch.cat([task.reference.embedding for task in tasks])
        speaker = self.network.flow.spk_embed_affine_layer(F.normalize(embeddings, dim=1))
        ids = [torch.cat([task.reference.prompt_token, task.tokens], dim=1) for task in tasks]
        mu, lengths = self.encode(ids, [task.final for task in tasks])
        inside = _inside(lengths, mu)
        condition, x = torch.zeros_like(mu), torch.zeros_like(mu)
        for number, (task, prompt, length) in enumerate(zip(tasks, prompts, lengths, strict=True)):
            condition[number, :, :prompt] = task.reference.prompt_feat[0].t()
            x[number, :, :length] = task.noise.mel(prompt, length - prompt)[0].to(self.device)
        yield
        times = self._times(steps or self.steps)
        for now, then in pairwise(times):
            x = x + (then - now) * self._slope(x, mu, speaker, condition, inside, now, then)
            yield
        return [
            x[number : number + 1, :, prompt:length]
            for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]

    def encode(self, ids: Sequence[Tensor], final: Sequence[bool]) -> tuple[Tensor, list[int]]:
        """The encoder's frames, which condition the flow.

        Every position is computed from tokens with all of their own look-ahead, and attends only to such
        positions. So the look-ahead is dropped before the first attention.

        Args:
            ids: (1, N) of each sequence.
            final: whether no token follows.

        Returns:
            (B, 80, T), and how many frames each sequence has: 2 for each token, less the look-ahead.
        """
        encoder = self.network.flow.encoder
        lengths = [row.shape[1] for row in ids]
        tokens = torch.cat([F.pad(row, (0, self.padded(max(lengths)) - row.shape[1])) for row in ids])
        x = encoder.embed.out(self.network.flow.input_embedding(tokens))
        inside = _inside(lengths, x.transpose(1, 2))
        if inside is not None:  # the last tokens have no look-ahead
            x = x * inside.transpose(1, 2)
        x, _ = encoder.embed.pos_enc(x)
        x = encoder.pre_lookahead_layer(x)
        lengths = [
            length if last else length - self.look_ahead for length, last in zip(lengths, final, strict=True)
        ]
        x = x[:, : self.padded(max(lengths))]
        positions = encoder.embed.pos_enc.position_encoding(0, x.shape[1])
        x = self.layers(encoder.encoders, x, positions, _inside(lengths, x.transpose(1, 2)))
        x, _ = encoder.up_layer(x.transpose(1, 2).contiguous(), x.shape[1])
        x = encoder.up_embed.out(x.transpose(1, 2).contiguous())
        x, positions = encoder.up_embed.pos_enc(x)
        lengths = [2 * length for length in lengths]
        x = self.layers(encoder.up_encoders, x, positions, _inside(lengths, x.transpose(1, 2)))
        mu = self.network.flow.encoder_proj(encoder.after_norm(x)).transpose(1, 2).contiguous()
        return mu, lengths

    def _times(self, steps: int) -> list[float]:
        times = [step / steps for step in range(steps + 1)]
        return times if self.network.meanflow else [1 - math.cos(time * 0.5 * math.pi) for time in times]

    def _slope(
        self,
        x: Tensor,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        inside: Tensor | None,
        now: float,
        then: float,
    ) -> Tensor:
        if self.network.meanflow:
            return self._estimate(x, mu, speaker, condition, inside, now, then)
        guidance = self.network.flow.decoder.inference_cfg_rate
        # With and without the voice and the text, in one batch.
        with_it, without = self._estimate(
            torch.cat([x, x]),
            torch.cat([mu, torch.zeros_like(mu)]),
            torch.cat([speaker, torch.zeros_like(speaker)]),
            torch.cat([condition, torch.zeros_like(condition)]),
            None if inside is None else torch.cat([inside, inside]),
            now,
            then,
        ).chunk(2)
        return (1.0 + guidance) * with_it - guidance * without

    def _estimate(
        self,
        x: Tensor,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        inside: Tensor | None,
        now: float,
        then: float,
    ) -> Tensor:
        net = self.network.flow.decoder.estimator
        time = self._time(net, now, x)
        if net.meanflow:
            time = net.time_embed_mixer(torch.cat([time, self._time(net, then, x)], dim=1))
        x = torch.cat([x, mu, speaker.unsqueeze(2).expand(-1, -1, x.shape[2]), condition], dim=1)
        return self.slope(x, time, inside)

    def _time(self, net: Any, time: float, x: Tensor) -> Tensor:
        return net.time_mlp(net.time_embeddings(x.new_full((1,), time)))

    # -- mel to samples --------------------------------------------------------------------

    def pitch(self, mel: Tensor) -> Tensor:
        """The pitch of every frame in Hz, (T,), from the mel, (1, 80, T)."""
        return self.network.mel2wav.f0_predictor(mel)[0]

    def source(self, pitch: Tensor, phases: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The signal that the vocoder shapes into speech.

        Args:
            pitch: (T,) of every frame.
            phases: (harmonics,) float64 on the CPU: the phase of each harmonic, in turns.
            noise: (1, harmonics, T * 480).

        Returns:
            (1, 1, T * 480), and the phase of each harmonic after every frame, (T + 1, harmonics).
        """
        maker = self.network.mel2wav.m_source
        sines = maker.l_sin_gen
        harmonics = torch.arange(1, sines.harmonic_num + 2, dtype=torch.float64)
        # The pitch is constant within a frame. So whole frames are summed in float64, and float32 only
        # counts the turns inside one frame.
        turns = pitch.detach().cpu().double()[:, None] * harmonics / RATE
        ends = phases + torch.cumsum(turns * FRAME, dim=0)
        starts = torch.cat([phases[None], ends]).remainder(1.0)
        inside = torch.arange(1, FRAME + 1, device=pitch.device, dtype=torch.float32)
        begin = starts[:-1].float().to(pitch.device)
        rate = turns.float().to(pitch.device)
        turned = (begin[:, :, None] + rate[:, :, None] * inside).remainder(1.0)  # (T, harmonics, 480)
        waves = sines.sine_amp * torch.sin(2 * math.pi * turned)
        waves = waves.permute(1, 0, 2).reshape(1, len(harmonics), -1)
        voiced = (pitch > sines.voiced_threshold).float().repeat_interleave(FRAME)
        loud = voiced * sines.noise_std + (1 - voiced) * (sines.sine_amp / 3)
        waves = waves * voiced + loud * noise
        return maker.l_tanh(maker.l_linear(waves.transpose(1, 2))).transpose(1, 2), starts

    @property
    def harmonics(self) -> int:
        """How many sines make up the vocoder's source."""
        return self.network.mel2wav.m_source.l_sin_gen.harmonic_num + 1


def _inside(lengths: Sequence[int], like: Tensor) -> Tensor | None:
    """(B, 1, T) bool: which positions of (B, C, T) belong to a sequence; None if all do."""
    total = like.shape[2]
    if all(length == total for length in lengths):
        return None
    ends = torch.tensor(lengths).to(like.device)
    return (torch.arange(total, device=like.device) < ends[:, None])[:, None]
