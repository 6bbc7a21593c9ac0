"""The passes through upstream's flow and vocoder.

They are written anew, over upstream's layers, because upstream's own ones

- make their noise where none can be given, and print as they go;
- drop the look-ahead of an unfinished text behind the encoder, whose every position has by then
  seen what was to be dropped (and crash, for the mask is left as long as before);
- build masks of ones, and ask the device for their sums, several hundred times per request;
- add up a vocoder's phase in float32 for as long as the speech lasts.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbex.s3gen import conformer
from chatterbex.s3gen.estimator import Estimator
from chatterbex.s3gen.noise import Noise
from chatterbex.s3gen.reference import Reference
from chatterbex.s3gen.vocoder import Vocoder

RATE = 24_000
"""Samples a second."""
FRAME = 480
"""Samples of a mel frame."""
TOKEN = 960
"""Samples of a speech token: two frames."""
CODES = 6561
"""Ids from here on are no sound."""
SILENCE = 4299
"""The token of silence."""

_NO_MASK = torch.ones((0, 0, 0), dtype=torch.bool)


class S3Gen(nn.Module):
    """Speech tokens to mel frames (flow), mel frames to samples (vocoder).

    Attributes:
        meanflow: whether the flow was distilled to take two steps without guidance.
        steps: steps of the flow that it was made for.
        look_ahead: tokens that must follow one before it can be spoken.
    """

    def __init__(self, published: Any) -> None:
        """Takes the flow and the vocoder out of upstream's module."""
        super().__init__()
        self.meanflow: bool = published.meanflow
        self.steps = 2 if self.meanflow else 10
        self.flow = published.flow
        self.mel2wav = published.mel2wav
        self._estimator: Estimator | None = None
        self._vocoder: Vocoder | None = None
        self.look_ahead: int = self.flow.pre_lookahead_len
        self.register_buffer("trim_fade", published.trim_fade, persistent=False)
        # Tensors that upstream keeps as plain attributes would stay behind when the module moves.
        for embed in (self.flow.encoder.embed, self.flow.encoder.up_embed):
            _to_buffer(embed.pos_enc, "pe")
        _to_buffer(self.mel2wav, "stft_window")

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.trim_fade.device

    def prepare(self) -> None:
        """Makes what only the CPU needs. Without it the first request there does so."""
        if self._vocoder is None and self.device.type == "cpu":
            # Parameters that were made for inference only could not move to another device.
            with torch.inference_mode(False), torch.no_grad():
                self._estimator = Estimator(self.flow.decoder.estimator)
                self._vocoder = Vocoder(self.mel2wav)

    def _apply(self, fn: Any, recurse: bool = True) -> S3Gen:
        # Every move and cast comes through here: what was prepared is of the weights as they were.
        self._estimator = self._vocoder = None
        return super()._apply(fn, recurse)

    # -- tokens to mel ---------------------------------------------------------------------

    def mel_stages(
        self, tokens: Tensor, reference: Reference, noise: Noise, *, final: bool, steps: int | None = None
    ) -> Generator[None, None, Tensor]:
        """The flow, in stages: yields between two, returns the mel frames (1, 80, T) of the tokens.

        Args:
            tokens: (1, N) ids below ``CODES``.
            reference: the voice.
            noise: the request's.
            final: whether no token follows. If some do, the last ``look_ahead`` tokens only serve
                as what the others look ahead to, and T is 2 * (N - look_ahead).
            steps: of the flow; None for the usual number.
        """
        prompt = reference.prompt_feat.shape[1]
        speaker = self.flow.spk_embed_affine_layer(F.normalize(reference.embedding, dim=1))
        mu = self.encode(torch.cat([reference.prompt_token, tokens], dim=1), final)
        frames = mu.shape[2] - prompt
        condition = torch.zeros_like(mu)
        condition[:, :, :prompt] = reference.prompt_feat.transpose(1, 2)
        x = noise.mel(prompt, frames).to(self.device)
        yield
        times = self._times(steps or self.steps)
        for now, then in pairwise(times):
            x = x + (then - now) * self._slope(x, mu, speaker, condition, now, then)
            yield
        return x[:, :, prompt:]

    def encode(self, tokens: Tensor, final: bool) -> Tensor:
        """What the flow is steered by: (1, N) ids to (1, 80, 2 * N), less the look-ahead.

        Every position is computed from tokens with all of their own look-ahead, and attends to
        such positions only. So the look-ahead is dropped before the first attention.
        """
        encoder = self.flow.encoder
        x = encoder.embed.out(self.flow.input_embedding(tokens))
        x, positions = encoder.embed.pos_enc(x)
        x = encoder.pre_lookahead_layer(x)
        if not final:
            x = x[:, : -self.look_ahead]
            positions = encoder.embed.pos_enc.position_encoding(0, x.shape[1])
        x = self._layers(encoder.encoders, x, positions)
        x, _ = encoder.up_layer(x.transpose(1, 2).contiguous(), x.shape[1])
        x = encoder.up_embed.out(x.transpose(1, 2).contiguous())
        x, positions = encoder.up_embed.pos_enc(x)
        x = self._layers(encoder.up_encoders, x, positions)
        return self.flow.encoder_proj(encoder.after_norm(x)).transpose(1, 2).contiguous()

    def _layers(self, layers: nn.ModuleList, x: Tensor, positions: Tensor) -> Tensor:
        for layer in layers:
            if x.device.type == "cpu":
                x = conformer.layer(layer, x, positions)
            else:
                x, *_ = layer(x, _NO_MASK, positions, _NO_MASK)
        return x

    def _times(self, steps: int) -> list[float]:
        times = [step / steps for step in range(steps + 1)]
        return times if self.meanflow else [1 - math.cos(time * 0.5 * math.pi) for time in times]

    def _slope(
        self, x: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor, now: float, then: float
    ) -> Tensor:
        if self.meanflow:
            return self._estimate(x, mu, speaker, condition, now, then)
        guidance = self.flow.decoder.inference_cfg_rate
        # With and without the voice and the text, side by side.
        with_it, without = self._estimate(
            torch.cat([x, x]),
            torch.cat([mu, torch.zeros_like(mu)]),
            torch.cat([speaker, torch.zeros_like(speaker)]),
            torch.cat([condition, torch.zeros_like(condition)]),
            now,
            then,
        ).chunk(2)
        return (1.0 + guidance) * with_it - guidance * without

    def _estimate(
        self, x: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor, now: float, then: float
    ) -> Tensor:
        """The flow's U-Net; every sequence of the batch has the same length, so nothing is masked."""
        net = self.flow.decoder.estimator
        time = self._time(net, now, x)
        if net.meanflow:
            time = net.time_embed_mixer(torch.cat([time, self._time(net, then, x)], dim=1))
        x = torch.cat([x, mu, speaker.unsqueeze(2).expand(-1, -1, x.shape[2]), condition], dim=1)
        self.prepare()
        if self._estimator is not None:
            return self._estimator(x, time)
        ones = x.new_ones((1, 1, x.shape[2]))
        skipped = []
        for resnet, blocks, down in net.down_blocks:
            x = _through(resnet, blocks, x, ones, time)
            skipped.append(x)
            x = down(x)
        for resnet, blocks in net.mid_blocks:
            x = _through(resnet, blocks, x, ones, time)
        for resnet, blocks, up in net.up_blocks:
            skip = skipped.pop()
            x = up(_through(resnet, blocks, torch.cat([x[:, :, : skip.shape[2]], skip], dim=1), ones, time))
        return net.final_proj(net.final_block(x, ones))

    def _time(self, net: Any, time: float, x: Tensor) -> Tensor:
        return net.time_mlp(net.time_embeddings(x.new_full((1,), time)))

    # -- mel to samples --------------------------------------------------------------------

    def pitch(self, mel: Tensor) -> Tensor:
        """(1, 80, T) to the pitch of every frame in Hz, (T,)."""
        return self.mel2wav.f0_predictor(mel)[0]

    def source(self, pitch: Tensor, phases: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The signal that the vocoder shapes into speech.

        Args:
            pitch: (T,) of every frame.
            phases: (harmonics,) float64 on the CPU: where each harmonic is, in turns.
            noise: (1, harmonics, T * 480).

        Returns:
            (1, 1, T * 480) and where each harmonic is after every frame, (T + 1, harmonics).
        """
        maker = self.mel2wav.m_source
        sines = maker.l_sin_gen
        harmonics = torch.arange(1, sines.harmonic_num + 2, dtype=torch.float64)
        # A pitch is the same throughout its frame. So whole frames are added up in float64, and
        # float32 only ever counts the turns inside one.
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

    def wave(self, mel: Tensor, source: Tensor) -> Tensor:
        """(1, 80, T) and the source's (1, 1, T * 480) to (T * 480,) samples."""
        self.prepare()
        if self._vocoder is not None:
            return self._vocoder.wave(mel, source)[0]
        return self.mel2wav.decode(mel, source)[0]

    @property
    def harmonics(self) -> int:
        """How many sines the vocoder's source is made of."""
        return self.mel2wav.m_source.l_sin_gen.harmonic_num + 1


def _through(resnet: nn.Module, blocks: nn.ModuleList, x: Tensor, ones: Tensor, time: Tensor) -> Tensor:
    x = resnet(x, ones, time).transpose(1, 2).contiguous()
    for block in blocks:
        x = block(x)
    return x.transpose(1, 2).contiguous()


def _to_buffer(module: nn.Module, name: str) -> None:
    tensor = getattr(module, name)
    delattr(module, name)
    module.register_buffer(name, tensor, persistent=False)
