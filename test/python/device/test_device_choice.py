"""The device that a request becomes, by a table; PyTorch is not needed."""

from __future__ import annotations

import pytest

from chatterbex.device import Check, Device, ProbeReport, choose, eager_attention, prepare_environment
from chatterbex.errors import ChatterbexError

CPU = Device("cpu", "CPU", available=True)
MPS = Device("mps", "Apple MPS", available=True)
NO_MPS = Device("mps", "Apple MPS", available=False, reason="no Mac")
CUDA = [Device("cuda:0", "H100", available=True), Device("cuda:1", "L4", available=True)]
NO_CUDA = [Device("cuda", "NVIDIA CUDA", available=False, reason="no driver")]


def probe(*broken: str) -> object:
    def probe(device: str) -> ProbeReport:
        return ProbeReport(device, (Check("matmul", device not in broken, "gave nonsense"),))

    return probe


@pytest.mark.parametrize(
    ("requested", "devices", "broken", "actual", "reason"),
    [
        ("cpu", [CPU, MPS, *CUDA], [], "cpu", None),
        ("auto", [CPU, MPS, *CUDA], [], "cuda:0", None),
        ("auto", [CPU, MPS, *CUDA], ["cuda:0"], "cuda:1", None),
        ("auto", [CPU, MPS, *NO_CUDA], [], "mps", None),
        ("auto", [CPU, MPS, *CUDA], ["cuda:0", "cuda:1"], "mps", None),
        ("auto", [CPU, NO_MPS, *NO_CUDA], [], "cpu", "cuda: no driver; mps: no Mac"),
        (
            "auto",
            [CPU, MPS, *NO_CUDA],
            ["mps"],
            "cpu",
            "cuda: no driver; the probe of mps failed (matmul: gave nonsense)",
        ),
        ("mps", [CPU, MPS, *CUDA], [], "mps", None),
        ("mps", [CPU, NO_MPS, *CUDA], [], "cpu", "no Mac"),
        ("mps", [CPU, MPS, *CUDA], ["mps"], "cpu", "the probe of mps failed (matmul: gave nonsense)"),
        ("cuda", [CPU, MPS, *CUDA], [], "cuda:0", None),
        ("cuda:1", [CPU, MPS, *CUDA], [], "cuda:1", None),
        ("cuda:2", [CPU, MPS, *CUDA], [], "cpu", "there is no cuda:2, only cuda:0, cuda:1"),
        ("cuda", [CPU, MPS, *NO_CUDA], [], "cpu", "no driver"),
        ("cuda:1", [CPU, MPS, *NO_CUDA], [], "cpu", "no driver"),
    ],
)
def test_the_choice(
    requested: str, devices: list[Device], broken: list[str], actual: str, reason: str | None
) -> None:
    choice = choose(requested, devices=devices, probe=probe(*broken))
    assert (choice.requested, choice.actual, choice.reason) == (requested, actual, reason)
    assert choice.fell_back == (requested not in ("auto", "cpu") and reason is not None)
    assert (choice.report is not None) == (actual != "cpu")
    if choice.fell_back:
        with pytest.raises(ChatterbexError) as caught:
            choose(requested, fallback=False, devices=devices, probe=probe(*broken))
        assert caught.value.reason == "device_unavailable"
        assert reason in caught.value.message
    else:
        assert choose(requested, fallback=False, devices=devices, probe=probe(*broken)) == choice


@pytest.mark.parametrize("requested", ["gpu", "cuda:", "cuda:x", "mps:0", "", "CPU", None, 1, "cuda:0 "])
def test_names_that_are_not_devices(requested: object) -> None:
    with pytest.raises(ChatterbexError, match="device must be") as caught:
        choose(requested, devices=[CPU])
    assert caught.value.reason == "invalid_option"


def test_a_warning_comes_along() -> None:
    old = Device("mps", "Apple MPS", available=True, warning="macOS 14")
    assert choose("auto", devices=[CPU, old], probe=probe()).warning == "macOS 14"
    assert choose("mps", devices=[CPU, old], probe=probe("mps")).warning == "macOS 14"


@pytest.mark.parametrize(
    ("device", "version", "eager"),
    [
        ("mps", "2.5.1", True),
        ("mps", "2.6.0", False),
        ("mps", "2.7.1", False),
        ("mps", "2.8.0", True),
        ("mps", "2.9.1", True),
        ("mps", "2.10.0", True),
        ("mps", "2.11.0", False),
        ("mps", "2.11.0.dev20260101", True),
        ("mps", "2.11.0a0+git1234", True),
        ("mps", "2.12.1", False),
        ("mps", "3.0.0", False),
        ("mps", "unknown", True),
        ("cuda:0", "2.8.0+cu128", False),
        ("cpu", "2.8.0", False),
    ],
)
def test_when_attention_is_computed_step_by_step(device: str, version: str, eager: bool) -> None:
    assert eager_attention(device, version) is eager


def test_the_environment_is_prepared() -> None:
    environment: dict[str, str] = {}
    assert prepare_environment(environment) == environment == {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}


def test_the_users_variables_are_kept() -> None:
    environment = {
        "PYTORCH_ENABLE_MPS_FALLBACK": "0",
        "PYTORCH_MPS_HIGH_WATERMARK_RATIO": "1.2",
        "PYTORCH_MPS_LOW_WATERMARK_RATIO": "0.5",
    }
    before = dict(environment)
    assert prepare_environment(environment) == {}
    assert environment == before


@pytest.mark.parametrize(
    ("high", "low"),
    [("0.0", None), ("0.7", "0.7"), ("1", "1.0"), ("1.4", None), ("2.0", None), ("", None), ("much", None)],
)
def test_the_low_watermark_is_not_above_the_high_one(high: str, low: str | None) -> None:
    environment = {"PYTORCH_MPS_HIGH_WATERMARK_RATIO": high}
    prepare_environment(environment)
    assert environment["PYTORCH_MPS_HIGH_WATERMARK_RATIO"] == high
    assert environment.get("PYTORCH_MPS_LOW_WATERMARK_RATIO") == low
