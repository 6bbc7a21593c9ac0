"""The command line that the benchmarks of whole models share."""

from __future__ import annotations

import argparse
import os

MODELS = ("nano", "turbo", "english")


def parser(script: str, description: str, *, tokens: int) -> argparse.ArgumentParser:
    """A parser for models, rounds, threads and tokens.

    Args:
        script: the name of the benchmark's file.
        description: shown with `--help`.
        tokens: the default number of speech tokens.
    """
    parser = argparse.ArgumentParser(
        prog=f"python bench/{script}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="model", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are shown")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=tokens, help="25 are a second of speech")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parses the arguments. Without models, all are chosen; an unknown one ends the program."""
    options = parser.parse_args(arguments)
    unknown = set(options.models) - set(MODELS)
    if unknown:
        parser.error(f"there is no model {', '.join(unknown)}")
    options.models = options.models or MODELS
    return options
