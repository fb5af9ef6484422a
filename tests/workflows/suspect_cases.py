"""Tasks with planted label errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from influence_core.architectures import model_factory
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.task import Task
from influence_core.trajectory import trained_checkpoints

CLASSES, WIDTH = 3, 4
RECIPE = Recipe(learning_rate=0.1, momentum=0.5, batch_size=16, epochs=8, checkpoints=(2, 4, 8))


def rows(n: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n)
    centres = 2.0 * np.eye(CLASSES, WIDTH)
    return torch.from_numpy((centres[labels] + spread * random.normal(size=(n, WIDTH))).astype(np.float32)), labels


def flipped(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    change = random.random(len(labels)) < share
    return np.where(change, (labels + random.integers(1, CLASSES, len(labels))) % CLASSES, labels)


def planted(n: int = 90, share: float = 0.15, spread: float = 1.0, **options: Any) -> tuple[Task, np.ndarray]:
    """A trained MLP, and which train labels are wrong."""
    (x, truth), (x_test, y_test) = rows(n, 1, spread), rows(n, 2, spread)
    given = flipped(truth, share, 3)
    train = (x, torch.from_numpy(given))
    factory = model_factory("mlp", {"n_inputs": WIDTH, "n_classes": CLASSES, "hidden": [8]})
    states, entries = trained_checkpoints(factory, RECIPE, Examples(train), LOSSES["cross_entropy"], Run(), "t")[:2]
    task = Task(
        factory, train, (x_test, torch.from_numpy(y_test)), checkpoints=list(states.values()),
        learning_rates=[entry["learning_rate"] for entry in entries], **{"recipe": RECIPE, **options},
    )  # fmt: skip
    return task, given != truth
