"""A task: model, data, loss and checkpoints, immutable and fingerprinted once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from enum import Flag, auto
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from influence_core.checkpoints import StateDict, built_module, checked_checkpoints, checked_rates, load_state
from influence_core.config import digest
from influence_core.errors import BadInput, NumericalProblem
from influence_core.examples import Batch, Examples, checked_ids, content_hash
from influence_core.measurement import TYPED, Measurement, Rows, module_identity, source_hash
from influence_core.primitives.losses import CustomLoss, outputs, predicted_classes, resolved_loss
from influence_core.recipe import Recipe
from influence_core.recorded_training import RecordedTraining

__all__ = ["Measurement", "Needs", "Over", "Recipe", "Rows", "Task"]

Over = Sequence[tuple[int, float]]  # checkpoints with weights, of which a mean is taken


class Needs(Flag):
    """What a method asks of a task, and what a task offers."""

    NONE = 0
    MODEL = auto()
    CHECKPOINTS = auto()
    LEARNING_RATES = auto()
    RECIPE = auto()
    LABELS = auto()
    OUTPUTS = auto()
    LAST_LAYER = auto()
    WORD_EMBEDDING = auto()
    STEPS = auto()


class Task:
    """One model on one data set, as the methods see it.

    Args:
        model: A zero-argument factory or an ``nn.Module`` (copied; the caller's module is never touched).
        train: ``(X, y)`` tensors or a ``Dataset`` of ``(input, target)``.
        test: The same.
        loss: ``"cross_entropy"``, ``"bce"``, ``"mse"``, or ``f(model, batch) -> [n]`` losses by row.
        checkpoints: State dicts, or paths of ``.safetensors`` or ``.pt`` (weights only), in the order of training. The
            explained model is the last one; without any, the weights of the given module.
        learning_rates: One per checkpoint.
        recipe: How the model was trained; needed by methods that retrain.
        class_names: Names of the classes, by index.
        train_ids: The user's row ids; default 0..n-1. Likewise ``test_ids``.
        locked: Rows that are reported on and never used to choose anything, with ``locked_ids``.
        fingerprint: Known hash of model, data and checkpoints, where a study has it already.
        recorded: The training as a Recorder wrote it down (``load_recording(folder).training``): methods that follow
            every step follow these, rather than the recipe's.

    Raises:
        BadInput: What does not fit together, in one sentence.
    """

    def __init__(
        self, model: nn.Module | Callable[[], nn.Module], train: Any, test: Any,
        loss: str | Callable[..., Tensor] = "cross_entropy", *,
        checkpoints: Sequence[StateDict | str | Path] | None = None, learning_rates: Sequence[float] | None = None,
        recipe: Recipe | None = None, class_names: Sequence[str] | None = None, train_ids: Iterable[Any] | None = None,
        test_ids: Iterable[Any] | None = None, locked: Any = None, locked_ids: Iterable[Any] | None = None,
        fingerprint: str | None = None, recorded: RecordedTraining | None = None,
    ) -> None:  # fmt: skip
        """Check and freeze the parts."""
        self.factory: Callable[[], nn.Module] | None = None if isinstance(model, nn.Module) else model
        self._module = copy.deepcopy(model) if isinstance(model, nn.Module) else built_module(model)
        splits = {"train": (train, train_ids), "test": (test, test_ids), "locked": (locked, locked_ids)}
        self._splits = {
            name: data if isinstance(data, Examples) else Examples(data, name)
            for name, (data, _) in splits.items()
            if data is not None
        }
        self._ids = {name: checked_ids(splits[name][1], len(rows), name) for name, rows in self._splits.items()}
        self.loss = resolved_loss(loss)
        own = [copy.deepcopy(self._module.state_dict())] if isinstance(model, nn.Module) else []
        self._checkpoints = checked_checkpoints(own if checkpoints is None else checkpoints)
        self.learning_rates = checked_rates(learning_rates, len(self._checkpoints))
        self.recipe, self.recorded = recipe, recorded
        if recorded is not None and len(recorded.marks) != len(self._checkpoints):
            raise BadInput(
                "The recording does not match the checkpoints",
                f"It tells of {len(recorded.marks)} checkpoints, and there are {len(self._checkpoints)}.",
                "Give checkpoints=recording.checkpoints with it.",
            )
        self.class_names = tuple(str(name) for name in class_names) if class_names is not None else None
        self.memo: dict[str, Any] = {}
        self._positions: dict[str, dict[Any, int]] = {}
        self._typed: Examples | None = None
        self.fingerprint = fingerprint or self._hashed()

    def __repr__(self) -> str:
        """Show the sizes."""
        sizes = f"n_train={self.n_train}, n_test={self.n_test}, n_params={self.n_params}"
        return f"Task({sizes}, checkpoints={self.n_checkpoints})"

    # -- sizes and parts ------------------------------------------------------------------------------------------

    @property
    def n_train(self) -> int:
        """Return the number of training rows."""
        return len(self._splits["train"])

    @property
    def n_test(self) -> int:
        """Return the number of test rows."""
        return len(self._splits["test"])

    @property
    def n_params(self) -> int:
        """Return the number of parameters, a shared one counted once."""
        return sum(parameter.numel() for parameter in self._module.parameters())

    @property
    def n_checkpoints(self) -> int:
        """Return the number of recorded checkpoints."""
        return len(self._checkpoints)

    @property
    def module(self) -> nn.Module:
        """Return the module for looking at its structure; its weights mean nothing. Do not run or change it."""
        return self._module

    @cached_property
    def n_classes(self) -> int | None:
        """Return the number of classes, or None for a regression or a custom loss."""
        if self.loss.name == "bce":
            return 2
        if self.loss.name != "cross_entropy":
            return None
        return int(self.outputs_of("test", torch.tensor([0])).shape[-1])

    @cached_property
    def provides(self) -> Needs:
        """Return what this task offers to methods."""
        offers = Needs.MODEL if self._checkpoints else Needs.NONE
        offers |= Needs.CHECKPOINTS if self._checkpoints else Needs.NONE
        offers |= Needs.LEARNING_RATES if self.learning_rates is not None else Needs.NONE
        offers |= Needs.RECIPE if self.recipe is not None and self.factory is not None else Needs.NONE
        if Needs.RECIPE in offers and self.recipe is not None and self.recipe.optimizer != "lbfgs":
            offers |= Needs.STEPS
        if self.recorded is not None and self._checkpoints:
            offers |= Needs.STEPS
        offers |= Needs.LABELS if self.loss.classifies else Needs.NONE
        offers |= Needs.OUTPUTS if not isinstance(self.loss, CustomLoss) else Needs.NONE
        if self._checkpoints and not isinstance(self.loss, CustomLoss) and self.last_layer is not None:
            offers |= Needs.LAST_LAYER
        if any(isinstance(module, nn.Embedding) for module in self._module.modules()):
            offers |= Needs.WORD_EMBEDDING
        return offers

    @property
    def optimizer(self) -> str | None:
        """Return what took the steps that are followed: ``sgd``, ``adam``, another; None: not known."""
        if self.recorded is not None:
            return self.recorded.kind
        return self.recipe.optimizer if self.recipe is not None else None

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits that this task has."""
        return tuple(self._splits)

    def with_typed(self, rows: Examples, ids: Sequence[str]) -> Task:
        """Return this task with rows that are in no split, as the split ``typed`` of queries.

        It is the same task to every method: same fingerprint, and what was fitted on one is found from the other.
        Nothing that depends on the typed rows is kept with the task, so that one view's never answer for another's.

        Args:
            rows: Inputs as the model takes them, and targets in the form of the other splits'; where there are classes
                their values are never read.
            ids: One per row; ids tell contents apart (a hash of the content), because answers are kept by id.
        """
        _ = self.provides  # so that every view finds it
        view = copy.copy(self)
        view._typed, view._positions = rows, {}
        view._ids = {**self._ids, TYPED: checked_ids(ids, len(rows), TYPED)}
        return view

    def with_checkpoints(self, states: Sequence[StateDict], rates: Sequence[float] | None, fingerprint: str) -> Task:
        """Return this task with another training of the same architecture in the place of its checkpoints.

        Args:
            states: The weights at each checkpoint, the explained model last.
            rates: The learning rate at each.
            fingerprint: What tells the new task from others.
        """
        _ = self.provides, self.n_classes, self.last_layer  # the architecture's; found once for all of them
        other = copy.copy(self)
        other._checkpoints = checked_checkpoints(states)
        other.learning_rates = checked_rates(rates, len(states))
        other.__dict__.pop("provides", None)
        other.recorded = None  # of another training
        other.memo, other.fingerprint = {}, fingerprint
        return other

    def split(self, name: str) -> Examples:
        """Return the rows of a split."""
        if name == TYPED and self._typed is not None:
            return self._typed
        if name not in self._splits:
            raise BadInput(
                f"There is no '{name}' split", f"This task has {', '.join(self._splits)}.", "Use one of these."
            )
        return self._splits[name]

    def ids(self, name: str) -> np.ndarray:
        """Return the row ids ``[n]`` of a split."""
        self.split(name)
        return self._ids[name]

    def positions(self, rows: Rows) -> Tensor:
        """Return the positions ``[n]`` of a query's rows within their split.

        Raises:
            BadInput: An id is not in the split.
        """
        ids = self.ids(rows.split)
        if rows.split not in self._positions:
            self._positions[rows.split] = {value: i for i, value in enumerate(ids.tolist())}
        known = self._positions[rows.split]
        found = [known.get(value.item() if isinstance(value, np.generic) else value) for value in rows.ids]
        missing = [value for value, place in zip(rows.ids, found, strict=True) if place is None]
        if missing:
            some = ", ".join(repr(value) for value in missing[:3])
            raise BadInput(
                "Unknown row id",
                f"{some} is not in the {rows.split} split ({len(ids)} rows, from {ids[0]} to {ids[-1]}).",
                "Use an id of the data.",
            )
        return torch.tensor([place for place in found if place is not None], dtype=torch.long)

    # -- the model --------------------------------------------------------------------------------------------------

    def model_at(
        self, checkpoint: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> nn.Module:
        """Return a copy of the model at a checkpoint: eval mode, on a device, parameters ready for gradients.

        Raises:
            BadInput: The checkpoint is gone or does not fit the model.
            NumericalProblem: It holds a NaN or an infinity.
        """
        if not self._checkpoints:
            raise BadInput(
                "There is no trained model",
                "The task has a model factory and no checkpoint.",
                "Give checkpoints=[...] or a trained module.",
            )
        index = checkpoint % len(self._checkpoints)
        state = self._loaded(index)
        model = copy.deepcopy(self._module)
        try:
            model.load_state_dict(dict(state))
        except RuntimeError as error:
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise BadInput(
                f"Checkpoint {index} does not fit the model",
                f"{self._named(index)}{why}.",
                "Give checkpoints of this architecture.",
            ) from None
        broken = [
            name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())
        ]
        if broken:
            raise NumericalProblem(
                f"Checkpoint {index} is broken",
                f"{self._named(index)}'{broken[0]}' holds a NaN or an infinity.",
                "Leave this checkpoint out or train with a smaller learning rate.",
            )
        return model.to(device=device, dtype=dtype).eval().requires_grad_(True)

    def state(self, checkpoint: int = -1) -> StateDict:
        """Return the weights of a checkpoint."""
        return self._loaded(checkpoint % len(self._checkpoints))

    def _named(self, index: int) -> str:
        """Return the file of a checkpoint for the start of a sentence; nothing for weights in memory."""
        item = self._checkpoints[index]
        return f"{item}: " if isinstance(item, Path) else ""

    def _loaded(self, index: int) -> StateDict:
        item = self._checkpoints[index]
        return load_state(item, index) if isinstance(item, Path) else item

    def checkpoint_hash(self, checkpoint: int) -> str:
        """Return the hash of the weights of a checkpoint."""
        state = self.state(checkpoint)
        return content_hash({name: state[name] for name in sorted(state)})

    def hash_over(self, over: Over) -> Any:
        """Return what tells a mean over checkpoints apart; of a single one, its hash."""
        found = [(self.checkpoint_hash(checkpoint), weight) for checkpoint, weight in over]
        return found[0][0] if len(found) == 1 else found

    def outputs_of(self, split: str, positions: Tensor | slice = slice(None)) -> Tensor:
        """Return the explained model's outputs ``[n, ...]`` on rows of a split, float32 on the CPU, cached by split."""
        key, memo = f"outputs/{split}", {} if split == TYPED else self.memo
        if isinstance(positions, Tensor) and key not in memo and len(positions) < 64:
            model = self.model_at(-1)
            with torch.no_grad():
                return outputs(model, self.split(split).batch(positions).inputs)
        if key not in memo:
            model = self.model_at(-1)
            with torch.no_grad():
                parts = [
                    outputs(model, batch.inputs) for _, batch in self.split(split).batches(512, "cpu", torch.float32)
                ]
            whole = torch.cat(parts)
            broken = (~whole.reshape(len(whole), -1).isfinite().all(1)).nonzero()
            if len(broken):
                file, row = self._named(self.n_checkpoints - 1), self.ids(split)[int(broken[0])]
                raise NumericalProblem(
                    "The model's output is not a number",
                    f"{file}it is NaN or infinite on {len(broken)} {split} rows, as on {row}.",
                    "Correct these rows, or train with a smaller learning rate.",
                )
            memo[key] = whole
        return memo[key][positions]

    def predicted(self, split: str, positions: Tensor) -> Tensor:
        """Return the explained model's predicted class ``[n]``."""
        return predicted_classes(self.outputs_of(split, positions))

    def query(self, rows: Rows, measurement: Measurement, dtype: torch.dtype = torch.float32) -> Batch:
        """Return the rows of a query, in a precision, with the measurement's target labels in place of their own.

        Raises:
            BadInput: A target label where there are no classes, or none with this index; or a typed row's own label.
        """
        positions = self.positions(rows)
        if rows.split == TYPED and measurement.target == "true" and self.n_classes is not None:
            raise BadInput(
                "A typed row has no label of its own",
                "It is in no split, so nobody has said what is true of it.",
                "Explain the predicted label (target='predicted'), or one of the classes.",
            )
        batch = self.split(rows.split).batch(positions, dtype=dtype)
        if measurement.target == "true":
            return batch
        if self.n_classes is None:
            raise BadInput(
                "There is no other label to explain",
                f"The loss '{self.loss.name}' has no classes.",
                "Use target='true'.",
            )
        if batch.targets.numel() != len(positions):
            raise BadInput(
                "There is no other label to explain", "A row has several labels at once.", "Use target='true'."
            )
        if isinstance(measurement.target, int):
            if not 0 <= measurement.target < self.n_classes:
                raise BadInput(
                    "Unknown target label",
                    f"target is {measurement.target}; classes are 0 to {self.n_classes - 1}.",
                    "Use a class index.",
                )
            labels = torch.full((len(positions),), measurement.target)
        else:
            labels = self.predicted(rows.split, positions)
        return Batch(batch.inputs, labels.reshape(batch.targets.shape).to(batch.targets.dtype))

    @cached_property
    def last_layer(self) -> str | None:
        """Return the name of the Linear module whose output is the model's output, or None if there is no such."""
        from influence_core.primitives.features import final_linear

        if not self._checkpoints:
            return None
        model, rows = self.model_at(-1), self.split("test").batch(slice(0, 32))
        try:
            return final_linear(model, rows.inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            why = " ".join(str(error).split())[:300]
            raise BadInput(
                "The model cannot be called with the data", f"{why}.", "Give inputs as the model's forward takes them."
            ) from error

    def _hashed(self) -> str:
        weights = [self.checkpoint_hash(c) for c in range(self.n_checkpoints)]
        loss = self.loss.name if not isinstance(self.loss, CustomLoss) else source_hash(self.loss.function)
        rows = {name: examples.content_hash() for name, examples in self._splits.items()}
        recipe = self.recipe.to_json() if self.recipe else None
        return digest([module_identity(self._module), weights, self.learning_rates, loss, rows, recipe])
