"""Whole Chatterbox models on the simulated MPS device and on CUDA, and their fallback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import Heard, finish, load, request, say, step
from shelf import give_back_memory

from chatterbex import registry
from chatterbex.device import runtime, stray_tensors
from chatterbex.models import passes, scheduler
from chatterbex.models.turbo import NanoModel
from chatterbex.s3gen.proof import GAINS

SHORT = {"max_tokens": 14}


@pytest.fixture(autouse=True)
def _one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated device's memory is this process's, so the file's pages are not needed too."""
    plain = runtime.place

    def place(*given: Any) -> Any:
        report = plain(*given)
        give_back_memory()
        return report

    monkeypatch.setattr(runtime, "place", place)


@pytest.fixture(scope="module")
def expected(folder: Callable[[str], Path]) -> np.ndarray:
    """Nano's result on the CPU."""
    return spoken("nano", folder("nano"))


def spoken(name: str, folder: Path, **options: Any) -> np.ndarray:
    """A model's result on the CPU."""
    model = load(registry.find(name), folder)
    samples = say(model, request(**SHORT, **options)).samples()
    model.close()
    return samples


@pytest.fixture
def device(accelerator: Any, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray) -> Any:
    """A device with comparable numbers, and a short warm-up if it is slow."""
    if accelerator.exact:
        monkeypatch.setattr(passes, "_WARM_UP", 10)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return accelerator


def all_on(model: Any, device: str) -> bool:
    way = model._runtime.way
    return not stray_tensors({"t3": way.t3, "s3gen": way.s3gen}, device)


def same(device: Any, samples: np.ndarray, expected: np.ndarray) -> bool:
    """Whether it sounds like the CPU, whose sums have another order."""
    return samples.shape == expected.shape and np.abs(samples - expected).max() < (
        1e-4 if device.exact else 1e-3
    )


def test_nano_speaks_on_the_device_and_falls_back_in_its_third_request(
    device: Any, folder: Callable[[str], Path], expected: np.ndarray
) -> None:
    model = load(NanoModel, folder("nano"), device=device.name)
    assert model.info()["device"]["actual"] == device.name
    assert all_on(model, device.placed)
    assert model.info()["components"]["analysis"] == "cpu"
    for _ in range(2):
        assert same(device, say(model, request(**SHORT)).samples(), expected)

    device.faults.add(operator="aten::conv_transpose1d", nth=1, error="unsupported")
    heard = say(model, request(**SHORT))
    assert same(device, heard.samples(), expected)
    assert [notice.name for notice in heard.notices] == ["fallback"]
    assert model.info()["device"]["actual"] == "cpu"
    assert "conv_transpose1d" in model.info()["device"]["reason"]
    assert all_on(model, "cpu")
    assert same(device, say(model, request(**SHORT)).samples(), expected)
    model.close()


def test_a_stream_continues_after_its_device_fails(
    device: Any, folder: Callable[[str], Path], expected: np.ndarray
) -> None:
    model = load(NanoModel, folder("nano"), device=device.name)
    heard = Heard()
    model.admit(request(stream=True, chunk_tokens=8, **SHORT))
    while not heard.chunks:
        step(model, heard)
    device.faults.add(operator="aten::conv_transpose1d", nth=1, error="unsupported")
    finish(model, heard)
    assert model.info()["device"]["actual"] == "cpu"
    assert len(heard.samples()) == len(expected)
    model.close()


def test_conditionals_that_are_left_behind_are_found(
    device: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatterbex.s3gen import Reference

    monkeypatch.setattr(Reference, "to", lambda self, device: self)
    model = load(NanoModel, folder("nano"), device=device.name)
    assert model.info()["device"]["actual"] == "cpu"
    assert "the proof on" in model.info()["device"]["reason"]
    assert all_on(model, "cpu")
    model.close()


# The probe of the device meets the first calls.
@pytest.mark.parametrize(
    ("operator", "nth", "says"),
    [
        ("linear", 40, "the proof on mps failed: mps computes wrong results: t3.logits"),
        ("attention", 10, "the proof on mps failed: mps computes wrong results: t3.logits"),
        ("convolution", 10, "the proof on mps failed: mps computes wrong results: s3gen.mel"),
        ("conv_transpose", 1, "the proof on mps failed: mps computes wrong results: s3gen.samples"),
        ("stft", 1, "the probe of mps failed (stft"),
    ],
)
@pytest.mark.parametrize("error", ["wrong", "nan"])
def test_wrong_results_are_detected_before_the_model_is_ready(
    mps: Any, folder: Callable[[str], Path], operator: str, nth: int, says: str, error: str
) -> None:
    mps.faults.add(operator=operator, nth=nth, error=error, times=None)
    model = load(NanoModel, folder("nano"), device="mps")
    about = model.info()["device"]
    assert about["actual"] == "cpu"
    assert says in about["reason"]
    assert all_on(model, "cpu")
    model.close()


def test_the_proof_is_reported(
    mps: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_WARM_UP", 10)
    model = load(NanoModel, folder("nano"), device="mps")
    proof = model.info()["device"]["proof"]
    assert proof["device"] == "mps"
    assert set(proof["components"]) == {"t3.logits", *GAINS}
    for one in proof["components"].values():
        assert one["passed"]
        assert one["difference"] <= one["tolerance"]
    model.close()


def test_requests_are_vocoded_together_and_sound_as_if_alone(
    mps: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    monkeypatch.setattr(passes, "_WARM_UP", 10)
    model = load(NanoModel, folder("nano"), device="mps")
    sizes: list[int] = []
    plain = scheduler.together

    def together(parts: Any) -> Any:
        sizes.append(len(parts))
        return plain(parts)

    monkeypatch.setattr(scheduler, "together", together)
    heard = say(model, request(1, **SHORT), request(2, seed=9, **SHORT), request(3, **SHORT))
    assert max(sizes) > 1
    for id in (1, 3):
        assert np.abs(heard.samples(id) - expected).max() < 1e-4
    assert np.abs(heard.samples(2) - expected).max() > 1e-3
    assert model.info()["device"]["actual"] == "mps"
    model.close()


@pytest.mark.parametrize("error", ["nan", "out_of_memory"])
def test_while_it_speaks(
    error: str, mps: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    """Numbers that are not finite are a device failure, and so is too little memory for a single request."""
    monkeypatch.setattr(passes, "_WARM_UP", 10)
    model = load(NanoModel, folder("nano"), device="mps", max_batch=2)
    mps.faults.add(operator="convolution", error=error, times=None)
    heard = say(model, request(**SHORT))
    assert np.abs(heard.samples() - expected).max() < 1e-4
    assert [notice.name for notice in heard.notices] == ["fallback"]
    assert heard.notices[0].payload["kind"] == ("wrong_results" if error == "nan" else error)
    model.close()


# On the simulated device they would take minutes.
@pytest.mark.parametrize(
    ("name", "files", "options"),
    [
        ("turbo", "turbo", {}),
        ("english", "english", {"cfg_weight": 0.5}),
        ("multilingual", "multilingual_v3", {"language": "de"}),
    ],
)
def test_every_model_speaks_on_cuda_as_on_the_cpu(
    cuda: Any,
    folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    files: str,
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = spoken(name, folder(files), **options)
    model = load(registry.find(name), folder(files), device=cuda.name, fallback=False)
    assert all_on(model, cuda.placed)
    # Whatever else is in the batch.
    heard = say(model, *(request(id, **SHORT, **options, seed=seed) for id, seed in ((1, 3), (2, 9))))
    assert same(cuda, heard.samples(), expected)
    assert heard.samples(2).size > 0
    model.close()
