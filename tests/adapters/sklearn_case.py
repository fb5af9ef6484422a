"""Small data and models for the tests of scikit-learn studies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from influence_core import Study
from influence_core.adapters.sklearn_study import study_from_sklearn

N_TRAIN, N_TEST, WIDTH = 90, 30, 4


def rows(n_classes: int = 2, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Train and test rows whose labels follow the inputs, noisily; 0 classes: numbers."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(N_TRAIN + N_TEST, WIDTH))
    score = x @ random.normal(size=(WIDTH, max(1, n_classes))) + random.normal(size=(len(x), max(1, n_classes)))
    y = score[:, 0] if n_classes == 0 else (score[:, 0] > 0).astype(int) if n_classes == 2 else score.argmax(1)
    return (x[:N_TRAIN], y[:N_TRAIN]), (x[N_TRAIN:], y[N_TRAIN:])


def made(tmp_path: Path, model: Any, n_classes: int = 2, **options: Any) -> Study:
    train, test = rows(n_classes)
    return study_from_sklearn("mine", model, train=train, test=test, out=tmp_path / "mine", **options)


def fitted(model: Any, n_classes: int = 2) -> Any:
    (x, y), _ = rows(n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def probabilities(study: Study) -> np.ndarray:
    return study.task.loss.probabilities(study.task.outputs_of("test")).numpy()  # type: ignore[union-attr]


MLP = {"max_iter": 60, "random_state": 0}
