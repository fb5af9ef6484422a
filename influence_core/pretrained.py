"""The transformers library, loaded when asked for, and models built from a configuration alone."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from influence_core.errors import BadInput

AUTO_CLASSES = ("AutoModelForSequenceClassification", "AutoModelForImageClassification")
# What would fetch weights or code from elsewhere, or needs more than the library itself.
_REFUSED = ("auto_map", "custom_pipelines", "quantization_config", "use_pretrained_backbone", "use_timm_backbone")
_OWN_CHOICE = ("attn_implementation", "experts_implementation", "dtype", "torch_dtype", "return_dict", "use_cache")


def transformers_library() -> ModuleType:
    """Import ``transformers``, once.

    Raises:
        BadInput: It is not installed, or cannot be imported.
    """
    _hide_broken_torchvision()
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise BadInput(
            "The transformers library is not installed",
            "This model is one of its models.",
            "Install it: pip install 'influence-dashboard[transformers]'",
        ) from None


def _hide_broken_torchvision() -> None:
    """Let transformers do without a torchvision that cannot be imported.

    A torchvision built for another torch raises on import, and takes transformers with it; no model here needs it.
    """
    if "transformers" in sys.modules or "torchvision" in sys.modules:
        return
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # Python's own way to say: not installed


def checked_configuration(content: Any, origin: str) -> dict[str, Any]:
    """Return a model's ``config.json`` without what this program decides itself.

    Args:
        content: The JSON value.
        origin: Where it came from, for messages.

    Raises:
        BadInput: It is none, or asks for code or weights from elsewhere.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("model_type"), str):
        raise BadInput("The model's configuration cannot be used", f"{origin} names no model_type.", "Restore it.")
    odd = sorted(_asked(content) & set(_REFUSED))
    if odd:
        raise BadInput(
            "The model needs more than its configuration",
            f"{origin} has '{odd[0]}': code or weights from elsewhere, which are never loaded.",
            "Use a model of the transformers library itself, or Study.from_torch with your own factory.",
        )
    return {key: value for key, value in content.items() if key not in _OWN_CHOICE and not key.startswith("_")}


def _asked(value: Any) -> set[str]:
    """Return the keys, at any depth, that are not switched off."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            found |= {str(key) for key, item in one.items() if item not in (None, False, {}, [])}
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


def configured_model(auto: str, config: str) -> nn.Module:
    """Return an untrained model of the transformers library, in float32, its attention written out in plain operations.

    Fused attention has no per-example gradients under ``torch.func``; the plain one computes the same.

    Args:
        auto: One of ``AUTO_CLASSES``.
        config: The text of its ``config.json``.

    Raises:
        BadInput: The library is missing, or no such model can be built from this configuration.
    """
    if auto not in AUTO_CLASSES:
        raise BadInput("Unknown kind of model", f"'{auto}' is not supported.", f"Use {' or '.join(AUTO_CLASSES)}.")
    try:
        content = json.loads(config)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput("The model's configuration cannot be read", f"{error}.", "Restore it from a copy.") from None
    options = checked_configuration(content, "The configuration")
    library = transformers_library()
    kind = options.pop("model_type")
    try:
        described = library.AutoConfig.for_model(kind, **options)
        model = getattr(library, auto).from_config(described, attn_implementation="eager", trust_remote_code=False)
    except BadInput:
        raise
    except Exception as error:  # noqa: BLE001  (the library raises whatever a wrong value runs into)
        why = f"'{kind}': {' '.join(str(error).split())[:300].rstrip('.')}."
        raise BadInput("The model cannot be built", why, "Correct its configuration, or update transformers.") from None
    model.config.use_cache = False
    return model.float()
