"""The simulated device refuses the same as MPS, and computes the same as the CPU."""

from __future__ import annotations

import copy
import gc
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn import functional  # noqa: E402

import simulated_mps  # noqa: E402

MODES = [torch.inference_mode, torch.no_grad, torch.enable_grad]


@pytest.fixture(params=MODES, ids=lambda mode: mode.__name__)
def mode(request: pytest.FixtureRequest) -> Any:
    """Each way of running, because PyTorch dispatches operators differently in each."""
    with request.param():
        yield


def noise(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


COMPUTATIONS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (x * 2 + 1 - x.mean()).clamp(min=0).to(torch.float16).float(),
    "matmul": lambda x: x @ x.transpose(0, 1) + x.t().sum(),
    "views": lambda x: x.reshape(2, -1)[:, 1::2].unsqueeze(0).expand(3, -1, -1).contiguous().flatten(),
    "indexing": lambda x: x[torch.tensor([2, 0])][:, x[0] > 0],
    "sorting": lambda x: x.sort(descending=True)[0] + x.topk(2)[1].sum() + x.argmax(),
    "joining": lambda x: torch.cat([x, torch.stack([x[0], x[1]])]).chunk(2)[1],
    "where": lambda x: torch.where(x > 0, x, 0.0).masked_fill(x < -1, 5.0),
    "scatter": lambda x: x.scatter(1, torch.zeros(4, 1, dtype=torch.long, device=x.device), x[:, :1]),
    "convolution": lambda x: functional.conv1d(x[None], torch.ones(2, 4, 3, device=x.device), padding=1),
    "transposed": lambda x: functional.conv_transpose1d(x[None], torch.ones(4, 2, 3, device=x.device)),
    "padding": lambda x: functional.pad(x[None], (1, 1), mode="reflect"),
    "interpolation": lambda x: functional.interpolate(x[None], scale_factor=2.0),
    "norm": lambda x: functional.layer_norm(x, (4,)) + functional.gelu(x).softmax(-1),
    "attention": lambda x: functional.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None]
    ),
    "spectrum": lambda x: torch.istft(
        torch.stft(x.flatten(), 8, 2, window=torch.hann_window(8, device=x.device), return_complex=True),
        8,
        2,
        window=torch.hann_window(8, device=x.device),
    ),
    "complex": lambda x: torch.view_as_real(torch.complex(x, x).conj() * torch.polar(x.abs(), x)),
    "factories": lambda x: (
        torch.arange(4, device=x.device) + torch.zeros_like(x) + x.new_ones(4) + torch.eye(4).to(x)
    ),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x).cumsum(0).unfold(0, 2, 1),
    "noise": lambda x: x + torch.randn_like(x) + torch.multinomial(x.abs(), 4),
}


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_it_computes_what_the_cpu_computes(mps: Any, mode: None, name: str) -> None:
    x = noise(4, 4)
    torch.manual_seed(1)
    expected = COMPUTATIONS[name](x)
    torch.manual_seed(1)
    result = COMPUTATIONS[name](x.to("mps"))
    assert result.device == torch.device("mps:0")
    assert result.is_mps
    assert result.dtype == expected.dtype
    assert result.stride() == expected.stride()
    assert torch.equal(result.cpu(), expected)


def test_in_place_writes_reach_the_whole_tensor(mps: Any, mode: None) -> None:
    def write(x: Any) -> Any:
        view = x.view(-1)
        view[3:6].copy_(torch.ones(3))
        x[0] = 7
        x[:, 1] += 2
        x[torch.tensor([1]), torch.tensor([3])] = 9
        x[x < -1] = 0
        x.narrow(0, 2, 1).zero_()
        x.index_add_(0, torch.tensor([3], device=x.device), torch.ones(1, 4, device=x.device))
        again = x.add_(1)
        assert again is x
        x.t_()
        return x

    expected, result = write(noise(4, 4)), write(noise(4, 4).to("mps"))
    assert torch.equal(result.cpu(), expected)
    assert result.stride() == expected.stride()


