"""Leave-one-out by real retraining: what the other methods estimate.

::

    S[t, i] = m_t(trained on all rows) - m_t(trained without row i)

averaged over paired seeds: both runs of a pair start from the same weights and take the rows in the same order, and the
batch of the missing row keeps its divisor. Positive = proponent. Retraining is costly, so rows are chosen: by id, or
some at random; the others are NaN. Networks differ from seed to seed: the standard error over seeds is kept beside the
mean.

Cost: (rows + 1) x seeds training runs; a query reads the table of outcomes.
"""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config
from influence_core.estimator import Fitted, Info
from influence_core.estimators.resampling import Resampling
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows, measured_values
from influence_core.outcomes import Outcome, Outcomes
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class LooConfig(Config):
    """Which rows are left out, and how often."""

    rows: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="Ids of training rows to leave out; empty: some at random."
    )
    n_rows: int = Field(16, ge=1, description="How many random rows, where no ids are given.")
    n_seeds: int = Field(1, ge=1, le=100, description="Paired training runs per row; more give a smaller error.")


@final
@register
class LeaveOneOut(Resampling):
    """Seeded leave-one-out retraining of chosen rows."""

    info = Info(
        name="loo", title="Leave-one-out retraining", family="retraining",
        summary="Trains the model again without each chosen row and looks how the answer changes: slow, but the truth.",
        estimand="measurement with all rows minus measurement without row i",
        reference="Cook & Weisberg, Residuals and Influence in Regression, 1982 (definition)",
        needs=Needs.RECIPE | Needs.OUTPUTS, units="measurement", stochastic=True, partial=True, functions=False,
        additive=False, unseen=False,
    )  # fmt: skip
    Config = LooConfig
    config: LooConfig

    def n_models(self, task: Task) -> int:
        """Return (rows + 1) x seeds."""
        rows = len(self.config.rows) if self.config.rows is not None else min(self.config.n_rows, task.n_train)
        return (rows + 1) * self.config.n_seeds

    def chosen(self, task: Task, run: Run) -> list[int]:
        """Return the positions of the rows that are left out, one at a time."""
        if self.config.rows is not None:
            ids = self.config.rows
            if task.ids("train").dtype.kind in "iu":  # a form gives text, whatever the ids are
                ids = tuple(_number(value) for value in ids)
            return list(dict.fromkeys(task.positions(Rows("train", ids)).tolist()))
        generator = torch.Generator().manual_seed(run.seed)
        return torch.randperm(task.n_train, generator=generator)[: self.config.n_rows].tolist()

    def fit(self, task: Task, run: Run) -> LeaveOneOutFitted:
        """Retrain what is not in the table yet."""
        outcomes = Outcomes(task, run)
        assert task.recipe is not None
        seeds = [task.recipe.seed + s for s in range(self.config.n_seeds)]
        rows = self.chosen(task, run)
        jobs = [(removed, seed) for seed in seeds for removed in [(), *((row,) for row in rows)]]
        table = {job: outcomes.without(*job) for job in run.track(jobs, "retraining", len(jobs))}
        return LeaveOneOutFitted(self, task, run, rows, seeds, table)


def _number(value: int | str) -> int | str:
    try:
        return int(value)
    except ValueError:
        return value


class LeaveOneOutFitted(Fitted):
    """The retrained outcomes of the chosen rows."""

    def __init__(
        self, estimator: LeaveOneOut, task: Task, run: Run, rows: list[int], seeds: list[int],
        table: dict[tuple[tuple[int, ...], int], Outcome],
    ) -> None:  # fmt: skip
        """Keep the table."""
        super().__init__(estimator, task, run)
        self.rows, self.seeds, self.table = rows, seeds, table

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how much of the truth is known."""
        return (f"{len(self.rows)} of {self.task.n_train} rows were left out, {len(self.seeds)} paired run(s) each.",)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        return self._filled(self.differences(batch, measurement, rows).mean(0))

    def standard_errors(self, test: Rows, measurement: Measurement | None = None) -> Tensor:
        """Return the standard error over seeds ``[n_test, n_train]``; NaN for rows not left out or a single seed."""
        measurement = measurement or Measurement()
        differences = self.differences(self.task.query(test, measurement, self.run.dtype), measurement, test)
        if test.reduce == "mean":
            differences = differences.mean(1, keepdim=True)
        if len(self.seeds) == 1:
            return self._filled(torch.full_like(differences[0], torch.nan))
        return self._filled(differences.std(0) / len(self.seeds) ** 0.5)

    def differences(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        """Return ``m(all rows) - m(without row)``: ``[n_seeds, n_test, rows left out]``."""
        positions = self.task.positions(rows)

        def measured(removed: tuple[int, ...], seed: int) -> Tensor:
            outputs = self.table[removed, seed].outputs[rows.split][positions]
            return measured_values(outputs.to(self.run.dtype), batch.targets, self.task.loss, measurement)

        return torch.stack([
            torch.stack([measured((), seed) - measured((row,), seed) for row in self.rows], 1) for seed in self.seeds
        ])  # fmt: skip

    def _filled(self, values: Tensor) -> Tensor:
        full = torch.full((len(values), self.task.n_train), torch.nan, dtype=self.run.dtype)
        full[:, self.rows] = values
        return full.to(self.run.device)

    def _self_influence(self) -> Tensor:
        ids = self.task.ids("train")[self.rows].tolist()
        scores = self.scores(Rows("train", tuple(ids)))
        result = torch.full((self.task.n_train,), torch.nan, dtype=self.run.dtype, device=self.run.device)
        result[self.rows] = scores[range(len(self.rows)), self.rows]
        return result
