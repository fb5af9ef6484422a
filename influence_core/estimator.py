"""The contract of every method: an Estimator says what it is (Info) and is fitted once; a Fitted answers queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from influence_core.config import Config, digest
from influence_core.errors import BadInput, NumericalProblem, Unavailable
from influence_core.examples import Batch
from influence_core.measurement import KINDS, TYPED, Measurement, Rows
from influence_core.run import Run
from influence_core.task import Needs, Task

Units = Literal["measurement", "gradient", "value", "rank"]
_QUERY_ROWS = 256  # of the derived self-influence, per step


@dataclass(frozen=True)
class Sizes:
    """What a cost depends on. ``pass_seconds``: one forward and backward pass over the training rows."""

    n_train: int
    n_test: int
    n_params: int
    n_checkpoints: int
    n_classes: int
    pass_seconds: float


@dataclass(frozen=True)
class Cost:
    """An estimate of the work: seconds on this machine, bytes on disk.

    Attributes:
        seconds: Of ``fit``.
        bytes: That ``fit`` keeps.
        asking: Seconds of any question afterwards, however many rows it asks about; 0 where answers are instant.
        query: Seconds of each of its rows.
        member: Seconds of each row of a group, where a group has an influence of its own.
    """

    seconds: float
    bytes: float = 0.0
    asking: float = 0.0
    query: float = 0.0
    member: float = 0.0

    def answering(self, queries: int = 1) -> float:
        """Return the seconds of one question about some rows, once the method is fitted."""
        return self.asking + queries * self.query

    def total(self, queries: int) -> float:
        """Return the seconds of ``fit`` and of one question about some rows."""
        return self.seconds + self.answering(queries)


@dataclass(frozen=True)
class Info:
    """What a method is, in words and in flags.

    Attributes:
        name: The id, the same everywhere.
        summary: One plain sentence that a first-time visitor understands.
        estimand: What the score estimates, in symbols.
        needs: What a task must offer.
        scores: Whether it scores training rows for a query; a self-influence-only method does not.
        self_influence: Whether it has a self-influence.
        units: See ``DESIGN``: ``measurement`` is calibrated against leave-one-out, ``rank`` is order only.
        additive: Group influence is the sum of its members'.
        groups: It has a group influence of its own, which need not be a sum.
        stochastic: Numbers depend on ``Run.seed``.
        partial: Scores may be NaN where not yet computed.
        approximate: Its curvature is a simplification even of a convex model's, so that scores follow leave-one-out
            without equalling its first order.
        packages: Optional packages it imports.
        measurements: Kinds of measurement it can explain, besides functions; empty: it has its own ``utility``.
        functions: Whether a measurement may be a function.
        query: ``"instant"`` once fitted, or ``"solve"``: real work for every new query.
        unseen: Whether a query may be a typed row; else it must be one of the splits that ``fit`` has looked at.
    """

    name: str
    title: str
    family: str
    summary: str
    estimand: str
    reference: str
    needs: Needs
    units: Units
    scores: bool = True
    self_influence: bool = True
    additive: bool = True
    groups: bool = False
    stochastic: bool = False
    partial: bool = False
    approximate: bool = False
    packages: tuple[str, ...] = ()
    measurements: tuple[str, ...] = KINDS
    functions: bool = True
    utility: str = ""
    query: Literal["instant", "solve"] = "instant"
    unseen: bool = True


class Estimator(ABC):
    """A method with its options: its config is its only state.

    Subclasses are abstract or final, set ``info`` and ``Config``, and implement ``fit`` and ``cost``.
    """

    info: ClassVar[Info]
    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Config | None = None, info: Info | None = None) -> None:
        """Keep the options; a preset passes its own info."""
        self.config = config if config is not None else type(self).Config()
        self.named = info or type(self).info

    def check(self, task: Task) -> None:  # noqa: B027 - most methods have nothing to refuse
        """Raise ``Unavailable`` where sizes, recipe or loss rule the method out; ``fit`` begins with it."""

    @abstractmethod
    def fit(self, task: Task, run: Run) -> Fitted:
        """Do everything that does not depend on the test rows; resumable; through ``run.artifacts``."""

    @abstractmethod
    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """Estimate ``fit``."""

    def key(self, task: Task, run: Run) -> str:
        """Return the key of the fitted method on this task."""
        return digest(self.identity(task, run))

    def identity(self, task: Task, run: Run) -> dict[str, Any]:
        """Return, readable, everything that the numbers of ``fit`` depend on."""
        return {
            "kind": "fit", "method": type(self).__name__, "version": type(self.config).version,
            "config": self.config.to_json(), "task": task.fingerprint, "precision": run.precision,
            "seed": run.seed if self.info.stochastic else None,
        }  # fmt: skip


class Fitted:
    """A fitted method: answers any query without further train-side work.

    Args:
        estimator: The method that made it.
        task: What it was fitted on.
        run: How it computes.
    """

    def __init__(self, estimator: Estimator, task: Task, run: Run) -> None:
        """Keep the three."""
        self.estimator, self.task, self.run = estimator, task, run
        self.info = estimator.named
        self.memo: dict[str, Any] = {}  # shared by the copies that ``fit`` hands out

    @property
    def notes(self) -> tuple[str, ...]:
        """Return facts that change how to read the scores, one sentence each."""
        return ()

    @property
    def share(self) -> float | None:
        """Return the share of the model's parameters that the scores look at, or None where that means nothing."""
        return None

    def scores(self, test: Rows, measurement: Measurement | None = None) -> Tensor:
        """Return the scores ``[n_test, n_train]`` of a query, positive = proponent; one row if it is reduced.

        Raises:
            Unavailable: This method has no pairwise form, or not for this measurement.
            NumericalProblem: A score is not a number.
        """
        measurement = measurement or Measurement()
        check_measurement(self.info, measurement)
        check_rows(self.info, test)
        if not test.ids:
            raise BadInput("The query is empty", "No test row was given.", "Give at least one row id.")
        scores = self._scores(self.task.query(test, measurement, self.run.dtype), measurement, test)
        if not self.info.partial and not bool(scores.isfinite().all()):
            raise NumericalProblem("A score is not a number", f"{self.info.title} gave NaN or infinity for this query.", "Look for NaN in the data, or use more damping.")  # fmt: skip  # noqa: E501
        return scores.mean(0, keepdim=True) if test.reduce == "mean" else scores

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        """Return ``[len(batch), n_train]``; ``batch`` holds the query with its target labels in place."""
        raise Unavailable(f"{self.info.title} does not score pairs of rows", "It has only a number per training row.", "Use self_influence, or another method.")  # fmt: skip  # noqa: E501

    def self_influence(self) -> Tensor:
        """Return ``[n_train]``: the influence of each training row on its own measurement."""
        if not self.info.self_influence:
            raise Unavailable(f"{self.info.title} has no self-influence", "It would be the same for every row.", "Use another method.")  # fmt: skip  # noqa: E501
        return self._self_influence()

    def _self_influence(self) -> Tensor:
        """Return the diagonal of the scores with the training rows as the query."""
        ids = self.task.ids("train")
        parts = []
        starts = range(0, self.task.n_train, _QUERY_ROWS)
        for start in self.run.track(starts, "self-influence", len(starts)):
            part = self.scores(Rows("train", tuple(ids[start : start + _QUERY_ROWS].tolist())), self.own_measurement)
            parts.append(part[:, start : start + len(part)].diagonal().clone())
        return torch.cat(parts)

    @property
    def own_measurement(self) -> Measurement:
        """Return the measurement that self-influence is taken on."""
        kinds = self.info.measurements
        return Measurement("loss" if "loss" in kinds or not kinds else kinds[0])

    def group(self, test: Rows, groups: Sequence[Sequence[Any]], measurement: Measurement | None = None) -> Tensor:
        """Return the influence ``[n_test, n_groups]`` of groups of training rows: the column sums.

        Raises:
            Unavailable: The method's scores do not add up.
        """
        if not self.info.additive:
            raise Unavailable(f"{self.info.title} has no group influence", "Its scores are an order, not amounts.", "Use an additive method.")  # fmt: skip  # noqa: E501
        scores = self.scores(test, measurement)
        members = [self.task.positions(Rows("train", tuple(group))).to(scores.device) for group in groups]
        return torch.stack([scores[:, rows].sum(1) for rows in members], 1)


def check_rows(info: Info, rows: Rows) -> None:
    """Raise ``Unavailable`` if a method cannot score a typed row."""
    if rows.split == TYPED and not info.unseen:
        raise Unavailable(f"{info.title} cannot explain a typed row", "Only what its models said of the rows of the splits was kept.", "Use another method.")  # fmt: skip  # noqa: E501


def check_measurement(info: Info, measurement: Measurement) -> None:
    """Raise ``Unavailable`` if a method cannot explain this measurement."""
    if not isinstance(measurement.kind, str):
        if not info.functions:
            raise Unavailable(f"{info.title} cannot explain a function", f"It explains {', '.join(info.measurements) or info.utility}.", "Use a gradient method.")  # fmt: skip  # noqa: E501
    elif not info.measurements:
        if measurement.kind != "loss":
            raise Unavailable(f"{info.title} has its own measurement", f"It explains {info.utility}.", "Leave the measurement at its default.")  # fmt: skip  # noqa: E501
    elif measurement.kind not in info.measurements:
        raise Unavailable(f"{info.title} cannot explain '{measurement.kind}'", f"It explains {', '.join(info.measurements)}.", f"Use measurement '{info.measurements[0]}'.")  # fmt: skip  # noqa: E501
