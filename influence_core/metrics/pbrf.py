"""Agreement with the proximal Bregman response: a truth that a network which has not converged can pass.

For a training row i the proximal Bregman objective (Bae et al. 2022, equation 8, with the row taken out: eps = -1/n)

    (1/n) sum_j D(f(theta, x_j), f(theta_s, x_j)) - (1/n) l_i(theta) + (lam / 2) |theta - theta_s|^2

is minimised from the trained weights theta_s; D is the Bregman divergence of the loss in the outputs, around the
*current* outputs and not the labels. The response of test row t is ``m_t(theta_s) - m_t(theta_i)``: positive =
proponent. Its first order is the damped GGN influence with damping lam. It asks whether a method follows the model as
it is; leave-one-out also asks whether the model would be found again.

Cost: one short full-batch optimisation in float64 per training row, kept in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.estimator import Estimator
from influence_core.fitting import default_measurement
from influence_core.measurement import Measurement, measured_values
from influence_core.metrics.intervals import mean_correlation
from influence_core.metrics.scoring import chosen_rows, scored, true_measurement
from influence_core.metrics.table import Judging, each, framed, line
from influence_core.primitives.losses import BuiltinLoss, CustomLoss, outputs
from influence_core.primitives.threads import one_core
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
_BATCH, _ITERATIONS = 2048, 300


def bregman(loss: BuiltinLoss, f: Tensor, at: Tensor) -> Tensor:
    """Return the Bregman divergence ``[n]`` of a loss between outputs and the outputs ``at``."""
    if loss.name == "cross_entropy":
        return F.kl_div(F.log_softmax(f, 1), F.log_softmax(at, 1), log_target=True, reduction="none").sum(1)
    f, at = f.reshape(len(f), -1), at.reshape(len(at), -1)
    if loss.name == "bce":
        return (F.softplus(f) - F.softplus(at) - torch.sigmoid(at) * (f - at)).mean(1)
    return (f - at).square().mean(1)


def responses(task: Task, rows: Sequence[int], damping: float, run: Run) -> tuple[Tensor, Tensor]:
    """Return test outputs of the trained model ``[n_test, ...]`` and of each row's response ``[rows, n_test, ...]``.

    Raises:
        Unavailable: There is no trained model, or the outputs behind the loss are unknown.
    """
    if Needs.MODEL not in task.provides or isinstance(task.loss, CustomLoss):
        raise Unavailable(
            "The proximal Bregman response cannot be measured", "It needs a trained model and a built-in loss.",
            "Use cross_entropy, bce or mse.",
        )  # fmt: skip
    model = task.model_at(-1, "cpu", torch.float64)
    parts = task.split("test").batches(_BATCH, "cpu", torch.float64)
    with torch.no_grad():
        before = torch.cat([outputs(model, batch.inputs) for _, batch in parts])
    found = []
    for row in run.track(rows, "proximal responses", len(rows)):
        inputs = _inputs(task, row, damping)

        def produce(writer: Writer, row: int = row) -> None:
            with one_core():
                writer.save("test", _response(task, row, damping, run.check_cancelled))

        found.append(run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).tensor("test"))
    return before, torch.stack(found)


def unknown_responses(task: Task, options: Judging, run: Run) -> int:
    """Return how many responses are still to be computed."""
    keys = [digest(_inputs(task, row, options.damping)) for row in _drawn(task, options, run)]
    return sum(not run.artifacts.has(key) for key in keys)


def _inputs(task: Task, row: int, damping: float) -> dict[str, Any]:
    return {"kind": "proximal response", "version": VERSION, "task": task.fingerprint, "row": row, "damping": damping}


def _drawn(task: Task, options: Judging, run: Run) -> list[int]:
    generator = torch.Generator().manual_seed(run.seed)
    return torch.randperm(task.n_train, generator=generator)[: options.left_out].tolist()


def _response(task: Task, row: int, damping: float, check: Callable[[], None]) -> Tensor:
    """Return the test outputs of the model that minimises the objective of one row."""
    loss = task.loss
    assert not isinstance(loss, CustomLoss)
    model, n = task.model_at(-1, "cpu", torch.float64), task.n_train
    parameters = list(model.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    batches = [batch for _, batch in task.split("train").batches(_BATCH, "cpu", torch.float64)]
    with torch.no_grad():
        current = [outputs(model, batch.inputs) for batch in batches]
    own = task.split("train").batch(torch.tensor([row]), "cpu", torch.float64)
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_ITERATIONS, tolerance_grad=1e-9, tolerance_change=1e-14, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:  # n times the formula: values near 1, whatever n is
        check()
        optimizer.zero_grad()
        total = -loss(model, own).sum()
        total = total + n * damping / 2 * sum((p - s).square().sum() for p, s in zip(parameters, start, strict=True))
        total.backward()
        value = total.detach()
        for batch, at in zip(batches, current, strict=True):
            part = bregman(loss, outputs(model, batch.inputs), at).sum()
            part.backward()
            value = value + part.detach()
        return value

    optimizer.step(objective)  # type: ignore[arg-type]
    with torch.no_grad():
        parts = task.split("test").batches(_BATCH, "cpu", torch.float64)
        return torch.cat([outputs(model, batch.inputs) for _, batch in parts])


def pbrf(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None,
    options: Judging | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return mean Pearson and Spearman correlation with the proximal Bregman response over test rows.

    Args:
        task: With a trained model and a built-in loss.
        methods: Estimators with pairwise scores.
        run: Store, progress; its seed draws the rows.
        planted: Not used.
        options: Training rows, test rows, and the damping of the response.

    Raises:
        Unavailable: There is no trained model, or the loss is a function.
    """
    options = options or Judging.checked({})
    drawn = _drawn(task, options, run)
    rows = chosen_rows(task, run, options.rows)
    before, after = responses(task, drawn, options.damping, run)
    at = task.positions(rows)

    def truth(measurement: Measurement) -> np.ndarray:
        targets = task.query(rows, measurement, torch.float64).targets
        base = measured_values(before[at], targets, task.loss, measurement)
        moved = [measured_values(one[at], targets, task.loss, measurement) for one in after]
        return torch.stack([base - value for value in moved], 1).numpy()

    def judged(estimator: Estimator) -> list[dict[str, Any]]:
        measurement = default_measurement(estimator)
        kind = true_measurement(estimator, measurement)
        said = scored(task, estimator, rows, measurement, run)
        known = np.isfinite(said.values[0, drawn])
        lines = []
        for figure, ranked in (("pearson", False), ("spearman", True)):
            found = mean_correlation(said.values[:, drawn][:, known], truth(kind)[:, known], ranked=ranked)
            note = f"{kind.name}; {int(known.sum())} rows, damping {options.damping:g}"
            lines.append(line(
                estimator.named.name, "pbrf", figure, found.value, found.n, low=found.low, high=found.high,
                ceiling=1.0, note=note, seconds=said.seconds,
            ))  # fmt: skip
        return lines

    return framed(each(methods, "pbrf", judged))
