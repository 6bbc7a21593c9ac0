"""Files that a model must not be loaded from.

    python -m synthetic.hostile --model nano --dir some/folder

makes copies of a checkpoint in folders below that one, each with one file that is bad, and prints
what they are called.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from synthetic import checkpoints


class Evil:
    """Makes a folder called "ran" next to the checkpoint's, if it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = str(mark)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self._mark,))


def _changed(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(path)
    change(weights)
    path.unlink()  # the file itself is shared
    save_file(weights, path)


def _pickle(path: Path) -> None:
    path.unlink()
    torch.save({"t3": Evil(path.parent.parent / "ran"), "gen": {}}, path)


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def _shape(path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["proj.bias"] = torch.ones(7)

    _changed(path, change)


def _nan(path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["proj.bias"][3] = float("nan")

    _changed(path, change)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


HOSTILE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "pickle": ("conds.pt", _pickle),
    "cut": ("ve.safetensors", _cut),
    "shape": ("ve.safetensors", _shape),
    "nan": ("ve.safetensors", _nan),
    "loop": ("vocab.json", _loop),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m synthetic.hostile", description=__doc__)
    parser.add_argument("--model", required=True, choices=checkpoints.MODELS)
    parser.add_argument("--dir", required=True, type=Path, help="where to put the folders")
    options = parser.parse_args()
    for name, (file, spoil) in HOSTILE.items():
        folder = checkpoints.link(options.model, options.dir / name)
        spoil(folder / file)
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
