"""Whole checkpoints of the Chatterbox models with random weights: real file names, real formats.

    python -m synthetic.checkpoints --model nano --dir some/folder

The files are made once, in the user's cache (``chatterbex/synthetic``), and linked from there, or
copied where they cannot be. T3 is small unless asked otherwise; S3Gen has one size only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__" or "chatterbex" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "priv" / "python"))

import torch

from synthetic import s3gen, t3, texts

TESTS = Path(__file__).resolve().parents[1]

RECIPE = 4
"""Change it whenever a file changes that is not S3Gen's."""

MODELS = ("nano", "turbo", "english", "multilingual_v2", "multilingual_v3", "conversion")


def cache() -> Path:
    """The folder for the files that are made."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "chatterbex" / "synthetic"


def checkpoint(model: str, *, full: bool = False) -> Path:
    """A folder with a model's files, made if it does not exist. Do not write to it.

    Args:
        model: one of ``MODELS``.
        full: whether T3 has the published size.
    """
    folder = _place(model, full)
    if not folder.exists():
        # In a process of its own, because what it allocates would count as the caller's.
        options = ["--full"] if full else []
        command = [sys.executable, "-m", "synthetic.checkpoints", "--model", model, *options]
        subprocess.run(command, cwd=TESTS, check=True, stdout=subprocess.DEVNULL)
    return folder


def _place(model: str, full: bool) -> Path:
    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}; there are: {', '.join(MODELS)}")
    size = "full" if full else "small"
    recipe = {"recipe": RECIPE, "s3gen": s3gen.RECIPE, "torch": torch.__version__.partition("+")[0]}
    if model != "conversion":
        config = (t3.full if full else t3.small)(model)
        recipe["t3"] = str(t3.shapes(config))
    return cache() / f"{model}-{size}-{_digest(recipe)}"


def link(model: str, target: Path, *, full: bool = False) -> Path:
    """Puts a model's files into the caller's own folder, as links if possible."""
    target.mkdir(parents=True, exist_ok=True)
    for file in checkpoint(model, full=full).iterdir():
        _link(file, target / file.name)
    return target


def _fill(folder: Path, model: str, full: bool) -> None:
    meanflow = model in ("nano", "turbo")
    config = None if model == "conversion" else (t3.full if full else t3.small)(model)
    match model:
        case "nano" | "turbo":
            _large(folder, "s3gen_meanflow.safetensors", lambda: s3gen.s3gen_state(True))
            s3gen.write(folder / "ve.safetensors", s3gen.voice_encoder_state())
            texts.write_turbo(folder)
        case "english":
            _large(folder, "s3gen.safetensors", lambda: s3gen.s3gen_state(False))
            s3gen.write(folder / "ve.safetensors", s3gen.voice_encoder_state())
            texts.write_english(folder / "tokenizer.json")
        case "conversion":
            _large(folder, "s3gen.safetensors", lambda: s3gen.s3gen_state(False))
        case _:
            _large(folder, "s3gen.pt", lambda: s3gen.s3gen_state(False))
            s3gen.write(folder / "ve.pt", s3gen.voice_encoder_state())
            texts.write_multilingual(folder / "grapheme_mtl_merged_expanded_v1.json")
            texts.write_cangjie(folder / "Cangjie5_TC.json")
    seconds = 10.0 if full else 1.0  # the flow takes as long for these as for speech
    voice: dict[str, Any] = {"gen": s3gen.conditionals(seed=5 if meanflow else 6, seconds=seconds)}
    voice["t3"] = t3.conditionals(config or t3.small("english"), seed=5)
    torch.save(voice, folder / "conds.pt")
    if config is not None:
        t3.write(folder, model, config)
        for stamp in folder.glob("*.recipe.json"):
            stamp.unlink()


def _large(folder: Path, name: str, make: Callable[[], dict[str, torch.Tensor]]) -> None:
    """Models with the same S3Gen files share them."""
    version = torch.__version__.partition("+")[0]
    shared = cache() / f"s3gen-{_digest([s3gen.RECIPE, version])}"
    shared.mkdir(parents=True, exist_ok=True)
    if not (shared / name).exists():
        s3gen.write(shared / name, make())
    _link(shared / name, folder / name)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _digest(recipe: Any) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name when it is complete. Two makers do not interfere."""
    half = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        yield half
        with contextlib.suppress(OSError):  # another process was first
            half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m synthetic.checkpoints", description=__doc__)
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument("--dir", type=Path, help="where to put the files; without it they stay in the cache")
    parser.add_argument("--full", action="store_true", help="T3 of the published size")
    options = parser.parse_args(arguments)
    folder = _place(options.model, options.full)
    if not folder.exists():
        with _fresh(folder) as half:
            _fill(half, options.model, options.full)
    if options.dir is not None:
        folder = link(options.model, options.dir, full=options.full)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
