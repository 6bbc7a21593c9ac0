"""A model's move to a device and back: after each failure all of it is on one side, and correct."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from small_model import SmallModel, SmallSubject, parts  # noqa: E402

from chatterbex.device import StrayTensorsError, place, stray_tensors, tensors  # noqa: E402
from chatterbex.errors import ChatterbexError, ModelBrokenError  # noqa: E402

PARTS = ("t3", "s3gen")


@pytest.fixture(scope="module")
def expected() -> Callable[[int], Any]:
    """The CPU's result for a seed."""
    model = SmallModel("cpu").start()
    return lambda seed: model.generate(seed)


def same(accelerator: Any, model: SmallModel, sound: Any, right: Any) -> bool:
    """Whether a sound is the CPU's: bit for bit, unless real hardware computed it."""
    if accelerator.exact or model.runtime.actual == "cpu":
        return torch.equal(sound, right)
    return torch.allclose(sound, right, atol=1e-3)


def assert_all_on(model: SmallModel, device: str) -> None:
    """Walks every parameter and buffer."""
    assert model.runtime.actual in (device, device.removesuffix(":0"))
    built = model.runtime.way.parts
    assert stray_tensors(built, device) == []
    # Moved inside a request, tensors must not have become fit for inference mode only.
    assert not any(tensor.is_inference() for _, tensor in tensors(built))
    assert set(model.runtime.info(built)["components"].values()) == {device}


def assert_fell_back(
    model: SmallModel, caplog: pytest.LogCaptureFixture, device: str, when: str, says: str
) -> None:
    """Everything is on the CPU; info has the reason; there is exactly one notice."""
    assert_all_on(model, "cpu")
    about = model.runtime.info({})["device"]
    assert about["requested"] == device
    assert about["actual"] == "cpu"
    assert says in about["reason"]
    assert model.runtime.pending
    [notice] = model.runtime.take_notices()
    assert notice.name == "fallback"
    assert notice.payload["from"] == device
    assert notice.payload["to"] == "cpu"
    assert notice.payload["reason"] == about["reason"]
    assert notice.payload["when"] == when
    # The host logs the notice as a warning.
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert not model.runtime.pending


def test_everything_works(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = SmallModel(accelerator.name).start()
    for seed in range(3):
        assert same(accelerator, model, model.generate(seed), expected(seed))
    assert_all_on(model, accelerator.placed)
    assert model.runtime.info({})["device"]["reason"] is None
    assert model.runtime.take_notices() == []
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert list(model.runtime.seconds) == ["proof", *PARTS, "warm-up"]
    memory = model.runtime.info(model.runtime.way.parts)["memory"]
    assert memory["t3"] > memory["s3gen"] > 0
    proof = model.runtime.info({})["device"]["proof"]
    assert proof["passed"]
    assert set(proof["components"]) == {"t3.logits", "s3gen.samples"}
    assert (model.subject.loads, model.changes) == (1, 1)


@pytest.mark.parametrize("component", PARTS)
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("error", ["unsupported", "placeholder", "out_of_memory", "bug"])
def test_a_component_does_not_move(
    accelerator: Any,
    expected: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture,
    component: str,
    nth: int,
    error: str,
) -> None:
    fault = accelerator.faults.add(move=component, nth=nth, error=error)
    model = SmallModel(accelerator.name).start()
    assert fault.hits == 1
    assert_fell_back(model, caplog, accelerator.name, "moving", f"moving {component} to {accelerator.name}")
    assert torch.equal(model.generate(4), expected(4))


@pytest.mark.parametrize("component", PARTS)
def test_without_fallback_a_component_that_does_not_move_is_an_error(
    accelerator: Any, caplog: pytest.LogCaptureFixture, component: str
) -> None:
    accelerator.faults.add(move=component, nth=2, error="unsupported")
    model = SmallModel(accelerator.name, fallback=False)
    with pytest.raises(ChatterbexError, match=f"moving {component} to {accelerator.name}") as caught:
        model.start()
    assert caught.value.reason == "device_unavailable"
    assert caught.value.details["component"] == component
    assert not model.runtime.ready
    assert model.runtime.take_notices() == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("operator", "component"),
    [("aten::linear", "t3"), ("aten::embedding", "t3"), ("aten::conv_transpose1d", "s3gen")],
)
@pytest.mark.parametrize("error", ["unsupported", "placeholder", "runtime", "out_of_memory"])
def test_an_operator_fails_while_generating(
    accelerator: Any,
    expected: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture,
    operator: str,
    component: str,
    error: str,
) -> None:
    model = SmallModel(accelerator.name).start()
    accelerator.faults.add(operator=operator, error=error, times=None)
    sound = model.generate(5)
    assert_fell_back(
        model,
        caplog,
        accelerator.name,
        "generating",
        f"generating on {accelerator.name} failed in {component}",
    )
    assert torch.equal(sound, expected(5))
    assert torch.equal(model.generate(6), expected(6))
    assert model.runtime.take_notices() == []


