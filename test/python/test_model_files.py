"""Fetching model files: the real process against a hub on the loopback."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_hub import LocalHub, await_held, await_requests, git_sha1

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: mix chatterbex.setup --cpu")

SCRIPT = Path(__file__).resolve().parents[2] / "priv" / "python" / "provision" / "model_files.py"
REPOSITORY = "owner/name"
FOLDER = "models--owner--name"
LARGE = bytes(range(256)) * 4000
SMALL = b'{"a": 1}'


class Fetch:
    """A hub with one repository, a cache, and the process."""

    def __init__(self, hub: LocalHub, cache: Path) -> None:
        self.hub = hub
        self.cache = cache
        self.files = ["large.safetensors", "small.json"]
        self.optional: list[str] = []
        self.environment: dict[str, str] = {}

    def write(self, name: str, data: bytes, repository: str = REPOSITORY) -> None:
        path = self.hub.root / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def start(self, revision: str = "main", check: bool = False, **about: Any) -> subprocess.Popen[str]:
        patience = {"attempts": 3, "wait": 0.01} | about.pop("patience", {})
        request = {
            "cache": str(self.cache),
            "sources": [
                {
                    "repository": REPOSITORY,
                    "revision": revision,
                    "files": self.files,
                    "optional": self.optional,
                }
            ],
            "check": check,
            "patience": patience,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return subprocess.Popen(
            [sys.executable, "-I", str(SCRIPT), json.dumps(request)],
            env=environment | {"HF_ENDPOINT": self.hub.url} | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **about,
        )

    def end(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The last event; all are kept in ``events``."""
        output, _ = process.communicate(timeout=60)
        self.events = [json.loads(line) for line in output.splitlines()]
        assert [event["event"] for event in self.events[:-1]] == ["progress"] * (len(self.events) - 1), output
        assert process.returncode == (0 if self.events[-1]["event"] == "done" else 1)
        return self.events[-1]

    def run(self, **about: Any) -> Path:
        """Fetches, and returns the folder."""
        ended = self.end(self.start(**about))
        assert ended["event"] == "done", ended
        [folder] = ended["folders"]
        return Path(folder)

    def fails(self, why: str, **about: Any) -> dict[str, Any]:
        """Fetches, expects a failure, and returns it."""
        ended = self.end(self.start(**about))
        assert (ended["event"], ended.get("why")) == ("failed", why), ended
        return ended

    def blobs(self) -> list[str]:
        return sorted(path.name for path in (self.cache / FOLDER / "blobs").glob("*"))


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Fetch]:
    with LocalHub(tmp_path / "served") as hub:
        fetch = Fetch(hub, tmp_path / "cache")
        fetch.write("large.safetensors", LARGE)
        fetch.write("small.json", SMALL)
        yield fetch


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- the cache -----------------------------------------------------------------------------------------


def test_downloads_have_the_layout_of_huggingface_hub(fetch: Fetch) -> None:
    folder = fetch.run()
    commit = fetch.hub.commit(fetch.hub.root / REPOSITORY)
    assert folder == fetch.cache / FOLDER / "snapshots" / commit
    assert (folder / "large.safetensors").read_bytes() == LARGE
    assert (folder / "small.json").read_bytes() == SMALL
    assert fetch.blobs() == sorted([sha256(LARGE), git_sha1(SMALL)])
    assert (fetch.cache / FOLDER / "refs" / "main").read_text() == commit
    assert not (folder / "small.json").readlink().is_absolute()
    assert os.access(folder / "small.json", os.R_OK)


