"""What judging will cost, said before it starts: models to be trained that are not in the table yet, and the time.

Work that several metrics share (retrained halves aside: fitting a method, scoring the same rows) is counted once in the
whole, and in the price of each metric that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from influence_core.costs import cost, seconds_in_words, sizes
from influence_core.errors import Unavailable
from influence_core.estimator import Estimator
from influence_core.fitting import default_measurement, is_fitted
from influence_core.measurement import Measurement, Rows
from influence_core.metrics.pbrf import unknown_responses
from influence_core.metrics.randomised import READS_WEIGHTS, forgotten
from influence_core.metrics.removal_curve import followed_rows
from influence_core.metrics.scoring import chosen_rows, is_grouped, is_scored, is_suspected, judged_measurement
from influence_core.metrics.table import Judging
from influence_core.metrics.truth import n_seeds, seeds_of, subsets
from influence_core.outcomes import Correction, Outcomes
from influence_core.primitives.losses import CustomLoss
from influence_core.registry import refusal
from influence_core.run import Run
from influence_core.task import Needs, Task

_STEP = 2.0  # of a training pass against one forward and backward pass over the same rows: optimiser and Python
_STACKED = 0.4  # of that, where many small models are trained in one stack
_CONVERGED = 100  # passes that a convex model needs to the precision of its numbers
_RESPONSE = 100  # training passes of a proximal response
_SEARCH = 4  # further models per prediction while the flip is searched for
_GRID = 6
RETRAINS = ("lds", "loo", "removal")
_Works = dict[tuple[str, ...], float]  # what has to be done -> its seconds


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        models: Models to be trained, by metric; removal's number is an upper estimate.
        fits: Methods to be fitted.
        seconds: Of everything together, an estimate.
        metrics: Seconds of each metric as if it were the only one.
        methods: Seconds of each method: fitting it, and its answers.
    """

    models: dict[str, int]
    fits: tuple[str, ...]
    seconds: float
    metrics: dict[str, float]
    methods: dict[str, float]

    @property
    def words(self) -> str:
        """Return the plan in one sentence."""
        parts = [f"{count} models to train for {name}" for name, count in self.models.items() if count]
        parts += [f"{len(self.fits)} methods to fit ({', '.join(self.fits)})"] if self.fits else []
        nothing = "Everything is there already" if self.seconds < 1 else "Only scores are to be computed"
        return f"{'; '.join(parts) or nothing}: {seconds_in_words(self.seconds)}."


def planned(task: Task, methods: Sequence[Estimator], metrics: Sequence[str], run: Run, options: Judging) -> Plan:
    """Return what ``evaluate`` will have to do."""
    able = [estimator for estimator in methods if not refusal(estimator, task)]
    models = _models(task, len(able), metrics, run, options)
    alone: dict[str, float] = {}
    everything: _Works = {}
    for metric in metrics:
        works: _Works = {("truth", metric): _truth(task, metric, models.get(metric, 0), run, options)}
        for estimator in able:
            works |= _works(task, estimator, metric, run, options)
        alone[metric] = sum(works.values())
        everything |= works
    spent = {
        estimator.named.name: sum(
            seconds for work, seconds in everything.items() if work[0] != "truth" and work[1] == estimator.named.name
        )
        for estimator in able
    }
    fits = tuple(estimator.named.name for estimator in able if not is_fitted(task, estimator, run))
    return Plan(models, fits, sum(everything.values()), alone, spent)


def unmeasurable(task: Task, metric: str, planted: np.ndarray | None) -> str:
    """Return why a metric cannot be measured on a task at all; empty if it can."""
    if metric in RETRAINS:
        try:
            Outcomes(task, Run())
        except Unavailable as error:
            return f"{error.what}: {error.why}"
    if metric == "removal" and not task.loss.classifies:
        return "The model predicts a number, so that no prediction can flip."
    if metric == "mislabel" and (planted is None or not planted.any()):
        return "No planted label errors are known here."
    if metric == "pbrf" and (Needs.MODEL not in task.provides or isinstance(task.loss, CustomLoss)):
        return "It needs a trained model and a built-in loss."
    if metric == "randomised" and (task.factory is None or Needs.MODEL not in task.provides):
        return "The model cannot be made anew: there is no model factory."
    return ""


