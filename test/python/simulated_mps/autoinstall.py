"""Installs the simulated device on import, for an interpreter that no test can reach into.

The embedded interpreter imports this before it loads a model, on the thread that runs models.
CHATTERBEX_SIMULATED_MPS says what the device is like: a JSON object, or the path of a file that
holds one. A file is read again whenever it changes, so a test sets faults between two requests.

    {"macos": [15, 5], "memory": 17179869184, "limit": null, "quirks": ["pytorch-192212"],
     "metal_memory": true, "faults": [{"operator": "aten::conv1d", "nth": 3, "error": "unsupported"}]}
"""

from __future__ import annotations

import json
import os

import simulated_mps

VARIABLE = "CHATTERBEX_SIMULATED_MPS"


def _install() -> None:
    value = os.environ.get(VARIABLE, "").strip()
    inline = value.startswith("{")
    path = value if value and not inline else None
    text = value if inline else ""
    if path is not None and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
    settings = json.loads(text) if text.strip() else {}
    options = {
        key: settings[key]
        for key in ("memory", "limit", "quirks", "metal_memory")
        if settings.get(key) is not None
    }
    if settings.get("macos"):
        options["macos"] = tuple(settings["macos"])
    simulation = simulated_mps.install(source=path, **options)
    simulation.faults.replace(settings.get("faults", []))


_install()
