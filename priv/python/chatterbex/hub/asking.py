"""What is asked of a hub, and again where that may help."""

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
_LONGEST = 30.0  # seconds between two attempts, where the hub asks for no more
_LIBRARY = "chatterbex"


class TruncatedError(Exception):
    """The bytes of a file ended too early, or went on too long."""


@dataclass(frozen=True)
class Described:
    """A file as the hub tells of it.

    Attributes:
        commit: The commit that it is of.
        etag: Its checksum: SHA-256 of a large file, Git's SHA-1 of others.
        size: Its bytes.
    """

    commit: str
    etag: str
    size: int


@dataclass
class Hub:
    """The hub that the environment names.

    Attributes:
        attempts: How often in a row something may bring nothing.
        wait: Seconds before the second attempt; they double with each.
        limit: Seconds to wait in all where the hub asks for it.
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
        # Both become file names.
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
        """Gives the bytes of a file, and where they begin: at ``start`` if the hub can, or -1 for nowhere."""
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
                given = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                begins = int(given[1]) if given else -1
            yield begins, response.iter_bytes()

    def patiently(
        self,
        repository: str,
        name: str,
        work: Callable[[], _T],
        reached: Callable[[], int] = lambda: 0,
        waiting: Callable[[str], None] = lambda message: None,
    ) -> _T:
        """Does some work, again and again where that may help.

        Args:
            repository: Whose file it is about.
            name: The file.
            work: What to do.
            reached: How far it is; getting further than ever starts the count of attempts anew.
            waiting: Told what is waited for.

        Raises:
            Failure: It is of no use.
        """
        failures, best = 0, reached()
        while True:
            try:
                return work()
            except (HfHubHTTPError, httpx.TransportError, TruncatedError) as error:
                failures = 1 if reached() > best else failures + 1
                best = max(best, reached())
                seconds = self._pause(error, failures, repository, name)
                waiting(f"{failure.said(error)}: trying again in {seconds:.0f} s")
                time.sleep(seconds)

    def _pause(self, error: Exception, failures: int, repository: str, name: str) -> float:
        """Returns how long to wait before another attempt; raises where there is to be none."""
        response = getattr(error, "response", None)
        status = None if response is None else response.status_code
        backoff = self.wait * 2 ** (failures - 1)
        if status is not None and status not in _AGAIN:
            raise failure.refused(error, status, repository, name) from error
        if status == 429:
            asked = failure.asked_to_wait(response.headers)
            seconds = backoff if asked is None else asked
            if failures >= self.attempts or self._waited + seconds > self.limit:
                raise failure.rate_limited(seconds, name, repository) from error
            self._waited += seconds
            return seconds
        hopeless = isinstance(error, httpx.UnsupportedProtocol) or failure.untrusted(error)
        if hopeless or failures >= self.attempts:
            raise failure.unreached(error, status, name, repository) from error
        return min(backoff, _LONGEST)
