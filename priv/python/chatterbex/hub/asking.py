"""Requests to a hub, retried where that may help."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from chatterbex.hub import failure

_T = TypeVar("_T")
_AGAIN = (408, 429, 500, 502, 503, 504)
_LONGEST = 30.0  # seconds between two attempts, unless the hub asks for more
_LIBRARY = "chatterbex"


class TruncatedError(Exception):
    """A file's bytes ended too early, or there were too many."""


@dataclass(frozen=True)
class Described:
    """A file, as the hub describes it.

    Attributes:
        commit: The commit that it belongs to.
        etag: Its checksum: SHA-256 for a large file, Git's SHA-1 for others.
        size: Its size in bytes.
    """

    commit: str
    etag: str
    size: int


@dataclass
class Hub:
    """The hub that the environment names.

    Attributes:
        attempts: How many attempts in a row may fail without progress.
        wait: Seconds before the second attempt. The wait doubles with each further attempt.
        limit: The most seconds to wait in total when the hub asks for it.
    """

    attempts: int = 6
    wait: float = 1.0
    limit: float = 300.0
    _waited: float = 0.0

    def describe(self, repository: str, name: str, revision: str) -> Described:
        """Asks about a file."""
        url = hf_hub_url(repository, name, revision=revision)
        found = self.patiently(
            repository,
            name,
            lambda: get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, library_name=_LIBRARY),
        )
        # Both are used as file names.
        if (
            found.size is None
            or not re.fullmatch(r"[0-9A-Za-z._-]{1,200}", found.etag or "")
            or not re.fullmatch(r"[0-9A-Za-z]{1,100}", found.commit_hash or "")
        ):
            raise failure.not_a_hub(name, repository)
        return Described(found.commit_hash, found.etag, found.size)

    @contextlib.contextmanager
    def stream(
        self, repository: str, name: str, commit: str, start: int
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yields where a file's bytes begin, and the bytes: at ``start`` if the hub can, or -1 if unknown."""
        headers = build_hf_headers(library_name=_LIBRARY) | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with get_session().stream(
            "GET",
            hf_hub_url(repository, name, revision=commit),
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            follow_redirects=True,
        ) as response:
            if response.status_code == 416:
                yield -1, iter(())
                return
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            begins = 0
            if response.status_code == 206:
                match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                begins = int(match[1]) if match else -1
            yield begins, response.iter_bytes()

    def patiently(
        self,
        repository: str,
        name: str,
        work: Callable[[], _T],
        reached: Callable[[], int] = lambda: 0,
        waiting: Callable[[str], None] = lambda message: None,
    ) -> _T:
        """Runs `work`, and retries it where that may help.

        Args:
            repository: The file's repository.
            name: The file.
            work: The function to run.
            reached: Returns how far it got. Any progress resets the count of attempts.
            waiting: Called with the reason for each wait.

        Raises:
            DownloadError: Retrying does not help.
        """
        failures, best = 0, reached()
        while True:
            try:
                return work()
            except (HfHubHTTPError, httpx.TransportError, TruncatedError) as error:
                failures = 1 if reached() > best else failures + 1
                best = max(best, reached())
                seconds = self._pause(error, failures, repository, name)
                waiting(f"{failure.describe(error)}: trying again in {seconds:.0f} s")
                time.sleep(seconds)

    def _pause(self, error: Exception, failures: int, repository: str, name: str) -> float:
        """Returns how long to wait before the next attempt; raises if there should be none."""
        response = getattr(error, "response", None)
        status = None if response is None else response.status_code
        backoff = self.wait * 2 ** (failures - 1)
        if status is not None and status not in _AGAIN:
            raise failure.refused(error, status, repository, name) from error
        if status == 429:
            retry_after = failure.asked_to_wait(response.headers)
            seconds = backoff if retry_after is None else retry_after
            if failures >= self.attempts or self._waited + seconds > self.limit:
                raise failure.rate_limited(seconds, name, repository) from error
            self._waited += seconds
            return seconds
        hopeless = isinstance(error, httpx.UnsupportedProtocol) or failure.untrusted(error)
        if hopeless or failures >= self.attempts:
            raise failure.unreached(error, status, name, repository) from error
        return min(backoff, _LONGEST)
