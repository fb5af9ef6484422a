"""Training trusts suspicious rows less: a weight per row from its influence on itself.

Self-influence is that of TracIn over the early checkpoints, ``SI_i = sum_c eta_c |g_i(theta_c)|^2`` (never negative; a
row with a wrong label is learnt from itself alone). With ``tau`` the p-quantile of SI, p the assumed share of right
labels, the weight is one of::

    sigmoid   1 / (1 + exp((SI - tau) / (0.15 tau)))     cut   1 if SI <= tau else 0     ratio   min(1, tau / SI)

Departures. The weight function of the paper was not read: it is known to depend on self-influence and on a percentile
threshold; the three here are ours. Rows whose weight rounds to 1 keep weight 1 in the proposal. Early checkpoints are
those of the first 6 epochs: later, a network has memorised wrong labels, and their gradients fade.

Assumes that p is about right (with p = 0.9 at 30% noise, much of the gain is lost), and that rare is not wrong: rows of
rare classes have large self-influence too, which ``mix`` shows and ``per_class`` evens out.

Reference: Braun et al., influence-based re-weighing for label noise in medical imaging, ISBI 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from influence_core import registry
from influence_core.changes import Change
from influence_core.config import Config, digest
from influence_core.errors import Unavailable
from influence_core.fitting import fit
from influence_core.primitives.losses import CustomLoss
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.workflows.proposals import class_name, given_classes, label_in_words, resolved, row_id

NAME = "selfinf"
_WIDTH = 0.15  # of the sigmoid, in units of tau
_DIGITS = 2  # of a proposed weight
_SKEWED = 2.0  # times the overall share of down-weighted rows

Shape = Literal["sigmoid", "cut", "ratio"]


class SelfinfConfig(Config):
    """How many labels are believed, and how the others are weighed."""

    right: float = Field(0.9, gt=0, lt=1, description="p: the share of labels that you believe are right.")
    shape: Shape = Field("sigmoid", description="How weight falls with self-influence beyond the cut.")
    per_class: bool = Field(
        False, description="A cut for each class, so that rare classes do not lose more weight than others."
    )
    epochs: int = Field(6, ge=1, description="Only checkpoints of the first so many epochs count.")


@dataclass(frozen=True)
class ClassMix:
    """How many of a class's rows lost half of their weight or more."""

    name: str
    rows: int
    lighter: int

    @property
    def share(self) -> float:
        """Return the share."""
        return self.lighter / self.rows


