"""How much each compared component amplifies float32 rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from running import drained
from torch import Tensor

from chatterbex.device.proof import gain
from chatterbex.models import passes
from chatterbex.models.english import EnglishModel
from chatterbex.models.loading import load
from chatterbex.models.turbo import NanoModel
from chatterbex.s3gen import FRAME, RATE, MelTask, S3GenGpuPass
from chatterbex.s3gen import proof as s3gen_proof
from chatterbex.s3gen.noise import Noise
from chatterbex.t3 import T3GpuPass
from chatterbex.t3 import proof as t3_proof


@pytest.fixture(scope="module", params=[NanoModel, EnglishModel], ids=["nano", "english"])
def loaded(request: pytest.FixtureRequest, folder: Callable[[str], Path], shelf: Any) -> Any:
    """The weights of a model, what stays on the CPU, and the tokens of a text."""
    shelf.clear()
    model = request.param
    weights, residents = drained(load(model, folder(model.name), {}))
    asking = SimpleNamespace(_text=residents.text)
    return weights, residents, model.tokenize(asking, "A few words.", {})


def test_logits(loaded: Any) -> None:
    """One gain for both architectures: GPT-2 (nano) and Llama (english)."""
    weights, residents, text = loaded
    subject = passes.ChatterboxSubject(
        lambda: weights, front=residents.front, voice=residents.voice, text=text, batch=1, threads=2
    )
    way = subject.gpu(subject.parts(weights), 1, eager_attention=False)
    front, voice = residents.front, residents.voice.t3

    double = SimpleNamespace(
        voice=lambda given: front.voice(given).double(),
        text=lambda ids, guided: front.text(ids, guided=guided).double(),
    )
    with torch.inference_mode():
        single = t3_proof.logits(way.t3, front, voice, text, passes._TOKENS)
        body = deepcopy(subject.parts(weights)["t3"]).double()
        wide = T3GpuPass(body, way.t3.rows)
        assert gain(single, t3_proof.logits(wide, double, voice, text, passes._TOKENS)) <= t3_proof.GAIN


def test_mel_pitch_and_samples(loaded: Any) -> None:
    """Each component gets what the single-precision pass gave to the next one."""
    weights, residents, _ = loaded
    single, wide = S3GenGpuPass(weights.s3gen), S3GenGpuPass(doubled(weights.s3gen))
    figures = s3gen_proof.Figures(residents.voice.gen, passes._TOKENS)
    with torch.inference_mode():
        ours = figures.of(single)
        given = {name: value.double() for name, value in figures._shared.items()}
        reference = figures._voice
        voice = replace(
            reference,
            prompt_feat=reference.prompt_feat.double(),
            embedding=reference.embedding.double(),
        )
        task = MelTask(figures._tokens, voice, Noise(0), final=True)
        [mel] = drained(wide.mel_stages([task], steps=1))
        exact = {
            "s3gen.mel": mel,
            "s3gen.pitch": wide.pitch(given["mel"]),
            "s3gen.samples": wide.wave(given["mel"], given["source"]),
        }
    for name, value in exact.items():
        assert value.dtype == torch.float64
        assert gain(ours[name], value) <= s3gen_proof.GAINS[name], name


def test_source(loaded: Any) -> None:
    """Its sines, whose turns are counted in float32 inside a frame."""
    weights, _, _ = loaded
    net, noise = S3GenGpuPass(weights.s3gen), Noise(0)
    maker = net.network.mel2wav.m_source
    pitch = torch.linspace(60.0, 400.0, 40)
    phases = noise.phases(net.harmonics)
    random = noise.source(0, len(pitch), net.harmonics, FRAME)
    with torch.inference_mode():
        single, starts = net.source(pitch, phases, random)
        turns = pitch.double()[:, None] * torch.arange(1, net.harmonics + 1) / RATE
        turned = starts[:-1, :, None] + turns[:, :, None] * torch.arange(1, FRAME + 1)
        sines = maker.l_sin_gen.sine_amp * torch.sin(2 * math.pi * turned)
        waves = sines.permute(1, 0, 2).reshape(1, net.harmonics, -1)
        waves = waves + maker.l_sin_gen.noise_std * random.double()
        exact = torch.tanh(deepcopy(maker.l_linear).double()(waves.transpose(1, 2))).transpose(1, 2)
    assert gain(single, exact) <= s3gen_proof.GAINS["s3gen.source"]


def doubled(network: Any) -> Any:
    """A copy that computes in float64, with the tensors that are neither parameters nor buffers."""
    copy = deepcopy(network).double()
    for module in copy.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(module, name, value.double())
    return copy