def unjudged(estimator: Estimator, task: Task, metric: str) -> str:
    """Return why a metric says nothing about a method, as far as can be known without work; empty if it does."""
    info = estimator.named
    if metric == "mislabel":
        return "" if info.self_influence or info.scores else "it has neither self-influence nor scores"
    if not info.scores:
        return "it has one number per training row, none for a pair of rows"
    if info.partial and metric in ("lds", "removal"):
        return "it does not score every row"
    if metric == "lds" and not info.additive and not info.groups:
        return "its scores are an order, not amounts that add up"
    if metric == "randomised" and not info.needs & READS_WEIGHTS:
        return "it does not look at the model's weights"
    return ""


def _truth(task: Task, metric: str, models: int, run: Run, options: Judging) -> float:
    """Return the seconds of what does not depend on the methods."""
    once = sizes(task, run).pass_seconds * _STEP
    if metric == "pbrf" and not unmeasurable(task, metric, None):
        return unknown_responses(task, options, run) * _RESPONSE * once
    if not models or task.recipe is None:
        return 0.0
    passes = _CONVERGED if task.recipe.optimizer == "lbfgs" else task.recipe.epochs
    stacked = _STACKED if metric != "loo" and Outcomes(task, run).stacked > 1 else 1.0
    return models * passes * once * stacked


def _works(task: Task, estimator: Estimator, metric: str, run: Run, options: Judging) -> _Works:
    """Return what a method has to do for a metric: fitting, and answers that are not kept yet."""
    if unjudged(estimator, task, metric):
        return {}
    name, price = estimator.named.name, cost(task, estimator, run)
    fitting: _Works = {} if is_fitted(task, estimator, run) else {("fit", name): price.seconds}
    if metric == "mislabel":
        rows = task.n_train if estimator.named.self_influence and estimator.named.units != "value" else 1
        return {} if is_suspected(task, estimator, run) else {**fitting, ("suspicion", name): price.answering(rows)}
    rows, measurement = _asked(task, estimator, metric, run, options)
    works: _Works = {}
    if not is_scored(task, estimator, rows, measurement, run):
        said = ("scores", name, str(rows.ids), str(measurement.identity()))
        works = {**fitting, said: price.answering(len(rows.ids))}
    if metric == "lds" and estimator.named.groups:
        left = ~subsets(task.n_train, options.subsets, run.seed)
        if not is_grouped(task, estimator, rows, measurement, left, run):
            works["groups", name] = float(left.sum()) * price.member
    if metric == "randomised" and not unmeasurable(task, metric, None):
        blank = forgotten(task)
        if not is_scored(blank, estimator, rows, measurement, run):
            works["untrained", name] = price.total(len(rows.ids))
    return works


def _asked(task: Task, estimator: Estimator, metric: str, run: Run, options: Judging) -> tuple[Rows, Measurement]:
    """Return what a metric asks a method."""
    if metric == "removal":
        return followed_rows(task, run, options), Measurement(judged_measurement(task, estimator).kind, "predicted")
    rows = chosen_rows(task, run, options.rows)
    kept = default_measurement(estimator) if metric in ("loo", "pbrf") else judged_measurement(task, estimator)
    return rows, kept


def _models(task: Task, n_methods: int, metrics: Sequence[str], run: Run, options: Judging) -> dict[str, int]:
    """Return how many models each metric has to train; none where nothing can be retrained."""
    try:
        outcomes = Outcomes(task, run)
    except Unavailable:
        return {}
    seeds, found = seeds_of(task, n_seeds(task, options)), {}
    if "lds" in metrics:
        removed = [tuple(np.flatnonzero(~row).tolist()) for row in subsets(task.n_train, options.subsets, run.seed)]
        found["lds"] = sum(not outcomes.has(Correction(rows), seed) for rows in removed for seed in seeds)
    if "loo" in metrics:
        generator = torch.Generator().manual_seed(run.seed)
        drawn = torch.randperm(task.n_train, generator=generator)[: options.left_out].tolist()
        removed = [(), *((row,) for row in drawn)]
        found["loo"] = sum(not outcomes.has(Correction(rows), seed) for rows in removed for seed in seeds)
    if "removal" in metrics and task.loss.classifies:
        predictions = len(followed_rows(task, run, options).ids)
        found["removal"] = (n_methods + options.draws) * predictions * (_GRID + _SEARCH)
    return found
