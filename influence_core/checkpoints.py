"""Recorded weights: state dicts in memory or files that are read without unpickling anything but tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from influence_core.errors import BadInput

StateDict = Mapping[str, Tensor]


def checked_checkpoints(given: Any) -> list[StateDict | Path]:
    """Return state dicts, copied, and paths.

    Raises:
        BadInput: One instead of a list, or something that is no state dict.
    """
    if isinstance(given, (Mapping, str, Path)):
        raise BadInput(
            "One checkpoint was given, not a list", "They come in the order of training.", "Use [checkpoint]."
        )
    items = [Path(item) if isinstance(item, (str, Path)) else item for item in given]
    for index, item in enumerate(items):
        if not isinstance(item, Path):
            _check_state(item, index, "It")
    return [
        item if isinstance(item, Path) else {name: value.detach().clone() for name, value in item.items()}
        for item in items
    ]


def _check_state(state: Any, index: int, origin: str) -> None:
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)] if isinstance(state, Mapping) else []
    if odd or not isinstance(state, Mapping):
        held = f"'{odd[0]}', which is no tensor" if odd else f"a {type(state).__name__}"
        raise BadInput(
            f"Checkpoint {index} is no state dict", f"{origin} holds {held}.", "Give model.state_dict() alone."
        )


def load_state(path: Path, index: int = 0) -> StateDict:
    """Return the weights in a ``.safetensors`` or ``.pt`` file; nothing is unpickled but tensors.

    Raises:
        BadInput: The file is gone, damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(
            f"Checkpoint {index} is gone", f"{path} does not exist.", "Put the file back or build the study again."
        ) from None
    except Exception as error:  # noqa: BLE001  (readers raise many kinds; each means: not a weights file)
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"Checkpoint {index} cannot be read",
            f"{path}: {why.rstrip('.')}.",
            "Give a state dict saved as .safetensors or with torch.save.",
        ) from None
    _check_state(loaded, index, str(path))
    return loaded


def checked_rates(rates: Sequence[float] | None, n_checkpoints: int) -> tuple[float, ...] | None:
    """Return one finite rate of 0 or more per checkpoint, or None.

    Raises:
        BadInput: There are too many or too few, or one cannot be used.
    """
    if rates is None:
        return None
    values = tuple(float(rate) for rate in rates)
    if len(values) != n_checkpoints:
        raise BadInput(
            "Checkpoints and learning rates do not match",
            f"There are {n_checkpoints} and {len(values)}.",
            "Give one learning rate per checkpoint.",
        )
    if not all(math.isfinite(rate) and rate >= 0 for rate in values):
        raise BadInput("A learning rate cannot be used", f"They are {values}.", "Give finite numbers of 0 or more.")
    return values


def built_module(factory: Any) -> nn.Module:
    """Return what a factory makes, without touching the global random state.

    Raises:
        BadInput: It is no function, or makes no module.
    """
    if not callable(factory):
        raise BadInput(
            "The model cannot be used",
            f"It is a {type(factory).__name__}.",
            "Give an nn.Module or a function that returns one.",
        )
    with torch.random.fork_rng(devices=[]):
        model = factory()
    if not isinstance(model, nn.Module):
        raise BadInput(
            "The model factory cannot be used", f"It returned a {type(model).__name__}.", "Return an nn.Module."
        )
    return model
