"""A Hugging Face hub on the loopback: the real one's API for files, with faults on request.

It serves the folder that it is given: ``owner/name/file``, and other revisions of it as
``owner/name@revision/file``. Weights are kept apart, as the real hub does: a redirect leads to another
host, and the headers name their SHA-256. A file ``.token`` in a repository makes it gated, open to
whoever sends the token that it holds.

Other programs run it as ``python -m local_hub FOLDER``: it prints its address, takes faults as lines of
JSON on stdin, answers each with a line, and ends with stdin.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_LARGE = (".safetensors", ".pt")
_BLOCK = 1 << 16


@dataclass
class Fault:
    """A failure of matching requests, a number of times.

    Attributes:
        path: part of the request's path, as a regular expression.
        method: HEAD or GET; any where it is empty.
        times: how often; for ever where it is negative.
        status: what is answered instead; 0 for the usual answer.
        headers: added to the answer.
        cut: the connection ends after so many bytes of the body.
        hold: the body waits after so many bytes, until `LocalHub.release`.
        spoil: the body's bytes are not those of the file.
        no_range: the whole file is sent, whatever part was asked for.
    """

    path: str = ""
    method: str = ""
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1
    hold: int = -1
    spoil: bool = False
    no_range: bool = False


@dataclass
class Request:
    """A request that came, for a file from ``start`` on, sent with ``token``."""

    method: str
    path: str
    host: str
    start: int
    token: str
    agent: str
    status: int = 0


class LocalHub:
    """The server. Used as a context: it is open within."""

    def __init__(self, root: Path) -> None:
        """Takes the folder to serve, which may change at any time."""
        self.root = Path(root)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.held = threading.Event()
        self._go_on = threading.Event()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """For ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LocalHub:
        """Opens it."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it, with all that is held."""
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, path: str = "", **about: Any) -> None:
        """Lets requests fail: see `Fault`."""
        with self._lock:
            self.faults.append(Fault(path, **about))

    def release(self) -> None:
        """Releases held requests, and holds no more."""
        self._go_on.set()

    def reset(self) -> None:
        """Forgets all requests and faults, for another test."""
        self.release()
        self.held, self._go_on = threading.Event(), threading.Event()
        self.requests, self.faults = [], []

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests that came, of this method and with this in their path."""
        return [one for one in self.requests if one.method == method and re.search(path, one.path)]

    def take_fault(self, method: str, path: str) -> Fault:
        """The fault of a request, or one that does nothing."""
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return Fault()

    def wait(self) -> None:
        """Waits for `release`."""
        self.held.set()
        self._go_on.wait(600)

    def folder(self, repository: str, revision: str) -> tuple[Path, str] | None:
        """The folder of a revision, by its name or its commit, and its commit."""
        plain = self.root / repository
        tagged = sorted(plain.parent.glob(f"{plain.name}@*")) if plain.parent.is_dir() else []
        for folder in (plain, *tagged):
            commit = self.commit(folder)
            name = folder.name.partition("@")[2] or "main"
            if folder.is_dir() and revision in (name, commit):
                return folder, commit
        return None

    def commit(self, folder: Path) -> str:
        """A name for the contents of a folder."""
        digest = hashlib.sha1(folder.name.encode())
        for path in sorted(folder.glob("*")):
            about = path.stat()
            digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode())
        return digest.hexdigest()

    def large(self, sha256: str) -> Path | None:
        """A large file by its checksum."""
        files = (path for ending in _LARGE for path in self.root.glob(f"*/*/**/*{ending}"))
        return next((path for path in files if _sha256(path) == sha256), None)


_CHECKSUMS: dict[tuple[str, int, int], str] = {}


def _sha256(path: Path) -> str:
    about = path.stat()
    key = (str(path), about.st_size, about.st_mtime_ns)
    if key not in _CHECKSUMS:
        _CHECKSUMS[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return _CHECKSUMS[key]


def git_sha1(data: bytes) -> str:
    """The checksum by which Git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self, body: bool) -> None:
        path = unquote(self.path)
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.request_log = Request(
            self.command,
            path,
            self.headers.get("Host", "").partition(":")[0],
            int(start[1]) if start else 0,
            self.headers.get("Authorization", "").removeprefix("Bearer "),
            self.headers.get("User-Agent", ""),
        )
        self.hub.requests.append(self.request_log)
        fault = self.hub.take_fault(self.command, path)
        if fault.status:
            return self._answer(fault.status, fault.headers)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3], body, fault)
        match = re.fullmatch(r"/large/([0-9a-f]{64})", path)
        found = self.hub.large(match[1]) if match else None
        if found is None:
            return self._answer(404, {})
        return self._file(found, {}, body, fault)

    def _resolve(self, repository: str, revision: str, name: str, body: bool, fault: Fault) -> None:
        found = self.hub.folder(repository, revision)
        token = self.hub.root / repository / ".token"
        if token.exists() and self.request_log.token != token.read_text().strip():
            status = 403 if self.request_log.token else 401
            return self._answer(
                status, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}
            )
        if not (self.hub.root / repository).is_dir():
            return self._answer(401, {"X-Error-Message": "Invalid username or password."})
        if found is None:
            return self._answer(
                404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
            )
        folder, commit = found
        path = folder / name
        about = {"X-Repo-Commit": commit}
        if not path.is_file():
            return self._answer(
                404, {**about, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            )
        if path.suffix not in _LARGE:
            return self._file(path, {**about, "ETag": f'"{git_sha1(path.read_bytes())}"'}, body, fault)
        sha256 = _sha256(path)
        about |= {
            "Location": f"http://localhost:{self.hub.port}/large/{sha256}",
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(path.stat().st_size),
            "ETag": f'"{git_sha1(sha256.encode())}"',
        }
        return self._answer(302, {**about, **fault.headers})

    def _file(self, path: Path, headers: dict[str, str], body: bool, fault: Fault) -> None:
        data = path.read_bytes()
        if fault.spoil:
            data = bytes(byte ^ 0xFF for byte in data[:1000]) + data[1000:]
        start = 0 if fault.no_range else self.request_log.start
        if start and start >= len(data):
            self._answer(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        headers = {
            **headers,
            **fault.headers,
            "Content-Length": str(len(data) - start),
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if start else 200, headers)
        if body:
            self._body(data[start:], fault)

    def _body(self, data: bytes, fault: Fault) -> None:
        for place, stop in ((fault.hold, self.hub.wait), (fault.cut, None)):
            if place >= 0:
                self._write(data[:place])
                data = data[place:]
                if stop is None:
                    self.close_connection = True
                    return
                stop()
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            for place in range(0, len(data), _BLOCK):
                self.wfile.write(data[place : place + _BLOCK])
            self.wfile.flush()
        except OSError:  # the other side has gone
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self._head(status, {"Content-Length": "0", **headers})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.request_log.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def await_held(hub: LocalHub, seconds: float = 30) -> None:
    """Waits until a body is held."""
    assert hub.held.wait(seconds), "nothing was held"


def logged(hub: LocalHub) -> list[dict[str, Any]]:
    """The requests that came, as plain values."""
    return [asdict(one) for one in hub.requests]


def await_requests(hub: LocalHub, method: str, path: str, count: int, seconds: float = 30) -> None:
    """Waits until that many requests came."""
    end = time.monotonic() + seconds
    while len(hub.asked(method, path)) < count:
        assert time.monotonic() < end, f"{len(hub.asked(method, path))} requests, not {count}"
        time.sleep(0.01)
