"""A method's score as a random quantity: mean, spread and significance over trainings and checkpoints.

::

    mu[t, i] = mean of S_{s,c}[t, i] over S seeds and C checkpoints,     sd and se = sd / sqrt(S)
    signal to noise = mu / sd,     p = 2 (1 - Phi(|mu| / sd))  or, of the mean,  p = 2 (1 - T_{S-1}(|mu| / se))

Nguyen, Seo & Oh (NeurIPS 2023) divide by the standard *deviation*: their p asks whether one draw is reliably not zero.
Whether the mean is not zero is asked by the standard *error*; both are offered and named. Checkpoints of one run are no
independent draws: the error counts seeds, and the two parts of the variance, between seeds and within them, are
reported apart. Where nothing varies (a deterministic training) there is no noise to compare with: p is NaN, not 0.
Positive = proponent.

Cost: the trainings and the method at every checkpoint; memory ``S x C x m x n`` numbers per query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.estimator import Fitted, Info
from influence_core.estimators.members import NEEDS, Members, MembersConfig, MembersFitted
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Task


class BayesConfig(MembersConfig):
    """Which method, over how many trainings and checkpoints, and what is shown."""

    last_checkpoints: int = Field(1, ge=1, le=100, description="Last recorded checkpoints of each training to look at.")
    shown: Literal["mean", "signal_to_noise"] = Field(
        "mean", description="The score: the mean, or the mean divided by its standard deviation over draws."
    )


@dataclass(frozen=True)
class Uncertainty:
    """Of each score ``[m, n_train]``: over the draws of training."""

    mean: Tensor
    deviation: Tensor
    between_seeds: Tensor
    within_seeds: Tensor
    seeds: int

    @property
    def error(self) -> Tensor:
        """Return the standard error of the mean; checkpoints of one run count as one draw."""
        return self.between_seeds.sqrt() / self.seeds**0.5

    def p_values(self, kind: Literal["deviation", "error"]) -> Tensor:
        """Return two-sided p-values: that one draw is zero (``deviation``), or that the mean is (``error``)."""
        if kind == "deviation":
            z = _ratio(self.mean, self.deviation).abs()
            return torch.erfc(z / 2**0.5)
        return student_tail(_ratio(self.mean, self.error).abs(), self.seeds - 1)


@final
@register
class BayesTda(Members):
    """The distribution of a method's scores over trainings."""

    info = Info(
        name="bayes_tda", title="Scores with uncertainty", family="wrapper",
        summary="Trains the model several times and says which influences are larger than the noise of training.",
        estimand="mean of a method's score over trainings and checkpoints, with its standard deviation",
        reference="Nguyen, Seo & Oh, A Bayesian Approach to Analysing Training Data Attribution, NeurIPS 2023",
        needs=NEEDS, units="rank", stochastic=True,
    )  # fmt: skip
    Config = BayesConfig
    config: BayesConfig

    def checkpoints(self) -> int:
        """Return how many checkpoints of each training are looked at."""
        return self.config.last_checkpoints

    def fitted(self, task: Task, run: Run, fits: list[list[Fitted]]) -> Fitted:
        """Return the fitted wrapper."""
        return BayesFitted(self, task, run, fits)


@final
class BayesFitted(MembersFitted):
    """The draws, and what they say."""

    estimator: BayesTda

    @property
    def notes(self) -> tuple[str, ...]:
        """Say where fewer checkpoints are recorded than asked for."""
        asked, found = self.estimator.config.last_checkpoints, len(self.fits[0])
        short = (f"Only {found} of the {asked} checkpoints asked for are recorded.",) if found < asked else ()
        return (*super().notes, *short)

    def uncertainty(self, test: Rows, measurement: Measurement | None = None) -> Uncertainty:
        """Return mean, spread and p-values of the scores of a query."""
        measurement = measurement or self.own_measurement
        batch = self.task.query(test, measurement, self.run.dtype)
        return uncertainty(self.samples(batch, measurement, test).double())

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        found = uncertainty(self.samples(batch, measurement, rows).double())
        shown = found.mean
        if self.estimator.config.shown == "signal_to_noise":
            shown = _ratio(found.mean, found.deviation).nan_to_num(0.0)  # nothing varies: no order by noise
        return shown.to(self.run.dtype)


def uncertainty(samples: Tensor) -> Uncertainty:
    """Return the summary of draws ``[seeds, checkpoints, m, n]``."""
    seeds, checkpoints = samples.shape[:2]
    within = samples.var(1, correction=1).mean(0) if checkpoints > 1 else torch.zeros_like(samples[0, 0])
    means = samples.mean(1)
    return Uncertainty(
        means.mean(0), samples.flatten(0, 1).std(0, correction=1), means.var(0, correction=1), within, seeds
    )


def _ratio(value: Tensor, spread: Tensor) -> Tensor:
    """Return ``value / spread``, NaN where nothing varies beyond rounding."""
    nothing = spread <= 1e-12 * value.abs().clamp_min(torch.finfo(value.dtype).tiny)
    return (value / spread.masked_fill(nothing, 1.0)).masked_fill(nothing, float("nan"))


def student_tail(t: Tensor, freedom: int) -> Tensor:
    """Return ``2 P(T > t)`` of Student's distribution for ``t >= 0``."""
    import numpy as np
    from scipy.special import stdtr

    values = 2 * stdtr(freedom, -t.cpu().numpy())
    return torch.from_numpy(np.asarray(values)).to(t)
