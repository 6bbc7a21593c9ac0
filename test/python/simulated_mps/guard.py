"""Builds and loads the no-op device guard that lets tensors claim to be on MPS."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
_loaded = False


class SimulationUnavailable(Exception):
    """The simulated device cannot run here; the message says what is missing."""


def load() -> None:
    """Loads the guard, compiling it first if the cache has none for this PyTorch.

    Raises:
        SimulationUnavailable: No C++ compiler, it failed, or the real MPS backend is built in.
    """
    global _loaded
    if _loaded:
        return
    import torch

    if torch.backends.mps.is_built():
        raise SimulationUnavailable("this PyTorch has the real MPS backend built in")
    library = _cache_directory(torch) / "guard.so"
    if not library.exists():
        _compile(torch, library)
    torch.ops.load_library(str(library))
    _loaded = True


def _cache_directory(torch) -> Path:  # noqa: ANN001 - torch is imported late
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    abi = int(torch.compiled_with_cxx11_abi())
    source = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    name = f"torch-{torch.__version__}-abi{abi}-{os.uname().machine}-{source}"
    return Path(base) / "chatterbex" / "simulated-mps" / name


def _compile(torch, library: Path) -> None:  # noqa: ANN001 - torch is imported late
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise SimulationUnavailable("a C++ compiler (c++ or g++) is missing")
    # torch.utils.cpp_extension.load would need ninja; one file needs one command.
    root = Path(torch.__file__).parent
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        built = Path(scratch) / library.name
        command = [
            *compiler.split(),
            "-std=c++20",
            "-shared",
            "-fPIC",
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            f"-I{root / 'include'}",
            str(SOURCE),
            f"-L{root / 'lib'}",
            "-lc10",
            "-o",
            str(built),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SimulationUnavailable(f"{compiler} could not build guard.cpp:\n{done.stderr}")
        os.replace(built, library)
