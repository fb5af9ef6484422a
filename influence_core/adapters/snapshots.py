"""Weights and optimiser state of a running training, as files of plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from influence_core.adapters.recording import written_whole
from influence_core.errors import BadInput


def plain_model(model: Any) -> nn.Module:
    """Return the module inside wrappers that train it in parallel or compiled.

    Raises:
        BadInput: It is no module.
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, parallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            break
    if not isinstance(model, nn.Module):
        raise BadInput("The model cannot be recorded", f"It is a {type(model).__name__}.", "Give an nn.Module.")
    return model


def save_weights(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, all of them or nothing, each under its own name even if it shares memory.

    Args:
        path: The file.
        tensors: A state dict; not changed.

    Raises:
        BadInput: One of them is no dense tensor.
        StoreProblem: The disk is full or refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: stored_tensor(name, value) for name, value in tensors.items()}
    seen: set[int] = set()
    for name, value in plain.items():
        place = value.untyped_storage().data_ptr()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        # Tied weights, and views into something larger: the format wants memory of its own for every name.
        plain[name] = value.clone() if place in seen or not whole else value
        seen.add(place)
    try:
        written_whole(path, lambda part: save_file(plain, part))
    except (SafetensorError, ValueError) as error:
        why = f"{path}: {' '.join(str(error).split())[:300]}."
        raise BadInput("The weights cannot be stored", why, "Record a model of dense tensors.") from None


def stored_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor as files hold it; anything else is refused by its name."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        kind = f"a {value.layout} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise BadInput("The weights cannot be stored", f"'{name}' is {kind}.", "Record a model of dense tensors.")
    return value.detach().to("cpu").contiguous()


def optimizer_description(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return the class and hyper-parameters of an optimiser as JSON values, by parameter group.

    The ``parameters`` of a group are named as in the model, one that is not the model's by its place, ``"(7)"``.
    """
    kind, owners = type(optimizer), iter(_owners(model, optimizer))
    groups = []
    for group in optimizer.param_groups:
        values = {name: _json_value(value) for name, value in group.items() if name not in ("params", "param_names")}
        n_params = sum(parameter.numel() for parameter in group["params"])
        plain = {name: value for name, value in values.items() if value is not _ODD}
        groups.append({"n_params": n_params, "parameters": [next(owners) for _ in group["params"]], **plain})
    return {"class": kind.__name__, "module": kind.__module__, "groups": groups}


_ODD = object()


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, (tuple, list)) and not any(_json_value(item) is _ODD for item in value):
        return [_json_value(item) for item in value]
    return _ODD


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[str]]:
    """Return an optimiser's state by parameter, and the names of what cannot be stored.

    Returns:
        ``"<parameter name>:<state name>"`` -> tensor, such as ``"fc.weight:exp_avg"``; numbers become scalars. A
        parameter that is not the model's is named by its place, ``"(7)"``.
    """
    tensors: dict[str, Tensor] = {}
    left_out: set[str] = set()
    owners = iter(_owners(model, optimizer))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            owner = next(owners)
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{owner}:{name}"] = value
                elif isinstance(value, (bool, int, float)):
                    tensors[f"{owner}:{name}"] = torch.tensor(value)
                elif value is not None:
                    left_out.add(str(name))
    return tensors, sorted(left_out)


def _owners(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of an optimiser's parameters, in its order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [names.get(id(parameter), f"({place})") for place, parameter in enumerate(parameters)]
