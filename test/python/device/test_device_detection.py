"""Which devices a machine has, by a table of machines; PyTorch is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatterbex.device import Device, Machine, describe, devices, look
from chatterbex.device.machine import Gpu, TorchFacts

PLAIN = TorchFacts("2.6.0")
MAC = TorchFacts("2.6.0", mps_built=True, mps_available=True, mps_memory=12 * 2**30)
CUDA = TorchFacts("2.6.0+cu124", cuda="12.4", gpus=(Gpu("H100", 80), Gpu("L4", 24)))


def of(machine: Machine, kind: str) -> list[Device]:
    return [device for device in describe(machine) if device.kind == kind]


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (
            Machine("Linux", "x86_64", torch=PLAIN),
            "MPS needs macOS on Apple Silicon; this is Linux on x86_64",
        ),
        (Machine("Darwin", "x86_64", macos=(15, 5), torch=PLAIN), "this Python is for x86_64"),
        (
            Machine("Darwin", "arm64", macos=(15, 5)),
            "PyTorch is not installed: run `mix chatterbex.setup --mps`",
        ),
        (
            Machine("Darwin", "arm64", macos=(15, 5), torch_error="incompatible architecture"),
            "PyTorch cannot be imported (incompatible architecture)",
        ),
        (Machine("Darwin", "arm64", macos=(15, 5), torch=PLAIN), "was built without MPS"),
        (
            Machine("Darwin", "arm64", macos=(13, 6), torch=MAC),
            "MPS is used from macOS 14.0 on; this is 13.6",
        ),
        (
            Machine("Darwin", "arm64", macos=(15, 5), torch=TorchFacts("2.6.0", mps_built=True)),
            "says that MPS is not available",
        ),
    ],
)
def test_why_there_is_no_mps(machine: Machine, reason: str) -> None:
    [mps] = of(machine, "mps")
    assert not mps.available
    assert reason in str(mps.reason)
    assert mps.warning is None
    assert mps.memory is None


@pytest.mark.parametrize(
    ("macos", "warns"),
    [((14, 0), True), ((14, 7), True), ((15, 0), True), ((15, 1), False), ((26, 0), False)],
)
def test_mps_by_the_version_of_macos(macos: tuple[int, int], warns: bool) -> None:
    [mps] = of(Machine("Darwin", "arm64", processor="Apple M3", macos=macos, torch=MAC), "mps")
    assert mps.available
    assert mps.reason is None
    assert (mps.warning is not None) == warns
    assert mps.memory == 12 * 2**30
    assert mps.name == "Apple MPS (Apple M3)"


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine("Linux", "x86_64"), "no NVIDIA driver was found (looked for /proc/driver/nvidia/version)"),
        (Machine("Linux", "x86_64", torch=PLAIN), "no NVIDIA driver was found"),
        (Machine("Linux", "x86_64", nvidia_driver=True), "run `mix chatterbex.setup --cuda`"),
        (Machine("Linux", "x86_64", nvidia_driver=True, torch=PLAIN), "was built without CUDA"),
        (
            Machine("Linux", "x86_64", nvidia_driver=True, torch=TorchFacts("2.6.0", cuda="12.4")),
            "PyTorch 2.6.0 (CUDA 12.4) finds no GPU it can use",
        ),
        (
            Machine("Linux", "x86_64", torch=TorchFacts("2.6.0", cuda="12.4", cuda_error="driver too old")),
            "CUDA failed to start: driver too old",
        ),
        (Machine("Darwin", "arm64", macos=(15, 5), torch=MAC), "macOS has no driver"),
    ],
)
def test_why_there_is_no_cuda(machine: Machine, reason: str) -> None:
    [cuda] = of(machine, "cuda")
    assert cuda.device == "cuda"
    assert not cuda.available
    assert reason in str(cuda.reason)


def test_each_cuda_device_is_named() -> None:
    found = of(Machine("Linux", "x86_64", nvidia_driver=True, torch=CUDA), "cuda")
    assert [(one.device, one.name, one.memory, one.available) for one in found] == [
        ("cuda:0", "H100", 80, True),
        ("cuda:1", "L4", 24, True),
    ]


def test_the_cpu_is_always_listed_first() -> None:
    machine = Machine("Linux", "aarch64", processor="Graviton", cores=4, memory=8 * 2**30)
    cpu = describe(machine)[0]
    assert cpu.as_dict() == {
        "device": "cpu",
        "name": "Graviton",
        "available": True,
        "reason": None,
        "warning": None,
        "memory": 8 * 2**30,
        "cores": 4,
    }


def test_this_machine() -> None:
    machine = look()
    assert machine.cores >= 1
    assert machine.processor
    [cpu, *others] = devices()
    assert cpu["available"]
    assert cpu["cores"] == machine.cores
    for other in others:
        assert other["available"] == (other["reason"] is None)


def test_detection_needs_no_pytorch(tmp_path: Path) -> None:
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
from chatterbex import device
from chatterbex.errors import ChatterbexError
assert device.choose("auto").actual == "cpu"
choice = device.choose("cuda")
assert choice.actual == "cpu" and choice.reason, choice
try:
    device.choose("cuda", fallback=False)
except ChatterbexError as error:
    assert error.reason == "device_unavailable"
assert [one["device"] for one in device.devices()] == ["cpu", "mps", "cuda"]
assert "torch" not in sys.modules
print("well")
"""
    package = Path(__file__).parents[3] / "priv" / "python"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=package, capture_output=True, text=True, check=False
    )
    assert done.stdout == "well\n", done.stderr
