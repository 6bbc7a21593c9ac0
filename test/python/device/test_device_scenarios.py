"""A model's way to a device and back: after each failure all of it is on one side."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from small_model import SmallModel, components, get_resampler  # noqa: E402

from chatterbex.device import Placement, Runtime, StrayTensorsError, stray_tensors, tensors  # noqa: E402
from chatterbex.errors import ChatterbexError, ModelBrokenError  # noqa: E402

COMPONENTS = ("t3", "s3gen", "conds.t3", "conds.gen")


@pytest.fixture(scope="module")
def expected() -> Callable[[int], Any]:
    """What the CPU says for a seed."""
    model = SmallModel("cpu").start()
    return lambda seed: model.generate(seed)


def same(accelerator: Any, model: SmallModel, sound: Any, right: Any) -> bool:
    """Whether a sound is the CPU's: to the bit, but where real hardware computed it."""
    if accelerator.exact or model.runtime.actual == "cpu":
        return torch.equal(sound, right)
    return torch.allclose(sound, right, atol=1e-3)


def assert_all_on(model: SmallModel, device: str) -> None:
    """Walks every parameter, buffer and conditional."""
    assert model.runtime.actual == device.removesuffix(":0") or model.runtime.actual == device
    assert model.device == model.runtime.actual
    assert stray_tensors(model.runtime.components, device) == []
    # Moved inside a request, tensors must not have become fit for inference mode only.
    assert not any(tensor.is_inference() for _, tensor in tensors(model.runtime.components))
    info = model.runtime.info()
    assert set(info["components"]) == set(COMPONENTS)
    assert set(info["components"].values()) == {device}


def assert_fell_back(
    model: SmallModel, caplog: pytest.LogCaptureFixture, device: str, when: str, says: str
) -> None:
    """Everything on the CPU; the reason in info; one notice, which is all that is said."""
    assert_all_on(model, "cpu")
    about = model.runtime.info()["device"]
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
    # The host warns of the notice.
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert not model.runtime.pending


