"""How long an influence lasts: predicted against actual change over a few steps of further training.

From the explained weights the model is trained on with and without a small weight eps on one training row, in the same
batches:

    theta <- theta - eta (grad of the batch's mean loss + weight_decay theta + eps grad l_i)

and the change of the measurement after s steps is compared with a method's score, over the rows, for each s. Schioppa
et al. (NeurIPS 2023) show that influence functions predict such short trainings and lose their hold as the two paths
part; the correlation is expected to fall with s, and is not to be mended. ``eps = -1/n`` (default) takes the row out.

``finetune_check`` is the same paper's use of it: a few steps on the top proponents, and up the loss of the top
opponents, as a mend of one prediction; what it does to the other test rows is reported beside.

Cost: ``rows x max(horizons)`` training steps, or ``steps`` for the check.

Reference: Schioppa, Filippova, Titov & Zablotskaia, Theoretical and Practical Perspectives on what Influence Functions
Do, NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.estimator import Fitted
from influence_core.examples import Batch, moved
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.losses import Loss, outputs, predicted_classes
from influence_core.primitives.statistics import spearman
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.diagnostics.catalogue import (
    KIND_HELP,
    METHOD_HELP,
    Answer,
    Findings,
    Kind,
    diagnostic,
    explained,
    fitted_method,
    known_ids,
    query_rows,
)

_REFERENCE = "Schioppa et al., Theoretical and Practical Perspectives on what Influence Functions Do, NeurIPS 2023"
_RATE = 0.01  # where the task says nothing of how it was trained
_BATCH = 64


@dataclass(frozen=True)
class Fading:
    """Predicted and actual changes.

    Attributes:
        horizons: Steps ``[h]``.
        predicted: The method's scores ``[m, k]``.
        actual: Drop of the measurement after each horizon without the row's weight ``[h, m, k]``.
        correlations: Mean over test rows of the Spearman correlation over training rows ``[h]``.
    """

    horizons: tuple[int, ...]
    predicted: Tensor
    actual: Tensor
    correlations: np.ndarray


@dataclass(frozen=True)
class FinetuneCheck:
    """What a few steps on the ranked rows did to a prediction.

    Attributes:
        measured: The measurement after 0, 1, .. steps ``[steps + 1]``.
        corrected_after: Steps until the prediction was the row's label; None if it never was.
        accuracy: Share of the test rows right after 0, 1, .. steps; NaN for a regression.
        loss: Mean test loss after 0, 1, .. steps.
    """

    measured: np.ndarray
    corrected_after: int | None
    accuracy: np.ndarray
    loss: np.ndarray


def influence_fading(
    fitted: Fitted, train: Rows, test: Rows, run: Run, *, measurement: Measurement | None = None,
    horizons: Sequence[int] = (1, 2, 4, 8, 16, 32), learning_rate: float | None = None, batch_size: int | None = None,
    eps: float | None = None,
) -> Fading:  # fmt: skip
    """Compare a method's scores with what further training does, step by step.

    Args:
        fitted: A fitted method with pairwise scores.
        train: The training rows that are tried, one at a time.
        test: The predictions looked at.
        run: Device, precision, seed of the order of the batches, progress.
        measurement: What is explained; default minus the loss.
        horizons: Numbers of steps.
        learning_rate: Step size; default the recipe's.
        batch_size: Rows per step, or the whole data where it is larger; default the recipe's.
        eps: Weight that the row gains; default ``-1/n``: it leaves.

    Raises:
        BadInput: No row, or a horizon below 1.
    """
    task, measurement = fitted.task, measurement or Measurement()
    horizons = tuple(sorted(set(horizons)))
    if not horizons or horizons[0] < 1 or not train.ids or not test.ids:
        raise BadInput("Nothing to compare", "There is no row or no step.", "Give rows, and horizons from 1 on.")
    places = task.positions(train)
    predicted = fitted.scores(test, measurement)[:, places.to(run.device)].double().cpu()
    weight = -1 / task.n_train if eps is None else eps
    path = _Path(task, run, learning_rate, batch_size)
    query = task.query(test, measurement, torch.float64)
    base = path.measured(None, 0.0, query, measurement, horizons)
    columns = []
    for place in run.track(places.tolist(), "further training", len(places)):
        moved = path.measured(place, weight, query, measurement, horizons)
        columns.append((base - moved) / (-weight * task.n_train))  # per removal of the row
    actual = torch.stack(columns, 2)
    correlations = [
        np.nanmean([spearman(p.numpy(), a.numpy()) for p, a in zip(predicted, step, strict=True)]) for step in actual
    ]
    return Fading(horizons, predicted, actual, np.asarray(correlations))


def finetune_check(
    fitted: Fitted, test: Rows, run: Run, *, measurement: Measurement | None = None, k: int = 10, steps: int = 20,
    learning_rate: float | None = None, opponents: bool = True,
) -> FinetuneCheck:  # fmt: skip
    """Take a few steps on the top rows of one prediction and see whether it is mended, and at what price.

    Args:
        fitted: A fitted method with pairwise scores.
        test: One test row.
        run: Device, precision, progress.
        measurement: What the ranking explains; default minus the loss at the row's own label.
        k: Proponents, and opponents, that are stepped on.
        steps: At most.
        learning_rate: Default the recipe's.
        opponents: Whether to step up the loss of the top opponents too.

    Raises:
        BadInput: Not one test row, or nothing to step on.
    """
    task, measurement = fitted.task, measurement or Measurement()
    if len(test.ids) != 1 or k < 1 or steps < 1:
        raise BadInput("Nothing to check", "It takes one test row, and k and steps of 1 or more.", "Give these.")
    scores = fitted.scores(test, measurement)[0]
    order = scores.argsort(descending=True).cpu()
    weights = torch.zeros(task.n_train, dtype=torch.float64)
    weights[order[:k]] = 1 / k
    if opponents:
        weights[order[-k:]] -= 1 / k
    index = weights.nonzero().flatten()
    rows = task.split("train").batch(index, run.device, torch.float64)
    model = task.model_at(-1, run.device, torch.float64)
    rate = _rate(task, learning_rate)
    query = task.query(test, measurement, torch.float64)
    figures = [_figures(task, model, query, measurement, run)]
    for _ in run.track(range(steps), "steps on the ranked rows", steps):
        loss = (task.loss(model, rows) * weights[index].to(run.device)).sum()
        _descend(model, loss, rate)
        figures.append(_figures(task, model, query, measurement, run))
    measured, right, accuracy, losses = (np.asarray(column) for column in zip(*figures, strict=True))
    mended = np.flatnonzero(right == 1.0)
    return FinetuneCheck(measured, int(mended[0]) if len(mended) else None, accuracy, losses)


class _Path:
    """Further training from the explained weights, in batches that are the same for every row."""

    def __init__(self, task: Task, run: Run, learning_rate: float | None, batch_size: int | None) -> None:
        self.task, self.run = task, run
        self.rate = _rate(task, learning_rate)
        recipe = task.recipe
        self.batch = min(task.n_train, batch_size or (recipe.batch_size if recipe is not None else _BATCH))
        if recipe is not None and recipe.optimizer == "lbfgs" and batch_size is None:
            self.batch = task.n_train
        self.decay = recipe.weight_decay if recipe is not None else 0.0

    def measured(
        self, place: int | None, eps: float, query: Batch, measurement: Measurement, horizons: tuple[int, ...]
    ) -> Tensor:
        """Return the measurement after every horizon ``[h, m]``."""
        task, run = self.task, self.run
        model = task.model_at(-1, run.device, torch.float64)
        train, found = task.split("train"), []
        own = None if place is None else train.batch(torch.tensor([place]), run.device, torch.float64)
        generator = torch.Generator().manual_seed(run.seed)
        order: list[Tensor] = []
        for step in range(1, horizons[-1] + 1):
            run.check_cancelled()
            if not order:
                order = list(torch.randperm(task.n_train, generator=generator).split(self.batch))[::-1]
            loss = task.loss(model, train.batch(order.pop(), run.device, torch.float64)).mean()
            if self.decay:
                loss = loss + self.decay / 2 * sum(p.square().sum() for p in model.parameters())
            if own is not None:
                loss = loss + eps * task.loss(model, own).sum()
            _descend(model, loss, self.rate)
            if step in horizons:
                found.append(_measured(task.loss, model, query, measurement, run))
        return torch.stack(found)


def _descend(model: nn.Module, loss: Tensor, rate: float) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            if slope is not None:
                parameter -= rate * slope


def _measured(loss: Loss, model: nn.Module, query: Batch, measurement: Measurement, run: Run) -> Tensor:
    with torch.no_grad():
        return -measurement.scalar(loss)(model, Batch(*moved(query, run.device, torch.float64))).cpu()


def _figures(
    task: Task, model: nn.Module, query: Batch, measurement: Measurement, run: Run
) -> tuple[float, float, float, float]:
    """Return the measurement, whether the row is right, the share of test rows that are, and their mean loss."""
    right, losses, own = [], [], float("nan")
    with torch.no_grad():
        for _, batch in task.split("test").batches(1024, run.device, torch.float64):
            losses.append(task.loss(model, batch))
            if task.loss.classifies:
                right.append(_right(task, model, batch))
        if task.loss.classifies:
            own = float(_right(task, model, query)[0])
    accuracy = float(torch.cat(right).double().mean()) if right else float("nan")
    value = float(_measured(task.loss, model, query, measurement, run)[0])
    return value, own, accuracy, float(torch.cat(losses).mean())


def _right(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    f = outputs(model, batch.inputs)
    return predicted_classes(f) == batch.targets.reshape(len(f), -1)[:, 0].to(f.device).long()


def _rate(task: Task, given: float | None) -> float:
    if given is not None:
        return given
    if task.recipe is not None and task.recipe.optimizer == "sgd":
        return task.recipe.learning_rate
    return _RATE


# -- by id ------------------------------------------------------------------------------------------------------------


class FadingConfig(Config):
    """Which method is followed, and how far."""

    method: str = Field("influence", description=METHOD_HELP)
    measurement: Kind = Field("", description=KIND_HELP)
    rows: int = Field(16, ge=1, description="Test rows, drawn by the seed.")
    tried: int = Field(16, ge=2, description="Training rows that are tried one at a time, drawn by the seed.")
    horizons: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32), description="Steps of further training.")
    learning_rate: float | None = Field(None, gt=0, description="Step size; empty: the recipe's.")
    batch_size: int | None = Field(None, ge=1, description="Rows per step; empty: the recipe's.")
    eps: float | None = Field(None, description="Weight that a row gains; empty: -1/n, it leaves.")


class FinetuneConfig(Config):
    """Which prediction is to be mended, and how."""

    method: str = Field("influence", description=METHOD_HELP)
    measurement: Kind = Field("", description=KIND_HELP)
    test: int | str | None = Field(None, description="Id of a test row; empty: the first that is predicted wrongly.")
    k: int = Field(10, ge=1, description="Proponents, and opponents, that are stepped on.")
    steps: int = Field(20, ge=1, description="Steps at most.")
    learning_rate: float | None = Field(None, gt=0, description="Step size; empty: the recipe's.")
    opponents: bool = Field(True, description="Whether the loss of the top opponents is stepped up too.")


@diagnostic(
    "influence_fading", "Fading of influence",
    "Trains on with and without single rows and shows after how many steps the method's prediction fails.",
    _REFERENCE, FadingConfig,
)  # fmt: skip
def _fading(findings: Findings, config: FadingConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``steps`` of further training; ``spearman`` of the scores with the change that they made, mean over test
    rows; ``actual_size`` of that change, mean absolute, per removal; ``predicted_size`` of the scores.
    """
    estimator, fitted = fitted_method(findings, config.method)
    task, run = findings.task, findings.run
    drawn = torch.randperm(task.n_train, generator=torch.Generator().manual_seed(run.seed))[: config.tried]
    train = Rows("train", tuple(task.ids("train")[drawn.numpy()].tolist()))
    found = influence_fading(
        fitted, train, query_rows(findings, None, config.rows), run,
        measurement=explained(estimator, config.measurement), horizons=config.horizons,
        learning_rate=config.learning_rate, batch_size=config.batch_size, eps=config.eps,
    )  # fmt: skip
    sizes = found.actual.abs().mean((1, 2)).numpy()
    table = pd.DataFrame({
        "steps": found.horizons, "spearman": found.correlations, "actual_size": sizes,
        "predicted_size": float(found.predicted.abs().mean()),
    })  # fmt: skip
    best = table["steps"][int(np.nanargmax(found.correlations))] if np.isfinite(found.correlations).any() else None
    said = "Nothing varied, so that there is no correlation." if best is None else (
        f"{estimator.named.title} agrees best with {best} steps of further training; the fall after that is expected."
    )  # fmt: skip
    return table, (f"{len(train.ids)} training rows were tried.", said)


