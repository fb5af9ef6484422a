"""What changes of rows do to a study: which rows stay, with which labels, and how a model is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from influence_core.changes import Change, as_number, same_label
from influence_core.config import digest
from influence_core.errors import BadInput, Unavailable
from influence_core.model_reference import model_factory
from influence_core.outcomes import Correction
from influence_core.registry import NEEDS_IN_WORDS
from influence_core.study import Study
from influence_core.study_data import SplitChanges
from influence_core.task import Needs

FORMAT = 1  # of what the keys of changes are made from


def effective(changes: Sequence[Change]) -> list[Change]:
    """Return the changes that change something: not those that only say that somebody looked."""
    return [change for change in changes if change.action != "keep"]


def combined(first: Sequence[Change], then: Sequence[Change]) -> list[Change]:
    """Return changes followed by others: of one row the later holds, also where it takes a change back."""
    found = {(change.split, change.row): change for change in (*first, *then)}
    return list(found.values())


def changes_key(study: Study, changes: Sequence[Change]) -> str:
    """Return the hash of a study and of what changes do to it, whatever their order, reviewers and comments."""
    done = sorted((c.split, str(c.row), c.action, c.new or "", c.weight or 0.0) for c in effective(changes))
    return digest(["version", FORMAT, study.fingerprint, done])


def classes_after(study: Study, changes: Sequence[Change]) -> tuple[str, ...]:
    """Return the classes with those that changes add, in the order of their names."""
    known = study.header.classes
    if study.header.task != "classification":
        return known
    added = {str(c.new) for c in changes if c.action == "relabel" and c.split == "train"} - set(known)
    return (*known, *sorted(added))


def grown_model(model: Mapping[str, Any], loss: str, before: int, after: int) -> Mapping[str, Any]:
    """Return the model of ``study.toml`` with more outputs.

    Raises:
        BadInput: This model cannot have more.
    """
    if before == after:
        return model
    options = dict(model.get("options", {}))
    if loss != "cross_entropy" or options.get("n_classes") != before:
        name = model.get("architecture") or model.get("reference")
        why = f"The model '{name}' has a fixed number of outputs, {before} classes, and a label is a class beyond them."
        fix = "Relabel to one of its classes, or import the corrected data as a new study."
        raise BadInput("The new class cannot be trained", why, fix)
    return {**model, "options": {**options, "n_classes": after}}


def split_changes(study: Study, changes: Sequence[Change]) -> dict[str, SplitChanges]:
    """Return what changes do to the splits of the original study.

    Raises:
        BadInput: A row or a label that the study cannot have, or nothing would be left of a split.
    """
    return {
        split: _of_split(study, split, [change for change in effective(changes) if change.split == split])
        for split in dict.fromkeys(change.split for change in effective(changes))
    }


def _of_split(study: Study, split: str, changes: Sequence[Change]) -> SplitChanges:
    places = _places(study, split, changes)
    labels = {places[c.row]: _label(study, c) for c in changes if c.action == "relabel"}
    gone = [places[c.row] for c in changes if c.action == "drop"]
    if not gone:
        return SplitChanges(labels)
    kept = np.delete(np.arange(study.n_rows(split)), gone)
    if not len(kept):
        raise BadInput(f"No {split} row would be left", "All of them are dropped.", "Keep some.")
    return SplitChanges({place: label for place, label in labels.items() if place not in gone}, kept)


def _places(study: Study, split: str, changes: Sequence[Change]) -> dict[int | str, int]:
    """Return the positions of the rows that change, each looked up and compared with the label that was seen."""
    if split not in ("train", "test"):
        why = f"A change is about the {split} split, whose rows only report how good a model is."
        raise BadInput("These rows are never changed", why, "Clean train and test rows.")
    known = {row: place for place, row in enumerate(study.column(split, study.header.id).tolist())}
    missing = [change.row for change in changes if change.row not in known]
    if missing:
        why = f"{missing[0]!r} is not in the {split} split ({len(missing)} of {len(changes)} changed rows are not)."
        raise BadInput("A row that is to change is not there", why, "Use changes that were made on this study.")
    classes = study.header.classes
    targets = study.targets(split) if classes else study.column(split, study.header.label)
    for change in changes:
        target = targets[known[change.row]]
        given = classes[target] if classes else str(target)
        if change.old is not None and not same_label(given, change.old, is_number=not classes):
            why = f"{split} row {change.row!r} is labelled '{given}', and was reviewed as '{change.old}'."
            raise BadInput("The changes were made on other data", why, "Use changes that were made on this study.")
    return known


def _label(study: Study, change: Change) -> str | float:
    new = str(change.new)
    if study.header.task != "classification":
        value = as_number(new)
        if not isinstance(value, float):
            why = f"{change.split} row {change.row!r} would get {new!r}."
            raise BadInput("A new label is no number", why, "This study predicts numbers: give one.")
        return value
    if change.split != "train" and new not in study.header.classes:
        why = f"{change.split} row {change.row!r} would get '{new}', which no training row teaches."
        raise BadInput("A new class needs training rows", why, "Add the class in training rows, or leave the row.")
    return new


def correction(study: Study, changes: Sequence[Change]) -> Correction:
    """Return what changes do to training.

    Raises:
        BadInput: As ``split_changes``, or the model cannot have a new class.
    """
    train = [change for change in effective(changes) if change.split == "train"]
    places = _places(study, "train", train) if train else {}
    classes, known = classes_after(study, train), study.header.classes
    index: dict[str | float, int] = {name: i for i, name in enumerate(classes)}
    labels = {places[c.row]: _label(study, c) for c in train if c.action == "relabel"}
    model = grown_model(study.header.model, study.header.loss, len(known), len(classes))
    return Correction(
        tuple(places[c.row] for c in train if c.action == "drop"),
        {place: float(index[label]) if classes else float(label) for place, label in labels.items()},
        {places[c.row]: float(c.weight or 0.0) for c in train if c.action == "downweight"},
        model_factory(model) if len(classes) > len(known) else None,
        dict(model) if len(classes) > len(known) else {},
    )


def counted(changes: Sequence[Change]) -> dict[str, int]:
    """Return how many rows are relabelled, dropped and downweighted in train, and changed in test."""
    train = [change.action for change in effective(changes) if change.split == "train"]
    counts = {name: train.count(action) for name, action in
              (("relabelled", "relabel"), ("dropped", "drop"), ("downweighted", "downweight"))}  # fmt: skip
    return {**counts, "test": len(effective(changes)) - len(train)}


def check_retrainable(study: Study) -> None:
    """Refuse a study that cannot be trained again, in the words in which methods refuse it.

    Raises:
        Unavailable: It has no recipe.
    """
    if Needs.RECIPE not in study.task.provides:
        needed, fix = NEEDS_IN_WORDS[Needs.RECIPE]
        what = "A new version cannot be trained here"
        raise Unavailable(what, f"It needs {needed}.", f"To make it available, {fix}.")