def test_everything_works(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = SmallModel(accelerator.name).start()
    for seed in range(3):
        assert same(accelerator, model, model.generate(seed), expected(seed))
    assert_all_on(model, accelerator.placed)
    assert model.runtime.info()["device"]["reason"] is None
    assert model.runtime.take_notices() == []
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert list(model.runtime.report.seconds) == [*COMPONENTS, "warm-up"]
    memory = model.runtime.info()["memory"]
    assert memory["t3"] > memory["s3gen"] > memory["conds.t3"] > 0


@pytest.mark.parametrize("component", COMPONENTS)
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


@pytest.mark.parametrize("component", COMPONENTS)
def test_without_fallback_a_component_that_does_not_move_is_an_error(
    accelerator: Any, caplog: pytest.LogCaptureFixture, component: str
) -> None:
    accelerator.faults.add(move=component, nth=2, error="unsupported")
    model = SmallModel(accelerator.name, fallback=False)
    with pytest.raises(ChatterbexError, match=f"moving {component} to {accelerator.name}") as caught:
        model.start()
    assert caught.value.reason == "device_unavailable"
    assert caught.value.details["component"] == component
    assert_all_on(model, "cpu")
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
    accelerator.faults.add(operator="aten::istft", error="channels")
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
    get_resampler.cache_clear()
    if accelerator.name == "mps":
        accelerator.simulation.pool.limit = accelerator.allocated() + 2000
    else:
        accelerator.faults.add(operator="aten::linear", error="out_of_memory")
    sound = model.generate(2)
    assert_fell_back(model, caplog, accelerator.name, "generating", "out of memory")
    assert torch.equal(sound, expected(2))
    # The keys and values of the failed attempt are gone, too.
    assert accelerator.allocated() == before


def test_too_little_memory_is_seen_before_anything_moves(
    mps: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    mps.memory = 64 * 2**20
    fault = mps.faults.add(move="*")
    model = SmallModel("mps").start()
    assert fault.seen == 0
    assert_fell_back(model, caplog, "mps", "moving", "mps has 0.1 GiB of memory left")
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


def test_a_mistake_in_the_program_is_no_failure_of_the_device(accelerator: Any) -> None:
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


class Forgetful(dict):
    """Conditionals as in the public mistake: `.to` leaves some of them behind."""

    def to(self, device: str) -> Forgetful:
        """Moves all but the prompt."""
        self["embedding"] = self["embedding"].to(device)
        return self


def test_conditionals_left_behind_are_seen(
    accelerator: Any, expected: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    parts = components()
    parts["conds.gen"] = Forgetful(parts["conds.gen"])
    model = SmallModel(accelerator.name, parts=parts).start()
    assert_fell_back(model, caplog, accelerator.name, "moving", f"moving conds.gen to {accelerator.name}")
    assert "conds.gen.prompt_token on cpu" in model.runtime.reason
    assert torch.equal(model.generate(1), expected(1))


def test_conditionals_left_behind_fail_where_they_are_used(accelerator: Any) -> None:
    parts = components()
    for name in ("t3", "s3gen", "conds.t3"):
        parts[name] = parts[name].to(accelerator.name)
    left = stray_tensors(parts, accelerator.name)
    assert [stray.path for stray in left] == ["conds.gen.prompt_token", "conds.gen.embedding"]
    tokens = torch.tensor([[1, 2, 3]], device=accelerator.name)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"Placeholder storage|same device"):
        parts["s3gen"](tokens, parts["conds.gen"])


def test_what_a_callback_leaves_behind_is_seen(accelerator: Any) -> None:
    parts = components()

    def spoil(device: str) -> None:
        if device != "cpu":
            parts["conds.gen"]["embedding"] = parts["conds.gen"]["embedding"].cpu()

    placement = Placement(parts, after=[spoil])
    report = placement.place(accelerator.name)
    assert "conds.gen.embedding on cpu" in report.reason
    assert stray_tensors(parts, "cpu") == []


def test_a_component_may_be_exempt(accelerator: Any) -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = torch.nn.Linear(2, 2)
            self.kept = [torch.ones(2)]

    placement = Placement({"s3gen": Holder()}, exempt=["s3gen.kept"])
    assert placement.place(accelerator.name).ok
    assert [stray.path for stray in stray_tensors(placement.components, accelerator.name)] == ["s3gen.kept.0"]
    assert placement.strays() == []


class Stuck(torch.nn.Module):
    """A module that a dead device does not give back."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def to(self, device: str) -> Stuck:
        """Goes there and does not come back."""
        if device == "cpu":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().to(device)


def test_a_model_that_does_not_come_back_is_loaded_anew(accelerator: Any) -> None:
    parts = {"t3": Stuck()}
    runtime = Runtime(parts, requested=accelerator.name, restore=lambda: {"t3": Stuck()})
    runtime._placement.place(accelerator.name)
    calls = iter([RuntimeError(f"{accelerator.name} is dead: CUDA error, MPS error"), None])

    def step() -> str:
        error = next(calls)
        if error is not None:
            raise error
        return "spoken"

    assert runtime.run(step) == "spoken"
    assert stray_tensors(runtime.components, "cpu") == []


def test_a_model_that_does_not_come_back_is_given_up(accelerator: Any) -> None:
    placement = Placement({"t3": Stuck()})
    placement.place(accelerator.name)
    with pytest.raises(ModelBrokenError, match="illegal memory access") as caught:
        placement.retreat()
    assert caught.value.reason == "device_unavailable"


def test_resamplers_are_forgotten_when_the_model_moves(accelerator: Any) -> None:
    model = SmallModel(accelerator.name)
    model.generate(1)
    assert get_resampler.cache_info().currsize == 1
    model.start()
    model.generate(1)
    model.runtime._placement.retreat()
    assert get_resampler.cache_info().currsize == 0


def test_an_interrupt_leaves_nothing_half_moved(accelerator: Any) -> None:
    parts = components()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Placement(parts).place(accelerator.name, warm_up=interrupt)
    assert stray_tensors(parts, "cpu") == []


def test_mps_gives_its_memory_back_after_each_request(mps: Any) -> None:
    model = SmallModel("mps").start()
    before = mps.pool.emptied
    model.generate(1)
    model.generate(2)
    assert mps.pool.emptied == before + 2


def test_an_operator_that_pytorch_can_compute_on_the_cpu_is_no_failure(
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
    assert model.runtime.report is None
    assert torch.equal(model.generate(3), expected(3))