def test_huggingface_hub_finds_our_downloads_and_we_find_its(fetch: Fetch, tmp_path: Path) -> None:
    def theirs(cache: Path, name: str) -> None:
        code = (
            "import sys; from huggingface_hub import hf_hub_download\n"
            "hf_hub_download(sys.argv[1], sys.argv[2], cache_dir=sys.argv[3])"
        )
        environment = {**os.environ, "HF_ENDPOINT": fetch.hub.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        subprocess.run(
            [sys.executable, "-c", code, REPOSITORY, name, str(cache)],
            env=environment,
            check=True,
            timeout=60,
        )

    fetch.run()
    theirs(fetch.cache, "large.safetensors")
    assert len(fetch.hub.asked("GET", "large/")) == 1

    fetch.cache = tmp_path / "another"
    theirs(fetch.cache, "large.safetensors")
    fetch.run()
    assert len(fetch.hub.asked("GET", "large/")) == 2
    assert "large.safetensors" not in {event.get("file") for event in fetch.events}


def test_all_files_are_of_one_commit(fetch: Fetch) -> None:
    fetch.run()
    commit = fetch.hub.commit(fetch.hub.root / REPOSITORY)
    revisions = [one.path.split("/")[4] for one in fetch.hub.requests if "/resolve/" in one.path]
    assert revisions == ["main", commit, commit, commit]


def test_a_commit_and_a_tag_can_be_requested(fetch: Fetch) -> None:
    fetch.write("large.safetensors", LARGE[::-1], repository=f"{REPOSITORY}@v1")
    fetch.write("small.json", SMALL, repository=f"{REPOSITORY}@v1")
    commit = fetch.hub.commit(fetch.hub.root / f"{REPOSITORY}@v1")
    folder = fetch.run(revision="v1")
    assert folder.name == commit
    assert (fetch.cache / FOLDER / "refs" / "v1").read_text() == commit
    assert (folder / "large.safetensors").read_bytes() == LARGE[::-1]
    assert fetch.run(revision=commit) == folder
    assert not (fetch.cache / FOLDER / "refs" / "main").exists()


def test_a_revision_name_only_points_to_complete_snapshots(fetch: Fetch) -> None:
    old = fetch.run()
    fetch.write("large.safetensors", LARGE * 2)
    fetch.hub.fail("large/", status=503, times=-1)
    fetch.fails("connection")
    assert (fetch.cache / FOLDER / "refs" / "main").read_text() == old.name


def test_a_file_that_is_not_needed_may_be_absent(fetch: Fetch) -> None:
    fetch.optional = ["extra.json"]
    folder = fetch.run()
    assert (fetch.cache / FOLDER / ".no_exist" / folder.name / "extra.json").exists()
    fetch.write("extra.json", SMALL)
    assert (fetch.run() / "extra.json").exists()


def test_without_links_a_file_is_moved_to_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbex.hub.cache import CachedFile

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "symlink_to", refuse)
    file = CachedFile(REPOSITORY, "small.json", "abc", git_sha1(SMALL), len(SMALL), tmp_path)
    file.blob.parent.mkdir()
    file.blob.write_bytes(SMALL)
    file.put_in_place()
    assert file.link.read_bytes() == SMALL
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["small.json"]


def test_nothing_is_sent_about_the_machine(fetch: Fetch) -> None:
    fetch.run()
    for request in fetch.hub.requests:
        assert request.agent.startswith("chatterbex")
        assert "torch" not in request.agent


# -- cut off -------------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed(fetch: Fetch) -> None:
    fetch.hub.fail("large/", method="GET", cut=300_000)
    fetch.hub.fail("large/", method="GET", cut=200_000)
    folder = fetch.run()
    assert [one.start for one in fetch.hub.asked("GET", "large/")] == [0, 300_000, 500_000]
    assert (folder / "large.safetensors").read_bytes() == LARGE
    assert any(event.get("status") == "waiting" for event in fetch.events)


def test_a_small_file_too(fetch: Fetch) -> None:
    fetch.hub.fail("small.json", method="GET", cut=3)
    assert (fetch.run() / "small.json").read_bytes() == SMALL


