"""Keeps verdicts, so that a checkpoint is measured once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from chatterbex.device import processor
from chatterbex.precision.verdict import LIMITS, Limits, Verdict
from chatterbex.replacement import beside
from chatterbex.t3 import native as t3_native

_FOLDERS: Final = ("precision", "models", "s3gen", "t3")  # whose code the figures depend on

_logger = logging.getLogger("chatterbex.precision")


class Verdicts:
    """Verdicts on one model's files, kept in a folder.

    The key of each is a digest of everything that it depends on: the files, the text, the limits, our code,
    and what PyTorch and the processor compute with.
    """

    def __init__(self, folder: Path, model: str, place: Path, files: Iterable[str]) -> None:
        """Reads nothing yet.

        Args:
            folder: the folder for the verdicts.
            model: the model's name.
            place: the model's folder.
            files: names in the model's folder, or paths.
        """
        self._folder, self._model, self._place = folder, model, place
        self._files = [place / file for file in files]

    def of(self, text: Sequence[int], measure: Callable[[], Verdict], limits: Limits = LIMITS) -> Verdict:
        """The kept verdict. If there is none, measures one and keeps it."""
        path = self._folder / f"{self._model}-{self._digest(text, limits)}.json"
        kept = _verdict(_load(path))
        if kept is not None:
            return kept
        verdict = measure()
        _save(path, {"model": self._model, "folder": str(self._place), **asdict(verdict)})
        return verdict

    def _digest(self, text: Sequence[int], limits: Limits) -> str:
        depends = {
            "files": self._digests(),
            "text": list(text),
            "limits": asdict(limits),
            "code": _code(),
            "torch": torch.__version__,
            "processor": [t3_native.instruction_sets()[0], processor.multiplies_bfloat16()],
        }
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]

    def _digests(self) -> list[list[str]]:
        """Name and checksum of each file. An unchanged file is not read again."""
        path = self._folder / "files.json"
        known, found = _load(path) or {}, []
        before = dict(known)
        for file in self._files:
            facts = file.stat()
            about = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
            entry = known.get(str(file))
            if not isinstance(entry, list) or entry[:-1] != about:
                known[str(file)] = entry = [*about, _checksum(file)]
            found.append([file.name, entry[-1]])
        if known != before:
            _save(path, known)
        return found


def _verdict(value: Mapping[str, Any] | None) -> Verdict | None:
    """The verdict in a file, or None if it holds none."""
    try:
        verdict = Verdict(**{name: value[name] for name in Verdict.__dataclass_fields__})
        precision = verdict.precision
    except (AttributeError, KeyError, TypeError):
        return None
    known = precision.t3 in ("float32", "int8") and precision.flow in ("float32", "bfloat16")
    return verdict if known else None


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _code() -> str:
    package = Path(__file__).resolve().parents[1]
    ours = sorted(path for folder in _FOLDERS for path in (package / folder).glob("*.py"))
    digest = hashlib.sha256()
    for path in (*ours, t3_native.library_path()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _logger.debug("%s cannot be read: %s", path, error)
        return None
    return value if isinstance(value, dict) else None


def _save(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file atomically. If that fails, the model is measured again next time."""
    half = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(value, indent=2), encoding="utf-8")
        half.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        _logger.warning("the verdict on precision cannot be kept in %s: %s", path.parent, error)
