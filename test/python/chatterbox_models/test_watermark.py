"""PerTh's watermark: upstream's bit for bit, detected where it is, without upstream's imports."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbex.s3gen.signal import resample
from chatterbex.watermark import watermarked, watermarker


@pytest.fixture
def speech(recording: tuple[np.ndarray, int]) -> np.ndarray:
    samples, rate = recording
    return resample(samples, orig_sr=rate, target_sr=24_000)


def test_it_is_found_only_in_watermarked_speech(speech: np.ndarray) -> None:
    marked = watermarker().apply(speech, 24_000)
    assert marked.shape == speech.shape
    assert marked.dtype == np.float32
    assert watermarked(marked)
    assert not watermarked(speech)
    assert not watermarked(np.zeros(24_000, np.float32))
    assert not watermarked(np.zeros(0, np.float32))
    assert 0 < np.abs(marked - speech).max() < 0.1


def test_it_is_upstreams(published: Any, speech: np.ndarray) -> None:
    import perth

    theirs = perth.PerthImplicitWatermarker()
    expected = theirs.apply_watermark(speech, sample_rate=24_000)
    ours = watermarker().apply(speech, 24_000)
    assert np.abs(ours[: len(expected)] - expected).max() < 1e-5
    assert theirs.get_watermark(ours, sample_rate=24_000) == 1.0


def test_it_survives_16_bits_and_another_rate(speech: np.ndarray) -> None:
    marked = watermarker().apply(speech, 24_000)
    assert watermarked((np.round(marked * 32767) / 32767).astype(np.float32))
    assert watermarked(resample(marked, orig_sr=24_000, target_sr=44_100), 44_100)


def test_the_engine_finds_it_without_a_model(speech: np.ndarray, make: Any) -> None:
    driver = make()

    def found(samples: Any, rate: Any = 24_000) -> tuple[str, dict[str, Any]]:
        return driver.ask("watermarked", samples=samples, sample_rate=rate)

    marked = watermarker().apply(speech, 24_000)
    name, answer = found(marked.tobytes())
    assert (name, answer["watermarked"]) == ("done", True)
    assert answer["confidence"] > 0.9
    for other in (speech.tobytes(), b""):
        name, answer = found(other)
        assert (name, answer["watermarked"]) == ("done", False)
        assert answer["confidence"] < 0.1
    for bad in ((b"abc", 24_000), (marked.tobytes(), 0), (None, 24_000)):
        name, answer = found(*bad)
        assert (name, answer["reason"]) == ("failed", "voice_unreadable")


@pytest.mark.parametrize("length", [0, 1, 100, 767, 768, 769, 5001])
def test_any_number_of_samples_is_kept(speech: np.ndarray, length: int) -> None:
    some = speech[12_000 : 12_000 + length]
    assert watermarker().apply(some, 24_000).shape == some.shape


def test_perth_works_without_pkg_resources_where_upstreams_is_none() -> None:
    if importlib.util.find_spec("librosa") is None:
        pytest.skip("librosa is not installed: upstream's perth cannot be imported at all")
    probe = (
        "import sys; sys.modules['pkg_resources'] = None; import perth; print(perth.PerthImplicitWatermarker)"
    )
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert said.stdout.strip() == "None"
    package = Path(__file__).resolve().parents[3] / "priv" / "python"
    probe = (
        f"import sys; sys.path.insert(0, {str(package)!r}); sys.modules['pkg_resources'] = None; "
        "from chatterbex.watermark import watermarker; print(type(watermarker()).__name__)"
    )
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert said.stdout.strip() == "Watermarker", said.stderr


def test_nothing_heavy_is_imported_on_the_way_to_ready_and_to_a_voice(folder: Callable[[str], Path]) -> None:
    """Nor any name that a program might import in its own way."""
    here = Path(__file__).resolve().parent
    package = here.parents[2] / "priv" / "python"
    probe = f"""
import sys
sys.path[:0] = [{str(package)!r}, {str(here)!r}]
import torch
before = set(sys.modules)
from running import load, request, say
from chatterbex.models.turbo import NanoModel
model = load(NanoModel, {str(folder("nano"))!r})
import numpy as np
sound = np.sin(np.arange(24_000 * 6, dtype=np.float32) / 30)
model.call("clone", {{"samples": sound, "sample_rate": 24_000}})
heavy = ("librosa", "scipy", "numba", "sklearn", "torch._dynamo", "transformers", "diffusers", "onnx",
         "conformer", "omegaconf", "einops", "pkg_resources", "chatterbox", "s3tokenizer", "perth",
         "huggingface_hub")
print([name for name in heavy if name in sys.modules and name not in before])
"""
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert said.stdout.strip() == "[]", said.stdout + said.stderr
