"""The results of a probe."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import simulated_mps  # noqa: E402
from chatterbex.device import choose, detect, probe  # noqa: E402

CHECKS = ["matmul", "stft", "long_conv1d", "attention", "fused_attention"]


def test_the_cpu_passes() -> None:
    report = probe("cpu")
    assert report.ok
    assert report.reason is None
    assert list(report.as_dict()["checks"]) == CHECKS


def test_a_good_device_passes(accelerator: object) -> None:
    report = probe(accelerator.name)
    assert report.ok, report.as_dict()
    assert [check.name for check in report.checks if check.ok] == CHECKS
    assert all(0 <= check.difference < 1e-4 for check in report.checks)
    assert not report.eager_attention
    assert choose(accelerator.name.partition(":")[0]).actual == accelerator.name
    assert choose("auto").actual == accelerator.name


@pytest.mark.parametrize(
    ("operator", "check"),
    [
        ("aten::matmul", "matmul"),
        ("aten::stft", "stft"),
        ("aten::istft", "stft"),
        ("aten::conv1d", "long_conv1d"),
    ],
)
@pytest.mark.parametrize("error", ["unsupported", "wrong", "out_of_memory"])
def test_an_unusable_device_is_not_chosen(
    mps: simulated_mps.Simulation, operator: str, check: str, error: str
) -> None:
    mps.faults.add(operator=operator, error=error, times=None)
    report = probe("mps")
    assert not report.ok
    assert check in [one.name for one in report.checks if not one.ok]
    assert f"{check}: " in report.reason
    choice = choose("mps")
    assert choice.actual == "cpu"
    assert f"{check}: " in choice.reason


@pytest.mark.parametrize("error", ["wrong", "unsupported"])
def test_if_fused_attention_is_wrong_it_is_computed_step_by_step(
    mps: simulated_mps.Simulation, error: str
) -> None:
    mps.faults.add(operator="aten::scaled_dot_product_attention", nth=3, error=error)
    choice = choose("mps")
    assert choice.actual == "mps"
    assert choice.report.eager_attention
    assert [check.name for check in choice.report.checks if not check.ok] == ["fused_attention"]


def test_numbers_that_are_not_finite_are_wrong(
    mps: simulated_mps.Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torch.Tensor.cpu

    def nan(tensor: torch.Tensor) -> torch.Tensor:
        return right(tensor) * float("nan")

    monkeypatch.setattr(torch.Tensor, "cpu", nan)
    assert "differs from the CPU by nan" in probe("mps").reason


def test_long_convolutions_fail_on_an_old_macos() -> None:
    lacking = simulated_mps.missing()
    if lacking is not None:
        pytest.skip(f"no simulated MPS device: {lacking}")
    with simulated_mps.device(macos=(14, 6)):
        [mps] = [device for device in detect() if device.kind == "mps"]
        assert mps.available
        assert "before 15.1" in mps.warning
        choice = choose("mps")
    assert choice.actual == "cpu"
    assert "long_conv1d: Output channels > 65536" in choice.reason
    with simulated_mps.device(macos=(13, 7)):
        choice = choose("mps")
    assert "MPS is used from macOS 14.0 on; this is 13.7" in choice.reason
