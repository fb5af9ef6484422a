"""The base of wrappers: one method fitted on several trainings of the recipe, and at several of their checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from influence_core import registry
from influence_core.config import Config
from influence_core.ensembles import trained_members
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.task import Needs, Task

Inner = Literal["tracin_cp", "tracin_fast", "grad_dot", "grad_cos", "if_ggn", "if_ekfac", "if_cg"]
_TRAINING = 2.0  # a training pass against one forward and backward pass


class MembersConfig(Config):
    """Which method, over how many trainings."""

    method: Inner = Field("tracin_cp", description="The method whose scores are taken from every training.")
    seeds: int = Field(5, ge=2, le=100, description="Trainings by the recipe, each with its own seed.")


class Members(Estimator):
    """Scores of one method over several trainings."""

    config: MembersConfig

    def __init__(self, config: Config | None = None, info: Info | None = None) -> None:
        """Take the measurements of the wrapped method."""
        super().__init__(config, info)
        inner = self.inner.named
        self.named = replace(
            self.named, measurements=inner.measurements, functions=inner.functions, query=inner.query
        )  # fmt: skip

    @property
    def inner(self) -> Estimator:
        """Return the wrapped method with its default options."""
        return registry.made(self.config.method)

    def checkpoints(self) -> int:
        """Return how many of each training's last checkpoints are looked at; 1 where the method takes them all."""
        return 1

    def identity(self, task: Task, run: Run) -> dict[str, Any]:
        """Add the wrapped method's own options and version."""
        return {**super().identity(task, run), "inner": self.inner.identity(task, run)}

    def fit(self, task: Task, run: Run) -> Fitted:
        """Train, and fit the method on every training.

        Raises:
            Unavailable: The wrapped method cannot run here.
        """
        self.check(task)
        members = trained_members(task, run, list(range(self.config.seeds)))
        views = [[self._at(member, back) for back in range(self._available(member))] for member in members]
        return self.fitted(task, run, [[self.inner.fit(view, run) for view in seed] for seed in views])

    def check(self, task: Task) -> None:
        """Refuse what the wrapped method cannot run on."""
        reason = registry.missing(self.inner.named, task)
        if reason:
            raise Unavailable(
                f"{self.named.title} cannot run here", f"{self.inner.named.title} {reason}.", "Use method='grad_dot'.",
            )  # fmt: skip
        self.inner.check(task)

    def _available(self, member: Task) -> int:
        return min(self.checkpoints(), member.n_checkpoints)

    @staticmethod
    def _at(member: Task, back: int) -> Task:
        """Return a member as it was some recorded checkpoints before its end."""
        if back == 0:
            return member
        kept = member.n_checkpoints - back
        rates = member.learning_rates[:kept] if member.learning_rates is not None else None
        return member.with_checkpoints([member.state(c) for c in range(kept)], rates, f"{member.fingerprint}@{kept}")

    @abstractmethod
    def fitted(self, task: Task, run: Run, fits: list[list[Fitted]]) -> Fitted:
        """Return the fitted wrapper of fits by seed and checkpoint."""

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The trainings, and the method on each."""
        inner = self.inner.cost(task, sizes)
        epochs = task.recipe.epochs if task.recipe is not None else 1
        count = self.config.seeds * self.checkpoints()
        trained = self.config.seeds * epochs * _TRAINING * sizes.pass_seconds
        disk = count * inner.bytes + 4 * self.config.seeds * sizes.n_params
        return Cost(trained + count * inner.seconds, disk, count * inner.asking, count * inner.query)


class MembersFitted(Fitted):
    """One method, fitted on every training and checkpoint."""

    estimator: Members

    def __init__(self, estimator: Members, task: Task, run: Run, fits: list[list[Fitted]]) -> None:
        """Keep the fits ``[seed][checkpoint]``."""
        super().__init__(estimator, task, run)
        self.fits = fits

    @property
    def share(self) -> float | None:
        """Return the wrapped method's share of the parameters."""
        return self.fits[0][0].share

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what was averaged."""
        inner = self.estimator.inner.named.title
        each = len(self.fits[0])
        often = f"{len(self.fits)} trainings" + (f" at {each} checkpoints each" if each > 1 else "")
        return (f"{inner} over {often}; none of them is the explained model itself.", *self.fits[0][0].notes)

    def samples(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        """Return the method's scores ``[seeds, checkpoints, m, n_train]``.

        The query's target labels are in ``batch``: they are those of the explained model, not of each member.
        """
        return torch.stack([torch.stack([fit._scores(batch, measurement, rows) for fit in seed]) for seed in self.fits])


NEEDS = Needs.MODEL | Needs.RECIPE