@dataclass(frozen=True)
class Reweighing:
    """A weight per training row.

    Attributes:
        self_influence: ``[n]``.
        cuts: The tau of each row ``[n]``: the same for all, or by class.
        weights: ``[n]``, from 0 to 1.
        checkpoints: Those that counted, by position.
        mix: Down-weighted rows by given class; empty for a regression.
        changes: One per row whose weight is below 1, the lightest first.
        notes: What the reader should know.
    """

    self_influence: Tensor
    cuts: Tensor
    weights: Tensor
    checkpoints: tuple[int, ...]
    mix: tuple[ClassMix, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def row_cuts(influence: Tensor, right: float, classes: Tensor | None = None) -> Tensor:
    """Return the p-quantile of self-influence for every row ``[n]``, over all rows or over those of its class."""
    if classes is None:
        return torch.quantile(influence, right).expand(len(influence))
    cuts = torch.empty_like(influence)
    for c in classes.unique():
        own = classes == c
        cuts[own] = torch.quantile(influence[own], right)
    return cuts


def row_weights(influence: Tensor, cuts: Tensor, shape: Shape) -> Tensor:
    """Return the weights ``[n]``, rounded to two digits so that the patch trains what is shown.

    Args:
        influence: Self-influence ``[n]``, not negative.
        cuts: tau ``[n]``; where it is 0, a row with any self-influence is beyond it.
        shape: See the module.
    """
    tiny = torch.finfo(influence.dtype).tiny
    if shape == "cut":
        weights = (influence <= cuts).to(influence.dtype)
    elif shape == "ratio":
        weights = torch.where(influence <= cuts, 1.0, cuts / influence.clamp_min(tiny))
    else:
        weights = torch.sigmoid((cuts - influence) / (_WIDTH * cuts).clamp_min(tiny))
        weights = torch.where((cuts == 0) & (influence == 0), 1.0, weights)
    return weights.round(decimals=_DIGITS)


def early_checkpoints(given: Task | Study, epochs: int) -> tuple[tuple[int, ...], str]:
    """Return the checkpoints of the first epochs, by position, and a note where the epochs are not as asked."""
    task = given.task if isinstance(given, Study) else given
    known = [entry.get("epoch") for entry in given.header.checkpoints] if isinstance(given, Study) else []
    recipe = task.recipe
    if (not known or None in known) and recipe is not None and len(recipe.checkpoints) == task.n_checkpoints:
        known = list(recipe.checkpoints)
    if len(known) != task.n_checkpoints or None in known:
        note = "The epochs of the checkpoints are not known: the first ones count, as if there were one for each epoch."
        return tuple(range(min(epochs, task.n_checkpoints))), note
    early = tuple(c for c, epoch in enumerate(known) if epoch is not None and 0 < epoch <= epochs)
    if early:
        return early, ""
    first = min(range(len(known)), key=lambda c: known[c] or 0)
    note = (
        f"The first checkpoint is of epoch {known[first]}, not of the first {epochs}: where the model has memorised "
        "wrong labels by then, their self-influence has faded. Record earlier checkpoints."
    )
    return (first,), note


def reweigh_selfinf(given: Task | Study, run: Run | None = None, config: SelfinfConfig | None = None) -> Reweighing:
    """Return a weight for every training row, less for those that are learnt from themselves alone.

    No test or locked row takes part.

    Args:
        given: A task or study with checkpoints and learning rates.
        run: Device, precision, store, progress.
        config: Share of right labels, shape of the weights.

    Raises:
        Unavailable: No checkpoints or learning rates, or cuts by class where there are no classes.
    """
    config = config or SelfinfConfig.checked({})
    task, run = resolved(given, run)
    registry.check_available(registry.found("tracin_cp").info, task)
    if config.per_class and not task.loss.classifies:
        raise Unavailable("There is no cut for each class", "This task has no classes.", "Leave per_class out.")
    early, note = early_checkpoints(given, config.epochs)
    fitted = fit(_at_checkpoints(task, early), registry.made("tracin_cp"), run)
    influence = fitted.self_influence().double().cpu()
    classes = given_classes(task) if task.loss.classifies else None
    cuts = row_cuts(influence, config.right, classes if config.per_class else None)
    weights = row_weights(influence, cuts, config.shape)
    mix = _mix(task, weights, classes)
    changes = tuple(
        _change(task, int(i), float(influence[i] / cuts[i].clamp_min(torch.finfo(cuts.dtype).tiny)), float(weights[i]))
        for i in weights.argsort(stable=True)
        if weights[i] < 1
    )
    notes = (*([note] if note else []), *_notes(config, weights, mix))
    return Reweighing(influence, cuts, weights, early, mix, changes, notes)


def _at_checkpoints(task: Task, chosen: tuple[int, ...]) -> Task:
    """Return the task with some of its checkpoints; a fingerprint of its own, so that results are told apart."""
    if chosen == tuple(range(task.n_checkpoints)):
        return task
    rates = task.learning_rates or ()
    return Task(
        task.factory or task.module, task.split("train"), task.split("test"),
        task.loss.function if isinstance(task.loss, CustomLoss) else task.loss.name,
        checkpoints=[task.state(c) for c in chosen], learning_rates=[rates[c] for c in chosen],
        train_ids=task.ids("train"), test_ids=task.ids("test"), fingerprint=digest([task.fingerprint, list(chosen)]),
    )  # fmt: skip


def _mix(task: Task, weights: Tensor, classes: Tensor | None) -> tuple[ClassMix, ...]:
    if classes is None:
        return ()
    lighter = weights <= 0.5
    return tuple(
        ClassMix(class_name(task, int(c)), int((classes == c).sum()), int(lighter[classes == c].sum()))
        for c in classes.unique()
    )


def _change(task: Task, position: int, ratio: float, weight: float) -> Change:
    said = f"self-influence {ratio:.3g} times the cut"
    old = label_in_words(task, position)
    return Change("train", row_id(task, position), "downweight", old, None, weight, NAME, 0.0, said)


def _notes(config: SelfinfConfig, weights: Tensor, mix: tuple[ClassMix, ...]) -> tuple[str, ...]:
    lighter = int((weights <= 0.5).sum())
    notes = [
        f"{lighter:,} of {len(weights):,} rows weigh half or less, because {config.right:.0%} of the labels are taken "
        "to be right: a wrong share costs accuracy, so try several."
    ]
    overall = lighter / len(weights)
    skewed = [part for part in mix if part.lighter > 1 and part.share > _SKEWED * overall]
    if skewed:
        said = ", ".join(f"{part.name} ({part.lighter:,} of {part.rows:,})" for part in skewed)
        notes.append(
            f"Classes that lose far more weight than others: {said}. Their labels may be worse, or they are only rare: "
            "look at some of these rows, or use per_class."
        )
    return tuple(notes)
