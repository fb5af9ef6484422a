"""Layers and features of a model: which module ends it, and what a row looks like inside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from influence_core.errors import BadInput
from influence_core.primitives.losses import outputs


def _captured(model: nn.Module, inputs: Any, names: list[str], keep: str) -> tuple[dict[str, Tensor], Tensor]:
    """Run the model once and return what went into (or came out of) the named modules, and the model's output."""
    seen: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def hook(name: str) -> Any:
        def record(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            value = args[0] if keep == "input" else output
            if isinstance(value, Tensor):
                seen[name] = value.detach().clone()

        return record

    handles = [modules[name].register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            return seen, outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()


def final_linear(model: nn.Module, inputs: Any) -> str | None:
    """Return the name of the Linear module whose output is the model's output unchanged, or None."""
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    seen, output = _captured(model, inputs, linear, "output")
    if not isinstance(output, Tensor):  # a custom loss may read a tuple or a mapping
        return None
    same = [
        name
        for name, value in seen.items()
        if value.numel() == output.numel() and torch.equal(value.reshape(output.shape), output)
    ]
    return same[-1] if same else None


def check_layer(model: nn.Module, name: str) -> None:
    """Raise ``BadInput`` unless the model has a module of this name."""
    names = [known for known, _ in model.named_modules() if known]
    if name not in names:
        raise BadInput(
            "Unknown layer", f"'{name}' is not a module of this model.", f"Use one of: {', '.join(names[:20])}."
        )


def layer_values(model: nn.Module, inputs: Any, layer: str, keep: str = "output") -> Tensor:
    """Return what comes out of (or goes into) a layer for each row, flattened ``[n, d]``.

    Raises:
        BadInput: No such layer, or it did not run.
    """
    check_layer(model, layer)
    seen, _ = _captured(model, inputs, [layer], keep)
    if layer not in seen:
        raise BadInput(
            "This layer has no values", f"'{layer}' did not run as a module of one tensor.", "Choose another layer."
        )
    return seen[layer].flatten(1)


def flat_inputs(inputs: Any) -> Tensor:
    """Return the raw inputs ``[n, d]``, the tensors of a mapping or tuple side by side."""
    if isinstance(inputs, Tensor):
        return inputs.flatten(1) if inputs.ndim > 1 else inputs.unsqueeze(1)
    parts = list(inputs.values()) if hasattr(inputs, "values") else list(inputs)
    return torch.cat([flat_inputs(part).to(torch.get_default_dtype()) for part in parts], 1)
