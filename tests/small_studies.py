"""Three small studies on disk, trained once per test run, and fixtures that hand them out.

- ``table``: an MLP on four columns, whole-number ids that are no positions, planted label errors, a locked split.
- ``linear``: logistic regression at its optimum, text ids (one looks like a formula), no truth, no locked split.
- ``image``: a CNN on 8 x 8 grey images.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from influence_core import architectures
from influence_core.encoder import Encoder, ImageEncoder, TableEncoder
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe
from influence_core.study import Study, save_study

CLASSES = ("ant", "bee", "cat")
COLUMNS = ("height", "width", "depth", "weight")
SIZES = {"train": 60, "test": 24, "locked": 12}
FLIPPED = 6


def table_rows(seed: int, sizes: dict[str, int], ids: Callable[[int], Any]) -> dict[str, pa.Table]:
    """Rows around one centre per class, on scales that differ by column."""
    random = np.random.default_rng(seed)
    centres = 1.6 * random.normal(size=(len(CLASSES), len(COLUMNS)))
    tables, start = {}, 0
    for split, n in sizes.items():
        labels = random.integers(0, len(CLASSES), n)
        values = (centres[labels] + random.normal(size=(n, len(COLUMNS)))) * [1, 10, 0.1, 5] + [0, 3, -1, 100]
        tables[split] = pa.table({
            "id": [ids(start + i) for i in range(n)], "label": [CLASSES[label] for label in labels],
            **{name: values[:, j] for j, name in enumerate(COLUMNS)},
        })  # fmt: skip
        start += n
    return tables


def with_flips(train: pa.Table, count: int) -> tuple[pa.Table, pa.Table]:
    """The rows with wrong labels in the first ``count`` of every second row, and the truth."""
    labels = train["label"].to_pylist()
    given = list(labels)
    for i in range(1, 2 * count, 2):
        given[i] = CLASSES[(CLASSES.index(labels[i]) + 1) % len(CLASSES)]
    flipped = train.set_column(train.schema.get_field_index("label"), "label", pa.array(given))
    return flipped, pa.table({"id": train["id"], "label": labels})


def trained(
    path: Path, title: str, modality: str, tables: dict[str, pa.Table], encoder: Encoder, architecture: str,
    options: dict[str, Any], recipe: Recipe, truth: pa.Table | None = None,
) -> Study:  # fmt: skip
    """Train on the train split and write the study."""
    targets = torch.tensor([CLASSES.index(label) for label in tables["train"]["label"].to_pylist()])
    rows = Examples((torch.from_numpy(encoder.encoded(tables["train"])), targets))
    model = new_model(architectures.model_factory(architecture, options), recipe)
    states, checkpoints = {}, []
    for epoch in training(model, rows, LOSSES["cross_entropy"], recipe):
        if not recipe.checkpoints or epoch.number in recipe.checkpoints:
            file = f"checkpoints/{epoch.number}.safetensors"
            states[file] = {name: value.detach().clone() for name, value in model.state_dict().items()}
            checkpoints.append({"file": file, "epoch": epoch.number, "learning_rate": epoch.learning_rate})
    header = {
        "name": path.name, "title": title, "description": f"A small {modality} study.", "modality": modality,
        "label": "label", "classes": list(CLASSES), "loss": "cross_entropy",
        "model": {"architecture": architecture, "options": options}, "recipe": recipe.to_json(),
        "checkpoints": checkpoints,
    }  # fmt: skip
    return save_study(path, header, tables, encoder, states, truth)


def table_study(path: Path) -> Study:
    tables = table_rows(1, SIZES, lambda i: 1000 + 7 * ((i * 37) % 96))
    tables["train"], truth = with_flips(tables["train"], FLIPPED)
    recipe = Recipe(learning_rate=0.2, momentum=0.5, weight_decay=1e-3, batch_size=13, epochs=6, checkpoints=(2, 6))
    options = {"n_inputs": len(COLUMNS), "n_classes": len(CLASSES), "hidden": [5]}
    encoder = TableEncoder.fitted(tables["train"], COLUMNS)
    return trained(path, "Small <table>", "table", tables, encoder, "mlp", options, recipe, truth)


def linear_study(path: Path) -> Study:
    tables = table_rows(2, {"train": 30, "test": 10}, lambda i: "=1+1" if i == 0 else f"row {i:03d}")
    recipe = Recipe(optimizer="lbfgs", weight_decay=0.05, epochs=300, dtype="float64")
    options = {"n_inputs": len(COLUMNS), "n_classes": len(CLASSES)}
    encoder = TableEncoder.fitted(tables["train"], COLUMNS)
    return trained(path, "Small linear", "table", tables, encoder, "logistic", options, recipe)


def image_study(path: Path) -> Study:
    random = np.random.default_rng(3)
    tables, start = {}, 0
    for split, n in {"train": 30, "test": 12}.items():
        labels = random.integers(0, len(CLASSES), n)
        pixels = random.integers(0, 90, (n, 8, 8))
        for i, label in enumerate(labels):
            pixels[i, 2 * label : 2 * label + 3] += 150
        tables[split] = pa.table({
            "id": np.arange(start, start + n), "label": [CLASSES[label] for label in labels],
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.astype(np.uint8).ravel()), 64),
        })  # fmt: skip
        start += n
    recipe = Recipe(learning_rate=0.05, momentum=0.9, batch_size=8, epochs=3, checkpoints=(1, 3))
    options = {"channels": 1, "size": 8, "n_classes": len(CLASSES), "widths": [3, 4], "hidden": 6}
    encoder = ImageEncoder("pixels", (1, 8, 8), 0.3, 0.25)
    return trained(path, "Small images", "image", tables, encoder, "cnn", options, recipe)


BUILDERS = {"table": table_study, "linear": linear_study, "image": image_study}


@pytest.fixture(scope="session")
def studies_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three studies, shared by all tests: results may be cached in it, nothing else may change."""
    folder = tmp_path_factory.mktemp("studies")
    for name, build in BUILDERS.items():
        build(folder / name)
    return folder


@pytest.fixture
def studies(studies_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared folder, as the one that the service looks into."""
    monkeypatch.setenv("INFLUENCE_STUDIES", str(studies_folder))
    return studies_folder


@pytest.fixture
def own_studies(studies_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copies of the three studies without what other tests computed, for those that write or need an empty cache."""
    folder = tmp_path / "studies"
    shutil.copytree(studies_folder, folder, ignore=shutil.ignore_patterns("cache", "trust", "jobs.sqlite*"))
    monkeypatch.setenv("INFLUENCE_STUDIES", str(folder))
    yield folder
