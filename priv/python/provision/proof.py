"""Proves that PyTorch and the networks of the Chatterbox models work here. Prints one line of JSON.

    proof.py DEVICE     cpu, mps or cuda

"error" says what does not work on the CPU, where everything must work. "fault" says why the device cannot
be used.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def prove(kind: str) -> dict[str, Any]:
    """Imports the networks, and tries the CPU and a device on small pieces of their work."""
    from chatterbex.device.environment import prepare_environment

    prepare_environment()
    import torch

    from chatterbex import upstream
    from chatterbex.device import detection, probing

    for network in (upstream.s3gen, upstream.voice_encoder, upstream.perth):
        network()
    cpu = probing.probe("cpu")
    answer: dict[str, Any] = {
        "torch": torch.__version__,
        "error": cpu.reason,
        "fault": None,
        "tried": [check.name for check in cpu.checks if check.ok],
    }
    devices = detection.detect()
    device = next(device for device in devices if device.kind == kind)
    if kind != "cpu":
        answer["fault"] = device.reason if not device.available else probing.probe(device.device).reason
    used = device if answer["fault"] is None else devices[0]
    return {**answer, "device": used.device, "name": used.name}


def main(kind: str) -> None:
    """Print the answer."""
    try:
        answer = prove(kind)
    except BaseException as error:  # a library of the system that is missing raises what it likes
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
