"""Fixtures that the tests of the Chatterbox models share."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from chatterbex.s3gen import Analysis, Reference, S3GenCpuPass

from needed import LACKING, LACKING_FOR_UPSTREAM
from shelf import SHELF, Shelf, give_back_memory

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "t3"))  # upstream's T3 classes, for whole models


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Modules import torch at the top. Without it, only the one that reports this is collected."""
    if LACKING and collection_path.name.startswith("test_") and collection_path.name != "test_needed.py":
        return True
    return None


@pytest.fixture(scope="session")
def shelf() -> Shelf:
    """Holds large objects between tests."""
    return SHELF


_LARGE = 1200 * 2**20  # bytes of this process


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """Models are in reference cycles, and a few that wait for the collector fill the memory."""
    yield
    SHELF.end()
    if not LACKING and _resident() > _LARGE:
        give_back_memory()


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _LARGE + 1
    return pages * resource.getpagesize()


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    if LACKING:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def published() -> Any:
    """Upstream's own code, or a skip that says what is missing."""
    if LACKING_FOR_UPSTREAM:
        missing = ", ".join(LACKING_FOR_UPSTREAM)
        pytest.skip(f"not installed, so there is no upstream to compare with: {missing}")
    import published

    return published


@pytest.fixture(scope="session")
def folder() -> Callable[[str], Path]:
    """A model's folder with a synthetic checkpoint; nothing may be written to it."""
    from synthetic import checkpoints

    return checkpoints.checkpoint


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], Path]:
    """A folder with a model's files that a test may change: the files are links, so replace them whole."""
    from synthetic import checkpoints

    return lambda model: checkpoints.link(model, tmp_path / model)


@pytest.fixture
def meanflow(folder: Callable[[str], Path], shelf: Shelf) -> tuple[S3GenCpuPass, Analysis]:
    """The CPU's way through S3Gen of nano and turbo."""
    from chatterbex import s3gen

    def load() -> tuple[S3GenCpuPass, Analysis]:
        network, analysis = s3gen.load(folder("nano") / "s3gen_meanflow.safetensors", meanflow=True)
        return s3gen.S3GenCpuPass(network), analysis

    return shelf.take("meanflow", load)


@pytest.fixture
def nano(folder: Callable[[str], Path], shelf: Shelf) -> Any:
    """Nano on the CPU."""
    from running import load

    from chatterbex.models.turbo import NanoModel

    return shelf.take("nano", lambda: load(NanoModel, folder("nano")))


@pytest.fixture
def english(folder: Callable[[str], Path], shelf: Shelf) -> Any:
    """The English model on the CPU."""
    from running import load

    from chatterbex.models.english import EnglishModel

    return shelf.take("english", lambda: load(EnglishModel, folder("english")))


@pytest.fixture(scope="session")
def voice() -> dict[str, Any]:
    """The ``gen`` half of a voice with a prompt of 1 second."""
    from synthetic import s3gen

    return s3gen.conditionals(seed=4, seconds=1.0)


@pytest.fixture(scope="session")
def reference(voice: dict[str, Any]) -> Reference:
    """The same, as ours."""
    from chatterbex.s3gen import Reference

    return Reference.from_mapping(voice)


@pytest.fixture(scope="session")
def tokens() -> list[int]:
    """28 speech tokens: a little more than a second."""
    import torch

    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 6561, (28,), generator=generator).tolist()


@pytest.fixture(scope="session")
def recording() -> tuple[Any, int]:
    """4.2 seconds of a person speaking, at 16 kHz, which come with s3tokenizer."""
    import wave

    import numpy as np

    from chatterbex import upstream

    path = upstream.package_folder("s3tokenizer", "s3tokenizer") / "assets" / "BAC009S0764W0121.wav"
    with wave.open(str(path)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return (data / 32768).astype(np.float32), file.getframerate()
