"""What is explained: a differentiable number per test row, higher is better."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.errors import BadInput
from influence_core.examples import Batch, content_hash
from influence_core.primitives.losses import BinaryCrossEntropy, CrossEntropy, Loss, outputs

KINDS = ("loss", "margin", "probability", "logit")
TYPED = "typed"  # the split of query rows that are in no split


@dataclass(frozen=True)
class Measurement:
    """A number per test row that influence is measured on; higher is better.

    Args:
        kind: ``"loss"`` (minus the loss), ``"margin"`` (``f_y - logsumexp`` of the other logits), ``"probability"``,
            ``"logit"``, or a callable ``f(model, batch) -> [n]``.
        target: The label it is taken for: ``"true"`` (the row's own), ``"predicted"`` (what the explained model says),
            or a class index.
    """

    kind: str | Callable[..., Tensor] = "loss"
    target: str | int = "true"

    def __post_init__(self) -> None:
        """Check both words."""
        if not callable(self.kind) and self.kind not in KINDS:
            raise BadInput("Unknown measurement", f"kind is {self.kind!r}.", f"Use {', '.join(KINDS)} or a function.")
        if not isinstance(self.target, int) and self.target not in ("true", "predicted"):
            raise BadInput(
                "Unknown target label", f"target is {self.target!r}.", "Use 'true', 'predicted' or a class index."
            )

    @property
    def name(self) -> str:
        """Return the kind in one word."""
        return self.kind if isinstance(self.kind, str) else getattr(self.kind, "__qualname__", "function")

    def identity(self) -> dict[str, Any]:
        """Return JSON that tells two measurements apart; a function is known by its name and source.

        Raises:
            BadInput: The function's source cannot be read, so that results could not be told apart.
        """
        if isinstance(self.kind, str):
            return {"kind": self.kind, "target": self.target}
        return {"kind": self.name, "source": source_hash(self.kind), "target": self.target}

    def scalar(self, loss: Loss) -> Callable[[Any, Batch], Tensor]:
        """Return the *negated* measurement ``f(model, batch) -> [n]`` at the batch's targets.

        It is the loss itself for the kind ``loss``, so that one gradient code serves train and test rows.

        Raises:
            BadInput: This loss has no such measurement.
        """
        if callable(self.kind):
            measured = self.kind
            return lambda model, batch: -measured(model, batch)
        if self.kind == "loss":
            return loss
        if not isinstance(loss, (CrossEntropy, BinaryCrossEntropy)):
            raise BadInput(
                f"'{self.kind}' cannot be measured here",
                f"The loss '{loss.name}' does not classify.",
                "Use the measurement 'loss' or a function.",
            )
        kind = self.kind

        def negated(model: Any, batch: Batch) -> Tensor:
            return -class_values(outputs(model, batch.inputs), batch.targets, loss, kind)

        return negated


def class_values(f: Tensor, targets: Tensor, loss: CrossEntropy | BinaryCrossEntropy, kind: str) -> Tensor:
    """Return margin, probability or logit ``[n]`` of the target classes from the outputs of a classifier."""
    if isinstance(loss, BinaryCrossEntropy):
        # One logit: the two classes have the logits +f/2 and -f/2 up to a constant, so the margin is +-f.
        margin = f.reshape(len(f), -1)[:, 0] * (2 * targets.reshape(len(f), -1)[:, 0].to(f.dtype) - 1)
        return torch.sigmoid(margin) if kind == "probability" else margin
    own = f.gather(1, targets.unsqueeze(1)).squeeze(1)
    if kind == "logit":
        return own
    if kind == "probability":
        return F.softmax(f, dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
    others = f.masked_fill(F.one_hot(targets, f.shape[1]).bool(), -torch.inf)
    return own - others.logsumexp(1)


def measured_values(f: Tensor, targets: Tensor, loss: Loss, measurement: Measurement) -> Tensor:
    """Return the measurement ``[n]`` from stored outputs ``[n, C]`` of a built-in loss."""
    if measurement.kind == "loss":
        return -loss.from_outputs(f, targets)  # type: ignore[union-attr]
    if not isinstance(measurement.kind, str) or not isinstance(loss, (CrossEntropy, BinaryCrossEntropy)):
        raise BadInput(
            "This measurement needs the model itself", "Only its outputs were kept.", "Use the measurement 'loss'."
        )
    return class_values(f, targets, loss, measurement.kind)


def source_hash(function: Callable[..., Any]) -> str:
    """Return a hash of a function's source and of the plain values it closes over."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError) as error:
        name = getattr(function, "__qualname__", repr(function))
        raise BadInput(
            "This function cannot be told from another",
            f"The source of {name} cannot be read ({error}).",
            "Define it in a file or a notebook cell.",
        ) from None
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    keywords = getattr(function, "__kwdefaults__", None) or {}
    values = [*cells, *(getattr(function, "__defaults__", None) or ()), *keywords.values()]
    return content_hash(source, *(_content(value) for value in [*values, getattr(function, "__self__", None)]))


def _content(value: Any) -> Any:
    """Return a value as ``content_hash`` takes it; a long tensor's repr leaves out its middle, so it counts in full."""
    if isinstance(value, (Tensor, np.ndarray)):
        return torch.as_tensor(value)
    if isinstance(value, torch.nn.Module):
        return content_hash(repr(value), *(part for pair in value.state_dict().items() for part in pair))
    if isinstance(value, Mapping):
        return content_hash(*(_content(part) for pair in value.items() for part in pair))
    if isinstance(value, (list, tuple, set, frozenset)):
        return content_hash(type(value).__name__, *(_content(part) for part in value))
    if hasattr(value, "__dict__") and not callable(value):
        return content_hash(type(value).__qualname__, _content(vars(value)))
    return repr(value)


def module_identity(module: torch.nn.Module) -> list[Any]:
    """Return JSON of what a module computes with its weights: its parts' sources, options and hidden tensors."""
    sources = sorted({_class_source(type(part)) for part in module.modules()})
    return [repr(module), sources, {name: _options(part) for name, part in module.named_modules()}]


def _options(part: torch.nn.Module) -> dict[str, str]:
    """Return the plain attributes that ``repr`` leaves out, and the buffers that a state dict does."""
    hidden = {name: part._buffers[name] for name in part._non_persistent_buffers_set}
    plain = {name: value for name, value in vars(part).items() if not name.startswith("_") and name != "training"}
    values = {name: value for name, value in {**plain, **hidden}.items() if value is not None}
    told = {
        name: content_hash(torch.as_tensor(value)) if isinstance(value, (Tensor, np.ndarray)) else repr(value)
        for name, value in values.items()
    }
    # What is shown by its address is another text in every process.
    return {name: text for name, text in sorted(told.items()) if " at 0x" not in text}


def _class_source(cls: type) -> str:
    if cls.__module__.startswith("torch."):
        return cls.__qualname__
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"


@dataclass(frozen=True)
class Rows:
    """A query: rows of a split by id; with ``reduce="mean"`` all of them as one query (a cell, a slice).

    Rows that are in no split have the split ``typed``; a task knows them through ``Task.with_typed``, a study through
    ``Study.typed``.
    """

    split: str = "test"
    ids: tuple[Any, ...] = ()
    reduce: str | None = None

    def __post_init__(self) -> None:
        """Check the words and make the ids a tuple."""
        plain = (value.item() if isinstance(value, (np.generic, Tensor)) else value for value in self.ids)
        object.__setattr__(self, "ids", tuple(plain))
        if self.split not in ("train", "test", "locked", TYPED):
            raise BadInput("Unknown split", f"split is {self.split!r}.", "Use 'train', 'test' or 'locked'.")
        if self.reduce not in (None, "mean"):
            raise BadInput("Unknown reduction", f"reduce is {self.reduce!r}.", "Use None or 'mean'.")
