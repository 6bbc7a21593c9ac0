"""Downloads the missing files of a model."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import Timeout
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import WeakFileLock

from chatterbex.hub import cache, failure
from chatterbex.hub.asking import Hub, TruncatedError
from chatterbex.hub.cache import CachedFile
from chatterbex.hub.failure import DownloadError

_TICK = 0.2  # seconds between two reports about one file


class Download:
    """All files of a model.

    Args:
        folder: The hub cache.
        sources: Each with "repository", "revision", and the file names in "files" and "optional".
        report: Called with the progress.
        check: Whether to compare the checksums of existing files too.
        hub: The hub to ask.
    """

    def __init__(
        self,
        folder: Path,
        sources: list[dict[str, Any]],
        report: Callable[[dict[str, Any]], None],
        *,
        check: bool = False,
        hub: Hub | None = None,
    ) -> None:
        """Starts nothing yet."""
        self._cache = folder
        self._sources = sources
        self._report = report
        self._check = check
        self._hub = hub or Hub()
        self._files: list[CachedFile] = []
        self._fetched = 0
        self._reported = 0.0

    def run(self) -> dict[str, Any]:
        """Downloads everything that is missing.

        Returns:
            "folders", one for each source; "fetched", the bytes downloaded; and "total", the bytes in all.

        Raises:
            DownloadError: Not everything could be downloaded. The bytes that arrived are kept.
        """
        try:
            return self._run()
        except OfflineModeIsEnabled as error:
            repositories = [source["repository"] for source in self._sources]
            raise failure.offline(repositories, self._cache) from error
        except OSError as error:
            if error.errno in failure.FULL:
                raise failure.too_large(self._missing(), self._cache) from error
            raise failure.unwritable(error, self._cache) from error

    def _run(self) -> dict[str, Any]:
        commits = [self._plan(source) for source in self._sources]
        for file in self._files:
            file.have = self._present_bytes(file)
        self._check_room()
        for file in self._files:
            self._fetch(file)
        folders = []
        for source, commit in zip(self._sources, commits, strict=True):
            folder = cache.repository_folder(self._cache, source["repository"])
            if source["revision"] != commit:
                cache.name_commit(folder, source["revision"], commit)
            folders.append(str(folder / "snapshots" / commit))
        return {"folders": folders, "fetched": self._fetched, "total": self._total()}

    def _plan(self, source: dict[str, Any]) -> str:
        """Asks about each file of a source, all in one commit, and returns the commit."""
        repository, revision = source["repository"], source["revision"]
        folder = cache.repository_folder(self._cache, repository)
        for name in [*source["files"], *source.get("optional", [])]:
            try:
                found = self._hub.describe(repository, name, revision)
            except DownloadError as error:
                if name in source["files"] or error.why != "not_found":
                    raise
                cache.note_absent(folder, revision, name)
                continue
            revision = found.commit
            self._files.append(CachedFile(repository, name, revision, found.etag, found.size, folder))
        return revision

    def _present_bytes(self, file: CachedFile) -> int:
        """How many bytes of a file are here already. Removes a wrong file."""
        found = next((path for path in (file.link, file.blob) if path.is_file()), None)
        if found is None:
            return min(file.part_size(), file.size)
        if found.stat().st_size == file.size and not (
            self._check and not file.right(found, lambda: self._tick(file, "checking"))
        ):
            return file.size
        file.forget(found)
        return 0

    def _check_room(self) -> None:
        place = next(path for path in (self._cache, *self._cache.parents) if path.exists())
        if self._missing() > shutil.disk_usage(place).free:
            raise failure.too_large(self._missing(), self._cache)

    def _fetch(self, file: CachedFile) -> None:
        """Brings one file into the cache."""
        if file.link.is_file():
            return
        file.blob.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(file):
            if not file.blob.is_file():
                self._transfer(file)
            file.put_in_place()
        file.have = file.size
        self._say(file, "done")

    @contextlib.contextmanager
    def _alone(self, file: CachedFile) -> Iterator[None]:
        """Lets only one process download a file. Another one waits and reports the progress."""
        file.lock.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(WeakFileLock(file.lock, timeout=_TICK))
                    break
                except Timeout:
                    file.have = min(file.part_size(), file.size)
                    self._tick(file, "waiting", "another process is fetching it")
            yield

    def _transfer(self, file: CachedFile) -> None:
        """Downloads the file until it is complete, and accepts it if its checksum is correct."""
        resumed = file.part_size() > 0
        self._hub.patiently(
            file.repository,
            file.name,
            lambda: self._grow(file),
            lambda: file.have,
            lambda message: self._say(file, "waiting", message),
        )
        if file.right(file.part, lambda: self._tick(file, "checking")):
            os.replace(file.part, file.blob)
            return
        file.part.unlink(missing_ok=True)
        file.have = 0
        if not resumed:
            raise failure.wrong_checksum(file.name, file.repository)
        # What was here from before may have been wrong.
        self._transfer(file)

    def _grow(self, file: CachedFile) -> None:
        """Appends the missing bytes."""
        start = file.part_size()
        if start > file.size:
            file.part.unlink()
            start = 0
        file.have = start
        if 0 < start == file.size:
            return
        with self._hub.stream(file.repository, file.name, file.commit, start) as (begins, chunks):
            if begins not in (0, start):
                file.part.unlink(missing_ok=True)
                file.have = 0
                raise TruncatedError("the hub does not continue where the file was cut off")
            with file.part.open("ab" if begins else "wb") as part:
                file.have = begins
                for chunk in chunks:
                    part.write(chunk)
                    file.have += len(chunk)
                    self._fetched += len(chunk)
                    self._tick(file, "fetching")
                    if file.have > file.size:
                        break
        if file.have != file.size:
            raise TruncatedError(f"{file.have} of {file.size} bytes arrived")

    def _total(self) -> int:
        return sum(file.size for file in self._files)

    def _missing(self) -> int:
        return self._total() - sum(min(file.have, file.size) for file in self._files)

    def _tick(self, file: CachedFile, status: str, message: str | None = None) -> None:
        if time.monotonic() - self._reported >= _TICK:
            self._say(file, status, message)

    def _say(self, file: CachedFile, status: str, message: str | None = None) -> None:
        self._reported = time.monotonic()
        self._report(
            {
                "status": status,
                "file": file.name,
                "repository": file.repository,
                "file_bytes": file.have,
                "file_total": file.size,
                "bytes": sum(other.have for other in self._files),
                "total": self._total(),
                "message": message,
            }
        )
