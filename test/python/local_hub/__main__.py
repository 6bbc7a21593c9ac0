"""Runs the hub for another program: see the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from local_hub import LocalHub, await_held, logged


def main() -> None:
    """Serves until stdin ends."""
    with LocalHub(Path(sys.argv[1])) as hub:
        print(hub.url, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            answer: object = "ok"
            match command.pop("do"):
                case "fail":
                    hub.fail(**command)
                case "release":
                    hub.release()
                case "reset":
                    hub.reset()
                case "await_held":
                    await_held(hub)
                case "requests":
                    answer = logged(hub)
            print(json.dumps(answer), flush=True)


main()
