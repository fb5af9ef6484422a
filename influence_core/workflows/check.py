"""Check a prediction's explanation by training again: drop, relabel or down-weight the rows that it names.

Pairs of models are trained with and without the change. Both models of a pair start from the same weights and take the
rows in the same order; a dropped row has weight 0, so that its batch keeps the others, their order and the divisor. The
change of the measurement is the mean over the pairs with Student's interval. Beside it stand what the method's scores
foresaw, and what the same does to as many random rows: each random pair draws rows of its own.

All models are rows of the table in ``outcomes.py``: those on the data as they are serve every check, every version and
every metric that retrains, and a check that was interrupted goes on where it was. A check of a version trains on the
original's rows with the version's changes, as its comparison did.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from influence_core import registry
from influence_core.changes import Change
from influence_core.config import digest
from influence_core.costs import cost, seconds_in_words
from influence_core.errors import BadInput, Unavailable
from influence_core.estimator import Estimator
from influence_core.fitting import is_fitted
from influence_core.measurement import TYPED, Measurement, Rows, measured_values
from influence_core.metrics.scoring import true_measurement
from influence_core.outcomes import Correction, Outcomes
from influence_core.registry import NEEDS_IN_WORDS
from influence_core.run import Run
from influence_core.study import Study
from influence_core.study_changes import combined, correction
from influence_core.task import Needs
from influence_core.versions import version_changes
from influence_core.workflows.check_prediction import foreseen, gives_amounts
from influence_core.workflows.check_records import (
    ACTIONS,
    SIDES,
    Action,
    Check,
    Pairs,
    keep_check,
    kept_check,
)
from influence_core.workflows.predicted_gain import influence_method
from influence_core.workflows.retraining import SEEDS, paired_seeds, training_seconds

VERSION = 1
DRAWS = 5
MAX_DRAWS = 100
MAX_ROWS = 1000


@dataclass(frozen=True)
class Asked:
    """What is to be checked.

    Attributes:
        rows: The explained prediction, or with ``reduce="mean"`` several as one.
        measurement: What is measured of it.
        estimator: Whose scores chose the rows.
        changed: Ids of training rows.
        action: What is done to them.
        labels: Flip: the new label of each.
        weight: Down-weight: how much each still counts, from 0 to 1.
        side: Where they stood: ``proponents``, ``opponents`` or ``rows``.
        seeds: Pairs of models.
        draws: Pairs with random rows.
    """

    rows: Rows
    measurement: Measurement
    estimator: Estimator
    changed: tuple[int | str, ...]
    action: Action = "drop"
    labels: tuple[str, ...] = ()
    weight: float = 0.5
    side: str = "rows"
    seeds: int = SEEDS
    draws: int = DRAWS


@dataclass(frozen=True)
class CheckPlan:
    """What a check would train: how many models are missing of how many, and about how long that takes."""

    key: str
    models: int
    missing: int
    seconds: float

    @property
    def in_words(self) -> str:
        """Return the price in a sentence."""
        if not self.missing:
            return "Every model it needs is trained already."
        kept = self.models - self.missing
        already = f" ({kept} more are there already)" if kept else ""
        noun = "model" if self.missing == 1 else "models"
        return f"{self.missing} {noun} to train{already}, {seconds_in_words(self.seconds)}."


def check_possible(study: Study, rows: Rows) -> None:
    """Refuse what cannot be checked, whatever rows are changed.

    Raises:
        Unavailable: The study has no recipe, or the row is in no split.
    """
    what = "This cannot be checked by training again"
    if Needs.RECIPE not in _original(study).task.provides:
        needed, fix = NEEDS_IN_WORDS[Needs.RECIPE]
        raise Unavailable(what, f"It needs {needed}, and the study has none.", f"To make it possible, {fix}.")
    if rows.split == TYPED:
        why = "Retrained models are kept by what they say of the study's own rows, and this one is not among them."
        raise Unavailable(what, why, "Check a test row.")


def _original(study: Study) -> Study:
    return study if study.made is None else study.version("")


def check_key(study: Study, asked: Asked) -> str:
    """Return the hash of a check: equal ones are made once."""
    return digest([
        "check", VERSION, study.task.fingerprint, asked.rows.split, list(asked.rows.ids), asked.rows.reduce,
        asked.measurement.identity(), asked.estimator.named.name, asked.estimator.config.to_json(), asked.side,
        asked.action, list(asked.changed), list(asked.labels), asked.weight if asked.action == "downweight" else None,
        asked.seeds, asked.draws,
    ])  # fmt: skip


def check_plan(study: Study, asked: Asked, run: Run) -> CheckPlan:
    """Return what a check would train, without training anything.

    Raises:
        InfluenceError: It cannot be done, with the reason.
    """
    trials = _Trials(study, asked, run)
    pairs = trials.needed
    missing = sum(not trials.outcomes.has(*pair) for pair in pairs)
    seconds = missing * training_seconds(trials.original.task, run) if missing else 0.0
    return CheckPlan(check_key(study, asked), len(pairs), missing, seconds + _foreseeing(study, asked, run))


def _foreseeing(study: Study, asked: Asked, run: Run) -> float:
    """Return how long it takes to fit what the prediction needs."""
    task, run = study.task, run.with_store(study.store)
    needed = [asked.estimator]
    name, options = influence_method(task)
    if not gives_amounts(asked.estimator.named, asked.action) and not registry.missing(registry.found(name).info, task):
        needed.append(registry.made(name, options, task))
    return sum(cost(task, one, run).seconds for one in needed if not is_fitted(task, one, run))


def check(study: Study, asked: Asked, run: Run) -> Check:
    """Train pairs of models with and without a change, and keep what became of the prediction.

    Asked for again, it returns what is kept.

    Args:
        study: The original or a version.
        asked: The prediction, and what is to be changed.
        run: Progress, cancel, device.

    Raises:
        InfluenceError: It cannot be done, with the reason.
        Cancelled: The user asked to stop; models that are trained are kept.
    """
    key = check_key(study, asked)
    trials = _Trials(study, asked, run)
    if (known := kept_check(study, asked.rows, key)) is not None:
        return known
    started = time.perf_counter()
    query = asked.rows, asked.measurement, asked.estimator
    foretold = foreseen(study.task, *query, trials.own, run.with_store(study.store))
    for pair in run.track(trials.needed, "training pairs of models", len(trials.needed)):
        trials.outcomes.corrected(*pair)
    header, target = study.header, asked.measurement.target
    found = Check(
        key, datetime.now(UTC).isoformat(timespec="seconds"), asked.rows.split, asked.rows.ids, asked.rows.reduce,
        asked.measurement.name, header.classes[target] if isinstance(target, int) else target, trials.explained,
        asked.estimator.named.name, asked.estimator.config.to_json(), asked.action, asked.side, trials.changed,
        trials.labels, asked.weight if asked.action == "downweight" else 0.0,
        trials.pairs([trials.fix] * len(trials.seeds), trials.seeds), trials.pairs(trials.random, trials.draw_seeds),
        foretold, trials.converged, not study.task.loss.classifies, trials.notes, time.perf_counter() - started,
    )  # fmt: skip
    keep_check(study, asked.rows, found)
    return found


class _Trials:
    """The models of a check: corrections of the original's training rows, and what the models say of the prediction."""

    def __init__(self, study: Study, asked: Asked, run: Run) -> None:
        """Check everything before hours of training."""
        check_possible(study, asked.rows)
        _check_numbers(asked)
        self.study, self.asked = study, asked
        self.original = _original(study)
        self.version = version_changes(self.original, study.made.id) if study.made is not None else []
        self.outcomes = Outcomes(self.original.task, run.with_store(study.store))
        self.converged = self.outcomes.recipe.optimizer == "lbfgs"
        self.seeds = paired_seeds(self.original, 1 if self.converged else asked.seeds)
        changes, self.notes = _changes(study, asked)
        self.changed = tuple(change.row for change in changes)
        self.labels = tuple(str(change.new) for change in changes if change.action == "relabel")
        self.own = correction(study, changes)
        self.base, self.fix = correction(self.original, self.version), self._on_original(changes)
        self.random = [self._on_original(drawn) for drawn in self._drawn(changes)]
        self.draw_seeds = tuple(self.seeds[i % len(self.seeds)] for i in range(len(self.random)))
        if asked.draws and not self.random:
            self.notes = (*self.notes, "Too few other rows are left to compare with random ones.")

    def _on_original(self, changes: Sequence[Change]) -> Correction:
        return correction(self.original, combined(self.version, changes))

    def _drawn(self, changes: Sequence[Change]) -> list[list[Change]]:
        """Return the same done to random rows: other rows for every draw, the same draws for every check."""
        ids = self.study.column("train", self.study.header.id).tolist()
        given = self.study.column("train", self.study.header.label).tolist()
        taken = {change.row for change in changes}
        drawn = []
        for number in range(self.asked.draws):
            order = [i for i in np.random.default_rng([number]).permutation(len(ids)).tolist() if ids[i] not in taken]
            rows = []
            for change in changes:
                place = next((i for i in order if change.action != "relabel" or str(given[i]) != change.new), None)
                if place is None:
                    return []
                order.remove(place)
                rows.append(Change("train", ids[place], change.action, new=change.new, weight=change.weight))
            drawn.append(rows)
        return drawn

    @cached_property
    def needed(self) -> list[tuple[Correction, int]]:
        """Return every model of the check once, pair by pair."""
        models = [(which, seed) for seed in self.seeds for which in (self.base, self.fix)]
        models += list(zip(self.random, self.draw_seeds, strict=True))
        return list({digest([which.identity, seed]): (which, seed) for which, seed in models}.values())

    @cached_property
    def _targets(self) -> Tensor:
        return self.study.task.query(self.asked.rows, self.asked.measurement, torch.float64).targets

    @property
    def explained(self) -> str:
        """Return the label that the measurement is taken at, of a single row that is classified."""
        if not self.study.task.loss.classifies or len(self.asked.rows.ids) > 1:
            return ""
        return self.study.header.classes[int(self._targets.reshape(-1)[0])]

    def pairs(self, changed: Sequence[Correction], seeds: Sequence[int]) -> Pairs:
        """Return what pairs of models say: without these changes and with them."""
        before = [self._seen(self.base, seed) for seed in seeds]
        after = [self._seen(which, seed) for which, seed in zip(changed, seeds, strict=True)]
        said = [tuple(word for _, word in side if word) for side in (before, after)]
        return Pairs(tuple(seeds), tuple(value for value, _ in before), tuple(value for value, _ in after), *said)

    def _seen(self, which: Correction, seed: int) -> tuple[float, str]:
        """Return the measurement of one model, and what it says of a single row."""
        rows, task = self.asked.rows, self.study.task
        places = self.original.task.positions(Rows(rows.split, rows.ids))
        outputs = self.outcomes.corrected(which, seed).outputs[rows.split][places].double()
        measurement = true_measurement(self.asked.estimator, self.asked.measurement)
        value = float(measured_values(outputs, self._targets, task.loss, measurement).mean())
        if len(rows.ids) > 1:
            return value, ""
        if not task.loss.classifies:
            return value, repr(float(outputs.reshape(-1)[0]))
        return value, self.study.header.classes[int(task.loss.probabilities(outputs)[0].argmax())]  # type: ignore[union-attr]


