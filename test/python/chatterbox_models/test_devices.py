"""A whole Chatterbox model on the simulated MPS device: it gets there, and back when it must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Heard, load, request, say, step

import simulated_mps
from chatterbex.device import stray_tensors
from chatterbex.models import chatterbox
from chatterbex.models.turbo import NanoModel

LACKING = simulated_mps.missing()
pytestmark = pytest.mark.skipif(LACKING is not None, reason=f"no simulated MPS device: {LACKING}")
SHORT = {"max_tokens": 14}


@pytest.fixture(scope="module")
def expected(folder: Callable[[str], Path]) -> np.ndarray:
    """What nano says on the CPU."""
    model = load(NanoModel, folder("nano"))
    samples = say(model, request(**SHORT)).samples()
    model.close()
    return samples


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch, expected: np.ndarray) -> Iterator[Any]:
    """The device, and a short warm-up."""
    monkeypatch.setattr(chatterbox, "_WARM_UP", 10)
    with simulated_mps.device() as device:
        yield device


def all_on(model: Any, device: str) -> bool:
    return not stray_tensors(model._runtime.components, device)


def test_nano_speaks_on_mps_and_goes_to_the_cpu_in_its_third_request(
    mps: Any, folder: Callable[[str], Path], expected: np.ndarray
) -> None:
    model = load(NanoModel, folder("nano"), device="mps")
    assert model.info()["device"]["actual"] == "mps"
    assert all_on(model, "mps")
    assert model.info()["components"]["analysis"] == "cpu"
    for _ in range(2):
        assert np.abs(say(model, request(**SHORT)).samples() - expected).max() < 1e-4

    mps.faults.add(operator="aten::conv_transpose1d", nth=1, error="unsupported")
    heard = say(model, request(**SHORT))
    assert np.abs(heard.samples() - expected).max() < 1e-4
    assert [notice.name for notice in heard.notices] == ["fallback"]
    assert model.info()["device"]["actual"] == "cpu"
    assert "conv_transpose1d" in model.info()["device"]["reason"]
    assert all_on(model, "cpu")
    assert np.abs(say(model, request(**SHORT)).samples() - expected).max() < 1e-4
    model.close()


def test_a_stream_goes_on_where_it_was_when_its_device_fails(
    mps: Any, folder: Callable[[str], Path], expected: np.ndarray
) -> None:
    model = load(NanoModel, folder("nano"), device="mps")
    heard = Heard()
    model.admit(request(stream=True, chunk_tokens=8, **SHORT))
    while not heard.chunks:
        step(model, heard)
    mps.faults.add(operator="aten::conv_transpose1d", nth=1, error="unsupported")
    while model.busy():
        step(model, heard)
    assert model.info()["device"]["actual"] == "cpu"
    assert len(heard.samples()) == len(expected)
    model.close()


def test_conditionals_that_are_left_behind_are_found(
    mps: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatterbex.s3gen import Reference

    monkeypatch.setattr(Reference, "to", lambda self, device: self)
    model = load(NanoModel, folder("nano"), device="mps")
    assert model.info()["device"]["actual"] == "cpu"
    assert "conds.gen" in model.info()["device"]["reason"]
    assert all_on(model, "cpu")
    model.close()