def test_tensors_cross_by_copying(mps: Any, mode: None) -> None:
    cpu = noise(2, 2)
    there = cpu.to("mps")
    back = there.cpu()
    there.zero_()
    assert torch.equal(cpu, back)
    assert torch.equal(cpu, noise(2, 2))
    assert there.to("mps") is there
    assert there.tolist() == [[0, 0], [0, 0]]
    assert there.sum().item() == 0
    assert not bool(there.any())
    cpu.copy_(there)
    assert not cpu.any()
    assert torch.tensor([1, 2], device="mps").tolist() == [1, 2]
    assert torch.tensor(there).device.type == "mps"
    assert torch.as_tensor([1.5], device="mps").item() == 1.5
    assert repr(torch.ones(1, device="mps")) == "tensor([1.], device='mps:0')"


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], type[Exception], str]] = {
    "adding": (lambda cpu, mps: cpu + mps, RuntimeError, "Placeholder storage"),
    "multiplying": (lambda cpu, mps: mps @ cpu, RuntimeError, "Placeholder storage"),
    "joining": (lambda cpu, mps: torch.cat([cpu, mps]), RuntimeError, "Placeholder storage"),
    "joining numbers": (
        lambda cpu, mps: torch.stack([cpu[0, 0], mps[0, 0]]),
        RuntimeError,
        "Placeholder storage",
    ),
    "a linear layer": (
        lambda cpu, mps: functional.linear(mps, cpu, None),
        RuntimeError,
        "Placeholder storage",
    ),
    "attention": (
        lambda cpu, mps: functional.scaled_dot_product_attention(mps[None], mps[None], cpu[None]),
        RuntimeError,
        "Placeholder storage",
    ),
    "in place": (lambda cpu, mps: mps.add_(cpu), RuntimeError, "Placeholder storage"),
    "indices": (lambda cpu, mps: cpu[mps > 0], RuntimeError, "indices should be either on cpu"),
    "a number of the device": (lambda cpu, mps: cpu + mps.sum(), RuntimeError, "Placeholder storage"),
    "double": (lambda cpu, mps: mps.double(), TypeError, "doesn't support float64"),
    "moving doubles": (lambda cpu, mps: cpu.double().to("mps"), TypeError, "doesn't support float64"),
    "making doubles": (
        lambda cpu, mps: torch.zeros(1, dtype=torch.float64, device="mps"),
        TypeError,
        "doesn't support float64",
    ),
    "numpy": (lambda cpu, mps: mps.numpy(), TypeError, "can't convert mps:0 device type tensor"),
    "a generator": (
        lambda cpu, mps: torch.rand(1, device="mps", generator=torch.Generator()),
        RuntimeError,
        "Expected a 'mps' device type for generator",
    ),
    "another device": (lambda cpu, mps: cpu.to("mps:1"), RuntimeError, "there is one MPS device"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_the_same_as_mps(mps: Any, mode: None, name: str) -> None:
    call, kind, says = REFUSED[name]
    cpu = noise(2, 2)
    there = cpu.to("mps")
    with pytest.raises(kind, match=says):
        call(cpu, there)
    assert torch.equal(there.cpu(), noise(2, 2))


def test_a_number_on_the_cpu_mixes(mps: Any, mode: None) -> None:
    x = torch.ones(2, device="mps")
    assert (x * torch.tensor(3.0)).tolist() == [3, 3]
    assert (x + torch.tensor(1.0, dtype=torch.float64)).dtype == torch.float32


def test_arrays_are_refused(mps: Any) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match="can't convert mps:0"):
        numpy.asarray(torch.ones(1, device="mps"))


def test_generators_of_the_device(mps: Any) -> None:
    generator = torch.Generator("mps")
    assert generator.device.type == "mps"
    assert isinstance(torch.default_generator, torch.Generator)
    generator.manual_seed(4)
    first = torch.randn(3, device="mps", generator=generator)
    generator.manual_seed(4)
    assert torch.equal(first, torch.empty(3, device="mps").normal_(generator=generator))
    assert torch.Generator().device.type == "cpu"


class Shared(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.second = torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("buffer", torch.ones(1))
        self.recurrent = torch.nn.LSTM(3, 3, batch_first=True)


def test_modules_move_and_keep_their_parameters(mps: Any) -> None:
    module = Shared()
    weight, before = module.first.weight, module.first.weight.detach().clone()
    x = noise(1, 5, 3)
    expected = module.recurrent(x)[0]
    assert module.to("mps") is module
    assert module.first.weight is weight
    assert module.second.weight is weight
    assert isinstance(weight, torch.nn.Parameter)
    assert weight.requires_grad
    assert {value.device.type for value in module.state_dict().values()} == {"mps"}
    assert torch.equal(module.recurrent(x.to("mps"))[0].cpu(), expected)
    copied = copy.deepcopy(module)
    assert copied.first.weight.is_mps
    copied.load_state_dict({key: value.cpu() for key, value in module.state_dict().items()})
    # A view that somebody still holds, as the traceback of a failure does, must not hinder it.
    held = weight.unsqueeze(0)
    module.to("cpu")
    assert held.is_mps
    assert type(weight) is torch.nn.Parameter
    assert weight.device.type == "cpu"
    assert torch.equal(weight, before)


def test_a_parameters_data_can_be_set(mps: Any) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.data = parameter.data.to("mps")
    assert parameter.is_mps
    assert isinstance(parameter, torch.nn.Parameter)
    parameter.data = parameter.data.cpu() * 2
    assert parameter.tolist() == [2, 2]
    assert type(parameter) is torch.nn.Parameter


def test_tensors_can_be_saved(mps: Any) -> None:
    file = io.BytesIO()
    torch.save({"x": torch.ones(2, device="mps")}, file)
    file.seek(0)
    assert torch.load(file, weights_only=False)["x"].is_mps


def test_memory_is_counted_and_limited(mps: Any) -> None:
    x = torch.zeros(1000, device="mps")
    view = x[10:]
    assert torch.mps.current_allocated_memory() == 4000
    del x
    gc.collect()
    assert torch.mps.current_allocated_memory() == 4000
    del view
    gc.collect()
    assert torch.mps.current_allocated_memory() == 0
    mps.pool.limit = 1000
    with pytest.raises(RuntimeError, match="MPS backend out of memory"):
        torch.zeros(1000, device="mps")
    torch.mps.set_per_process_memory_fraction(1.0)
    torch.zeros(1000, device="mps")
    torch.mps.synchronize()
    assert torch.mps.recommended_max_memory() == 16 * 2**30


def test_faults_hit_when_they_are_due(mps: Any) -> None:
    x = torch.ones(2, device="mps")
    fault = mps.faults.add(operator="aten::mul*", nth=2, times=2, error="unsupported")
    assert (x * 2).tolist() == [2, 2]
    for _ in range(2):
        with pytest.raises(NotImplementedError, match="aten::mul"):
            x * 2
    assert (x * 2).tolist() == [2, 2]
    assert (fault.seen, fault.hits) == (4, 2)
    mps.faults.add(operator="aten::add", device="cpu", message="not today")
    x + 1
    with pytest.raises(RuntimeError, match="not today"):
        torch.ones(1) + 1
    mps.faults.add(operator="aten::sub", error="wrong")
    assert (x - 1).tolist() == [1, 1]
    mps.faults.add(move="*", nth=2)
    torch.ones(1).to("mps")
    with pytest.raises(RuntimeError):
        torch.ones(1).to("mps")
    mps.faults.clear()
    torch.ones(1).to("mps")
    with pytest.raises(ValueError, match="either"):
        mps.faults.add()
    with pytest.raises(ValueError, match="unknown error"):
        mps.faults.add(operator="x", error="x")


def test_a_missing_operator_obeys_pytorchs_fallback(monkeypatch: pytest.MonkeyPatch, mps: Any) -> None:
    mps.faults.add(operator="aten::mul", error="missing", times=None)
    x = torch.ones(1, device="mps")
    mps.faults.fallback_allowed = False
    with pytest.raises(NotImplementedError, match="not currently implemented for the MPS device"):
        x * 2
    mps.faults.fallback_allowed = True
    assert (x * 2).item() == 2


def test_long_convolutions_by_the_version_of_macos() -> None:
    if simulated_mps.missing():
        pytest.skip(f"no simulated MPS device: {simulated_mps.missing()}")
    for macos, fails in (((15, 0), True), ((15, 1), False)):
        with simulated_mps.device(macos=macos):
            assert torch.backends.mps.is_macos_or_newer(15, 1) is not fails
            x, weight = torch.ones(1, 1, 66_000, device="mps"), torch.ones(1, 1, 1, device="mps")
            if fails:
                with pytest.raises(NotImplementedError, match="Output channels > 65536"):
                    functional.conv1d(x, weight)
            else:
                functional.conv1d(x, weight)


def test_it_leaves_nothing_behind(mps: Any) -> None:
    assert torch.backends.mps.is_available()
    with pytest.raises(RuntimeError, match="already"):
        simulated_mps.install()
    simulated_mps.uninstall()
    assert not torch.backends.mps.is_available()
    assert torch.Generator is torch._C.Generator
    assert not torch.__future__.get_swap_module_params_on_conversion()
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(1, device="mps")
    simulated_mps.install()


def test_an_interpreter_out_of_reach_installs_it_on_import(tmp_path: Path, mps: Any) -> None:
    settings = tmp_path / "mps.json"
    settings.write_text(
        '{"macos": [15, 2], "memory": 1048576, "limit": 2048, "quirks": ["pytorch-180201"], "faults": []}'
    )
    script = """
import pathlib, sys
import simulated_mps.autoinstall
import torch
assert torch.mps.recommended_max_memory() == 1048576
x = torch.ones(4, device="mps")
x * 2
assert (torch.ones(1, 1, device="mps").expand(2, 1) @ x[:1, None]).tolist() == [[1], [0]]
try:
    torch.ones(4096, device="mps")
except RuntimeError as error:
    assert "out of memory" in str(error), error
path = pathlib.Path(sys.argv[1])
path.write_text('{"faults": [{"operator": "aten::mul", "error": "unsupported"}]}')
try:
    x * 2
except NotImplementedError:
    print("failed as told")
x * 2
"""
    folder = Path(simulated_mps.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(settings)],
        cwd=folder,
        env={**_environment(), "CHATTERBEX_SIMULATED_MPS": str(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "failed as told\n", done.stderr


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
