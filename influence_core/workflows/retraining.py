"""Retraining on corrected data: pairs of models that differ in the corrections alone, and a version made of them.

Both models of a pair start from the same weights and take the rows in the same order; a dropped row has weight 0, so
that its batch keeps the others, their order and the divisor. All outcomes are rows of the table in ``outcomes.py``: the
models on the original labels are trained once for all versions, and a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from influence_core.changes import Change
from influence_core.costs import sizes
from influence_core.errors import BadInput
from influence_core.examples import Batch, Examples
from influence_core.outcomes import Correction, Outcome, Outcomes
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import new_model, training
from influence_core.run import Run
from influence_core.study import Study
from influence_core.study_changes import (
    changes_key,
    check_retrainable,
    classes_after,
    combined,
    correction,
    counted,
    split_changes,
)
from influence_core.study_data import SplitChanges
from influence_core.task import Task
from influence_core.trajectory import trained_checkpoints
from influence_core.versions import Version, checked_name, version_changes, versions, write_version
from influence_core.workflows.predicted_gain import predicted_gain

SEEDS = 5
MAX_SEEDS = 100
REQUESTS = ".retrain"  # folder in a study: the patches of jobs that wait or run
_STEP_OVERHEAD = 2.0  # a training pass against one forward and backward pass: optimiser and Python
_TIMED_STEPS = 8


@dataclass(frozen=True)
class Plan:
    """What retraining would do.

    Attributes:
        key: Hash of study and changes.
        counts: See ``Version``.
        models: How many models are still to be trained.
        seconds: About how long that takes.
    """

    key: str
    counts: dict[str, int]
    models: int
    seconds: float


def plan(study: Study, changes: Sequence[Change], run: Run, seeds: int = SEEDS, parent: str = "") -> Plan:
    """Return what retraining would do, without training anything.

    Raises:
        InfluenceError: It cannot be done: no recipe, or changes that this study cannot have.
    """
    original = study.version("")
    check_retrainable(original)
    every = combined(version_changes(original, parent), changes)
    fix = correction(original, every)
    split_changes(original, every)
    outcomes = Outcomes(original.task, run.with_store(original.store))
    missing = sum(not outcomes.has(c, seed) for seed in paired_seeds(original, seeds) for c in (Correction(), fix))
    seconds = (missing + 1) * training_seconds(original.task, run)
    return Plan(changes_key(original, every), counted(every), missing + 1, seconds)


def training_seconds(task: Task, run: Run) -> float:
    """Return how long one training takes here: a few real steps are timed, which small batches make many of."""
    recipe = task.recipe
    assert recipe is not None and task.factory is not None  # it was checked that the task can be retrained
    if recipe.optimizer == "lbfgs":
        return recipe.epochs * sizes(task, run).pass_seconds * _STEP_OVERHEAD
    if "training seconds" not in task.memo:
        steps = -(-task.n_train // recipe.batch_size)
        few = min(_TIMED_STEPS * recipe.batch_size, task.n_train)
        rows = Examples((task.split("train").raw(slice(0, few)).inputs, task.split("train").targets[:few]), "train")
        model = new_model(task.factory, recipe, run.device)
        with one_core():
            timed = training(model, rows, task.loss, recipe.changed(epochs=2))
            next(timed)  # the first pass warms up
            began = time.perf_counter()
            next(timed)
            spent = time.perf_counter() - began
        task.memo["training seconds"] = recipe.epochs * steps * spent / -(-few // recipe.batch_size)
    return task.memo["training seconds"]


def paired_seeds(study: Study, count: int) -> tuple[int, ...]:
    """Return the seeds of so many pairs of models, from the recipe's own on; refuse none or too many."""
    if not 1 <= count <= MAX_SEEDS:
        raise BadInput("Too few or too many pairs", f"{count} were asked for.", f"Train 1 to {MAX_SEEDS} pairs.")
    recipe = study.header.recipe
    assert recipe is not None
    return tuple(recipe.seed + i for i in range(count))


