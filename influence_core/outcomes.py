"""The one table of retrained outcomes: (what is changed, seed) -> the retrained model's outputs on every row.

Append-only, keyed by task, recipe, change and seed, never by method: leave-one-out, and every later method that
retrains, read the same rows. What is changed is which rows are left out, which carry another label, and which count
for less. What has not been computed is absent, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.examples import Examples
from influence_core.primitives.losses import outputs
from influence_core.primitives.threads import one_core
from influence_core.primitives.together import Stack, can_train_together
from influence_core.primitives.training import new_model, training
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Task

VERSION = 2
_TOGETHER = 64  # models in a stack: more cost memory and what a crash loses, and are hardly faster
_STACK_FLOATS = 64 << 20  # parameters of all models in a stack


@dataclass(frozen=True)
class Outcome:
    """Outputs of one retrained model: split -> ``[n, ...]``."""

    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Correction:
    """What is changed in the training rows before a model is trained on them; rows by position.

    Attributes:
        removed: Rows that are left out: weight 0, so that every batch keeps its other rows, order and divisor.
        labels: Row -> its new target: a class index, or the number of a regression.
        weights: Row -> the weight of its loss.
        factory: Makes the model, where the new labels need one with more outputs; None: the task's.
        model: What tells that model from the task's.
    """

    removed: tuple[int, ...] = ()
    labels: Mapping[int, float] = field(default_factory=dict)
    weights: Mapping[int, float] = field(default_factory=dict)
    factory: Callable[[], nn.Module] | None = None
    model: Mapping[str, object] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, object]:
        """Return what outcomes are told apart by; of rows that are only left out, as it always was."""
        identity: dict[str, object] = {"removed": sorted(self.removed)}
        for name, values in (("labels", self.labels), ("weights", self.weights)):
            if values:
                identity[name] = digest(sorted(values.items()))
        return {**identity, "model": dict(self.model)} if self.model else identity

    def row_weights(self, n_train: int) -> Tensor:
        """Return the weight of every row's loss ``[n_train]``."""
        weights = torch.ones(n_train, dtype=torch.float64)
        for row, weight in self.weights.items():
            weights[row] = weight
        weights[list(self.removed)] = 0.0
        return weights

    def rows(self, train: Examples) -> Examples:
        """Return the training rows with their new targets; left-out rows are still among them."""
        if not self.labels:
            return train
        targets = train.targets.clone()
        for row, label in self.labels.items():
            targets[row] = label
        return Examples((train.raw(slice(None)).inputs, targets), "train")


