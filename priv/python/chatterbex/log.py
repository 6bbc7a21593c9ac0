"""Collects what Python prints, logs and warns about for the host's logger instead of a terminal."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
import warnings
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_LINES: Final = 1_000
"""The most lines that wait; older ones are dropped and counted."""
MAX_LENGTH: Final = 8_000
"""The most characters in a line; the rest is cut off."""

_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Sink:
    """A bounded buffer of log lines. Any thread may add to it."""

    def __init__(self, limit: int = MAX_LINES) -> None:
        """Makes an empty sink.

        Args:
            limit: The most lines that wait, at least 1. Default: ``MAX_LINES``.
        """
        # Re-entrant: a finaliser that prints may run while this same thread adds a line.
        self._lock = threading.RLock()
        self._lines: deque[tuple[str, str]] = deque(maxlen=limit)
        self._dropped = 0

    def add(self, level: str, text: str) -> None:
        """Adds a message, which may have several lines; a blank one is ignored.

        Args:
            level: "debug", "info", "warning" or "error".
            text: The message. Terminal escapes and control characters are removed.
        """
        text = _CONTROL.sub("", _ESCAPE.sub("", text)).rstrip()
        if not text:
            return
        if len(text) > MAX_LENGTH:
            text = text[:MAX_LENGTH] + "..."
        with self._lock:
            if len(self._lines) == self._lines.maxlen:
                self._dropped += 1
            self._lines.append((level, text))

    def drain(self) -> list[tuple[str, str]]:
        """Removes all lines and returns them, oldest first, as (level, text)."""
        with self._lock:
            lines, dropped = list(self._lines), self._dropped
            self._lines.clear()
            self._dropped = 0
        if dropped:
            lines.insert(0, ("warning", f"{dropped} older lines of Python's log were dropped"))
        return lines


class _Raw(io.RawIOBase):
    """The raw stream below a replaced ``sys.stdout``: cuts the bytes into lines for the sink."""

    def __init__(self, sink: Sink, level: str) -> None:
        self._sink = sink
        self._level = level
        self._lock = threading.RLock()
        self._pending = b""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        written = bytes(data)
        with self._lock:
            *whole, pending = (self._pending + written).split(b"\n")
            # A progress bar, or text without any line end, must not pile up.
            self._pending = pending[-4 * MAX_LENGTH :]
        for line in whole:
            self._sink.add(self._level, _last_drawing(line).decode("utf-8", "replace"))
        return len(written)


def _last_drawing(line: bytes) -> bytes:
    # A progress bar redraws itself after each carriage return.
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class _Handler(logging.Handler):
    """Sends records of the logging module to the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.add(level_of(record.levelno), f"{record.name}: {self.format(record)}")
        except Exception:  # logging must never fail its caller, whatever a record's arguments do
            self.handleError(record)


def level_of(number: int) -> str:
    """Converts a level of the logging module to the host logger's name for it.

    Args:
        number: A level such as ``logging.WARNING``.

    Returns:
        "debug", "info", "warning" or "error".
    """
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


class Redirection:
    """Sends this process's standard streams, logging records and warnings to a sink."""

    def __init__(self, sink: Sink) -> None:
        """Redirects.

        Args:
            sink: Receives everything.
        """
        self.sink = sink
        self._streams = {
            name: getattr(sys, name) for name in ("stdin", "stdout", "stderr", "__stdout__", "__stderr__")
        }
        self._show = warnings.showwarning
        self._handlers = logging.root.handlers[:]
        # Held open for the whole process, as the real one would be.
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
        sys.stdout = sys.__stdout__ = _stream(sink, "info")  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = _stream(sink, "warning")  # type: ignore[misc]
        logging.root.handlers[:] = [_Handler(sink)]
        logging.getLogger("chatterbex").setLevel(logging.INFO)
        warnings.showwarning = self._warn

    def undo(self) -> None:
        """Puts everything back as it was, for tests."""
        sys.stdin.close()
        for name, stream in self._streams.items():
            setattr(sys, name, stream)
        logging.root.handlers[:] = self._handlers
        warnings.showwarning = self._show

    def _warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = f"{category.__name__}: {message} ({filename}:{lineno})"
        if file is None:
            self.sink.add("warning", text)
        else:
            file.write(warnings.formatwarning(message, category, filename, lineno, line))


def _stream(sink: Sink, level: str) -> TextIO:
    return io.TextIOWrapper(
        cast("io.BufferedWriter", _Raw(sink, level)),
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )


_redirection: Redirection | None = None


def redirect() -> Sink:
    """Redirects this process once; later calls change nothing.

    Returns:
        The sink of this process.
    """
    global _redirection
    if _redirection is None:
        _redirection = Redirection(Sink())
    return _redirection.sink


def restore() -> None:
    """Undoes ``redirect``, for tests."""
    global _redirection
    if _redirection is not None:
        _redirection.undo()
        _redirection = None
