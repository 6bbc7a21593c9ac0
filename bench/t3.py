"""Measures T3's CPU engine alone, against the limits of the machine it runs on.

    python bench/t3.py [nano] [turbo] [english] [--threads N] [--rounds N] [--context N] [--precision P]

For each model it prints the tokens per second of a decode step for one row and for eight rows that share a
voice, the bytes that a step reads as a share of the memory bandwidth, and the speed of reading in a voice as a
share of a large matrix product's. It measures both limits in the same run, with the same number of threads,
before and after each model, and uses the better one. Figures are medians of the rounds.

It needs the Python of bin/test (`bin/setup --dev`, `bin/test tools`) and the native library (`mix compile`).
The weights are random.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "priv" / "python"), str(HERE.parent / "test" / "python")]

import numpy as np
import torch
from chatterbex.t3 import native
from chatterbex.t3.native import T3Engine
from synthetic import t3 as synthetic

VOICE = 376


class Weights(Mapping[str, Any]):
    """Random tensors, each made on demand and not kept."""

    def __init__(self, config: Any) -> None:
        self._shapes = {
            name: shape
            for name, shape in synthetic.shapes(config).items()
            if name.startswith(("tfmr.", "speech_head.")) and "wte" not in name and "embed" not in name
        }

    def __len__(self) -> int:
        return len(self._shapes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self._shapes[name]
        inputs = shape[0] if ".c_" in name else shape[-1]
        spread = (3 / inputs) ** 0.5 if len(shape) > 1 else 0.1
        return np.random.default_rng(len(name)).uniform(-spread, spread, shape).astype(np.float32)


def matrix_speed(threads: int) -> float:
    """Operations per second of a large product."""
    torch.set_num_threads(threads)
    a, b = torch.rand(1536, 1536), torch.rand(1536, 1536)
    a @ b
    times = [timed(lambda: a @ b) for _ in range(5)]
    return 2 * 1536**3 / min(times)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decode(engine: T3Engine, rows: int, context: int, rounds: int) -> float:
    """Seconds of a step for rows that share a voice, about `context` positions long."""
    dim = engine.config.dim
    rng = np.random.default_rng(0)
    first = engine.open(VOICE)
    voice = rng.standard_normal((VOICE, dim), dtype=np.float32)
    engine.forward([first], voice, [VOICE], [False])
    prefix = engine.prefix(first, VOICE)
    engine.close(first)
    sequences = [engine.open(context + rounds, prefix) for _ in range(rows)]
    own = context - VOICE
    for sequence in sequences:
        engine.forward([sequence], rng.standard_normal((own, dim), dtype=np.float32), [own], [False])
    x = rng.standard_normal((rows, dim), dtype=np.float32)
    times = [timed(lambda: engine.forward(sequences, x)) for _ in range(rounds)]
    for number in (*sequences, prefix):
        engine.close(number)
    return median(times)


def read_in(engine: T3Engine, rounds: int, piece: int) -> float:
    """Seconds to read in a voice, piece by piece."""
    x = np.random.default_rng(0).standard_normal((VOICE, engine.config.dim), dtype=np.float32)
    times = []
    for _ in range(rounds):
        sequence = engine.open(VOICE)
        start = time.perf_counter()
        for first in range(0, VOICE, piece):
            part = x[first : first + piece]
            engine.forward([sequence], part, [len(part)], [False])
        times.append(time.perf_counter() - start)
        engine.close(sequence)
    return median(times)


def bench(name: str, options: argparse.Namespace) -> None:
    config = synthetic.full(name)
    memory, product = native.bandwidth(options.threads), matrix_speed(options.threads)
    start = time.perf_counter()
    engine = T3Engine(config, Weights(config), threads=options.threads, **options.engine)
    packing = time.perf_counter() - start
    alone = decode(engine, 1, options.context, options.rounds)
    eight = decode(engine, 8, options.context, options.rounds)
    voices = {piece: read_in(engine, 3, piece) for piece in (64, VOICE)}
    memory = max(memory, native.bandwidth(options.threads))
    product = max(product, matrix_speed(options.threads))

    weights = engine.nbytes[0]
    row = 2 * 4 * config.layers * config.dim
    print(f"{name}, {options.precision}: {weights / 1e6:.0f} MB of weights, packed in {packing:.1f} s (random numbers included)")
    print(f"  memory {memory / 1e9:.1f} GB/s, product {product / 1e9:.0f} GF/s, {options.threads} threads")
    for rows, seconds in ((1, alone), (8, eight)):
        read = weights + row * (VOICE + rows * (options.context - VOICE))
        print(
            f"  batch {rows}: {1e3 * seconds:.2f} ms, {rows / seconds:.1f} tokens/s, "
            f"{read / seconds / 1e9:.1f} GB/s ({read / seconds / memory:.0%} of memory)"
        )
    print(f"  batch 8 has {8 * alone / eight:.2f} times the tokens of batch 1")
    macs = config.layers * config.dim * (4 * config.dim + (3 if config.guided else 2) * config.ffn)
    for piece, seconds in voices.items():
        work = 2 * macs * VOICE + 2 * config.layers * config.dim * VOICE**2
        print(
            f"  {VOICE} positions in pieces of {piece}: {1e3 * seconds:.0f} ms, {work / seconds / 1e9:.0f} GF/s "
            f"({work / seconds / product:.0%} of a large product)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["nano", "turbo"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--context", type=int, default=500, help="positions that a row has behind it")
    parser.add_argument("--precision", default="float32", choices=["float32", "int8"])
    parser.add_argument("--instruction-set", default="")
    options = parser.parse_args()
    options.engine = {"instruction_set": options.instruction_set, "precision": options.precision}
    print(f"{platform.processor() or platform.machine()}; {', '.join(native.instruction_sets())}")
    for name in options.models:
        bench(name, options)


if __name__ == "__main__":
    main()