class Outcomes:
    """Retrained outcomes of one task.

    Args:
        task: With a recipe and a model factory.
        run: Where they are kept, progress, cancel.
    """

    def __init__(self, task: Task, run: Run) -> None:
        """Check that the task can be retrained."""
        if task.recipe is None or task.factory is None:
            raise Unavailable(
                "This task cannot be retrained",
                "It has no recipe or no model factory.",
                "Give recipe=Recipe(...) and the model as a function.",
            )
        self.task, self.run, self.recipe, self.factory = task, run, task.recipe, task.factory

    def without(self, removed: Iterable[int], seed: int) -> Outcome:
        """Return the outcome of training without some rows (positions), retraining if it is not in the table."""
        return self.corrected(Correction(tuple(removed)), seed)

    def corrected(self, correction: Correction, seed: int) -> Outcome:
        """Return the outcome of training on changed rows, retraining if it is not in the table."""
        artifact = self.run.artifacts.obtain(
            *self._identity(correction, seed), lambda w: self._train(w, correction, seed), self.run.waiting
        )
        return _read(artifact)

    def many(self, removed: Sequence[Iterable[int]], seeds: Sequence[int], stage: str = "retraining") -> None:
        """Retrain whatever is not in the table of all these subsets with all these seeds, many models at once.

        Where the model allows it, models of one seed are trained in one stack (``primitives.together``): their numbers
        agree with those of ``without`` to rounding. A difference of two outcomes that is as small as leave-one-out's is
        better taken of two that were asked for with ``without``.
        """
        left = [
            (seed, rows)
            for seed in seeds
            for rows in dict.fromkeys(tuple(sorted(r)) for r in removed)
            if not self.has(Correction(rows), seed)
        ]
        size = self.stacked
        chunks: list[tuple[int, list[tuple[int, ...]]]] = []
        for seed, rows in left:
            if not chunks or chunks[-1][0] != seed or len(chunks[-1][1]) >= size:
                chunks.append((seed, []))
            chunks[-1][1].append(rows)
        done = 0
        for seed, rows in chunks:
            if size == 1:
                self.run.progress(stage, done, len(left))
                self.run.check_cancelled()
                with one_core():
                    self.without(rows[0], seed)
            else:
                self._train_together(rows, seed, partial(self._report, stage, len(left), done, len(rows)))
            done += len(rows)
        self.run.progress(stage, len(left), len(left))

    def _report(self, stage: str, total: int, done: int, stacked: int, share: float) -> None:
        self.run.progress(stage, done + share * stacked, total)

    @cached_property
    def stacked(self) -> int:
        """Return how many models are trained in one stack; 1: each alone."""
        size = min(_TOGETHER, _STACK_FLOATS // max(1, self.task.n_params))
        able = size > 1 and can_train_together(self.factory, self.recipe, self.task.split("train"), self.task.loss)
        return size if able else 1

    def _train_together(self, removed: list[tuple[int, ...]], seed: int, progress: Callable[[float], None]) -> None:
        task, recipe, started = self.task, self.recipe.changed(seed=seed), time.perf_counter()
        corrections = [Correction(rows) for rows in removed]
        weights = torch.stack([correction.row_weights(task.n_train) for correction in corrections])
        with one_core():
            stack = Stack(self.factory, recipe, weights, self.run.device)
            for number in stack.train(task.split("train"), task.loss):
                self.run.check_cancelled()
                progress(number / recipe.epochs)
            said = {split: stack.outputs(task.split(split)).cpu() for split in task.splits}
        share = round((time.perf_counter() - started) / len(removed), 4)
        for place, correction in enumerate(corrections):

            def kept(writer: Writer, place: int = place) -> None:
                for split, values in said.items():
                    writer.save(split, values[place].contiguous())
                writer.meta["seconds"] = share  # its part of the training, not the writing

            self.run.artifacts.obtain(*self._identity(correction, seed), kept, self.run.waiting)

    def known(self, removed: Iterable[int], seed: int) -> Outcome | None:
        """Return an outcome that has been computed already, or None."""
        artifact = self.run.artifacts.find(self._identity(Correction(tuple(removed)), seed)[0])
        return None if artifact is None else _read(artifact)

    def has(self, correction: Correction, seed: int) -> bool:
        """Tell whether an outcome has been computed already."""
        return self.run.artifacts.has(self._identity(correction, seed)[0])

    def _identity(self, correction: Correction, seed: int) -> tuple[str, dict[str, object]]:
        inputs: dict[str, object] = {
            "kind": "outcome", "version": VERSION, "task": self.task.fingerprint, "recipe": self.recipe.to_json(),
            **correction.identity, "seed": seed,
        }  # fmt: skip
        return digest(inputs), inputs

    def _train(self, writer: Writer, correction: Correction, seed: int) -> None:
        task, recipe = self.task, self.recipe.changed(seed=seed)
        weights, rows = correction.row_weights(task.n_train), correction.rows(task.split("train"))
        model = new_model(correction.factory or self.factory, recipe, self.run.device)
        # Full batches of a convex model gain from several cores; many small ones wait for the slowest.
        with nullcontext() if recipe.optimizer == "lbfgs" else one_core():
            for _ in training(model, rows, task.loss, recipe, weights):
                self.run.check_cancelled()
        parameter = next(model.parameters())
        for split in task.splits:
            batches = task.split(split).batches(1024, parameter.device, parameter.dtype)
            with torch.no_grad():
                writer.save(split, torch.cat([outputs(model, batch.inputs) for _, batch in batches]))


def _read(artifact: Artifact) -> Outcome:
    return Outcome({name: artifact.tensor(name) for name in artifact.names()})
