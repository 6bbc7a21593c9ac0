"""Which packages the tests of the Chatterbox models find."""

from __future__ import annotations

import importlib.util

_NEEDED = {
    "torch": "torch",
    "chatterbox": "chatterbox-tts",
    "s3tokenizer": "s3tokenizer",
    "perth": "resemble-perth",
    "safetensors": "safetensors",
    "soxr": "soxr",
    "tokenizers": "tokenizers",
}
_FOR_UPSTREAM = {
    "librosa": "librosa",
    "diffusers": "diffusers",
    "conformer": "conformer",
    "einops": "einops",
    "omegaconf": "omegaconf",
    "transformers": "transformers",
    "pyloudnorm": "pyloudnorm",
    "onnx": "onnx",
    "scipy": "scipy",
    "torchaudio": "torchaudio",
    "pkg_resources": "setuptools<82",
}


def _lacking(packages: dict[str, str]) -> list[str]:
    found = {}
    for name, package in packages.items():
        spec = importlib.util.find_spec(name)
        found[package] = spec is not None and spec.origin is not None
    return [package for package, there in found.items() if not there]


LACKING = _lacking(_NEEDED)
"""The packages that the models need and that are missing."""
LACKING_FOR_UPSTREAM = _lacking(_FOR_UPSTREAM)
"""Further packages that upstream's own code needs."""
