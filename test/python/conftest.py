"""What all tests of the Python side share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent.parent / "priv" / "python"
for path in (PACKAGE, HERE):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

from chatterbex import log, registry  # noqa: E402
from chatterbex.engine import Engine  # noqa: E402
from driving import Driver  # noqa: E402


@pytest.fixture
def restored() -> Iterator[None]:
    """Puts back what an engine changes in its process."""
    environment, fork, forkpty = dict(os.environ), os.fork, os.forkpty
    models, level = dict(registry._MODELS), logging.getLogger("chatterbex").level
    yield
    log.restore()
    logging.getLogger("chatterbex").setLevel(level)
    os.environ.clear()
    os.environ.update(environment)
    os.fork, os.forkpty = fork, forkpty
    registry._MODELS.clear()
    registry._MODELS.update(models)


@pytest.fixture
def make(restored: None) -> Callable[..., Driver]:
    """Makes engines, with the fake model registered."""

    def make(config: Mapping[str, Any] | None = None) -> Driver:
        extra = {"fake": "fake_model:FakeModel"}
        return Driver(Engine({"extra_models": extra, **(config or {})}))

    return make


@pytest.fixture
def driver(make: Callable[..., Driver]) -> Driver:
    """An engine, with the fake model registered."""
    return make()
