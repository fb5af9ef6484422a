"""Does cleaning pay? Accept the suggestions for the top of the list, retrain, and see how much of the damage is undone.

Digits with 30% class-pair noise in a network that memorises. Of every seed, three models that start from the same
weights and differ in the labels alone: as given, after accepting, and right everywhere. The locked split judges;
nothing reads it before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from benchmarks.suspects import DATA, MODELS, Case, noisy
from benchmarks.timing import Report
from influence_core.architectures import model_factory
from influence_core.examples import Examples
from influence_core.outcomes import Correction, Outcomes
from influence_core.primitives.losses import LOSSES
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from influence_core.trajectory import trained_checkpoints
from influence_core.workflows.suspects.ranking import suspects

RATE, INSPECTED, N_LOCKED = 0.30, 0.35, 297
SEEDS = tuple(range(10, 20))  # no rule was chosen by looking at these
HALF = 0.5


class Cleaned(NamedTuple):
    """What cleaning did for one seed.

    Attributes:
        before: Locked accuracy of the model on the given labels.
        after: After accepting the suggestions.
        clean: On the right labels.
        inspected: Rows at the top of the list.
        wrong: How many of those carried a wrong label.
        right: How many of those got the right one.
        errors: Wrong labels in all.
    """

    before: float
    after: float
    clean: float
    inspected: int
    wrong: int
    right: int
    errors: int


class Share(NamedTuple):
    """The share of the gap that is closed, with the ends of its 95% interval."""

    share: float
    low: float
    high: float


def noisy_task(seed: int, run: Run, model: str, **recipe_changes: object) -> tuple[Task, np.ndarray]:
    """Return a task trained on wrong labels, with a locked split, and the right labels of its train rows."""
    case = Case("digits", "class-pair", RATE, model, seed)
    data = DATA[case.data](seed)
    architecture, hidden, recipe = MODELS[model]
    recipe = recipe.changed(seed=seed, **recipe_changes)
    options = {"n_inputs": data.x.shape[1], "n_classes": 10, "hidden": hidden}
    factory = model_factory(architecture, options)
    rows = (torch.from_numpy(data.x), torch.from_numpy(noisy(data, case)))
    parts = trained_checkpoints(factory, recipe, Examples(rows), LOSSES["cross_entropy"], run, "training")
    x, y = torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)
    task = Task(
        factory, rows, (x[N_LOCKED:], y[N_LOCKED:]), locked=(x[:N_LOCKED], y[:N_LOCKED]),
        checkpoints=list(parts[0].values()), learning_rates=[entry["learning_rate"] for entry in parts[1]],
        recipe=recipe,
    )  # fmt: skip
    return task, data.y


def cleaned(seed: int, run: Run, model: str = "memorising", **recipe_changes: object) -> Cleaned:
    """Look for label errors, accept every suggestion for the top of the list, retrain."""
    task, truth = noisy_task(seed, run, model, **recipe_changes)
    given, judge = task.split("train").targets.numpy(), task.split("locked").targets
    listed = suspects(task, run)
    assert listed.beliefs is not None
    top = listed.order()[: round(INSPECTED * len(given))]
    said, wrong = listed.beliefs.suggested[top], np.flatnonzero(given != truth)
    outcomes = Outcomes(task, run)

    def accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
        fix = Correction(labels=dict(zip(rows.tolist(), labels.tolist(), strict=True)))
        return float((outcomes.corrected(fix, seed).outputs["locked"].argmax(1) == judge).double().mean())

    return Cleaned(
        accuracy(wrong[:0], wrong[:0]), accuracy(top, said), accuracy(wrong, truth[wrong]),
        len(top), int(np.isin(top, wrong).sum()), int((said == truth[top]).sum()), len(wrong),
    )  # fmt: skip


def share_closed(results: Sequence[Cleaned]) -> Share:
    """Return the mean gain over the mean gap, with Fieller's interval for a ratio of paired means (t, n - 1)."""
    gain = np.array([result.after - result.before for result in results])
    gap = np.array([result.clean - result.before for result in results])
    n, t = len(results), stats.t.ppf(0.975, len(results) - 1)
    (vx, c), (_, vy) = np.cov(gain, gap) / n
    # All r that a t test of mean(gain - r gap) = 0 does not refuse.
    a, b, d = gap.mean() ** 2 - t**2 * vy, gain.mean() * gap.mean() - t**2 * c, gain.mean() ** 2 - t**2 * vx
    if a <= 0:  # the gap itself may be none: no share of it can be told
        return Share(gain.mean() / gap.mean(), -np.inf, np.inf)
    root = np.sqrt(max(0.0, b * b - a * d))
    return Share(gain.mean() / gap.mean(), (b - root) / a, (b + root) / a)


def measured(seeds: Sequence[int]) -> list[Cleaned]:
    """Return a result per seed."""
    with tempfile.TemporaryDirectory() as folder:
        return [cleaned(seed, Run(device="cpu", store=Store(Path(folder) / str(seed)))) for seed in seeds]


def run(report: Report) -> None:
    """Measure the reported seeds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = measured(SEEDS)
    finally:
        torch.set_num_threads(threads)
    mean = {name: float(np.mean([getattr(result, name) for result in results])) for name in Cleaned._fields}
    figures = f"{mean['before']:.3f} / {mean['after']:.3f} / {mean['clean']:.3f}"
    report.add("cleaning", f"locked accuracy: given, accepted, right labels; {len(results)} seeds", figures)
    found = f"{mean['wrong'] / mean['errors']:.1%} / {mean['right'] / mean['wrong']:.1%}"
    report.add("cleaning", f"errors in the top {INSPECTED:.0%} / of those, suggestions right", found)
    share = share_closed(results)
    report.add(
        "cleaning", f"share of the gap closed ({RATE:.0%} class-pair noise), 95% interval",
        f"{share.share:.2f} [{share.low:.2f}, {share.high:.2f}]", "lower end > 0.5", share.low > HALF,
    )  # fmt: skip
