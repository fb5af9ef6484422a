"""Losses and targets as users have them: what the engine can take, and why it cannot take the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import BadInput
from influence_core.primitives.losses import LOSSES

_IN_MEMORY = "or work in Python with Task(..., loss=f), f(model, batch) giving the loss of every row"
_PLAIN: dict[Any, str] = {
    F.cross_entropy: "cross_entropy", F.mse_loss: "mse", F.binary_cross_entropy_with_logits: "bce",
}  # fmt: skip
_MODULES: dict[type, str] = {nn.CrossEntropyLoss: "cross_entropy", nn.MSELoss: "mse", nn.BCEWithLogitsLoss: "bce"}
_REFUSED = {
    "class_weight": "Class weights make another loss, in which some rows count more.",
    "sample_weight": "Sample weights make another loss, in which some rows count more.",
    "label_smoothing": "Label smoothing makes another loss, with targets that are no classes.",
}


def loss_name(loss: Any) -> str:
    """Return the engine's word for a loss: a name, a plain ``nn`` loss, or a function of ``torch.nn.functional``.

    Raises:
        BadInput: It weighs, smooths or ignores rows, or is a loss of the user's own.
    """
    if isinstance(loss, str) and loss in LOSSES:
        return loss
    if isinstance(loss, Callable) and not isinstance(loss, nn.Module) and loss in _PLAIN:
        return _PLAIN[loss]
    if isinstance(loss, nn.Module) and type(loss) in _MODULES:
        _check_plain(loss)
        return _MODULES[type(loss)]
    if isinstance(loss, nn.BCELoss):
        raise _odd(
            loss, "Probabilities have lost the logits that methods read.", "Return logits, with BCEWithLogitsLoss"
        )
    if isinstance(loss, nn.NLLLoss):
        raise _odd(loss, "It reads log-probabilities.", "Use 'cross_entropy': its loss is the same on these outputs")
    shown = repr(loss)[:100] if isinstance(loss, (str, nn.Module)) else getattr(loss, "__qualname__", repr(loss)[:100])
    why = f"It is {shown}; of a loss of your own the app knows no classes, probabilities or residuals to show."
    raise BadInput("This loss cannot be kept in a study", why, f"Use one of {', '.join(LOSSES)}, {_IN_MEMORY}.")


def check_unweighted(options: Mapping[str, Any]) -> None:
    """Refuse options that change what a row counts, with the reason, and options that do not exist.

    Raises:
        BadInput: One was given.
    """
    for name, value in options.items():
        key = next((known for known in _REFUSED if name.startswith(known)), None)
        if key is None:
            raise BadInput("Unknown option", f"'{name}' was given.", "See help(Study.from_torch).")
        if value is not None and not (key == "label_smoothing" and value == 0):
            fix = f"Train without it, {_IN_MEMORY}."
            raise BadInput(f"'{name}' is not supported", _REFUSED[key], fix)


def _check_plain(loss: nn.Module) -> None:
    weight = getattr(loss, "weight", None)
    if weight is None:
        weight = getattr(loss, "pos_weight", None)
    if weight is not None:
        raise _odd(loss, _REFUSED["class_weight"], "Train without weights")
    if getattr(loss, "label_smoothing", 0.0):
        raise _odd(loss, _REFUSED["label_smoothing"], "Train without smoothing")


def _odd(loss: nn.Module, why: str, fix: str) -> BadInput:
    return BadInput(f"{type(loss).__name__} with these options cannot be kept in a study", why, f"{fix}, {_IN_MEMORY}.")


def checked_targets(targets: Tensor, loss: str, n_outputs: int, split: str) -> tuple[Tensor, str]:
    """Return targets ``[n]`` as the engine takes them, and a note on what was changed (empty: nothing).

    Args:
        targets: As the user's data has them, ``[n]``, ``[n, 1]`` or one-hot ``[n, n_classes]``.
        loss: The engine's word.
        n_outputs: Numbers that the model gives for a row.
        split: For messages.

    Raises:
        BadInput: Several labels or numbers a row, labels in between, or classes that the model does not have.
    """
    flat = targets.detach().cpu().reshape(len(targets), -1)
    if not bool(flat.double().isfinite().all()):
        raise _target(split, "One is NaN or infinite.", "Leave these rows out, or correct them.")
    if loss == "mse":
        if flat.shape[1] != 1 or n_outputs != 1:
            why = f"There are {flat.shape[1]} numbers in a row and {n_outputs} outputs; the app shows one number."
            raise _target(split, why, f"Save a study for each number, {_IN_MEMORY}.")
        return flat[:, 0].float(), ""
    if flat.shape[1] == 1:
        return _classes(flat[:, 0], 2 if loss == "bce" else n_outputs, split), ""
    ones = bool(((flat == 0) | (flat == 1)).all())
    if ones and bool((flat.sum(1) == 1).all()) and flat.shape[1] == n_outputs and loss == "cross_entropy":
        return flat.argmax(1), "One-hot labels were read as classes, which gives the same loss."
    if ones or loss == "bce":
        why = f"A row has {flat.shape[1]} labels, of which several may hold at once (multi-label)."
        raise _target(split, why, f"Save a study for each label, with one output and the loss 'bce', {_IN_MEMORY}.")
    why = "They are shares of classes (soft labels, mixup or label smoothing), not classes."
    raise _target(split, why, f"Give the class of each row, if the model was trained on those, {_IN_MEMORY}.")


def _classes(values: Tensor, n_classes: int, split: str) -> Tensor:
    whole = values.long()
    if not torch.equal(whole.to(values.dtype), values):
        why = "Some lie between classes: soft labels or label smoothing."
        raise _target(split, why, f"Give whole classes, if the model was trained on those, {_IN_MEMORY}.")
    low, high = int(whole.min()), int(whole.max())
    if low < 0:
        raise _target(split, f"One is {low}; a negative class stands for rows to ignore.", "Leave these rows out.")
    if high >= n_classes:
        why = f"One is {high}, and the model tells {n_classes} classes apart, from 0 to {n_classes - 1}."
        raise _target(split, why, "Correct the labels, or give a model with more outputs.")
    return whole


def _target(split: str, why: str, fix: str) -> BadInput:
    return BadInput(f"The {split} targets cannot be kept in a study", why, fix)


def checked_names(names: Sequence[Any] | None, loss: str, n_outputs: int) -> list[str]:
    """Return the names of the classes; none for a regression.

    Raises:
        BadInput: Not one name for each class, or a name twice.
    """
    if loss == "mse":
        return []
    if loss == "cross_entropy" and n_outputs < 2:
        why = "The model gives one number a row, and cross entropy of one class is always 0."
        raise BadInput("The loss does not fit the model", why, "Use loss='bce' for one logit, or 'mse' for a number.")
    if loss == "bce" and n_outputs != 1:
        why = f"The model gives {n_outputs} outputs; with 'bce' each would be a label of its own (multi-label)."
        fix = f"Use 'cross_entropy' where one of them holds, or save a study for each output, {_IN_MEMORY}."
        raise BadInput("The loss does not fit the model", why, fix)
    n_classes = 2 if loss == "bce" else n_outputs
    found = [str(index) for index in range(n_classes)] if names is None else [str(name) for name in names]
    if len(found) != n_classes or len(set(found)) != n_classes:
        why = f"There are {len(set(found))} different names for {n_classes} classes."
        raise BadInput("The class names do not fit", why, "Give one name for each class, by index.")
    return found
