"""A device that computes other results than the CPU is detected, and the error names what is wrong."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from small_model import Voice, parts  # noqa: E402

from chatterbex.device import ExpectedResult, Proof, WrongResultsError, classify, finite, require_finite  # noqa: E402
from chatterbex.device.proof import BFLOAT16, FLOAT32, MARGIN, gain, tolerance  # noqa: E402

TEXT = [2, 7, 1, 8]
SPEECH = [[3, 1, 4, 1, 5, 9]]


def compute(parts: Any, voice: Voice | None = None) -> dict[str, Any]:
    """A few tokens' logits and some samples."""
    t3, s3gen, voice = parts["t3"], parts["s3gen"], voice or Voice.made()
    device = t3.bias.device
    with torch.inference_mode():
        state = t3.begin(TEXT, voice.t3)
        logits = [t3.feed(torch.tensor([[token]], device=device), state) for token in (3, 1, 4)]
        samples = s3gen(torch.tensor(SPEECH, device=device), voice.gen)
    return {"t3.logits": torch.cat(logits), "s3gen.samples": samples}


def moved(parts: Any, device: str) -> Any:
    return {name: part.to(device) for name, part in parts.items()}


def doubled() -> dict[str, Any]:
    """The model's results in float64."""
    voice = Voice.made()
    voice.t3 = dataclasses.replace(voice.t3, speaker=voice.t3.speaker.double())
    voice.gen["embedding"] = voice.gen["embedding"].double()
    both = {name: part.double() for name, part in parts().items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return compute(both, voice)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def proof() -> Proof:
    """Of the small model, with tolerances from float32 against float64."""
    single, double = compute(parts()), doubled()
    return Proof.reference(
        {name: ExpectedResult(single[name], tolerance(gain(single[name], double[name]))) for name in single}
    )


def test_a_device_that_is_right(mps: Any, proof: Proof) -> None:
    report = proof.compare(compute(moved(parts(), "mps")), "mps")
    assert report.passed
    assert report.reason is None
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (found["device"], found["passed"]) == ("mps", True)
    assert list(found["components"]) == ["t3.logits", "s3gen.samples"]
    for one in found["components"].values():
        assert one["passed"]
        assert one["finite"]
        assert one["message"] is None
        assert 0 <= one["difference"] < one["tolerance"] < 1e-3


@pytest.mark.parametrize("error", ["wrong", "nan"])
@pytest.mark.parametrize(
    ("operator", "component"),
    [
        ("linear", "t3.logits"),
        ("attention", "t3.logits"),
        ("convolution", "s3gen.samples"),
        ("conv_transpose", "s3gen.samples"),
        ("istft", "s3gen.samples"),
    ],
)
def test_a_silently_wrong_operator(mps: Any, proof: Proof, operator: str, component: str, error: str) -> None:
    built = moved(parts(), "mps")
    fault = mps.faults.add(operator=operator, nth=1, times=None, error=error)
    results = compute(built)
    assert fault.hits
    with pytest.raises(WrongResultsError, match=f"^mps computes wrong results: {component} ") as caught:
        proof.compare(results, "mps")
    failure = classify(caught.value, "mps")
    assert (failure.kind, failure.reason) == ("wrong_results", "device_unavailable")
    assert failure.message == str(caught.value)
    assert classify(caught.value, "cpu") is None

    report = json.loads(json.dumps(caught.value.report, allow_nan=False))
    assert [name for name, one in report["components"].items() if not one["passed"]] == [component]
    wrong = report["components"][component]
    assert wrong["finite"] == (error == "wrong")
    if error == "nan":
        assert wrong["difference"] is None
        assert "not finite" in str(caught.value)
    else:
        assert wrong["difference"] > 100 * wrong["tolerance"]
        assert f"differs from the CPU by {wrong['difference']:.2g}" in str(caught.value)


def test_permuted_weights_of_a_convolution(mps: Any, proof: Proof) -> None:
    built = parts()
    # As a pass for the CPU may arrange them: the same numbers in another order of the memory.
    up = built["s3gen"].up
    up.weight = torch.nn.Parameter(up.weight.transpose(0, 2).contiguous().transpose(0, 2))
    built = moved(built, "mps")
    assert not built["s3gen"].up.weight.is_contiguous()
    proof.compare(compute(built), "mps")
    mps.quirks.add("pytorch-192212")
    with pytest.raises(WrongResultsError, match=r"s3gen\.samples differs from the CPU"):
        proof.compare(compute(built), "mps")


def test_another_order_of_summation_passes() -> None:
    random = np.random.default_rng(1)
    left, right = random.standard_normal((64, 2048)), random.standard_normal((2048, 64))
    left, right = left.astype(np.float32), right.astype(np.float32)
    exact = left.astype(np.float64) @ right.astype(np.float64)
    in_order = np.zeros((64, 64), np.float32)
    for one, other in zip(left.T, right, strict=True):
        in_order += np.outer(one, other)
    most = tolerance(gain(left @ right, exact))
    proof = Proof.reference({"product": ExpectedResult(left @ right, most)})
    report = proof.compare({"product": in_order}, "cuda:0")
    assert report.comparisons[0].difference > 0
    # A product in bfloat16 is not allowed, nor is a missing term.
    in_bfloat16 = (torch.from_numpy(left).bfloat16() @ torch.from_numpy(right).bfloat16()).float()
    for wrong in (in_bfloat16, left[:, 1:] @ right[1:]):
        with pytest.raises(WrongResultsError):
            proof.compare({"product": wrong}, "cuda:0")


def test_a_tolerance_is_a_multiple_of_the_rounding_error() -> None:
    exact = np.array([3.0, -4.0])
    assert gain(exact * (1 + FLOAT32), exact) == pytest.approx(4 / np.sqrt(12.5))
    assert tolerance(10) == 10 * MARGIN * 2.0**-24
    assert tolerance(10, BFLOAT16) == 10 * MARGIN * 2.0**-8


def test_differences_are_relative_to_the_reference() -> None:
    for scale in (1e-6, 1.0, 1e6):
        reference = scale * np.array([1.0, -1.0, 1.0, -1.0])
        proof = Proof.reference({"x": ExpectedResult(reference, 0.01)})
        assert proof.compare({"x": reference * 1.009}, "mps").comparisons[0].difference == pytest.approx(
            0.009
        )
        with pytest.raises(
            WrongResultsError, match=r"x differs from the CPU by 0\.011 \(rounding explains 0\.01\)"
        ):
            proof.compare({"x": reference * 1.011}, "mps")
    zeros = Proof.reference({"x": ExpectedResult(np.zeros(3), 0.01)})
    zeros.compare({"x": np.full(3, 0.009)}, "mps")
    with pytest.raises(WrongResultsError):
        zeros.compare({"x": np.full(3, 0.011)}, "mps")


def test_tokens_must_be_equal() -> None:
    proof = Proof.reference({"tokens": ExpectedResult(torch.tensor([3, 1, 4]), 0)})
    proof.compare({"tokens": [3, 1, 4]}, "mps")
    with pytest.raises(WrongResultsError, match="tokens differs"):
        proof.compare({"tokens": torch.tensor([3, 1, 5])}, "mps")


def test_every_wrong_component_is_named() -> None:
    ones = {name: np.ones(4) for name in "abc"}
    proof = Proof.reference({name: ExpectedResult(values, 0.1) for name, values in ones.items()})
    bad = {"a": np.ones(3), "b": np.ones(4), "c": np.array([1, np.nan, -np.inf, 1])}
    with pytest.raises(WrongResultsError) as caught:
        proof.compare(bad, "mps")
    assert str(caught.value) == (
        "mps computes wrong results: a has the shape (3,) instead of (4,); "
        "c has 2 of 4 numbers that are not finite"
    )


def test_errors_that_are_not_the_devices_fault() -> None:
    for values in (np.array([1, np.nan]), np.array([np.inf]), np.array([])):
        with pytest.raises(ValueError, match="reference for x must be some finite numbers"):
            Proof.reference({"x": ExpectedResult(values, 0.1)})
    proof = Proof.reference({"x": ExpectedResult(np.ones(1), 0.1)})
    for results in ({}, {"x": np.ones(1), "y": np.ones(1)}):
        with pytest.raises(ValueError, match="there are references for"):
            proof.compare(results, "mps")


def test_a_reference_is_a_copy() -> None:
    values = np.ones(3)
    proof = Proof.reference({"x": ExpectedResult(values, 0.1)})
    values.fill(0)
    proof.compare({"x": torch.ones(3)}, "mps")


def test_samples_are_looked_at_while_speaking(mps: Any) -> None:
    good = torch.zeros(4, device="mps")
    assert finite(good)
    assert finite(np.zeros(0, np.float32))
    require_finite("s3gen", good, "mps")
    for number in (float("nan"), float("inf"), float("-inf")):
        bad = good.clone()
        bad[2] = number
        assert not finite(bad)
        with pytest.raises(WrongResultsError, match="s3gen has 1 of 4 numbers that are not finite") as caught:
            require_finite("s3gen", bad, "mps")
        assert classify(caught.value, "mps").kind == "wrong_results"