def _check_numbers(asked: Asked) -> None:
    what = "This check cannot be made"
    if asked.action not in ACTIONS or asked.side not in SIDES:
        why = f"action is {asked.action!r} and side {asked.side!r}."
        raise BadInput(what, why, f"Actions are {', '.join(ACTIONS)}; sides are {', '.join(SIDES)}.")
    if not 1 <= len(asked.changed) <= MAX_ROWS or len(set(asked.changed)) < len(asked.changed):
        why = f"{len(asked.changed)} rows are named, {len(set(asked.changed))} of them different."
        raise BadInput(what, why, f"Name 1 to {MAX_ROWS} training rows, each once.")
    if not 0 <= asked.draws <= MAX_DRAWS:
        raise BadInput(what, f"{asked.draws} random draws were asked for.", f"Use 0 to {MAX_DRAWS}.")
    if asked.action == "downweight" and not 0 <= asked.weight < 1:
        raise BadInput(what, f"The weight is {asked.weight}.", "Use 0 to below 1: an unchanged row counts 1.")


def _changes(study: Study, asked: Asked) -> tuple[list[Change], tuple[str, ...]]:
    """Return what is done to the rows, and what of it was left out and why."""
    study.task.positions(Rows("train", asked.changed))  # names a row that is not there
    if asked.action == "drop":
        if len(asked.changed) >= study.task.n_train:
            raise BadInput("No training row would be left", "All of them are dropped.", "Keep some.")
        return [Change("train", row, "drop") for row in asked.changed], ()
    if asked.action == "downweight":
        return [Change("train", row, "downweight", weight=asked.weight) for row in asked.changed], ()
    if not study.task.loss.classifies:
        raise BadInput("These rows cannot be flipped", "The model predicts a number.", "Drop or down-weight them.")
    if len(asked.labels) != len(asked.changed):
        why = f"{len(asked.changed)} rows and {len(asked.labels)} labels are named."
        raise BadInput("The new labels are not clear", why, "Give one label for each row.")
    unknown = sorted(set(asked.labels) - set(study.header.classes))
    if unknown:
        known = ", ".join(study.header.classes[:20])
        raise BadInput("Unknown class", f"'{unknown[0]}' is no class of this study.", f"Use one of: {known}.")
    ids = study.column("train", study.header.id).tolist()
    given = dict(zip(ids, map(str, study.column("train", study.header.label).tolist()), strict=True))
    wanted = list(zip(asked.changed, asked.labels, strict=True))
    changes = [Change("train", row, "relabel", given[row], new) for row, new in wanted if given[row] != new]
    if not changes:
        raise BadInput("Nothing would change", "All of these rows have that label already.", "Choose another label.")
    same = len(wanted) - len(changes)
    said = "1 row has" if same == 1 else f"{same} rows have"
    return changes, (f"{said} that label already and stayed as it was.",) if same else ()
