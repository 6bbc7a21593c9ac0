"""What a precision means, and which ones "auto" accepts and refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from running import load, say
from running import request as asked

from chatterbex import s3gen
from chatterbex.device import processor
from chatterbex.errors import ChatterbexError
from chatterbex.models import passes
from chatterbex.models.turbo import NanoModel
from chatterbex.precision import (
    LIMITS,
    ROWS,
    Limits,
    Precision,
    Verdict,
    Verdicts,
    kept,
    measurement,
    on_cpu,
    on_gpu,
    verdict,
)
from chatterbex.t3 import T3, T3Conditionals, T3CpuPass, T3Request, T3Session
from synthetic import outliers
from synthetic import t3 as synthetic_t3

# Random weights give nearly flat distributions, so the likeliest token changes easily.
LENIENT = replace(LIMITS, changed_tokens=0.2)


@pytest.fixture(params=[True, False], ids=["bfloat16", "no bfloat16"])
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor is one that multiplies bfloat16."""
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: request.param)
    return request.param


# -- what a precision means ----------------------------------------------------------------------------


def test_a_precision_is_the_lowest_that_a_part_may_use(half: bool) -> None:
    flow = "bfloat16" if half else "float32"
    assert on_cpu("float32") == Precision("float32", "float32")
    assert on_cpu("bfloat16") == Precision("float32", flow)
    assert on_cpu("int8") == Precision("int8", flow)
    assert {on_gpu(name, "mps") for name in ("float32", "bfloat16", "int8", "auto")} == {Precision()}
    assert [on_gpu(name, "cuda").t3 for name in ("float32", "bfloat16", "int8", "auto")] == [
        "float32",
        "bfloat16",
        "bfloat16",
        "float32",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name\t: A CPU\nflags\t\t: fpu avx512f avx512_bf16 amx\n", True),
        ("model name\t: A CPU\nflags\t\t: fpu amx_bf16\n", True),
        ("model name\t: A CPU\nflags\t\t: fpu avx512f avx512_bf16x\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_a_processor_multiplies_bfloat16_if_the_system_says_so(
    tmp_path: Path, text: str | None, expected: bool
) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert processor.multiplies_bfloat16(file) == expected
    assert processor.name(file) == "A CPU" if text and "model" in text else processor.name(file)


def test_a_precision_that_does_not_exist_is_refused(folder: Callable[[str], Path]) -> None:
    with pytest.raises(ChatterbexError, match="float32, bfloat16, int8, auto, not 'int4'"):
        load(NanoModel, folder("nano"), precision="int4")


# -- measuring -----------------------------------------------------------------------------------------


def t3_figures(factor: float, name: str = "nano") -> dict[str, float]:
    config = synthetic_t3.tiny(name)
    t3 = T3.from_state_dict(config, outliers.t3(synthetic_t3.state_dict(config), config, factor))
    voice = T3Conditionals.from_mapping(synthetic_t3.conditionals(config, prompt=20))
    make = lambda precision: T3CpuPass(t3, ROWS, threads=1, precision=precision)  # noqa: E731
    return measurement.t3_error(make, "int8", t3.front, voice, synthetic_t3.text_tokens(config, 9))


@pytest.mark.parametrize("name", ["nano", "english"])
def test_outliers_are_refused_and_the_plain_weights_are_not(name: str) -> None:
    plain, outlying = t3_figures(1.0, name), t3_figures(20.0, name)
    assert plain["positions"] == 512
    assert verdict._judged("int8", plain, LENIENT)["passed"], plain
    assert outlying["kl_divergence"] > 3 * plain["kl_divergence"]
    judged = verdict._judged("int8", t3_figures(200.0, name), LENIENT)
    assert not judged["passed"], judged
    assert judged["kl_divergence"] > LIMITS.kl_divergence


@pytest.mark.parametrize("name", ["nano", "english"])
def test_the_proof_compares_what_a_session_computes(name: str) -> None:
    config = synthetic_t3.tiny(name)
    t3 = T3.from_state_dict(config, synthetic_t3.state_dict(config))
    voice = T3Conditionals.from_mapping(synthetic_t3.conditionals(config, prompt=20))
    text = synthetic_t3.text_tokens(config, 9)
    way = T3CpuPass(t3, ROWS, threads=1)
    _, [_, speech, *_] = measurement._speak(way, t3.front, voice, text, None)
    session = T3Session(t3.front, way, max_batch=1)
    session.admit(T3Request("a", text, voice, seed=1, max_tokens=20, detect_runaway=False))
    heard = [event.token for _ in range(40) if session.busy for event in session.step()]
    assert heard == [token if token < config.speech_codes else None for token in speech[:20]]


def test_float32_compared_with_itself_differs_in_nothing() -> None:
    config = synthetic_t3.tiny("nano")
    t3 = T3.from_state_dict(config, synthetic_t3.state_dict(config))
    voice = T3Conditionals.from_mapping(synthetic_t3.conditionals(config, prompt=20))
    figures = measurement.t3_error(
        lambda _precision: T3CpuPass(t3, ROWS, threads=1), "float32", t3.front, voice, [5, 6]
    )
    assert (figures["kl_divergence"], figures["changed_tokens"]) == (0, 0)


def test_a_flow_in_bfloat16_is_close_and_one_in_float32_is_the_same(meanflow: Any, reference: Any) -> None:
    network = meanflow[0].network
    same = measurement.flow_error(partial(_flow, network), "float32", reference)
    assert same == {"mel_snr": float("inf"), "waveform_snr": float("inf")}
    close = measurement.flow_error(partial(s3gen.S3GenCpuPass, network), "bfloat16", reference)
    assert LIMITS.mel_snr < close["mel_snr"] < 60
    assert LIMITS.waveform_snr < close["waveform_snr"] < 60


def _flow(network: Any, precision: str) -> s3gen.S3GenCpuPass:
    assert precision == "float32"
    return s3gen.S3GenCpuPass(network)


@pytest.mark.parametrize(
    ("figures", "passed"),
    [
        ({"kl_divergence": 0.002, "changed_tokens": 0.01}, True),
        ({"kl_divergence": 0.0021, "changed_tokens": 0.0}, False),
        ({"kl_divergence": 0.0, "changed_tokens": 0.011}, False),
        ({"kl_divergence": float("nan"), "changed_tokens": 0.0}, False),
        ({"mel_snr": 35.0, "waveform_snr": 30.0}, True),
        ({"mel_snr": 34.9, "waveform_snr": 60.0}, False),
        ({"mel_snr": 60.0, "waveform_snr": 29.9}, False),
        ({"mel_snr": 60.0, "waveform_snr": float("nan")}, False),
    ],
)
def test_each_limit_counts(figures: dict[str, float], passed: bool) -> None:
    judged = verdict._judged("int8", figures, LIMITS)
    assert judged["passed"] == passed
    json.dumps(judged, allow_nan=False)


def test_each_part_uses_the_precision_that_passed() -> None:
    t3, flow = {"precision": "int8", "passed": True}, {"precision": "bfloat16", "passed": False}
    assert Verdict(t3, flow, {}, "A CPU").precision == Precision("int8", "float32")
    assert Verdict(None, {**flow, "passed": True}, {}, "A CPU").precision == Precision("float32", "bfloat16")
    assert Verdict(None, None, {}, "A CPU").precision == Precision()


# -- keeping -------------------------------------------------------------------------------------------


class Counting:
    """Returns a verdict, and counts the calls."""

    verdict = Verdict({"precision": "int8", "passed": True}, None, asdict(LIMITS), "A CPU")

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Verdict:
        self.asked += 1
        return self.verdict


@pytest.fixture
def files(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    for name in ("t3.safetensors", "conds.pt"):
        (place / name).write_bytes(name.encode())
    return place


def verdicts(tmp_path: Path, files: Path) -> Verdicts:
    return Verdicts(tmp_path / "cache", "nano", files, ["t3.safetensors", "conds.pt"])


def test_a_measurement_is_kept(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Counting()
    for _ in range(2):
        assert verdicts(tmp_path, files).of([1, 2], measure) == measure.verdict
        # Files that have not changed are not read again.
        monkeypatch.setattr(kept, "_checksum", None)
    assert measure.asked == 1
    [path] = (tmp_path / "cache").glob("nano-*.json")
    assert json.loads(path.read_text())["folder"] == str(files)


def _change_a_file(files: Path, _patch: pytest.MonkeyPatch) -> None:
    (files / "conds.pt").write_bytes(b"another")


def _change_the_processor(_files: Path, patch: pytest.MonkeyPatch) -> None:
    before = processor.multiplies_bfloat16()
    patch.setattr(processor, "multiplies_bfloat16", lambda: not before)


def _change_the_code(_files: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(kept, "_code", lambda: "other")


def _change_torch(_files: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "__version__", "0.0")


def _damage_what_is_kept(files: Path, _patch: pytest.MonkeyPatch) -> None:
    for path in (files.parent / "cache").glob("*.json"):
        path.write_text('{"t3":')


def _make_it_no_verdict(files: Path, _patch: pytest.MonkeyPatch) -> None:
    for path in (files.parent / "cache").glob("nano-*.json"):
        path.write_text(path.read_text().replace("int8", "int4"))


@pytest.mark.parametrize(
    "change",
    [
        _change_a_file,
        _change_the_processor,
        _change_the_code,
        _change_torch,
        _damage_what_is_kept,
        _make_it_no_verdict,
    ],
)
def test_it_is_measured_again_when_a_dependency_changes(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    measure = Counting()
    verdicts(tmp_path, files).of([1, 2], measure)
    change(files, monkeypatch)
    verdicts(tmp_path, files).of([1, 2], measure)
    assert measure.asked == 2
    verdicts(tmp_path, files).of([1, 2], measure)
    assert measure.asked == 2
    verdicts(tmp_path, files).of([1, 3], measure)
    assert measure.asked == 3
    verdicts(tmp_path, files).of([1, 3], measure, replace(LIMITS, mel_snr=36.0))
    assert measure.asked == 4


def test_a_folder_that_cannot_be_written_to_costs_only_time(tmp_path: Path, files: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    measure = Counting()
    assert verdicts(tmp_path, files).of([1], measure) == measure.verdict
    assert measure.asked == 1


# -- a whole model -------------------------------------------------------------------------------------


def test_auto_measures_once_and_uses_the_precision_that_passed(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    cache = tmp_path / "precision"
    model = load(NanoModel, folder("nano"), precision="auto", cache=str(cache))
    about = model.info()["precision"]
    model.close()
    found = about["verdict"]
    assert about["requested"] == "auto"
    assert about["flow"] == "bfloat16"
    assert found["flow"]["passed"]
    assert about["t3"] == ("int8" if found["t3"]["passed"] else "float32")
    assert found["limits"] == asdict(Limits())
    assert len(os.listdir(cache)) == 2

    monkeypatch.setattr(passes, "measure", None)
    model = load(NanoModel, folder("nano"), precision="auto", cache=str(cache))
    assert model.info()["precision"] == about
    assert len(say(model, asked()).samples()) > 0
    model.close()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(kl_divergence=0.0, mel_snr=90.0), ("float32", "float32")),
        (Limits(changed_tokens=0.5, waveform_snr=90.0), ("int8", "float32")),
        (Limits(changed_tokens=0.0), ("float32", "bfloat16")),
    ],
)
def test_auto_refuses_a_precision_over_a_limit(
    folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    limits: Limits,
    expected: tuple[str, str],
) -> None:
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    monkeypatch.setitem(verdict.measure.__kwdefaults__, "limits", limits)
    model = load(NanoModel, folder("nano"), precision="auto")
    about = model.info()["precision"]
    model.close()
    assert (about["t3"], about["flow"]) == expected
    assert about["verdict"]["limits"] == asdict(limits)


def test_int8_brings_a_flow_in_bfloat16(folder: Callable[[str], Path], half: bool) -> None:
    model = load(NanoModel, folder("nano"), precision="int8")
    about = model.info()["precision"]
    model.close()
    assert (about["t3"], about["flow"]) == ("int8", "bfloat16" if half else "float32")
    assert about["verdict"] is None
