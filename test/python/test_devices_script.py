"""The script that looks at devices for Elixir: its output, and when it comes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from driving import PACKAGE

pytest.importorskip("torch", reason="PyTorch is not installed")

SCRIPT = PACKAGE / "provision" / "devices.py"


def events(*arguments: str) -> list[dict[str, Any]]:
    """Runs the script and returns its lines."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *arguments], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line]


def test_it_lists_the_devices() -> None:
    torch, devices = events("list")
    assert torch["event"] == "torch"
    assert torch["seconds"] > 0
    assert devices["event"] == "devices"
    assert devices["devices"][0]["device"] == "cpu"
    assert {one["device"].partition(":")[0] for one in devices["devices"]} == {"cpu", "mps", "cuda"}
    assert devices["facts"]["torch"]["version"] == torch["version"]


def test_it_reports_each_check_before_running_it() -> None:
    *tries, done = events("try", "cpu")
    assert done == {"event": "done", "ok": True, "reason": None, "eager_attention": False}
    assert [one["event"] for one in tries] == ["begin", "check"] * 5
    names = [one["name"] for one in tries]
    assert names[::2] == names[1::2]
    assert names[::2] == ["matmul", "stft", "long_conv1d", "attention", "fused_attention"]
    assert all(one["ok"] for one in tries[1::2])
