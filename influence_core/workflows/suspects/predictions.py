"""Predictions that detectors share: at every checkpoint, by the neighbours, and by models that did not see the row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.embedding_cache import class_labels
from influence_core.outcomes import Outcomes
from influence_core.primitives.features import flat_inputs
from influence_core.primitives.losses import BinaryCrossEntropy, BuiltinLoss, CrossEntropy, CustomLoss, outputs
from influence_core.primitives.votes import nearest_points, vote_shares
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 1
N_FOLDS = 5
N_NEIGHBOURS = 10
MAX_POINTS = 50_000  # rows that vote; of more, a random sample does


class Votes(NamedTuple):
    """Shares of the neighbours' votes for each class ``[n, C]``: of train rows, each without itself, and of test."""

    train: Tensor
    test: Tensor
    neighbours: Tensor  # positions in train ``[n, k]`` of each train row's, nearest first


def builtin_loss(task: Task) -> BuiltinLoss:
    """Return the loss, which must be one that reads outputs."""
    assert not isinstance(task.loss, CustomLoss)
    return task.loss


def class_chances(task: Task, f: Tensor) -> Tensor:
    """Return the class probabilities ``[n, C]`` of a classifier's outputs."""
    assert isinstance(task.loss, (CrossEntropy, BinaryCrossEntropy))
    return task.loss.probabilities(f)


def checkpoint_outputs(task: Task, run: Run) -> Tensor:
    """Return the outputs ``[checkpoints, n_train, ...]`` of every checkpoint on the train rows, from the store."""
    inputs = {"kind": "checkpoint outputs", "version": VERSION, "task": task.fingerprint, "precision": run.precision}

    def produce(writer: Writer) -> None:
        stages = run.track(range(task.n_checkpoints), "predictions at the checkpoints", task.n_checkpoints)
        writer.save("outputs", torch.stack([_outputs(task, run, c) for c in stages]))

    return run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).tensor("outputs")


def _outputs(task: Task, run: Run, checkpoint: int) -> Tensor:
    model = task.model_at(checkpoint, run.device, run.dtype)
    with torch.no_grad():
        batches = task.split("train").batches(1024, run.device, run.dtype)
        return torch.cat([outputs(model, batch.inputs).cpu() for _, batch in batches])


def neighbour_votes(task: Task, run: Run, n_classes: int) -> Votes:
    """Return what the labels of the nearest rows in input space say, from the store."""
    inputs = {
        "kind": "neighbour votes", "version": VERSION, "task": task.fingerprint, "k": N_NEIGHBOURS,
        "most": MAX_POINTS,
    }  # fmt: skip
    found = run.artifacts.obtain(digest(inputs), inputs, lambda w: _vote(w, task, run, n_classes), run.waiting)
    return Votes(*(found.tensor(name) for name in Votes._fields))


def _vote(writer: Writer, task: Task, run: Run, n_classes: int) -> None:
    train = _flat(task, "train").to(run.device)
    n, k = len(train), min(N_NEIGHBOURS, len(train) - 1)
    chosen = torch.arange(n) if n <= MAX_POINTS else torch.from_numpy(_sample(n)).sort().values
    own = torch.full((n,), -1)
    own[chosen] = torch.arange(len(chosen))
    labels = class_labels(task.split("train").targets)[chosen]
    points, queries = train[chosen.to(train.device)], {"train": (train, own), "test": (_flat(task, "test"), None)}
    scale = 0.0
    for split, (rows, mine) in queries.items():
        total = -(-len(rows) * len(points) // (1 << 24))
        parts = [near for _, near in run.track(nearest_points(rows, points, k, mine), f"neighbours of {split}", total)]
        scale = scale or float(torch.cat([near.distances for near in parts]).median())
        writer.save(split, torch.cat([vote_shares(near, labels, n_classes, scale).cpu() for near in parts]))
        if split == "train":
            writer.save("neighbours", chosen[torch.cat([near.positions.cpu() for near in parts])])


def _sample(n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(n, MAX_POINTS, replace=False)


def _flat(task: Task, split: str) -> Tensor:
    rows = task.split(split)
    return torch.cat([flat_inputs(batch.inputs) for _, batch in rows.batches(4096, "cpu", torch.float32)])


def fold_of_rows(task: Task, n_folds: int = N_FOLDS, seed: int = 0) -> np.ndarray:
    """Return the fold ``[n_train]`` of every train row: classes in equal shares, identical rows together."""
    order, groups = np.random.default_rng(seed), _identical(task)
    labels = class_labels(task.split("train").targets).numpy() if task.loss.classifies else np.zeros(task.n_train, int)
    first = np.unique(groups, return_index=True)[1]
    fold_of_group = np.zeros(groups.max() + 1, np.int64)
    start = 0
    for label in np.unique(labels[first]):
        members = order.permutation(groups[first][labels[first] == label])
        fold_of_group[members] = (start + np.arange(len(members))) % n_folds
        start += len(members)  # small classes do not all begin in the first fold
    return fold_of_group[groups]


def _identical(task: Task) -> np.ndarray:
    """Return a number for every train row ``[n]`` that identical inputs share."""
    rows = [batch.inputs for _, batch in task.split("train").batches(4096, "cpu", torch.float32)]
    seen: dict[bytes, int] = {}
    found = [seen.setdefault(row.numpy().tobytes(), len(seen)) for part in rows for row in flat_inputs(part)]
    return np.asarray(found)


def out_of_fold(task: Task, run: Run) -> Tensor:
    """Return the outputs ``[n_train, ...]`` of models that were trained by the recipe without the row's fold.

    Five retrainings, kept in the table of outcomes that every retraining method reads.

    Raises:
        Unavailable: The task cannot be retrained.
    """
    outcomes, folds = Outcomes(task, run), fold_of_rows(task)
    result: Tensor | None = None
    for fold in run.track(range(N_FOLDS), "training without each fifth of the rows", N_FOLDS):
        rows = np.flatnonzero(folds == fold)
        if len(rows):
            known = outcomes.without(rows.tolist(), outcomes.recipe.seed).outputs["train"]
            result = torch.empty_like(known) if result is None else result
            result[rows] = known[rows]
    assert result is not None
    return result
