"""Looks at the environment whose Python runs it, or repairs it. Prints one line of JSON.

``check MODULE...``: packages, those of them that lack files, and whether the modules import.
``repair``: removes the records of packages that lack files, so that an installer installs them again.
"""

import csv
import importlib
import json
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path


def _missing(distribution: metadata.Distribution) -> str:
    """Name the first file that a package should have and has not, or return nothing.

    From RECORD itself: `distribution.files` leaves out files that are missing, from Python 3.12 on.
    """
    record = distribution.read_text("RECORD")
    if not record:
        return "RECORD"
    for row in csv.reader(record.splitlines()):
        path, size = row[0], row[2] if len(row) == 3 else ""
        if path.endswith(".pyc"):
            continue
        try:
            found = os.stat(distribution.locate_file(path)).st_size
        except OSError:
            return path
        if size and int(size) != found:
            return path
    return ""


def _distributions() -> list[tuple[str, str, metadata.Distribution]]:
    """All packages of this environment as (name, version, distribution); an unreadable one has no name."""
    found = []
    for distribution in metadata.distributions():
        try:
            found.append((distribution.metadata["Name"] or "", distribution.version or "", distribution))
        except Exception:  # half-written metadata fails in more than one way
            found.append(("", "", distribution))
    return found


def broken() -> list[tuple[str, str, metadata.Distribution]]:
    """Packages that lack a file, as (name, missing file, distribution)."""
    found = []
    for name, version, distribution in _distributions():
        missing = "METADATA" if not name or not version else _missing(distribution)
        if missing:
            found.append((name, missing, distribution))
    return found


def _bytes(distribution: metadata.Distribution) -> int:
    """The size of a package's files, as its RECORD has it."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return sum(int(row[2]) for row in rows if len(row) == 3 and row[2].isdigit())


def check(modules: list[str]) -> dict[str, object]:
    """What is installed, what is broken, and how long each module takes to import or why it does not."""
    imports = {}
    for module in modules:
        started = time.perf_counter()
        try:
            importlib.import_module(module)
            imports[module] = round(time.perf_counter() - started, 3)
        except BaseException as error:  # a module may do anything while it is imported
            imports[module] = f"{type(error).__name__}: {error}"
    found = [(name, version, distribution) for name, version, distribution in _distributions() if name]
    return {
        "packages": {name: version for name, version, _ in found},
        "bytes": sum(_bytes(distribution) for _, _, distribution in found),
        "broken": {name or missing: missing for name, missing, _ in broken()},
        "imports": imports,
    }


def repair() -> dict[str, object]:
    """Remove the records of broken packages. Their files stay, and are written over by the installer."""
    repaired = []
    for name, missing, distribution in broken():
        folder = getattr(distribution, "_path", None)  # the record's folder has no public name
        if folder is not None and Path(folder).is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        repaired.append(name or missing)
    return {"repaired": repaired}


def main(arguments: list[str]) -> None:
    """Print the answer."""
    answer = repair() if arguments[:1] == ["repair"] else check(arguments[1:])
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
