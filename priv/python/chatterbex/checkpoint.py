"""A model's files: which ones are required, how to read them safely, and how to load them into modules.

A file in a model's folder may be damaged, and no pickle in it is allowed to run code.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from chatterbex import pages
from chatterbex.errors import ChatterbexError


def _required() -> dict[str, tuple[str, ...]]:
    table = json.loads(Path(__file__).with_name("model_files.json").read_text(encoding="utf-8"))
    return {
        model: tuple(
            source.get("names", {}).get(name, name) for source in entry["sources"] for name in source["files"]
        )
        for model, entry in table.items()
    }


#: The required files in a model's folder, by model (and version, or language pack), without optional ones.
REQUIRED_FILES: dict[str, tuple[str, ...]] = _required()


def needed_files(model: str, *, t3: str, s3gen: str) -> tuple[str, ...]:
    """The required files in a model's folder.

    Args:
        model: a key of ``REQUIRED_FILES``.
        t3: the file of T3: a name in the folder, or the path of a fine-tune.
        s3gen: the file of S3Gen, a name in the folder.
    """
    own = {"t3": t3, "s3gen": s3gen}
    return tuple(own.get(re.split(r"[_.]", name)[0], name) for name in REQUIRED_FILES[model])


def check_tokenizer(size: int, t3_size: int, extra: Mapping[str, Any]) -> None:
    """Checks that a fine-tuned T3 and the tokenizer belong together.

    Args:
        size: how many tokens the tokenizer has.
        t3_size: how many text tokens T3 knows.
        extra: the options of the load; a fine-tune has "t3" or "repo".

    Raises:
        ChatterbexError: The tokenizer has tokens that T3 does not know ("model_load_failed").
    """
    if size == t3_size or not (extra.get("t3") or extra.get("repo")):
        return
    message = f"The tokenizer has {size} tokens, and the fine-tuned T3 knows {t3_size}."
    if size < t3_size:
        _logger.warning("%s If speech comes out garbled, the tokenizer of the fine-tune is missing.", message)
        return
    raise ChatterbexError(
        "model_load_failed",
        f"{message} Load it as the model that it was made from, with the tokenizer that it was trained with: "
        "in its repository, or in the folder given as `checkpoint:`.",
        {"tokenizer": size, "t3": t3_size},
    )


_M = TypeVar("_M", bound=nn.Module)
_logger = logging.getLogger("chatterbex.checkpoint")
_AGAIN = "Fetch it again with `mix chatterbex.models download`, or check the folder given as `checkpoint:`."


def _missing(path: Path, why: str, remedy: str = _AGAIN) -> ChatterbexError:
    return ChatterbexError(
        "model_files_missing", f"{path} {why}. {remedy}", {"file": path.name, "path": str(path)}
    )


def _broken(path: Path, why: str, error: BaseException | None = None) -> ChatterbexError:
    details = {"file": path.name, "path": str(path)}
    if error is not None:
        details["exception"] = f"{type(error).__name__}: {error}"[:500]
    return ChatterbexError("model_load_failed", f"{path} {why}. {_AGAIN}", details)


def check_files(folder: str | os.PathLike[str], names: Iterable[str], download: str = "download") -> Path:
    """Returns the folder as a path. Raises an error that lists all of ``names`` that cannot be read in it.

    Args:
        folder: the model's folder.
        names: the names of the files.
        download: the arguments with which `mix chatterbex.models` downloads them.
    """
    folder = Path(folder)
    if _stat_kind(folder) != "folder":
        raise _missing(folder, _folder_fault(folder))
    names = list(names)
    faults = {name: fault for name in names if (fault := _file_fault(folder / name))}
    if faults:
        listed = ", ".join(f"{name} ({fault})" for name, fault in faults.items())
        raise ChatterbexError(
            "model_files_missing",
            f"Model files in {folder} cannot be used: {listed}. "
            f"Fetch them with `mix chatterbex.models {download}`, or check the folder given as "
            "`checkpoint:`.",
            {"path": str(folder), "files": list(faults), "faults": faults},
        )
    return folder


def _stat_kind(path: Path) -> str:
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else "none"
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, until Python 3.13
        return "none"


def _folder_fault(folder: Path) -> str:
    return "is not a folder" if os.path.lexists(folder) else "does not exist"


def _file_fault(path: Path) -> str | None:
    """Why a file cannot be read, or None if it can."""
    try:
        with open(path, "rb") as file:
            return None if file.read(1) else "empty"
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else "missing"
    except IsADirectoryError:
        return "a folder, not a file"
    except PermissionError:
        return "no permission to read it"
    except OSError as error:
        return "a link that leads to itself" if path.is_symlink() else str(error.strerror or error)


_patched = threading.local()


@contextmanager
def safe_torch_load() -> Iterator[None]:
    """Inside this context, every ``torch.load`` reads to the CPU and unpickles weights only.

    Upstream code, and files saved on a CUDA machine, need the former; files from strangers need the latter.
    The context ends cleanly after an error too, and may be nested.
    """
    if getattr(_patched, "depth", 0):
        _patched.depth += 1
        try:
            yield
        finally:
            _patched.depth -= 1
        return

    original = torch.load

    def load(file: Any, *args: Any, **options: Any) -> Any:
        options.pop("pickle_module", None)
        options["map_location"] = "cpu"
        options["weights_only"] = True
        return original(file, **options)

    torch.load = load
    _patched.depth = 1
    try:
        yield
    finally:
        _patched.depth = 0
        torch.load = original


def read_pickle(path: Path) -> Any:
    """A ``.pt`` file, read with ``weights_only=True``: tensors and plain containers, never code.

    It is memory-mapped, unless it has the format that PyTorch wrote before 1.6.
    """
    fault = _file_fault(path)
    if fault:
        raise _missing(path, f"cannot be read: {fault}")
    try:
        with safe_torch_load():
            return torch.load(path, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise _broken(
            path,
            "was refused: it is damaged, or holds something other than tensors and plain values "
            "(such a file could run code)",
            error,
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _broken(
            path, "cannot be read: it is damaged, cut short or not a PyTorch file", error
        ) from error
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise _broken(path, "cannot be read", error) from error


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """A ``.safetensors`` file, memory-mapped: pages are read when first used."""
    fault = _file_fault(path)
    if fault:
        raise _missing(path, f"cannot be read: {fault}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise _broken(
            path, "cannot be read: it is damaged, cut short or not a safetensors file", error
        ) from error
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror or error}", error) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Named tensors from a ``.safetensors`` or ``.pt`` file, checked to be finite, floats as float32."""
    if path.suffix == ".safetensors":
        weights: Any = read_safetensors(path)
    else:
        weights = read_pickle(path)
    if isinstance(weights, Mapping) and isinstance(weights.get("model"), (list, tuple)):
        weights = weights["model"][0]  # some of upstream's T3 files are wrapped so
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise _broken(path, "does not hold named tensors")
    return normalised(weights, path)