def test_the_next_process_resumes_the_download_of_a_killed_one(fetch: Fetch) -> None:
    fetch.hub.fail("large/", method="GET", hold=400_000)
    process = fetch.start()
    await_held(fetch.hub)
    part = fetch.cache / FOLDER / "blobs" / f"{sha256(LARGE)}.incomplete"
    await_size(part, 300_000)
    process.kill()
    process.communicate()
    have = part.stat().st_size
    assert (fetch.run() / "large.safetensors").read_bytes() == LARGE
    assert [one.start for one in fetch.hub.asked("GET", "large/")] == [0, have]
    assert fetch.events[-1]["fetched"] == len(LARGE) - have + len(SMALL)
    assert not part.exists()


def await_size(path: Path, size: int) -> None:
    end = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size >= size):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_hub_without_ranges_sends_the_whole_file(fetch: Fetch) -> None:
    fetch.hub.fail("large/", method="GET", cut=300_000)
    fetch.hub.fail("large/", method="GET", no_range=True)
    assert (fetch.run() / "large.safetensors").read_bytes() == LARGE


def test_a_hub_that_always_cuts_the_connection_is_given_up(fetch: Fetch) -> None:
    fetch.hub.fail("large/", method="GET", cut=300_000, no_range=True, times=-1)
    failed = fetch.fails("connection")
    assert failed["file"] == "large.safetensors"
    assert len(fetch.hub.asked("GET", "large/")) == 3
    assert fetch.hub.url in failed["message"]


def test_a_part_that_is_too_long_or_of_something_else_is_thrown_away(fetch: Fetch) -> None:
    blobs = fetch.cache / FOLDER / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(LARGE)}.incomplete").write_bytes(b"x" * (len(LARGE) + 1))
    assert (fetch.run() / "large.safetensors").read_bytes() == LARGE
    fetch.write("large.safetensors", LARGE[::-1])
    (blobs / f"{sha256(LARGE[::-1])}.incomplete").write_bytes(b"x" * 1000)
    assert (fetch.run() / "large.safetensors").read_bytes() == LARGE[::-1]
    assert fetch.blobs() == sorted([sha256(LARGE), sha256(LARGE[::-1]), git_sha1(SMALL)])


def test_a_complete_part_is_accepted_without_a_request(fetch: Fetch) -> None:
    blobs = fetch.cache / FOLDER / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(LARGE)}.incomplete").write_bytes(LARGE)
    fetch.run()
    assert not fetch.hub.asked("GET", "large/")


def test_server_errors_are_tried_again(fetch: Fetch) -> None:
    fetch.hub.fail("large.safetensors", method="HEAD", status=502, times=2)
    fetch.hub.fail("large/", method="GET", status=503, times=2)
    fetch.run()


def test_no_hub_at_all(fetch: Fetch) -> None:
    fetch.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    failed = fetch.fails("connection")
    assert "large.safetensors of owner/name cannot be fetched from http://127.0.0.1:9" in failed["message"]
    fetch.environment["HF_ENDPOINT"] = "nonsense"
    fetch.fails("connection", patience={"wait": 100})


def test_a_page_that_is_not_a_hub(fetch: Fetch) -> None:
    fetch.hub.fail("", status=200, times=-1)
    assert "HF_ENDPOINT" in fetch.fails("not_a_hub")["message"]


# -- refused -------------------------------------------------------------------------------------------


def test_a_gated_repository_opens_to_the_right_token_which_no_other_host_sees(fetch: Fetch) -> None:
    fetch.write(".token", b"right")
    failed = fetch.fails("gated")
    assert (failed["file"], failed["repository"], failed["status"]) == ("large.safetensors", REPOSITORY, 401)
    assert "HF_TOKEN" in failed["message"]
    assert f"{fetch.hub.url}/owner/name" in failed["message"]
    fetch.environment["HF_TOKEN"] = "wrong"
    assert fetch.fails("gated")["status"] == 403
    assert len(fetch.hub.requests) == 2, "what is refused is not asked for again"
    fetch.environment["HF_TOKEN"] = "right"
    fetch.run()
    assert {one.token for one in fetch.hub.requests[2:] if one.host == "127.0.0.1"} == {"right"}
    assert {one.token for one in fetch.hub.requests if one.host == "localhost"} == {""}


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_or_private_repository(fetch: Fetch, status: int) -> None:
    fetch.hub.fail("", status=status)
    failed = fetch.fails("unauthorized")
    assert failed["status"] == status
    assert "HF_TOKEN" in failed["message"]


