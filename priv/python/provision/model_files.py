"""Downloads the files of a model into the user's hub cache. Prints lines of JSON.

    model_files.py REQUEST

The request is JSON: "cache" (the hub cache's folder), "sources" (each with "repository", "revision",
"files" and "optional", names of files), "check" (whether to compare the checksums of existing files
too) and "patience" (the fields of ``chatterbex.hub.asking.Hub``).

Each line has an "event": "progress" (the progress of a file), or at the end "done" ("folders", one for
each source, "fetched" and "total") or "failed" ("why", "message" and more). The exit code is 0 only if
all files are there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _say(event: str, about: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"event": event, **about}) + "\n")
    sys.stdout.flush()


def main(request: dict[str, Any]) -> int:
    """Does what a request asks for, and returns the exit code."""
    try:
        from chatterbex.hub.asking import Hub
        from chatterbex.hub.download import Download
        from chatterbex.hub.failure import DownloadError
    except ModuleNotFoundError as error:
        _say("failed", {"why": "not_set_up", "message": f"the package {error.name} is not installed"})
        return 1
    download = Download(
        Path(request["cache"]),
        request["sources"],
        lambda about: _say("progress", about),
        check=request["check"],
        hub=Hub(**request["patience"]),
    )
    try:
        _say("done", download.run())
    except DownloadError as failure:
        _say("failed", failure.about)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
