"""Why files cannot be had, as a word for programs and a sentence for people."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import shutil
import ssl
import time
from pathlib import Path
from typing import Any

from huggingface_hub import constants, errors
from huggingface_hub.utils import parse_ratelimit_headers

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a limit is full."""


class Failure(Exception):
    """Why the files cannot be had."""

    def __init__(self, why: str, message: str, **about: Any) -> None:
        """Takes a word, a sentence, and what it is about: "file", "repository" and more."""
        super().__init__(message)
        self.why = why
        self.about = {"why": why, "message": message, **about}


def refused(error: Exception, status: int | None, repository: str, name: str) -> Failure:
    """What the hub will not give."""
    about = {"file": name, "repository": repository, "status": status}
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return Failure(
            "gated",
            f"{repository} is gated, and {name} is not given without permission. Accept its licence at "
            f"{page}, make a token at {constants.ENDPOINT}/settings/tokens, and set HF_TOKEN to it.",
            **about,
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return Failure(
            "not_found", f"{repository} has no such revision. {page}/commits/main lists them.", **about
        )
    if isinstance(error, errors.EntryNotFoundError):
        return Failure(
            "not_found",
            f"{repository} has no file {name} in this revision. {page}/tree/main lists them.",
            **about,
        )
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return Failure(
            "unauthorized",
            f"the hub refuses {name} of {repository} ({status}): the repository does not exist, is private, "
            f"or the token in HF_TOKEN is wrong or may not read it. See {page}.",
            **about,
        )
    return Failure("refused", f"the hub refuses {name} of {repository}: {said(error)}", **about)


def not_a_hub(name: str, repository: str) -> Failure:
    """What answers is something else."""
    return Failure(
        "not_a_hub",
        f"what answers at {constants.ENDPOINT} is not a Hugging Face hub: it does not tell the commit, size "
        f"and checksum of {name}. Check HF_ENDPOINT, and whether a proxy or a login page answers instead.",
        file=name,
        repository=repository,
    )


def rate_limited(seconds: float, name: str, repository: str) -> Failure:
    """It would have to be waited too long."""
    return Failure(
        "rate_limited",
        f"the hub answers no more requests for now (429); it was asked for {name} of {repository}. "
        f"Try again in {seconds:.0f} s. With a token in HF_TOKEN it allows more.",
        file=name,
        repository=repository,
        retry_after=seconds,
    )


def unreached(error: Exception, status: int | None, name: str, repository: str) -> Failure:
    """The network, or a hub that is down."""
    remedy = (
        "Name your network's certificates in SSL_CERT_FILE."
        if untrusted(error)
        else "Check the network, HTTPS_PROXY and HF_ENDPOINT. What has come is kept, to go on from."
    )
    return Failure(
        "connection",
        f"{name} of {repository} cannot be fetched from {constants.ENDPOINT}: {said(error)}. {remedy}",
        file=name,
        repository=repository,
        status=status,
    )


def wrong_checksum(name: str, repository: str) -> Failure:
    """What came is not what the hub told of."""
    return Failure(
        "checksum",
        f"{name} of {repository} came with the wrong checksum, and was deleted. Try again; if it stays so, "
        f"what answers at {constants.ENDPOINT} or a proxy on the way changes files.",
        file=name,
        repository=repository,
    )


def too_large(needed: int, cache: Path) -> Failure:
    """It does not fit onto the disk, or did not in the end."""
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Failure(
        "disk_full",
        f"{readable(needed)} are to come into {cache}, and {_disk(place)} has no room for them "
        f"({readable(free)} are free). Free some space, or name another place in HF_HOME.",
        path=str(cache),
        needed=needed,
        free=free,
    )


def unwritable(error: OSError, cache: Path) -> Failure:
    """A file or folder that cannot be changed."""
    path = str(error.filename or cache)
    return Failure(
        "file",
        f"{path} cannot be written: {error.strerror or error}. Check who owns it, or name another place "
        "in HF_HOME.",
        path=path,
    )


def offline(repositories: list[str], cache: Path) -> Failure:
    """The user forbids to ask."""
    return Failure(
        "offline",
        "not all files are here, and HF_HUB_OFFLINE forbids to fetch them. Unset it, or bring the files of "
        f"{' and '.join(repositories)} into {cache}.",
    )


def asked_to_wait(headers: Any) -> float | None:
    """The seconds for which a hub that answers 429 wants to be left alone, if it says."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        with contextlib.suppress(TypeError, ValueError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    limits = parse_ratelimit_headers(headers)
    return float(limits.reset_in_seconds) if limits is not None and limits.remaining == 0 else None


def untrusted(error: BaseException | None) -> bool:
    """Whether the reason is a certificate, which no second attempt changes."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def said(error: Exception) -> str:
    """The first lines of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def readable(size: float) -> str:
    """Bytes, to read."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _disk(path: Path) -> Path:
    """Where the file system begins that a path is on."""
    path = path.resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
