"""The hub cache: files named by their checksums, and links to them with their real names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chatterbex.replacement import beside

_BLOCK = 1 << 20


@dataclass
class CachedFile:
    """A file of a repository, and its place in the cache.

    Attributes:
        repository: The repository that it belongs to.
        name: Its name in the repository.
        commit: The commit that it belongs to.
        etag: Its checksum, which is its name in the cache.
        size: Its size in bytes.
        folder: The repository's folder in the cache.
        have: How many of its bytes are here.
    """

    repository: str
    name: str
    commit: str
    etag: str
    size: int
    folder: Path
    have: int = 0

    @property
    def blob(self) -> Path:
        """The path of its bytes."""
        return self.folder / "blobs" / self.etag

    @property
    def part(self) -> Path:
        """The path of its bytes while they are downloaded."""
        return self.blob.with_name(f"{self.etag}.incomplete")

    @property
    def link(self) -> Path:
        """The path of the link with its real name."""
        return self.folder / "snapshots" / self.commit / self.name

    @property
    def lock(self) -> Path:
        """The path of the lock that keeps other processes from fetching it too."""
        return self.folder.parent / ".locks" / self.folder.name / f"{self.etag}.lock"

    def part_size(self) -> int:
        """How many bytes earlier attempts have downloaded."""
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def right(self, path: Path, tick: Callable[[], None]) -> bool:
        """Whether a file has this one's checksum; also true if the hub gives none."""
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.etag):
            return True
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            git = len(self.etag) == 40
            digest = hashlib.sha1(b"blob %d\0" % size) if git else hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
                tick()
        return digest.hexdigest() == self.etag

    def forget(self, found: Path) -> None:
        """Removes a file that is wrong."""
        found.resolve().unlink(missing_ok=True)
        self.link.unlink(missing_ok=True)

    def put_in_place(self) -> None:
        """Links the file under its real name. If the file system has no links, moves it there."""
        self.link.parent.mkdir(parents=True, exist_ok=True)
        new = beside(self.link)
        try:
            new.symlink_to(os.path.relpath(self.blob, self.link.parent))
        except OSError:
            self.blob.replace(self.link)
        else:
            new.replace(self.link)


def repository_folder(cache: Path, repository: str) -> Path:
    """The folder of a repository."""
    return cache / f"models--{repository.replace('/', '--')}"


def name_commit(folder: Path, revision: str, commit: str) -> None:
    """Records the commit of a branch or tag."""
    path = folder / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    new = beside(path)
    new.write_text(commit)
    new.replace(path)


def note_absent(folder: Path, commit: str, name: str) -> None:
    """Records that a commit has no such file."""
    path = folder / ".no_exist" / commit / name
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
