"""Names for files that replace others when they are whole."""

from __future__ import annotations

import secrets
from pathlib import Path


def beside(path: Path) -> Path:
    """A new name next to a path.

    It has no process id: containers that share a folder have the same ones.
    """
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
