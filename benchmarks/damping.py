"""How good the automatic damping is: LDS with it, against the best of a grid of dampings, on small studies.

A study here is data of scikit-learn, a small net and its recipe. The truth is 50 half-subsets, retrained: a row left
out keeps its place in its batch, and the divisor stays, as everywhere in the engine. ``DESIGN`` is what the rule was
found on; the bar is held on ``VERIFY`` alone: the rule's LDS within .05 of the grid's best, on 3 studies x 3 seeds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Report
from influence_core import Measurement, Run, Store, Task, attribute
from influence_core.examples import Batch, Examples
from influence_core.measurement import Rows
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe

SUBSETS = 50
GRID = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
METHODS = ("if_ggn", "if_ekfac", "if_kfac")
BAR = 0.05


@dataclass(frozen=True)
class Setting:
    """A study: which data, how many rows train and test, the net's widths, and how it is trained."""

    data: str
    n_train: int
    n_test: int
    widths: tuple[int, ...]
    recipe: Recipe
    loss: str = "cross_entropy"

    def network(self) -> nn.Module:
        """Return the untrained net: Linear layers with ReLU between them."""
        layers: list[nn.Module] = []
        for inputs, outputs in zip(self.widths, self.widths[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def _sgd(**options: Any) -> Recipe:
    return Recipe.checked({"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "epochs": 30, **options})


SETTINGS = {
    "digits": Setting("digits", 1200, 100, (64, 32, 10), _sgd()),
    "digits, 10 epochs": Setting("digits", 1200, 100, (64, 32, 10), _sgd(epochs=10)),
    "digits, 100 epochs": Setting("digits", 1200, 100, (64, 32, 10), _sgd(epochs=100)),
    "digits, L2 1e-3": Setting("digits", 1200, 100, (64, 32, 10), _sgd(weight_decay=1e-3, epochs=60)),
    "digits, Adam": Setting("digits", 1200, 100, (64, 32, 10), _sgd(optimizer="adam", learning_rate=1e-3, momentum=0)),
    "digits LR": Setting(
        "digits", 1200, 100, (64, 10), _sgd(optimizer="lbfgs", weight_decay=1e-3, epochs=500, dtype="float64")
    ),
    "breast-cancer": Setting("breast_cancer", 400, 100, (30, 16, 2), _sgd(learning_rate=0.02, batch_size=32)),
    "wine": Setting("wine", 120, 50, (13, 16, 3), _sgd(learning_rate=0.02, batch_size=16, epochs=40)),
    "diabetes": Setting(
        "diabetes", 340, 100, (10, 16, 1), _sgd(learning_rate=0.01, batch_size=32, weight_decay=1e-3), "mse"
    ),
    "iris": Setting("iris", 100, 50, (4, 16, 3), _sgd(learning_rate=0.02, batch_size=16, epochs=60)),
    "friedman": Setting(
        "friedman", 300, 100, (10, 24, 1), _sgd(learning_rate=0.01, batch_size=32, epochs=60, weight_decay=1e-3), "mse"
    ),
}
DESIGN = [
    *((name, 0) for name in SETTINGS if name not in ("wine", "diabetes", "iris", "friedman")),
    *((name, seed) for name in ("digits", "wine", "diabetes") for seed in (1, 2, 3)),
]
VERIFY = [
    *(("digits", seed) for seed in (4, 5, 6)),
    *((name, seed) for name in ("iris", "friedman") for seed in (1, 2, 3)),
]


@dataclass
class Truth:
    """A trained study and what its half-subsets say: ``kept [S, n]``, ``outcomes [S, m]``."""

    task: Task
    measurement: Measurement
    kept: Tensor
    outcomes: Tensor
    memo: dict[str, Any] = field(default_factory=dict)


def rows_of(setting: Setting, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return train and test rows: standardised, shuffled by the seed."""
    from sklearn import datasets

    if setting.data == "friedman":
        data, target = datasets.make_friedman1(setting.n_train + setting.n_test, noise=1.0, random_state=seed)
    else:
        found: Any = getattr(datasets, f"load_{setting.data}")()
        data, target = found.data, found.target
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(data, dtype=torch.float32)[order]
    y = torch.tensor(target)[order]
    fitted = x[: setting.n_train]
    x = x / 16 if setting.data == "digits" else (x - fitted.mean(0)) / fitted.std(0)
    if setting.loss == "mse":
        y = ((y - y[: setting.n_train].mean()) / y[: setting.n_train].std()).float()
    stop = setting.n_train + setting.n_test
    return (x[: setting.n_train], y[: setting.n_train]), (x[setting.n_train : stop], y[setting.n_train : stop])


def trained(setting: Setting, recipe: Recipe, rows: tuple[Tensor, Tensor], weights: Tensor | None = None) -> nn.Module:
    """Return the net trained by the recipe with a weight per row."""
    model = new_model(setting.network, recipe)
    for _ in training(model, Examples(rows), LOSSES[setting.loss], recipe, weights):
        pass
    return model


def truth(name: str, seed: int, subsets: int = SUBSETS) -> Truth:
    """Train the study and its half-subsets."""
    setting = SETTINGS[name]
    recipe = setting.recipe.changed(seed=seed)
    train, test = rows_of(setting, seed)
    task = Task(
        setting.network, train, test, setting.loss, checkpoints=[trained(setting, recipe, train).state_dict()],
        learning_rates=[recipe.learning_rate], recipe=recipe,
    )  # fmt: skip
    measurement = Measurement("loss" if setting.loss == "mse" else "margin")
    scalar = measurement.scalar(LOSSES[setting.loss])
    generator = torch.Generator().manual_seed(1000 + seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps of small nets are too short to be shared
    kept, outcomes = torch.zeros(subsets, setting.n_train), torch.zeros(subsets, setting.n_test, dtype=torch.float64)
    for s in range(subsets):
        kept[s, torch.randperm(setting.n_train, generator=generator)[: setting.n_train // 2]] = 1
        model = trained(setting, recipe, train, kept[s]).double()
        with torch.no_grad():
            outcomes[s] = -scalar(
                model, Batch(test[0].double(), test[1].double() if setting.loss == "mse" else test[1])
            )
    torch.set_num_threads(threads)
    return Truth(task, measurement, kept.double(), outcomes)


def lds(scores: Tensor, found: Truth) -> float:
    """Return the mean over test rows of the rank correlation of summed scores with the outcomes."""
    predicted = found.kept @ scores.double().T

    def ranks(values: Tensor) -> Tensor:
        order = values.argsort(0).argsort(0).double()
        return (order - order.mean(0)) / order.std(0)

    return float((ranks(predicted) * ranks(found.outcomes)).sum(0).mean() / (len(predicted) - 1))


def scored(found: Truth, method: str, run: Run, **options: Any) -> tuple[float, tuple[str, ...]]:
    """Return a method's LDS and its notes."""
    query = Rows("test", tuple(range(found.task.n_test)))
    answer = attribute(found.task, method, query, config=options, measurement=found.measurement, run=run)
    return lds(answer.scores, found), answer.notes


def run(report: Report) -> None:
    """Hold the automatic damping against the grid on the studies that it was not made on; say what the labels do."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Run(device="cpu", store=Store(Path(folder)))
        for name, seed in VERIFY:
            found = truth(name, seed)
            for method in METHODS:
                _against_the_grid(report, found, f"{name}, seed {seed}", method, settings)
            drawn = scored(found, "if_ekfac", settings, labels="sampled")[0]
            report.add(f"{name}, seed {seed}", "if_ekfac with sampled labels, automatic damping", f"LDS {drawn:.3f}")


def _against_the_grid(report: Report, found: Truth, study: str, method: str, settings: Run) -> None:
    automatic, notes = scored(found, method, settings)
    grid = {damping: scored(found, method, settings, damping=damping)[0] for damping in GRID}
    best = max(grid, key=lambda damping: grid[damping])
    used = notes[0].split(":")[0].removeprefix("Effective damping ")
    report.add(
        study,
        f"{method}: automatic ({used}) against the best of the grid ({best:g})",
        f"LDS {automatic:.3f} / {grid[best]:.3f}",
        f">= best - {BAR:g}",
        automatic >= grid[best] - BAR,
    )
