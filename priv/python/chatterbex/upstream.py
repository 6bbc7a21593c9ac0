"""Imports the networks' PyPI packages, and nothing else does: chatterbox-tts, s3tokenizer, resemble-perth.

An ordinary import costs 8 to 15 seconds and 2 GB of packages that never run here: chatterbox's
``__init__`` imports every model, perth and s3gen pull librosa (numba, scipy, scikit-learn), diffusers pulls
torch._dynamo, s3tokenizer pulls onnx. So each package is imported

- without its ``__init__``: a bare package module with the right ``__path__`` stands for it;
- under a private name, so that a program's own ``import chatterbox`` is not affected;
- with stand-ins for modules that it imports at the top of its files and either never calls (onnx, conformer,
  omegaconf, yaml, torch's activation checkpoints with sympy behind them) or needs only for one small function
  (mel filter banks, spectrograms, a Hann window, one attention layer; einops imports torch._dynamo at its
  first call).

``sys.modules`` is restored afterwards. Only the model thread imports, so no other code sees it meanwhile.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from chatterbex.errors import ChatterbexError

_CHATTERBOX = "chatterbex_upstream"


def _module(name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []  # marks it as a package for "import a.b"
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def _never(name: str) -> Any:
    """A stand-in for a class that is imported, or derived from, but never used."""

    def init(self: Any, *_args: Any, **_kwargs: Any) -> None:
        raise NotImplementedError(f"{name} is not part of what Chatterbex runs")

    return type(name.rpartition(".")[2], (), {"__init__": init})


def _stand_ins() -> dict[str, types.ModuleType]:
    import numpy as np

    from chatterbex import torchaudio_parts
    from chatterbex.s3gen import layers, signal

    def hann(name: str, length: int, fftbins: bool = True) -> np.ndarray:
        if name != "hann" or not fftbins:
            raise NotImplementedError(f"window {name}")
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)

    filters = _module("librosa.filters", mel=signal.mel_filters)
    effects = _module("librosa.effects", trim=signal.trim)
    modules = {
        "librosa": _module(
            "librosa",
            filters=filters,
            effects=effects,
            stft=signal.stft,
            resample=signal.resample,
        ),
        "librosa.filters": filters,
        "librosa.effects": effects,
        "scipy": _module("scipy"),
        "scipy.signal": _module(
            "scipy.signal",
            get_window=hann,
            butter=_never("scipy.signal.butter"),
            filtfilt=_never("scipy.signal.filtfilt"),
        ),
        "einops": _module(
            "einops",
            rearrange=layers.flattened,
            pack=_never("einops.pack"),
            repeat=_never("einops.repeat"),
        ),
        "onnx": _module("onnx"),
        "yaml": _module("yaml"),
        "torch.utils.checkpoint": _module("torch.utils.checkpoint"),
        "omegaconf": _module("omegaconf", DictConfig=dict),
        "conformer": _module("conformer", ConformerBlock=_never("conformer.ConformerBlock")),
        "tqdm": _module("tqdm", tqdm=_never("tqdm.tqdm")),
        "pkg_resources": _module("pkg_resources", resource_filename=_resource_filename),
        "torchaudio": _module("torchaudio"),
        "torchaudio.transforms": _module(
            "torchaudio.transforms",
            Spectrogram=torchaudio_parts.Spectrogram,
            InverseSpectrogram=torchaudio_parts.InverseSpectrogram,
            TimeStretch=_unused_layer,
        ),
        "torchaudio.compliance": _module("torchaudio.compliance"),
        "torchaudio.compliance.kaldi": _module("torchaudio.compliance.kaldi", fbank=torchaudio_parts.fbank),
        "diffusers": _module("diffusers"),
        "diffusers.models": _module("diffusers.models"),
        "diffusers.models.activations": _module(
            "diffusers.models.activations", get_activation=layers.activation
        ),
        "diffusers.models.attention": _module(
            "diffusers.models.attention",
            GELU=layers.GELU,
            GEGLU=_never("diffusers.GEGLU"),
            AdaLayerNorm=_never("diffusers.AdaLayerNorm"),
            AdaLayerNormZero=_never("diffusers.AdaLayerNormZero"),
            ApproximateGELU=_never("diffusers.ApproximateGELU"),
        ),
        "diffusers.models.attention_processor": _module(
            "diffusers.models.attention_processor", Attention=layers.Attention
        ),
        "diffusers.models.lora": _module("diffusers.models.lora", LoRACompatibleLinear=layers.Linear),
        "diffusers.utils": _module("diffusers.utils"),
        "diffusers.utils.torch_utils": _module(
            "diffusers.utils.torch_utils", maybe_allow_in_graph=lambda cls: cls
        ),
    }
    modules["scipy"].signal = modules["scipy.signal"]
    modules["torchaudio.compliance"].kaldi = modules["torchaudio.compliance.kaldi"]
    return modules


def _unused_layer(**_: Any) -> None:
    """A layer that upstream makes and never calls."""


def _resource_filename(package: str, resource: str) -> str:
    """The function of pkg_resources that perth needs; setuptools 82 no longer includes it."""
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise ImportError(f"no package {package}")
    return str(Path(locations[0]) / resource)


def package_folder(name: str, distribution: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    # This also finds a plain folder of that name on the path, which has no file of its own.
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        raise ChatterbexError(
            "not_set_up",
            f"The Python package {distribution} is not installed. Run `mix chatterbex.setup --auto` "
            "(or --mps, --cuda, --cpu) to install what the Chatterbox models need.",
            {"package": distribution},
        )
    return Path(next(iter(spec.submodule_search_locations)))


@contextmanager
def _isolated(packages: Mapping[str, Path]) -> Iterator[None]:
    """Puts the stand-ins and bare packages into ``sys.modules``, and restores it at the end."""
    stand_ins = _stand_ins()
    bare = {}
    for name, folder in packages.items():
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        bare[name] = module

    roots = {name.partition(".")[0] for name in [*stand_ins, *packages]} - {"torch"}

    def ours(name: str) -> bool:
        return name in stand_ins or name.partition(".")[0] in roots

    before = {name: module for name, module in sys.modules.items() if ours(name)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(stand_ins)
    sys.modules.update(bare)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _import(module: str, folders: Mapping[str, Path]) -> types.ModuleType:
    try:
        with _isolated(folders):
            return importlib.import_module(module)
    except ImportError as error:
        raise ChatterbexError(
            "not_set_up",
            f"A Python package of the Chatterbox models cannot be imported: {error}. "
            "Run `mix chatterbex.setup --auto` to install them again.",
            {"module": module, "exception": repr(error)},
        ) from error


def _chatterbox_folders() -> dict[str, Path]:
    return {
        _CHATTERBOX: package_folder("chatterbox", "chatterbox-tts"),
        "s3tokenizer": package_folder("s3tokenizer", "s3tokenizer"),
    }


@cache
def s3gen() -> types.ModuleType:
    """Upstream's S3Gen: flow, vocoder, speaker encoder and speech tokenizer.

    Its convolutions are made without weight normalisation: the weights are multiplied out when they are
    loaded (``checkpoint.merge_weight_norm``), not at every call.
    """
    module = _import(f"{_CHATTERBOX}.models.s3gen.s3gen", _chatterbox_folders())
    for cls in (module.HiFTGenerator, module.ConvRNNF0Predictor):
        cls.__init__.__globals__["weight_norm"] = lambda layer: layer
    return module


@cache
def voice_encoder() -> types.ModuleType:
    """Upstream's voice encoder."""
    return _import(f"{_CHATTERBOX}.models.voice_encoder.voice_encoder", _chatterbox_folders())


@cache
def perth() -> types.ModuleType:
    """PerTh's network (class PerthNet)."""
    folder = package_folder("perth", "resemble-perth")
    return _import(
        "perth.perth_net.perth_net_implicit.model.perth_net",
        {"perth": folder, "perth.perth_net": folder / "perth_net"},
    )


def perth_folder() -> Path:
    """The folder of PerTh's weights and settings."""
    return package_folder("perth", "resemble-perth") / "perth_net" / "pretrained" / "implicit"


def defined_beside(cls: type, name: str) -> Any:
    """``name`` from the module in which ``cls``, or a class it derives from, was defined."""
    for base in cls.__mro__:
        namespace = getattr(base.__init__, "__globals__", {})
        if name in namespace:
            return namespace[name]
    raise AttributeError(f"{name} is not in the modules of {cls.__name__}")