_FLOATS = {torch.float32, torch.float16, torch.bfloat16, torch.float64}


def normalised(weights: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Converts every float to float32. Raises an error that lists the tensors that are not finite."""
    out, bad, odd = {}, [], []
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            if tensor.dtype not in _FLOATS:
                odd.append(f"{name} ({str(tensor.dtype).removeprefix('torch.')})")
                continue
            tensor = tensor.detach().to(torch.float32)
            # Any NaN or infinity shows in the sum, which reads the data once and copies nothing.
            if tensor.numel() and not torch.isfinite(tensor.sum()):
                bad.append(name)
        elif tensor.is_complex() or tensor.is_quantized:
            odd.append(f"{name} ({str(tensor.dtype).removeprefix('torch.')})")
            continue
        out[name] = tensor
    if odd:
        raise _broken(path, f"holds weights of a type that is not supported: {_listed(odd)}")
    if bad:
        raise _broken(path, f"holds weights that are not finite numbers (NaN or infinity): {_listed(bad)}")
    pages.release(out.values())  # all of it was read just now
    return out


def _listed(names: Iterable[str], limit: int = 8) -> str:
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


_NORM_NEW = re.compile(r"^(.*)\.parametrizations\.weight\.original0$")
_NORM_OLD = re.compile(r"^(.*)\.weight_g$")


def merge_weight_norm(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turns weight-normalised layers (length and direction), in either PyTorch format, into plain weights."""
    out = dict(weights)
    for name in weights:
        if match := _NORM_NEW.match(name):
            direction = f"{match[1]}.parametrizations.weight.original1"
        elif match := _NORM_OLD.match(name):
            direction = f"{match[1]}.weight_v"
        else:
            continue
        if direction not in weights:
            continue
        length, vector = out.pop(name), out.pop(direction)
        if vector.dim() < 2 or length.shape != (vector.shape[0],) + (1,) * (vector.dim() - 1):
            out[name], out[direction] = length, vector  # reported as unexpected, with their names
            continue
        out[f"{match[1]}.weight"] = torch._weight_norm(vector, length, 0)
    return out


_FILL = {
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.zero_,
    torch.Tensor.fill_,
}


class _Blank(TorchFunctionMode):
    """Allocates what a file will fill on the meta device, and skips initialisers.

    Tables that a module computes (position encodings, windows, fades) are computed as usual: no file has
    them, and a blanket ``torch.device("meta")`` would lose them. (It also imports sympy: that takes seconds.)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in _FILL:
            return args[0]
        if func == torch.Tensor.data.__set__ and args[0].is_meta:
            args = (args[0], args[1].to("meta"))
        elif func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def blank(make: Any) -> Any:
    """Calls ``make()`` with parameters on the meta device, for ``fill`` to fill."""
    with torch.no_grad(), _Blank():
        return make()


def fill(
    module: _M,
    weights: Mapping[str, torch.Tensor],
    path: Path,
    *,
    optional: Iterable[str] = (),
    strict: bool = True,
) -> _M:
    """Puts the weights into a module, by assignment, not copy; in evaluation mode and without gradients.

    One error lists all missing, unexpected and mis-shaped weights. ``optional`` has regular expressions for
    names that old files lack and the module computes itself. If ``strict`` is false, unexpected weights are
    only logged.
    """
    optional = [re.compile(pattern) for pattern in optional]
    expected = module.state_dict()
    missing = [
        name
        for name in expected
        if name not in weights and not any(pattern.fullmatch(name) for pattern in optional)
    ]
    extra = [name for name in weights if name not in expected]
    wrong = [
        f"{name} {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    kinds = [
        f"{name} {_kind(weights[name])} instead of {_kind(tensor)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].is_floating_point() != tensor.is_floating_point()
    ]
    if extra and not strict:
        _logger.warning("%s holds weights that are not used: %s", path, _listed(extra))
        weights = {name: tensor for name, tensor in weights.items() if name in expected}
        extra = []
    faults = [
        f"{problem}: {_listed(names)}"
        for problem, names in (
            ("missing", missing),
            ("unexpected", extra),
            ("of the wrong shape", wrong),
            ("of the wrong type", kinds),
        )
        if names
    ]
    if faults:
        error = _broken(path, f"does not fit this model; weights {'; '.join(faults)}")
        error.details.update(
            {"missing": missing[:50], "unexpected": extra[:50], "shapes": wrong[:50], "types": kinds[:50]}
        )
        raise error
    module.load_state_dict(dict(weights), strict=False, assign=True)
    module.requires_grad_(False)
    return module.eval()


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def left_blank(module: nn.Module) -> list[str]:
    """The names of everything in a module that is still on the meta device."""
    names = [name for name, value in module.named_parameters() if value.is_meta]
    names += [name for name, value in module.named_buffers() if value.is_meta]
    for prefix, part in module.named_modules():
        names += [
            f"{prefix}.{name}".lstrip(".")
            for name, value in vars(part).items()
            if isinstance(value, torch.Tensor) and value.is_meta
        ]
    return names
