"""Pages of mapped weights are released, and nothing else is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
if sys.platform != "linux":
    pytest.skip("pages are only given back on Linux", allow_module_level=True)

from safetensors.torch import save_file  # noqa: E402

from chatterbex import checkpoint, pages  # noqa: E402

SIZE = 16 * 2**20  # numbers: 64 MiB


def resident(kind: str) -> int:
    """The KiB of one kind of this process's memory."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1])


def test_mapped_weights_leave_memory_and_are_read_again(tmp_path: Path) -> None:
    expected = torch.arange(SIZE, dtype=torch.float32)
    save_file({"a": expected, "b": expected + 1}, tmp_path / "weights.safetensors")
    weights = checkpoint.read_safetensors(tmp_path / "weights.safetensors")
    total = weights["a"].sum() + weights["b"].sum()
    before = resident("RssFile")
    pages.release(weights.values())
    assert before - resident("RssFile") > 100_000
    assert torch.equal(weights["a"], expected)
    assert torch.equal(weights["b"], expected + 1)
    assert weights["a"].sum() + weights["b"].sum() == total


def test_tensors_in_memory_keep_their_numbers(tmp_path: Path) -> None:
    mine = torch.arange(SIZE, dtype=torch.float32)
    expected = mine.clone()
    pages.release([mine, mine[5:], torch.empty(0)])
    assert torch.equal(mine, expected)
