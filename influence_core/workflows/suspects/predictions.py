"""Predictions that detectors share: at every checkpoint, and by the nearest rows in input space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.embedding_cache import class_labels
from influence_core.primitives.features import flat_inputs
from influence_core.primitives.losses import BinaryCrossEntropy, BuiltinLoss, CrossEntropy, CustomLoss, outputs
from influence_core.primitives.votes import CHUNK_BYTES, nearest_points, vote_shares
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 2
N_NEIGHBOURS = 10
MAX_POINTS = 50_000  # rows that vote; of more, a random sample does


class Search(NamedTuple):
    """Where label errors are looked for: a task, how to run, and the user's held-out probabilities if there are any."""

    task: Task
    run: Run
    pred_probs: Tensor | None = None  # [n_train, C], of models that did not see the row


class Votes(NamedTuple):
    """What the nearest train rows in input space say.

    Attributes:
        train: Shares of the votes for each class ``[n, C]`` of train rows, which do not vote for themselves.
        test: The same of test rows.
        neighbours: Positions in train ``[n, k]`` of each train row's neighbours, nearest first.
        distances: Their distances ``[n, k]``.
        twins: Position in train ``[m]`` of each test row's nearest neighbour.
        twin_distances: Its distance ``[m]``.
    """

    train: Tensor
    test: Tensor
    neighbours: Tensor
    distances: Tensor
    twins: Tensor
    twin_distances: Tensor


def not_numbers(task: Task) -> str:
    """Return why rows cannot be compared by their inputs; empty if they can."""
    inputs = task.split("train").batch(slice(0, 1)).inputs
    single = isinstance(inputs, Tensor) and inputs.is_floating_point()
    return "" if single else "compares rows by their inputs, which must be one tensor of real numbers"


def given_labels(task: Task) -> Tensor:
    """Return the class that every train row carries ``[n_train]``."""
    return class_labels(task.split("train").targets)


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


def neighbour_votes(task: Task, run: Run) -> Votes:
    """Return what the labels of the nearest rows in input space say, from the store; for a regression one class."""
    inputs = {
        "kind": "neighbour votes", "version": VERSION, "task": task.fingerprint, "k": N_NEIGHBOURS,
        "most": MAX_POINTS,
    }  # fmt: skip
    found = run.artifacts.obtain(digest(inputs), inputs, lambda w: _vote(w, task, run), run.waiting)
    return Votes(*(found.tensor(name) for name in Votes._fields))


def _vote(writer: Writer, task: Task, run: Run) -> None:
    train = _flat(task, "train").to(run.device)
    n, k = len(train), min(N_NEIGHBOURS, len(train) - 1)
    n_classes = task.n_classes or 1
    labels = given_labels(task) if task.loss.classifies else torch.zeros(n, dtype=torch.long)
    chosen = torch.arange(n) if n <= MAX_POINTS else torch.from_numpy(_sample(n)).sort().values
    own = torch.full((n,), -1)
    own[chosen] = torch.arange(len(chosen))
    points, queries = train[chosen.to(train.device)], {"train": (train, own), "test": (_flat(task, "test"), None)}
    scale = 0.0
    for split, (rows, mine) in queries.items():
        # As many steps as nearest_points takes.
        total = -(-len(rows) // max(1, CHUNK_BYTES // (4 * len(points))))
        parts = [near for _, near in run.track(nearest_points(rows, points, k, mine), f"neighbours of {split}", total)]
        scale = scale or float(torch.cat([near.distances for near in parts]).median())
        shares = [vote_shares(near, labels[chosen], n_classes, scale).cpu() for near in parts]
        positions = chosen[torch.cat([near.positions.cpu() for near in parts])]
        distances = torch.cat([near.distances.cpu() for near in parts])
        writer.save(split, torch.cat(shares))
        if split == "train":
            writer.save("neighbours", positions)
            writer.save("distances", distances)
        else:
            writer.save("twins", positions[:, 0].clone())
            writer.save("twin_distances", distances[:, 0].clone())


def _sample(n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(n, MAX_POINTS, replace=False)


def _flat(task: Task, split: str) -> Tensor:
    rows = task.split(split)
    return torch.cat([flat_inputs(batch.inputs) for _, batch in rows.batches(4096, "cpu", torch.float32)])