def test_the_warm_up_fails(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    accelerator.faults.add(operator="aten::istft", nth=2, error="channels")  # the first is in the proof
    model = SmallModel(accelerator.name).start()
    assert_fell_back(model, caplog, accelerator.name, "warm-up", f"the warm-up on {accelerator.name} failed")
    assert torch.equal(model.generate(1), expected(1))


def test_the_middle_of_the_third_request_fails(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = SmallModel(accelerator.name).start()
    for seed in (1, 2):
        assert same(accelerator, model, model.generate(seed), expected(seed))
    accelerator.faults.add(operator="aten::linear", nth=30, error="command_buffer")
    sound = model.generate(3)
    assert_fell_back(model, caplog, accelerator.name, "generating", "failed in t3")
    assert torch.equal(sound, expected(3))
    assert torch.equal(model.generate(4), expected(4))


def test_memory_runs_out_while_moving(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = accelerator.allocated()
    if accelerator.name == "mps":
        accelerator.simulation.pool.limit = before + 6000
    else:
        accelerator.faults.add(move="s3gen", error="out_of_memory")
    model = SmallModel(accelerator.name).start()
    assert_fell_back(model, caplog, accelerator.name, "moving", "out of memory")
    assert accelerator.allocated() == before
    assert torch.equal(model.generate(1), expected(1))


def test_memory_runs_out_while_generating(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = accelerator.allocated()
    model = SmallModel(accelerator.name).start()
    # After the figures and the warm-up, whose memory was released.
    accelerator.faults.add(operator="aten::linear", error="out_of_memory", times=None)
    sound = model.generate(2)
    assert_fell_back(model, caplog, accelerator.name, "generating", "out of memory")
    assert torch.equal(sound, expected(2))
    # The keys and values of the failed attempt are gone too.
    assert accelerator.allocated() == before


def test_too_little_memory_is_seen_before_anything_moves(
    mps: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    mps.memory = 2**20
    fault = mps.faults.add(move="*")
    model = SmallModel("mps").start()
    assert fault.seen == 0
    assert_fell_back(model, caplog, "mps", "moving", "mps has 0.0 GiB of memory left")
    assert torch.equal(model.generate(2), expected(2))
    with pytest.raises(ChatterbexError) as caught:
        SmallModel("mps", fallback=False).start()
    assert caught.value.reason == "out_of_memory"


def test_it_fails_twice(accelerator: Any, expected: Callable[[int], Any]) -> None:
    model = SmallModel(accelerator.name).start()
    accelerator.faults.add(operator="aten::linear", nth=5, error="placeholder")
    message = "the CPU failed as well"
    accelerator.faults.add(operator="aten::linear", device="cpu", nth=1, error="runtime", message=message)
    with pytest.raises(RuntimeError):
        model.generate(1)
    assert_all_on(model, "cpu")
    assert len(model.runtime.take_notices()) == 1
    assert torch.equal(model.generate(2), expected(2))
    assert model.runtime.take_notices() == []


@pytest.mark.parametrize(
    ("error", "reason"), [("unsupported", "device_unavailable"), ("out_of_memory", "out_of_memory")]
)
def test_without_fallback_a_failed_request_is_an_error(
    accelerator: Any,
    expected: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture,
    error: str,
    reason: str,
) -> None:
    model = SmallModel(accelerator.name, fallback=False).start()
    accelerator.faults.add(operator="aten::linear", nth=9, error=error)
    with pytest.raises(ChatterbexError, match="fallback: true") as caught:
        model.generate(1)
    assert caught.value.reason == reason
    assert caught.value.details["component"] == "t3"
    assert "Traceback" in caught.value.details["traceback"]
    assert_all_on(model, accelerator.placed)
    assert model.runtime.take_notices() == []
    assert caplog.records == []
    assert same(accelerator, model, model.generate(2), expected(2))


def test_a_bug_is_not_a_device_failure(accelerator: Any) -> None:
    model = SmallModel(accelerator.name).start()

    def mistake() -> None:
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    with pytest.raises(AttributeError):
        model.runtime.run(mistake)
    with pytest.raises(RuntimeError, match="shape"):
        model.runtime.run(lambda: torch.zeros(2, 3, device=accelerator.name).view(5))
    with pytest.raises(ChatterbexError):
        model.runtime.run(_bad_request)
    assert_all_on(model, accelerator.placed)


def _bad_request() -> None:
    raise ChatterbexError("invalid_text", "an mps of words")


class Forgetful(torch.nn.Module):
    """A module as in the public mistake: `.to` leaves a part of it behind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.kept = [torch.ones(2)]


def test_a_tensor_left_behind_is_detected(accelerator: Any) -> None:
    report = place({"s3gen": Forgetful()}, accelerator.name)
    assert not report.ok
    assert report.component == "s3gen"
    assert "s3gen.kept.0 on cpu" in report.reason


def test_an_interrupt_ends_the_start(accelerator: Any) -> None:
    class Interrupted(SmallSubject):
        def warm_up(self, way: Any) -> None:
            raise KeyboardInterrupt

    model = SmallModel(accelerator.name, subject=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        model.start()
    assert not model.runtime.ready


# -- weights are loaded again, never copied back ---------------------------------------------------------


def test_nothing_that_was_on_the_device_is_used_again(
    accelerator: Any, expected: Callable[[int], Any]
) -> None:
    """A broken device may have spoiled the weights."""
    model = SmallModel(accelerator.name).start()
    with torch.no_grad():
        for parameter in model.runtime.way.parts["t3"].parameters():
            parameter.mul_(3)
    accelerator.faults.add(operator="aten::linear", error="runtime")
    assert torch.equal(model.generate(5), expected(5))
    assert model.subject.loads == 2


def test_a_model_that_cannot_be_loaded_again_is_given_up(accelerator: Any) -> None:
    made = iter([parts()])

    def once() -> Any:
        try:
            return next(made)
        except StopIteration:
            raise OSError("the files are gone") from None

    model = SmallModel(accelerator.name, subject=SmallSubject(once)).start()
    accelerator.faults.add(operator="aten::linear", error="runtime")
    with pytest.raises(ModelBrokenError, match="the files are gone") as caught:
        model.generate(1)
    assert caught.value.reason == "device_unavailable"
    assert not model.runtime.ready


# -- silent failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "component"),
    [
        ("aten::linear", "t3.logits"),
        ("aten::embedding", "t3.logits"),
        ("aten::scaled_dot_product_attention", "t3.logits"),
        ("aten::conv1d", "s3gen.samples"),
        ("aten::conv_transpose1d", "s3gen.samples"),
        ("aten::istft", "s3gen.samples"),
    ],
)
@pytest.mark.parametrize("error", ["wrong", "nan"])
def test_wrong_results_are_seen_before_the_model_is_ready(
    mps: Any,
    expected: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture,
    operator: str,
    component: str,
    error: str,
) -> None:
    mps.faults.add(operator=operator, error=error, times=None)
    model = SmallModel("mps").start()
    says = f"the proof on mps failed: mps computes wrong results: {component}"
    assert_fell_back(model, caplog, "mps", "proof", says)
    assert model.runtime.info({})["device"]["proof"] is None
    assert torch.equal(model.generate(1), expected(1))


def test_without_fallback_wrong_results_are_an_error(mps: Any) -> None:
    mps.faults.add(operator="aten::conv1d", error="wrong", times=None)
    with pytest.raises(ChatterbexError, match="computes wrong results: s3gen") as caught:
        SmallModel("mps", fallback=False).start()
    assert caught.value.reason == "device_unavailable"


def test_permuted_weights_fail_the_proof(expected: Callable[[int], Any]) -> None:
    """As S3Gen's were, when they had been packed for the CPU before they moved (pytorch issue 192212)."""
    import simulated_mps

    class Permuting(SmallSubject):
        def parts(self, loaded: Any) -> Any:
            norm = torch.nn.utils.parametrize.remove_parametrizations
            conv = loaded["s3gen"].norm
            norm(conv, "weight")
            packed = conv.weight.detach().permute(2, 1, 0).contiguous()
            conv.weight = torch.nn.Parameter(packed.permute(2, 1, 0))
            return loaded

    if simulated_mps.missing():
        pytest.skip(f"no simulated MPS device: {simulated_mps.missing()}")
    with simulated_mps.device(quirks=["pytorch-192212"]):
        model = SmallModel("mps", subject=Permuting()).start()
        assert "s3gen.samples differs from the CPU" in model.runtime.reason
        assert torch.equal(model.generate(1), expected(1))
        # Weights as the checkpoint stores them are right on the same device.
        assert SmallModel("mps").start().runtime.actual == "mps"


# -- memory -------------------------------------------------------------------------------------------------


def test_fewer_requests_at_a_time_if_not_all_fit(mps: Any) -> None:
    mps.memory = 64 * 2**20
    row = 10 * 2**20
    model = SmallModel("mps", subject=SmallSubject(row=row), batch=8).start()
    assert model.runtime.actual == "mps"
    assert model.runtime.batch == model.runtime.way.batch == 6
    assert "6 requests at a time instead of 8" in model.runtime.info({})["device"]["limited"]


def test_out_of_memory_halves_the_batch_before_the_device_is_given_up(
    accelerator: Any, expected: Callable[[int], Any]
) -> None:
    model = SmallModel(accelerator.name, batch=8).start()
    accelerator.faults.add(operator="aten::linear", nth=3, error="out_of_memory")
    assert same(accelerator, model, model.generate(5), expected(5))
    assert model.runtime.actual != "cpu"
    assert model.runtime.batch == model.runtime.way.batch == 4
    assert "4 requests at a time instead of 8" in model.runtime.info({})["device"]["limited"]
    assert model.runtime.take_notices() == []
    # Only a request that does not fit even alone goes to the CPU.
    accelerator.faults.add(operator="aten::linear", error="out_of_memory", times=None)
    assert torch.equal(model.generate(6), expected(6))
    assert model.runtime.actual == "cpu"
    assert model.runtime.batch == 8
    assert len(model.runtime.take_notices()) == 1


def test_mps_releases_its_memory_after_each_request(mps: Any) -> None:
    model = SmallModel("mps").start()
    before = mps.pool.emptied
    model.generate(1)
    model.generate(2)
    assert mps.pool.emptied == before + 2


def test_an_operator_that_pytorch_computes_on_the_cpu_is_not_a_failure(
    monkeypatch: pytest.MonkeyPatch, expected: Callable[[int], Any]
) -> None:
    import simulated_mps
    from chatterbex.device import prepare_environment

    if simulated_mps.missing():
        pytest.skip(f"no simulated MPS device: {simulated_mps.missing()}")
    environment: dict[str, str] = {}
    prepare_environment(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with simulated_mps.device() as mps:
        fault = mps.faults.add(operator="aten::istft", error="missing", times=None)
        model = SmallModel("mps").start()
        assert torch.equal(model.generate(1), expected(1))
        assert model.runtime.actual == "mps"
        assert fault.hits > 1


def test_stray_tensors_are_named_in_the_error() -> None:
    strays = stray_tensors({"t3": [torch.ones(1) for _ in range(5)]}, "mps")
    error = StrayTensorsError(strays, "mps")
    assert str(error) == "not everything is on mps: t3.0 on cpu, t3.1 on cpu, t3.2 on cpu and 2 more"


def test_without_a_device_nothing_moves(expected: Callable[[int], Any]) -> None:
    model = SmallModel("cpu").start()
    assert_all_on(model, "cpu")
    assert model.runtime.proof is None
    assert torch.equal(model.generate(3), expected(3))