def test_a_missing_file_or_revision(fetch: Fetch) -> None:
    fetch.files = ["large.safetensors", "gone.pt"]
    failed = fetch.fails("not_found")
    assert failed["file"] == "gone.pt"
    assert "has no file gone.pt" in failed["message"]
    assert not fetch.hub.asked("GET", ""), "nothing is fetched where not all is there"
    assert "no such revision" in fetch.fails("not_found", revision="v9")["message"]


def test_too_many_requests_are_waited_for(fetch: Fetch) -> None:
    past = email.utils.formatdate(time.time() - 60, usegmt=True)
    fetch.hub.fail("large.safetensors", method="HEAD", status=429, headers={"Retry-After": "0"})
    fetch.hub.fail("large.safetensors", method="HEAD", status=429, headers={"Retry-After": past})
    fetch.hub.fail("large/", method="GET", status=429, headers={"RateLimit": '"api";r=0;t=0'})
    fetch.hub.fail("large/", method="GET", status=429)
    fetch.run()


@pytest.mark.parametrize("headers", [{"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}])
def test_too_long_a_wait_is_refused_at_once(fetch: Fetch, headers: dict[str, str]) -> None:
    fetch.hub.fail("large/", method="GET", status=429, headers=headers)
    failed = fetch.fails("rate_limited")
    assert (failed["retry_after"], failed["file"]) == (3600, "large.safetensors")
    assert "Try again in 3600 s" in failed["message"]


def test_waits_add_up(fetch: Fetch) -> None:
    fetch.hub.fail("", status=429, headers={"Retry-After": "1"}, times=-1)
    fetch.fails("rate_limited", patience={"attempts": 99, "limit": 1.5})
    assert len(fetch.hub.requests) == 2


def test_a_wrong_checksum_is_refused_and_deleted(fetch: Fetch) -> None:
    for path, name in (("large/", "large.safetensors"), ("small.json", "small.json")):
        fetch.hub.fail(path, method="GET", spoil=True)
        failed = fetch.fails("checksum")
        assert failed["file"] == name
        assert "deleted" in failed["message"]
        assert not [blob for blob in fetch.blobs() if blob.endswith(".incomplete")]
    assert (fetch.run() / "small.json").read_bytes() == SMALL


def test_offline(fetch: Fetch) -> None:
    fetch.environment["HF_HUB_OFFLINE"] = "1"
    failed = fetch.fails("offline")
    assert REPOSITORY in failed["message"]
    assert str(fetch.cache) in failed["message"]
    assert not fetch.hub.requests


# -- present files -------------------------------------------------------------------------------------


def test_damaged_files_are_fetched_again(fetch: Fetch) -> None:
    folder = fetch.run()
    (folder / "large.safetensors").resolve().write_bytes(LARGE[:1000])
    fetch.run()
    assert (folder / "large.safetensors").read_bytes() == LARGE

    (folder / "large.safetensors").resolve().write_bytes(LARGE[::-1])
    fetch.run()
    assert (folder / "large.safetensors").read_bytes() == LARGE[::-1], (
        "its size is right: only `check` sees it"
    )
    fetch.run(check=True)
    assert (folder / "large.safetensors").read_bytes() == LARGE
    assert len(fetch.hub.asked("GET", "small.json")) == 1


def test_a_link_to_nothing_is_mended(fetch: Fetch) -> None:
    folder = fetch.run()
    (folder / "large.safetensors").resolve().unlink()
    assert (fetch.run() / "large.safetensors").read_bytes() == LARGE


# -- the disk ------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up(fetch: Fetch) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))

    failed = fetch.fails("disk_full", preexec_fn=limit)
    assert failed["needed"] >= len(LARGE) - 500_000
    assert "HF_HOME" in failed["message"]
    assert str(fetch.cache) in failed["message"]
    fetch.run()
    assert fetch.hub.asked("GET", "large/")[-1].start > 0, "what had come is kept"


def test_a_full_disk_is_reported_before_the_download(fetch: Fetch, small_disk: Path) -> None:
    fetch.cache = small_disk / "hub"
    fetch.write("large.safetensors", LARGE * 4)
    failed = fetch.fails("disk_full")
    assert failed["needed"] == 4 * len(LARGE) + len(SMALL)
    assert 0 < failed["free"] < failed["needed"]
    assert f"{small_disk} has no room" in failed["message"]
    assert not fetch.hub.asked("GET", "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True).returncode == 0:
            yield place
            subprocess.run(["umount", str(place)], check=True)
            return
    pytest.skip("no disk can be mounted here (not root)")


def test_a_folder_that_is_not_writable(fetch: Fetch) -> None:
    fetch.cache.parent.mkdir(exist_ok=True)
    fetch.cache.write_text("a file")
    failed = fetch.fails("file")
    assert str(fetch.cache) in failed["message"]
    assert "HF_HOME" in failed["message"]


# -- several at once -----------------------------------------------------------------------------------


def test_two_processes_fetch_each_file_once(fetch: Fetch) -> None:
    fetch.hub.fail("large/", method="GET", hold=100_000)
    first = fetch.start()
    await_held(fetch.hub)
    second = fetch.start()
    assert second.stdout is not None
    waiting = json.loads(second.stdout.readline())
    assert (waiting["status"], waiting["message"]) == ("waiting", "another process is fetching it")
    fetch.hub.release()
    assert fetch.end(first)["event"] == "done"
    assert fetch.end(second)["event"] == "done"
    assert len(fetch.hub.asked("GET", "large/")) == 1


def test_many_at_once(fetch: Fetch) -> None:
    processes = [fetch.start() for _ in range(4)]
    assert {fetch.end(process)["event"] for process in processes} == {"done"}
    assert len(fetch.hub.asked("GET", "large/")) == 1
    assert fetch.blobs() == sorted([sha256(LARGE), git_sha1(SMALL)])


# -- progress --------------------------------------------------------------------------------------


def test_progress(fetch: Fetch) -> None:
    fetch.hub.fail("large/", method="GET", hold=500_000)
    process = fetch.start()
    await_requests(fetch.hub, "GET", "large/", 1)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["status"], first["file"], first["repository"]) == (
        "fetching",
        "large.safetensors",
        REPOSITORY,
    )
    assert 0 < first["file_bytes"] == first["bytes"] <= 500_000
    assert (first["file_total"], first["total"]) == (len(LARGE), len(LARGE) + len(SMALL))
    fetch.hub.release()
    assert fetch.end(process)["fetched"] == len(LARGE) + len(SMALL)
    done = [(event["file"], event["bytes"]) for event in fetch.events if event.get("status") == "done"]
    assert done == [("large.safetensors", len(LARGE)), ("small.json", len(LARGE) + len(SMALL))]


def test_missing_packages_are_reported(tmp_path: Path) -> None:
    code = """
import runpy, sys
sys.modules["huggingface_hub"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    request = {"cache": str(tmp_path), "sources": [], "check": False, "patience": {}}
    command = [sys.executable, "-c", code, str(SCRIPT), json.dumps(request)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    event = json.loads(ended.stdout)
    assert (event["why"], event["message"]) == ("not_set_up", "the package huggingface_hub is not installed")