@diagnostic(
    "if_finetune_check", "Mending a prediction by its proponents",
    "Takes a few steps on the top rows of one prediction and shows whether it is mended, and at what price.",
    _REFERENCE, FinetuneConfig,
)  # fmt: skip
def _finetuned(findings: Findings, config: FinetuneConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``step``; the ``measurement`` of the row that is mended; accuracy and mean loss of all test rows.
    """
    estimator, fitted = fitted_method(findings, config.method)
    task = findings.task
    if config.test is not None:
        row = known_ids(findings, "test", (config.test,))[0]
    else:
        wrong = _first_wrong(task)
        if wrong is None:
            raise BadInput(
                "No prediction is to be mended", "All test rows are predicted rightly, or there are no classes.",
                "Name a test row: test=ID.",
            )  # fmt: skip
        row = task.ids("test")[wrong].item()
    found = finetune_check(
        fitted, Rows("test", (row,)), findings.run, measurement=explained(estimator, config.measurement), k=config.k,
        steps=config.steps, learning_rate=config.learning_rate, opponents=config.opponents,
    )  # fmt: skip
    table = pd.DataFrame({
        "step": range(len(found.measured)), "measurement": found.measured, "test_accuracy": found.accuracy,
        "test_loss": found.loss,
    })  # fmt: skip
    after = found.corrected_after
    said = f"Test row {row} was not predicted rightly within {config.steps} steps."
    if after is not None:
        said = f"Test row {row} is predicted rightly after {after} steps."
    price = f"Test loss went from {found.loss[0]:.4g} to {found.loss[-1 if after is None else after]:.4g} meanwhile."
    return table, (said, price)


def _first_wrong(task: Task) -> int | None:
    """Return the position of the first test row that is predicted wrongly; None if none is, or there are no classes."""
    if not task.loss.classifies:
        return None
    labels = task.split("test").targets.reshape(task.n_test, -1)[:, 0].long()
    wrong = (predicted_classes(task.outputs_of("test")).cpu() != labels).nonzero().flatten()
    return int(wrong[0]) if len(wrong) else None
