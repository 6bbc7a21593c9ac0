"""The setup's proof that PyTorch and the networks work."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("s3tokenizer", reason="s3tokenizer is not installed")

SCRIPT = Path(__file__).resolve().parents[2] / "priv" / "python" / "provision" / "proof.py"


@pytest.fixture
def proof() -> ModuleType:
    """The script, in this process."""
    spec = importlib.util.spec_from_file_location("proof", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(text: str) -> dict[str, Any]:
    return json.loads(text.splitlines()[-1])


def test_the_cpu_works_as_the_setup_runs_it() -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "cpu"], capture_output=True, text=True, check=True, timeout=300
    )
    said = answer(done.stdout)
    assert said["error"] is None
    assert said["fault"] is None
    assert said["torch"] == torch.__version__
    assert said["device"] == "cpu"
    assert {"matmul", "attention", "stft"} <= set(said["tried"])


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_a_missing_device_is_a_fault_not_an_error(
    proof: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    proof.main("mps")
    said = answer(capsys.readouterr().out)
    assert said["error"] is None
    assert "MPS" in said["fault"]
    assert said["device"] == "cpu"


def test_a_device_that_computes_wrong_is_a_fault(proof: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbex.device import detection, probing

    found = [detection.Device("cpu", "a processor", True), detection.Device("mps", "a GPU", True)]
    monkeypatch.setattr(detection, "detect", lambda: found)
    wrong = probing.Check("stft", False, "differs from the CPU by 0.5")
    right = probing.Check("matmul", True)

    def probe(device: str) -> probing.ProbeReport:
        return probing.ProbeReport(device, (right, right if device == "cpu" else wrong))

    monkeypatch.setattr(probing, "probe", probe)
    said = proof.prove("mps")
    assert said["error"] is None
    assert said["fault"] == "the probe of mps failed (stft: differs from the CPU by 0.5)"
    assert (said["device"], said["name"]) == ("cpu", "a processor")


def test_a_failure_on_the_cpu_is_an_error(
    proof: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from chatterbex import upstream
    from chatterbex.device import probing

    wrong = probing.ProbeReport("cpu", (probing.Check("matmul", False, "no kernel"),))
    monkeypatch.setattr(probing, "probe", lambda _: wrong)
    assert proof.prove("cpu")["error"] == "the probe of cpu failed (matmul: no kernel)"

    def broken() -> ModuleType:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(upstream, "perth", broken)
    proof.main("cpu")
    assert answer(capsys.readouterr().out)["error"] == (
        "OSError: libgomp.so.1: cannot open shared object file"
    )
