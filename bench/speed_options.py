"""Measures how much time the options that trade quality for speed save, on synthetic checkpoints.

    python bench/speed_options.py [nano] [turbo] [english] [--rounds N] [--threads N] [--tokens N] [--alone]

The variants of a model take turns within one process, so that a busy machine disturbs all of them equally:
compare the ratios. Each round has its own length, because real texts do too. Run it with the Python of
bin/test, like bench/upstream.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "priv" / "python"), str(HERE.parent / "test" / "python")]

import command_line
import torch
from chatterbex import registry
from chatterbex.device import processor
from chatterbex.model import Request
from upstream import TEXT, TEXTS, prepared, speech


def load(name: str, folder: Path, threads: int, **options: Any) -> Any:
    """A model on the CPU."""
    stages = registry.find(name).load(
        {"checkpoint": str(folder), "device": "cpu", "max_batch": 1, "threads": threads, **options}
    )
    while True:
        try:
            next(stages)
        except StopIteration as stop:
            return stop.value


def whole(model: Any, tokens: int, **options: Any) -> float:
    """Seconds of work per second of audio, from text to watermarked samples."""
    began, samples = time.perf_counter(), 0
    model.admit(request(model, tokens, False, options))
    while model.busy():
        samples += sum(len(chunk.samples) for chunk in model.step())
    return (time.perf_counter() - began) / (samples / model.sample_rate)


def first(model: Any, tokens: int, **options: Any) -> float:
    """Seconds to the first sound of a stream."""
    began = time.perf_counter()
    model.admit(request(model, tokens, True, options))
    while not any(len(chunk.samples) for chunk in model.step()):
        pass
    spent = time.perf_counter() - began
    model.cancel(1)
    return spent


def request(model: Any, tokens: int, stream: bool, options: dict[str, Any]) -> Request:
    """A request of exactly `tokens` tokens, in the built-in voice, whose prompt has 10 seconds."""
    text = TEXTS.get(model.name, TEXT)
    return Request(1, text, stream, {"seed": 1, "max_tokens": tokens, "retries": 0, **options})


def compare(
    what: str, variants: dict[str, Callable[[int], float]], options: argparse.Namespace, unit: str
) -> None:
    """Prints a line for each variant: its median, and its ratio to the first variant's."""
    figures: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds):
        for name, measure in variants.items():
            figures[name].append(measure(options.tokens + number))
    usual = median(figures[next(iter(variants))])
    for name, values in figures.items():
        middle = median(values)
        print(f"{what:<13}{name:<38}{middle:>8.3f} {unit:<18}{middle / usual:>6.2f}", flush=True)


def variants(name: str) -> dict[str, dict[str, Any]]:
    """The options of each variant, by its name in the table; "flow" says how the model is loaded."""
    asked: dict[str, dict[str, Any]] = {"as usual": {}}
    asked |= {f"reference_seconds: {seconds}": {"reference_seconds": seconds} for seconds in (5, 3)}
    if name != "english":
        return {**asked, "flow_steps: 1": {"flow_steps": 1}}
    distilled = {"flow": "meanflow"}
    asked["flow_steps: 5"] = {"flow_steps": 5}
    asked["flow: :meanflow"] = distilled
    asked["flow: :meanflow, reference_seconds: 3"] = {**distilled, "reference_seconds": 3}
    return asked


def measure_s3gen(name: str, options: argparse.Namespace) -> None:
    """Measures S3Gen alone, which the options affect."""
    from chatterbex import s3gen
    from chatterbex.s3gen import FlowOptions
    from synthetic import checkpoints
    from synthetic.s3gen import conditionals

    meanflow = checkpoints.checkpoint("nano") / "s3gen_meanflow.safetensors"
    passes = {"meanflow": s3gen.S3GenCpuPass(s3gen.load(meanflow, meanflow=True)[0])}
    if name == "english":
        own = checkpoints.checkpoint("english") / "s3gen.safetensors"
        passes["cfm"] = s3gen.S3GenCpuPass(s3gen.load(own, meanflow=False)[0])
    usual = "cfm" if name == "english" else "meanflow"
    voice = s3gen.Reference.from_mapping(conditionals(seed=5, seconds=10.0))

    def run(asked: dict[str, Any], tokens: int) -> float:
        way = passes[asked.get("flow", usual)]
        decoding = FlowOptions.of(asked).decoding(way, voice, 1, stream=False)
        began = time.perf_counter()
        samples = decoding.decode(speech(tokens), final=True)
        return (time.perf_counter() - began) / (len(samples) / s3gen.RATE)

    asked = variants(name)
    for one in asked.values():
        run(one, 10)
    compare("S3Gen", {what: partial(run, one) for what, one in asked.items()}, options, "s per s of audio")


def measure(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Whole requests, and the first sound of a stream."""
    models = {None: load(name, folder, options.threads)}
    if name == "english":
        from synthetic import checkpoints

        meanflow = checkpoints.checkpoint("nano") / "s3gen_meanflow.safetensors"
        (folder / meanflow.name).symlink_to(meanflow)
        models["meanflow"] = load(name, folder, options.threads, flow="meanflow")

    def run(how: Callable[..., float], asked: dict[str, Any], tokens: int) -> float:
        asked = dict(asked)
        return how(models[asked.pop("flow", None)], tokens, **asked)

    asked = variants(name)
    for one in asked.values():  # each way of computing once, for a short text
        run(whole, one, 10)
    wholes = {what: partial(run, whole, one) for what, one in asked.items()}
    compare("whole", wholes, options, "s per s of audio")
    one = {"first_chunk_steps": 1}
    streams = {
        "as usual": {},
        "first_chunk_steps: 1": one,
        "first_chunk_steps: 1, reference_seconds: 3": {**one, "reference_seconds": 3},
    }
    firsts = {what: partial(run, first, one) for what, one in streams.items()}
    compare("first sound", firsts, options, "s")


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = command_line.parser("speed_options.py", __doc__, tokens=100)
    parser.add_argument(
        "--alone", action="store_true", help="S3Gen alone: no checkpoint of full size is made"
    )
    options = command_line.parse(parser, arguments)
    torch.set_num_threads(options.threads)
    print(f"{processor.name()}, {options.threads} threads, {options.tokens / 25:g} s of speech")
    for name in options.models:
        print(f"\n{name}", flush=True)
        measure_s3gen(name, options)
        if not options.alone:
            with prepared(name) as folder:
                measure(name, folder, options)


if __name__ == "__main__":
    main(sys.argv[1:])
