"""Loads S3Gen from a file."""

from __future__ import annotations

from pathlib import Path

import torch

from chatterbex import checkpoint, upstream
from chatterbex.errors import ChatterbexError
from chatterbex.s3gen.network import S3Gen
from chatterbex.s3gen.reference import Analysis

# Tables that some published files lack; they are computed when the module is made.
_COMPUTED = (r"tokenizer\._mel_filters", r"tokenizer\.window", r".*\.num_batches_tracked")


def load(path: Path, *, meanflow: bool, strict: bool = True) -> tuple[S3Gen, Analysis]:
    """Loads the networks of a published file, on the CPU.

    Args:
        path: ``s3gen.safetensors``, ``s3gen.pt`` or ``s3gen_meanflow.safetensors``.
        meanflow: whether it is the last of these.
        strict: whether unknown weights are an error. Upstream does not check the first of these
            files, so for that file they are only logged.

    Raises:
        ChatterbexError: The file is missing ("model_files_missing"), or damaged, or of another
            model ("model_load_failed").
    """
    weights = checkpoint.merge_weight_norm(checkpoint.read_weights(path))
    module = checkpoint.blank(lambda: upstream.s3gen().S3Token2Wav(meanflow=meanflow))
    checkpoint.fill(module, weights, path, optional=_COMPUTED, strict=strict)
    left = checkpoint.left_blank(module)
    if left:
        raise ChatterbexError("model_load_failed", f"{path} leaves {', '.join(left[:5])} without a value")
    with torch.no_grad():
        return S3Gen(module).eval(), Analysis(module).eval()
