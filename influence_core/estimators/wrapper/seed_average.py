"""Scores averaged over seeds: what one training run did by chance averages out.

::

    S[t, i] = mean_s  S_s[t, i] / sd_i S_s[t, .]

Karthikeyan & Sogaard (2021) find influence methods unstable in the seed, and that averaging over runs mends much of it.
Each run's scores are divided by their spread over the training rows first, for else the run with the longest gradients
decides alone; with ``normalise="rank"`` by their rank, with ``"none"`` not at all. Positive = proponent.

Cost: the trainings and the method on each; memory ``seeds x m x n`` numbers per query.
"""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field
from torch import Tensor

from influence_core.estimator import Fitted, Info
from influence_core.estimators.members import NEEDS, Members, MembersConfig, MembersFitted
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Task


class SeedAverageConfig(MembersConfig):
    """Which method, over how many trainings, made comparable how."""

    normalise: Literal["spread", "rank", "none"] = Field(
        "spread", description="What makes trainings comparable: the spread of their scores, ranks, or nothing."
    )


@final
@register
class SeedAverage(Members):
    """The mean of a method over seeds."""

    info = Info(
        name="seed_average", title="Average over seeds", family="wrapper",
        summary="Trains the model several times and averages a method's scores: steadier than any single training.",
        estimand="mean over trainings of a method's scores in units of their spread",
        reference="Karthikeyan & Sogaard, Revisiting Methods for Finding Influential Examples, 2021",
        needs=NEEDS, units="rank", stochastic=True,
    )  # fmt: skip
    Config = SeedAverageConfig
    config: SeedAverageConfig

    def fitted(self, task: Task, run: Run, fits: list[list[Fitted]]) -> Fitted:
        """Return the fitted wrapper."""
        return SeedAverageFitted(self, task, run, fits)


@final
class SeedAverageFitted(MembersFitted):
    """Normalised, then averaged."""

    estimator: SeedAverage

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        samples = self.samples(batch, measurement, rows)[:, 0].double()
        return normalised(samples, self.estimator.config.normalise).mean(0).to(self.run.dtype)


def normalised(samples: Tensor, how: str) -> Tensor:
    """Return scores ``[seeds, m, n]`` made comparable between seeds, per query row; a row without spread becomes 0."""
    if how == "none":
        return samples
    if how == "rank":
        # Mid-ranks of ties would need a sort per row more; equal scores keep the order of the training rows.
        ranks = samples.argsort(dim=-1, stable=True).argsort(dim=-1)
        return 2 * ranks.to(samples.dtype) / max(1, samples.shape[-1] - 1) - 1
    spread = samples.std(dim=-1, keepdim=True, correction=0)
    return samples / spread.masked_fill(spread == 0, float("inf"))
