"""Shows what a lower precision costs on the CPU: the figures that `precision: :auto` uses to decide.

    python bench/precision.py [nano] [turbo] [english] [--factors 1 20 100] [--threads N]
    python bench/precision.py [nano] [turbo] [english] --speed [--rounds N] [--tokens N]

With `--speed` it measures how fast the models speak instead. The precisions take turns in one process: compare
the ratios. The checkpoints are synthetic, of the published size, with a voice of 10 s. Factors say how much
larger some channels are than the others, as in trained transformers: see test/python/synthetic/outliers.py.

It needs the Python of bin/test (`bin/setup --dev`, `bin/test tools`) and the native library (`mix compile`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "priv" / "python"), str(HERE.parent / "test" / "python")]

import torch
import upstream
from chatterbex import registry, s3gen
from chatterbex.checkpoint import read_safetensors
from chatterbex.device import processor
from chatterbex.precision import LIMITS, ROWS, TEXT, measurement
from chatterbex.t3 import T3, T3CpuPass, T3Conditionals
from synthetic import outliers
from synthetic import s3gen as synthetic_s3gen
from synthetic import t3 as synthetic_t3
from synthetic.checkpoints import checkpoint


def t3_row(name: str, factor: float, folder: Path, threads: int) -> str:
    model, config = registry.find(name), synthetic_t3.full(name)
    state = read_safetensors(folder / model.t3_name)
    if factor != 1:
        state = outliers.t3(state, config, factor)
    t3 = T3.from_state_dict(config, state)
    voice = T3Conditionals.from_mapping(synthetic_t3.conditionals(config, seed=5))
    text = model.tokenize(SimpleNamespace(_text=model.tokenizer(folder)), TEXT, {"language": "en"})

    def make(precision: str) -> T3CpuPass:
        return T3CpuPass(t3, ROWS, threads=threads, precision=precision)

    found = measurement.t3_error(make, "int8", t3.front, voice, text)
    kl, changed = found["kl_divergence"], found["changed_tokens"]
    return f"T3 int8        KL {kl:.2e} nats, {changed:.2%} of {found['positions']} tokens changed"


def flow_row(name: str, factor: float, folder: Path) -> str:
    model = registry.find(name)
    network, _ = s3gen.load(folder / model.s3gen_file, meanflow=model.meanflow, strict=False)
    if factor != 1:
        weights = {f"flow.{key}": value for key, value in network.flow.state_dict().items()}
        changed = outliers.flow(weights, factor)
        network.flow.load_state_dict({key.removeprefix("flow."): value for key, value in changed.items()})
    voice = s3gen.Reference.from_mapping(synthetic_s3gen.conditionals(seed=5, seconds=10.0))
    found = measurement.flow_error(partial(s3gen.S3GenCpuPass, network), "bfloat16", voice)
    return f"flow bfloat16  mel {found['mel_snr']:.1f} dB, waveform {found['waveform_snr']:.1f} dB below the signal"


def speed(name: str, folder: Path, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        recording = str(upstream.record(Path(scratch) / "person.wav"))
        sides = {one: upstream.Ours(name, str(folder), recording, one) for one in ("float32", "auto", "int8")}
        for one in sides.values():
            one.load_packages()
            one.load()
            one.voice()
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(options.rounds + 1):
        for precision, one in sides.items():
            # The number of tokens differs each time, because real texts do too.
            tokens = options.tokens + turn
            for part, work in (("t3", one.t3), ("s3gen", one.s3gen), ("whole", one.whole)):
                began = time.perf_counter()
                work(tokens, turn)
                seconds = time.perf_counter() - began
                if turn:  # the first one warms up
                    times.setdefault((part, precision), []).append(seconds / tokens * 25)
    for precision, one in sides.items():
        about = one._model.info()["precision"]
        medians = {part: median(times[part, precision]) for part in ("t3", "s3gen", "whole")}
        gains = {part: median(times[part, "float32"]) / value for part, value in medians.items()}
        told = ", ".join(f"{part} {value:.3f} ({gains[part]:.2f} times)" for part, value in medians.items())
        print(f"{name}, {precision} (T3 {about['t3']}, flow {about['flow']}): {told} s per s of audio", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["nano", "turbo"])
    parser.add_argument("--factors", nargs="+", type=float, default=[1.0, 20.0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["t3", "flow"])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=100, help="25 are a second of speech")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor.name()}; multiplies bfloat16: {processor.multiplies_bfloat16()}; limits {LIMITS}")
    for name in options.models:
        folder = checkpoint(name, full=True)
        if options.speed:
            speed(name, folder, options)
            continue
        for factor in options.factors:
            for part, row in (("t3", partial(t3_row, threads=options.threads)), ("flow", flow_row)):
                if options.only in (None, part):
                    print(f"{name}, outliers x{factor:g}: {row(name, factor, folder)}", flush=True)


if __name__ == "__main__":
    main()
