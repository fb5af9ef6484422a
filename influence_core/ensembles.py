"""Several trainings of one recipe, or of variants of it, each a task of its own.

Members are what methods average over to see past one seed; variants are what a diagnostic tries to see what the quality
of a method hangs on. Members are trained once, kept in the store as weights, and shared by every method that asks for
the same seeds and share of rows. A member trained on a part of the rows draws them by its own seed; the rows left out
have weight 0, so that every batch keeps its order and divisor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.measurement import module_identity
from influence_core.primitives.losses import CustomLoss
from influence_core.primitives.training import new_model
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task
from influence_core.trajectory import trained_checkpoints

VERSION = 1


def trained_members(task: Task, run: Run, seeds: list[int], share: float = 1.0) -> list[Task]:
    """Return one task per seed: the same rows, another trained model with its recorded checkpoints.

    Args:
        task: With a recipe and a model factory.
        run: Store, progress, cancel.
        seeds: Added to the recipe's seed; member 0 with all rows is the recipe's own training.
        share: Part of the training rows that each member sees, above 0.

    Raises:
        Unavailable: The task cannot be retrained.
    """
    if task.recipe is None or task.factory is None:
        raise Unavailable(
            "This task cannot be retrained", "It has no recipe or no model factory.",
            "Give recipe=Recipe(...) and the model as a function, or use models=1.",
        )  # fmt: skip
    members = []
    for seed in run.track(seeds, "training the ensemble", len(seeds)):
        inputs: dict[str, Any] = {
            "kind": "trained member", "version": VERSION, "task": task.fingerprint, "recipe": task.recipe.to_json(),
            "seed": seed, "share": share,
        }  # fmt: skip
        key = digest(inputs)
        artifact = run.artifacts.obtain(key, inputs, _Training(task, run, seed, share), run.waiting)
        names, rates = artifact.meta["names"], artifact.meta["rates"]
        states = [{name: artifact.tensor(f"{c}.{i}") for i, name in enumerate(names)} for c in range(len(rates))]
        members.append(task.with_checkpoints(states, rates, key))
    return members


def trained_variant(
    task: Task, run: Run, recipe: Recipe, factory: Callable[[], nn.Module] | None = None
) -> Task:  # fmt: skip
    """Return the task with a model trained by another recipe, or of another architecture, in the place of its own.

    Args:
        task: With a model factory.
        run: Store, progress, cancel.
        recipe: How the model is trained.
        factory: Makes the model; None: the task's.

    Raises:
        Unavailable: The task has no model factory.
    """
    factory = factory or task.factory
    if factory is None:
        raise Unavailable(
            "This task cannot be retrained", "It has no model factory.", "Give the model as a function."
        )  # fmt: skip
    model = new_model(factory, recipe)
    inputs: dict[str, Any] = {
        "kind": "trained variant", "version": VERSION, "task": task.fingerprint, "recipe": recipe.to_json(),
        "model": module_identity(model),
    }  # fmt: skip
    key, last = digest(inputs), recipe.changed(checkpoints=())

    def produce(writer: Writer) -> None:
        states, entries, _ = trained_checkpoints(factory, last, task.split("train"), task.loss, run, "a variant")
        state = next(iter(states.values()))
        for i, value in enumerate(state.values()):
            writer.save(str(i), value)
        writer.meta["names"], writer.meta["rate"] = list(state), entries[-1]["learning_rate"]

    artifact = run.artifacts.obtain(key, inputs, produce, run.waiting)
    state = {name: artifact.tensor(str(i)) for i, name in enumerate(artifact.meta["names"])}
    loss = task.loss.function if isinstance(task.loss, CustomLoss) else task.loss.name
    return Task(
        factory, task.split("train"), task.split("test"), loss, checkpoints=[state],
        learning_rates=[artifact.meta["rate"]], recipe=recipe, class_names=task.class_names,
        train_ids=task.ids("train"), test_ids=task.ids("test"), fingerprint=key,
    )  # fmt: skip


def member_rows(ids: np.ndarray, seed: int, share: float) -> Tensor:
    """Return the weights ``[n]`` of the rows that a member sees: 1, or 0 for those left out.

    Rows are drawn by a hash of their ids, so that the draw does not depend on their order.
    """
    weights = torch.ones(len(ids), dtype=torch.float64)
    if share < 1:
        key = seed.to_bytes(8, "little")
        drawn = [hashlib.blake2b(str(value).encode(), digest_size=8, key=key).digest() for value in ids.tolist()]
        order = sorted(range(len(ids)), key=drawn.__getitem__)
        weights[order[max(1, round(share * len(ids))) :]] = 0
    return weights


class _Training:
    """Fills the artifact of one member."""

    def __init__(self, task: Task, run: Run, seed: int, share: float) -> None:
        self.task, self.run, self.seed, self.share = task, run, seed, share

    def __call__(self, writer: Writer) -> None:
        task = self.task
        assert task.recipe is not None and task.factory is not None
        recipe = task.recipe
        # A convergence has one end; a training is recorded at its end too, which is the member.
        recorded = () if recipe.optimizer == "lbfgs" else tuple(sorted({*recipe.checkpoints, recipe.epochs}))
        recipe = recipe.changed(seed=recipe.seed + self.seed, checkpoints=recorded)
        weights = member_rows(task.ids("train"), recipe.seed, self.share)
        states, entries, _ = trained_checkpoints(
            task.factory, recipe, task.split("train"), task.loss, self.run, f"member {self.seed + 1}", weights
        )
        for c, state in enumerate(states.values()):
            for i, value in enumerate(state.values()):
                writer.save(f"{c}.{i}", value)
        writer.meta["names"] = list(next(iter(states.values())))
        writer.meta["rates"] = [entry["learning_rate"] for entry in entries]
