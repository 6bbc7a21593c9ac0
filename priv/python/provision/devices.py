"""Looks at the devices of this machine, and tries them. Prints lines of JSON.

    devices.py list         what there is, and what is known of it
    devices.py try DEVICE   small pieces of a model's work on it, one by one

The lines of `list` have "event": "torch" (its version and how long its import took) and "devices".
Those of `try` have "begin" (what is tried now), "check" (how it came out) and in the end "done". A
process that a device takes along has then said which piece it was at.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatterbex.device import Check

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def say(event: str, about: dict[str, Any]) -> None:
    """Print one line."""
    sys.stdout.write("\n" + json.dumps({"event": event, **about}) + "\n")
    sys.stdout.flush()


def look() -> None:
    """Say what there is."""
    from chatterbex.device import describe, machine

    began = time.perf_counter()
    facts = machine.look()
    if facts.torch is not None:
        say("torch", {"version": facts.torch.version, "seconds": round(time.perf_counter() - began, 3)})
    devices = [device.as_dict() for device in describe(facts)]
    say("devices", {"devices": devices, "facts": dataclasses.asdict(facts)})


def attempt(device: str) -> None:
    """Try a device."""
    from chatterbex.device import probe

    def report_check(name: str, check: Check | None) -> None:
        if check is None:
            say("begin", {"name": name})
        else:
            say("check", {"name": name, **check.as_dict()})

    report = probe(device, report_check)
    say("done", {"ok": report.ok, "reason": report.reason, "eager_attention": report.eager_attention})


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    from chatterbex.device import prepare_environment

    prepare_environment()
    if arguments[0] == "list":
        look()
    else:
        attempt(arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
