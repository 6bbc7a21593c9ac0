"""Maps the names of models to their classes. Nothing is imported until a model is loaded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from chatterbex.errors import ChatterbexError

if TYPE_CHECKING:
    from chatterbex.model import Model

_MODELS: dict[str, str] = {
    "conversion": "chatterbex.models.conversion:ConversionModel",
    "english": "chatterbex.models.english:EnglishModel",
    "hibari": "chatterbex.models.hibari:HibariModel",
    "multilingual": "chatterbex.models.multilingual:MultilingualModel",
    "nano": "chatterbex.models.turbo:NanoModel",
    "turbo": "chatterbex.models.turbo:TurboModel",
}

# What `mix chatterbex.setup` installs only if it is told the device.
_WITH_PYTORCH = frozenset(
    {"chatterbox", "perth", "s3tokenizer", "safetensors", "soxr", "tokenizers", "torch"}
)


def register(name: str, target: str) -> None:
    """Adds a model, or replaces one.

    Args:
        name: The name to load it by.
        target: "module:Class", a subclass of ``chatterbex.model.Model``.

    Raises:
        ChatterbexError: The target does not have that form ("invalid_option").
    """
    module, _, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
    if not (isinstance(name, str) and name and module and attribute.isidentifier()):
        raise ChatterbexError(
            "invalid_option",
            f"the model {name!r} must be given as 'module:Class', not {target!r}",
        )
    _MODELS[name] = target


def names() -> list[str]:
    """Returns the names of all registered models, sorted."""
    return sorted(_MODELS)


def find(name: str) -> type[Model]:
    """Imports a model's class.

    Args:
        name: A registered name.

    Returns:
        The class.

    Raises:
        ChatterbexError: No model has that name ("unknown_model"); its module needs a package
            that is not installed ("not_set_up"); the target is not a model ("model_load_failed").
    """
    from chatterbex.model import Model

    target = _MODELS.get(name)
    if target is None:
        raise ChatterbexError("unknown_model", f"there is no model {name!r}; there are: {', '.join(names())}")
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise missing_package(f"the model {name}", error) from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ChatterbexError("model_load_failed", f"{target} is not a model class")
    return found


def missing_package(user: str, error: ModuleNotFoundError) -> ChatterbexError:
    """Makes an error that says which Python package is missing, and what to do.

    Args:
        user: What needs the package, such as "the model nano".
        error: What the import raised.

    Returns:
        An error with reason "not_set_up".
    """
    package = error.name or str(error)
    remedy = "mix chatterbex.setup"
    if package.partition(".")[0] in _WITH_PYTORCH:
        remedy += " --auto (or --mps, --cuda, --cpu)"
    return ChatterbexError(
        "not_set_up",
        f"{user} needs the Python package {package!r}, which is not installed in the "
        f"environment of Chatterbex; run {remedy}",
        {"package": package, "exception": type(error).__name__},
    )
