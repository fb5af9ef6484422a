"""More small studies, for what the three of ``small_studies`` are not.

- ``diabetes``: regression (scikit-learn's diabetes), linear model at its optimum, a locked split.
- ``heights``: regression with an MLP and checkpoints, text ids, no locked split.
- ``messages``: texts, classified.
- ``people``: numbers, categories, dates, with gaps.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from influence_core import architectures
from influence_core.encoder import ColumnsEncoder, Encoder, TableEncoder, TextEncoder
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.study import Study, save_study
from influence_core.trajectory import trained_checkpoints


def built(
    path: Path, tables: dict[str, pa.Table], encoder: Encoder, architecture: str, options: dict[str, Any],
    recipe: Recipe, **header: Any,
) -> Study:  # fmt: skip
    """Train on the train split and write the study; ``header`` holds title, modality, classes and so on."""
    labels, classes = tables["train"]["label"].to_pylist(), header.get("classes", [])
    targets = torch.tensor([classes.index(label) for label in labels] if classes else labels)
    rows = Examples((torch.from_numpy(encoder.encoded(tables["train"])), targets))
    loss = "cross_entropy" if classes else "mse"
    factory = architectures.model_factory(architecture, options)
    states, checkpoints, _ = trained_checkpoints(factory, recipe, rows, LOSSES[loss], Run(), path.name)
    return save_study(
        path,
        {
            "name": path.name, "description": "A small study.", "label": "label", "classes": classes, "loss": loss,
            "model": {"architecture": architecture, "options": options}, "recipe": recipe.to_json(),
            "checkpoints": checkpoints, "task": "classification" if classes else "regression", **header,
        },
        tables, encoder, states,
    )  # fmt: skip


def diabetes_study(path: Path, sizes: dict[str, int] | None = None) -> Study:
    """Progression of diabetes after a year, from ten measurements."""
    from sklearn.datasets import load_diabetes

    source: Any = load_diabetes(scaled=False)
    order, start, tables = np.random.default_rng(5).permutation(len(source.target)), 0, {}
    for split, n in (sizes or {"train": 90, "test": 40, "locked": 20}).items():
        chosen = order[start : start + n]
        values = {name: source.data[chosen, j] for j, name in enumerate(source.feature_names)}
        tables[split] = pa.table({"id": 3 * chosen + 11, "label": source.target[chosen], **values})
        start += n
    recipe = Recipe(optimizer="lbfgs", weight_decay=1e-3, epochs=300, dtype="float64")
    options = {"n_inputs": 10, "n_classes": 1}
    encoder = TableEncoder.fitted(tables["train"], tuple(source.feature_names))
    return built(
        path, tables, encoder, "logistic", options, recipe, title="Diabetes <year>", modality="table",
        notes=["2 rows without a label were left out."],
    )  # fmt: skip


def heights_study(path: Path) -> Study:
    """Numbers with sign and fraction, learned by a network with a hidden layer."""
    random, tables, start = np.random.default_rng(6), {}, 0
    for split, n in {"train": 50, "test": 25}.items():
        values = random.normal(size=(n, 3))
        labels = values[:, 0] - np.abs(values[:, 1]) + 0.3 * random.normal(size=n)
        columns = {f"x{j}": values[:, j] for j in range(3)}
        tables[split] = pa.table({"id": [f"h{start + i}" for i in range(n)], "label": labels, **columns})
        start += n
    recipe = Recipe(learning_rate=0.02, batch_size=10, epochs=8, checkpoints=(2, 8))
    encoder = TableEncoder.fitted(tables["train"], ("x0", "x1", "x2"))
    options = {"n_inputs": 3, "n_classes": 1, "hidden": [6]}
    return built(path, tables, encoder, "mlp", options, recipe, title="Heights", modality="table")


def messages_study(path: Path) -> Study:
    """Short messages, wanted or not, with markup, a long one, and words that occur once."""
    random, tables, start = np.random.default_rng(7), {}, 0
    wanted = "see you at lunch tomorrow ok love home later sorry meeting".split()
    spam = "win cash prize <b>free</b> call now claim urgent text reply".split()
    for split, n in {"train": 60, "test": 20}.items():
        labels = random.integers(0, 2, n)
        words = [[*random.choice((wanted, spam)[k], 9), *random.choice(wanted, 3)] for k in labels.tolist()]
        texts = [f"{' '.join(random.permutation(row))}, no{start + i}" for i, row in enumerate(words)]
        texts[0] = " ".join([texts[0]] * 12)
        ids = [f"m{start + i}" for i in range(n)]
        tables[split] = pa.table({"id": ids, "label": [("ham", "spam")[k] for k in labels.tolist()], "message": texts})
        start += n
    made = TextEncoder.fitted(lambda: iter([tables["train"]]), "message", 512)
    recipe = Recipe(learning_rate=0.5, batch_size=10, epochs=6, checkpoints=(2, 6))
    options = {"n_inputs": made.shape[0], "n_classes": 2}
    return built(
        path, tables, made, "logistic", options, recipe, title="Messages", modality="text", classes=["ham", "spam"]
    )


def people_study(path: Path) -> Study:
    """Numbers, categories, booleans and dates, some missing, and a column of names that no model sees."""
    random, tables, start = np.random.default_rng(8), {}, 0
    for split, n in {"train": 80, "test": 30}.items():
        age, city = random.integers(18, 80, n).astype(float), random.choice(["Rome", "Oslo", "Köln <x>"], n)
        member, income = random.random(n) < 0.5, random.gamma(2, 20000, n)
        labels = np.where(age / 40 + (city == "Oslo") + member + random.normal(size=n) > 2.4, "yes", "no")
        gap = random.random((2, n)) < 0.15
        days = [datetime.date(2020, 1, 1) + datetime.timedelta(int(day)) for day in random.integers(0, 900, n)]
        tables[split] = pa.table({
            "id": np.arange(start, start + n), "label": labels, "age": pa.array(age, mask=gap[0]),
            "city": pa.array(city.tolist(), mask=gap[1]), "member": member, "income": income, "since": days,
            "name": [f"person {start + i}" for i in range(n)],
        })  # fmt: skip
        start += n
    made = ColumnsEncoder.fitted(lambda: iter([tables["train"]]), ("age", "city", "member", "income", "since"))
    recipe = Recipe(learning_rate=0.1, batch_size=10, epochs=8, checkpoints=(2, 8))
    options = {"n_inputs": made.shape[0], "n_classes": 2}
    return built(
        path, tables, made, "logistic", options, recipe, title="People", modality="table", classes=["no", "yes"]
    )


BUILDERS = {
    "diabetes": diabetes_study, "heights": heights_study, "messages": messages_study, "people": people_study,
}  # fmt: skip
