"""Trains a built-in study and writes it as a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from influence_core import architectures
from influence_core.demos.data import DemoData, breast_cancer_data, digits_data
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.study import Study, save_study
from influence_core.trajectory import trained_checkpoints


@dataclass(frozen=True)
class Demo:
    """A built-in study: its data, its model and how it is trained."""

    title: str
    description: str
    data: Callable[[], DemoData]
    architecture: str
    options: dict[str, Any]
    recipe: Recipe


_DIGITS = (
    "Handwritten digits, 8 x 8 pixels (scikit-learn). One training label in ten is wrong on purpose, half of them "
    "between digits that look alike; the truth is kept aside, so that every finding can be checked."
)
# A constant step size: a schedule that ends at 0 would silence the last checkpoints in TracIn.
_SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4}

DEMOS: dict[str, Demo] = {
    "digits": Demo(
        "Digits (CNN)", _DIGITS, digits_data, "cnn", {"channels": 1, "size": 8, "n_classes": 10},
        Recipe(**_SGD, learning_rate=0.02, batch_size=32, epochs=20, checkpoints=(1, 2, 4, 8, 14, 20)),
    ),
    "digits-mlp": Demo(
        "Digits (MLP)", _DIGITS, digits_data, "mlp", {"n_inputs": 64, "n_classes": 10, "hidden": [32]},
        Recipe(**_SGD, learning_rate=0.02, batch_size=32, epochs=20, checkpoints=(1, 2, 4, 8, 14, 20)),
    ),
    "digits-lr": Demo(
        "Digits (logistic regression)", _DIGITS, digits_data, "logistic", {"n_inputs": 64, "n_classes": 10},
        Recipe(**{"optimizer": "lbfgs", "weight_decay": 1e-2, "epochs": 500, "dtype": "float64"}),
    ),
    "breast-cancer": Demo(
        "Breast cancer (table)",
        "Thirty measurements of cell nuclei from 569 tumours, benign or malignant (scikit-learn), labels as published.",
        breast_cancer_data, "mlp", {"n_inputs": 30, "n_classes": 2, "hidden": [16]},
        Recipe(**_SGD, learning_rate=0.01, batch_size=16, epochs=20, checkpoints=(1, 2, 4, 8, 14, 20)),
    ),
}  # fmt: skip


def build_demo(name: str, out: Path, run: Run | None = None) -> Study:
    """Train and write a built-in study.

    Args:
        name: One of ``DEMOS``.
        out: The study folder to make.
        run: Progress and cancel.

    Raises:
        BadInput: Unknown name, or the folder exists.
    """
    run = run or Run()
    if name not in DEMOS:
        raise BadInput("Unknown demo", f"'{name}' is not built in.", f"Use one of: {', '.join(DEMOS)}.")
    if out.exists():
        raise BadInput("The folder is taken", f"{out} exists already.", "Choose another place, or delete it first.")
    demo, data = DEMOS[name], DEMOS[name].data()
    train = data.tables["train"]
    index = {label: i for i, label in enumerate(data.classes)}
    targets = torch.tensor([index[label] for label in train["label"].to_pylist()])
    rows = Examples((torch.from_numpy(data.encoder.encoded(train)), targets), "train")
    factory = architectures.model_factory(demo.architecture, demo.options)
    states, checkpoints, losses = trained_checkpoints(factory, demo.recipe, rows, LOSSES["cross_entropy"], run, name)
    recipe = demo.recipe.to_json()
    header = {
        "name": name, "title": demo.title, "description": demo.description, "modality": data.modality,
        "label": "label", "classes": list(data.classes), "loss": "cross_entropy",
        "model": {"architecture": demo.architecture, "options": demo.options}, "recipe": recipe,
        "checkpoints": checkpoints, "feature_names": list(data.feature_names), "training": {"loss": losses},
    }  # fmt: skip
    return save_study(out, header, data.tables, data.encoder, states, data.truth)
