"""Why a download failed, as a word for programs and a sentence for people."""

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
"""The error numbers for a full disk, an exceeded quota and a file size limit."""


class DownloadError(Exception):
    """Why the files cannot be downloaded."""

    def __init__(self, why: str, message: str, **about: Any) -> None:
        """Keeps a word, a sentence, and what they are about: "file", "repository" and more."""
        super().__init__(message)
        self.why = why
        self.about = {"why": why, "message": message, **about}


def refused(error: Exception, status: int | None, repository: str, name: str) -> DownloadError:
    """The hub refuses the file."""
    about = {"file": name, "repository": repository, "status": status}
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            "gated",
            f"{repository} is gated: you need permission to download {name}. Accept its licence at "
            f"{page}, create a token at {constants.ENDPOINT}/settings/tokens, and set HF_TOKEN to it.",
            **about,
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return DownloadError(
            "not_found", f"{repository} has no such revision. {page}/commits/main lists them.", **about
        )
    if isinstance(error, errors.EntryNotFoundError):
        return DownloadError(
            "not_found",
            f"{repository} has no file {name} in this revision. {page}/tree/main lists them.",
            **about,
        )
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return DownloadError(
            "unauthorized",
            f"the hub refuses {name} of {repository} ({status}): the repository does not exist, is private, "
            f"or the token in HF_TOKEN is wrong or may not read it. See {page}.",
            **about,
        )
    return DownloadError("refused", f"the hub refuses {name} of {repository}: {describe(error)}", **about)


def not_a_hub(name: str, repository: str) -> DownloadError:
    """The server is not a hub."""
    return DownloadError(
        "not_a_hub",
        f"the server at {constants.ENDPOINT} is not a Hugging Face hub: it does not report the commit, size "
        f"and checksum of {name}. Check HF_ENDPOINT, and whether a proxy or a login page answers instead.",
        file=name,
        repository=repository,
    )


def rate_limited(seconds: float, name: str, repository: str) -> DownloadError:
    """The hub asks for a wait that is too long."""
    return DownloadError(
        "rate_limited",
        f"the hub has limited your requests (429); the last one was for {name} of {repository}. "
        f"Try again in {seconds:.0f} s. The limit is higher with a token in HF_TOKEN.",
        file=name,
        repository=repository,
        retry_after=seconds,
    )


def unreached(error: Exception, status: int | None, name: str, repository: str) -> DownloadError:
    """The network failed, or the hub is down."""
    remedy = (
        "Set SSL_CERT_FILE to the file with your network's certificates."
        if untrusted(error)
        else "Check the network, HTTPS_PROXY and HF_ENDPOINT. The next download continues from here."
    )
    return DownloadError(
        "connection",
        f"{name} of {repository} cannot be fetched from {constants.ENDPOINT}: {describe(error)}. {remedy}",
        file=name,
        repository=repository,
        status=status,
    )


def wrong_checksum(name: str, repository: str) -> DownloadError:
    """The file differs from the hub's description."""
    return DownloadError(
        "checksum",
        f"{name} of {repository} had the wrong checksum and was deleted. Try again. If it happens again, "
        f"the server at {constants.ENDPOINT}, or a proxy in front of it, changes files.",
        file=name,
        repository=repository,
    )


def too_large(needed: int, cache: Path) -> DownloadError:
    """The disk has no room for the files."""
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return DownloadError(
        "disk_full",
        f"the files need {readable(needed)} in {cache}, but {_disk(place)} has no room for them "
        f"({readable(free)} are free). Free some space, or set HF_HOME to another folder.",
        path=str(cache),
        needed=needed,
        free=free,
    )


def unwritable(error: OSError, cache: Path) -> DownloadError:
    """A file or folder cannot be written."""
    path = str(error.filename or cache)
    return DownloadError(
        "file",
        f"{path} cannot be written: {error.strerror or error}. Check who owns it, or set HF_HOME to "
        "another folder.",
        path=path,
    )


def offline(repositories: list[str], cache: Path) -> DownloadError:
    """The user has turned downloads off."""
    return DownloadError(
        "offline",
        "some files are missing, and HF_HUB_OFFLINE forbids downloading them. Unset it, or copy the files of "
        f"{' and '.join(repositories)} into {cache}.",
    )


def asked_to_wait(headers: Any) -> float | None:
    """How many seconds a hub that answers 429 asks to wait, or None if it does not say."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        with contextlib.suppress(TypeError, ValueError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    limits = parse_ratelimit_headers(headers)
    return float(limits.reset_in_seconds) if limits is not None and limits.remaining == 0 else None


def untrusted(error: BaseException | None) -> bool:
    """Whether the cause is a certificate, so that retrying cannot help."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def describe(error: Exception) -> str:
    """The first two lines of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def readable(size: float) -> str:
    """A number of bytes as text for people, such as "2.5 GB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _disk(path: Path) -> Path:
    """The mount point of the file system that holds a path."""
    path = path.resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