def retrain(
    study: Study, changes: Sequence[Change], name: str, run: Run, seeds: int = SEEDS, parent: str = ""
) -> Version:
    """Train pairs of models on the original and on the corrected data, and keep the corrected data as a version.

    Asked for again with the same study, changes, seeds and name, it returns the version that is there.

    Args:
        study: The original or any version of it.
        changes: On top of those of ``parent``.
        name: The version's name.
        run: Progress, cancel, device.
        seeds: How many pairs; the first seed is the recipe's, and its corrected model is the version's.
        parent: Id of the version that the changes are about; empty for the original.

    Raises:
        InfluenceError: The study has no recipe, or the changes do not fit it.
        Cancelled: The user asked to stop; models that are trained are kept.
    """
    original, name = study.version(""), checked_name(name)
    check_retrainable(original)
    every = combined(version_changes(original, parent), changes)
    key, numbers = changes_key(original, every), paired_seeds(original, seeds)
    for known in versions(original.path):
        if (known.key, known.name, known.seeds) == (key, name, numbers):
            return known
    fix = correction(original, every)
    laid_over = split_changes(original, every)  # refuses what cannot be, before hours of training
    run = run.with_store(original.store)
    outcomes = Outcomes(original.task, run)
    pairs = [(which, seed) for seed in numbers for which in (Correction(), fix)]
    done = [outcomes.corrected(*pair) for pair in run.track(pairs, "training pairs of models", len(pairs))]
    task = original.task
    states, entries, losses = trained_checkpoints(
        fix.factory or outcomes.factory, outcomes.recipe, fix.rows(task.split("train")), task.loss, run, name,
        fix.row_weights(task.n_train),
    )  # fmt: skip
    gain = asdict(predicted_gain(task, fix, _test_rows(original, laid_over), run))
    counts, classes = counted(every), classes_after(original, every)
    version = Version(
        "", name, parent, time.time(), key, numbers, classes, counts, tuple(entries), tuple(losses), gain,
        _notes(counts, fix, classes[len(original.header.classes) :]),
    )  # fmt: skip
    return write_version(original.path, version, every, states, _kept(done, task.loss.classifies))


def _test_rows(study: Study, changes: Mapping[str, SplitChanges]) -> Batch:
    """Return the test rows that stay, with the labels that are right."""
    rows, changed = study.task.split("test"), changes.get("test")
    batch = rows.raw(slice(None))
    if changed is None:
        return batch
    index = {name: i for i, name in enumerate(study.header.classes)}
    targets = batch.targets.clone()
    for place, label in changed.labels.items():
        targets[place] = index[str(label)] if index else float(label)
    whole = Batch(batch.inputs, targets)
    if changed.kept is None:
        return whole
    kept = torch.from_numpy(changed.kept)
    return Batch(rows.raw(kept).inputs, targets[kept])


def _kept(done: Sequence[Outcome], classifies: bool) -> dict[str, Tensor]:
    """Return what a comparison needs of the models, by pair: outputs, and of train rows the predicted classes."""
    result = {}
    for side, outcomes in (("before", done[0::2]), ("after", done[1::2])):
        for split in outcomes[0].outputs:
            values = torch.stack([outcome.outputs[split].float() for outcome in outcomes])
            if split == "train" and classifies:
                values = (values.argmax(-1) if values.shape[-1] > 1 and values.ndim > 2 else values > 0).short()
            result[f"{side}/{split}"] = values
    return result


def _notes(counts: dict[str, int], fix: Correction, new: Sequence[str]) -> tuple[str, ...]:
    said = [f"{n:,} {word}" for word, n in counts.items() if n and word != "test"]
    notes = [f"Training rows changed: {', '.join(said)}."] if said else ["No training row was changed."]
    if counts["dropped"]:
        notes.append("Dropped rows had weight 0 in training: every batch kept its other rows, order and divisor.")
    if counts["downweighted"]:
        low, high = min(fix.weights.values()), max(fix.weights.values())
        weights = f"weight {low:g}" if low == high else f"weights from {low:g} to {high:g}"
        notes.append(
            f"Down-weighted rows were trained with {weights}. The methods' losses are unweighted: they score these "
            "rows as if they counted in full."
        )
    if counts["test"]:
        notes.append(f"{counts['test']:,} test rows were corrected, and this version's test figures count them so.")
    if new:
        notes.append(f"New classes: {', '.join(new)}. The output layer grew, so its first weights differ from before.")
    return tuple(notes)
