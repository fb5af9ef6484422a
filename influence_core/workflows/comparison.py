"""Before and after: two versions of a study compared by pairs of models that share their seeds.

Figures are means over the pairs, and their intervals come from a bootstrap over pairs *and* rows. What is reported
first is the locked split, which nobody looked at while cleaning; the test split was looked at, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from influence_core import registry
from influence_core.changes import Change
from influence_core.errors import BadInput
from influence_core.primitives.losses import CustomLoss
from influence_core.primitives.paired import Paired, paired_changes
from influence_core.study import Study
from influence_core.study_changes import effective, split_changes
from influence_core.versions import Version, read_version, version_changes, version_outcomes, versions

MAX_CLASSES = 40  # in the table by class and in the matrix: those with the most mistakes
Grouping = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SplitChange:
    """How the figures of one split changed: accuracy of a classification (else None), and mean loss."""

    split: str
    n: int
    accuracy: Paired | None
    loss: Paired


@dataclass(frozen=True)
class Slice:
    """Figures of one group of rows: a class, or a value of a sensitive column (``column``)."""

    column: str
    name: str
    change: Paired


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side; "" is the original.

    Attributes:
        before, after: Ids.
        names: What people call them.
        seeds: Of the pairs.
        reported: The split that classes, slices and confusion are about: locked, or test where there is none.
        splits: The reported split first.
        classes, slices: Accuracy, or of a regression mean loss, of groups of the reported rows.
        confusion: Mean counts ``[given, predicted]`` before and after; None for a regression.
        labels: Class names of the confusion matrix.
        agreement: Share of the training rows on which a model says what its own labels say; None for a regression.
        alarm: What is wrong, in words; empty if nothing is.
        doubt: That a gain is not shown, in words; empty where it is, or where there is none.
        predicted: How much influence expected the mean test loss to fall; None where it was not asked or could not.
        predicted_by: The method's title, or why there is none.
        realised: How much it fell.
        headline: The result in one sentence.
        notes: How the figures came about.
        study: Title of the study.
    """

    before: str
    after: str
    names: tuple[str, str]
    seeds: tuple[int, ...]
    reported: str
    splits: tuple[SplitChange, ...]
    classes: tuple[Slice, ...]
    slices: tuple[Slice, ...]
    confusion: tuple[np.ndarray, np.ndarray] | None
    labels: tuple[str, ...]
    agreement: Paired | None
    alarm: str
    doubt: str
    predicted: float | None
    predicted_by: str
    realised: float
    headline: str
    notes: tuple[str, ...]
    study: str


@dataclass(frozen=True)
class Side:
    """One of the two: its changes, and what its models said by split ``[k, n, ...]``."""

    version: Version | None
    changes: list[Change]
    said: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.version.name if self.version is not None else "original"


class Rows:
    """The rows of a split that both sides have, with the labels that are right, and what both sides' models said."""

    def __init__(self, study: Study, split: str, sides: tuple[Side, Side]) -> None:
        """Read the labels; those of the later side are right."""
        targets = torch.from_numpy(study.targets(split))
        self.split, self.study = split, study
        kept = np.ones(len(targets), bool)
        for side in sides:
            changed = split_changes(study, [c for c in side.changes if c.split == split]).get(split)
            if changed is not None and changed.kept is not None:
                kept &= np.isin(np.arange(len(targets)), changed.kept)
        self.own = [_labels(study, split, side, targets) for side in sides]  # each side's, before rows are left out
        right = self.own[1] if sides[1].version is not None else self.own[0]
        self.kept = torch.from_numpy(np.flatnonzero(kept))
        self.targets = right[self.kept]
        self.said = [side.said[split][:, self.kept] for side in sides]

    def right(self) -> tuple[np.ndarray, np.ndarray]:
        """Return 1 where a model is right and 0 where it is wrong ``[k, n]``, before and after."""
        before, after = ((predicted(said) == self.targets).double().numpy() for said in self.said)
        return before, after

    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses ``[k, n]``, before and after."""
        loss = self.study.task.loss
        assert not isinstance(loss, CustomLoss)
        targets = self.targets if loss.classifies else self.targets.double()
        before, after = (torch.stack([loss.from_outputs(f.double(), targets) for f in said]) for said in self.said)
        return before.numpy(), after.numpy()


def predicted(said: Tensor) -> Tensor:
    """Return the predicted class ``[k, n]`` of outputs ``[k, n, C]``, or of one logit ``[k, n]``."""
    if said.ndim > 2 and said.shape[-1] > 1:
        return said.argmax(-1)
    return (said.reshape(said.shape[:2]) > 0).long()


def _labels(study: Study, split: str, side: Side, targets: Tensor) -> Tensor:
    """Return one side's labels of all rows that the split's file has."""
    changed = split_changes(study, [c for c in side.changes if c.split == split]).get(split)
    if changed is None or not changed.labels:
        return targets
    classes = side.version.classes if side.version is not None else ()
    index = {name: i for i, name in enumerate(classes)}
    result = targets.clone()
    for place, label in changed.labels.items():
        result[place] = index[str(label)] if index else float(label)
    return result


def compare(study: Study, before: str, after: str, grouping: Grouping | None = None) -> Comparison:
    """Compare two versions of a study.

    Args:
        study: The original or any version of it.
        before: Id of the earlier one; "" is the original.
        after: Id of the later one.
        grouping: From a column's values to group names ``[n]``; default: the values themselves.

    Raises:
        BadInput: No such version, the same twice, or the two have no seed in common.
    """
    original = study.version("")
    sides, seeds = sides_of(original, before, after)
    splits = [split for split in ("locked", "test") if split in original.splits]
    rows = {split: Rows(original, split, sides) for split in splits}
    changes = tuple(_split_change(rows[split]) for split in splits)
    main = rows[splits[0]]
    names = max((side.version.classes for side in sides if side.version is not None), key=len)
    agreement = _agreement(original, sides) if names else None
    later = sides[1].version
    gain = later.predicted if later is not None and before == "" and not later.parent else {}
    result = Comparison(
        before, after, (sides[0].name, sides[1].name), seeds, main.split, changes,
        _by_class(main, names), _by_slice(original, main, grouping or (lambda values: values.astype(str))),
        _confusions(main, len(names)) if names else None, names, agreement, alarm(changes[0], agreement),
        doubt(changes[0]), _total(gain), _by_what(gain, before),
        -next(c for c in changes if c.split == "test").loss.change,
        headline(changes[0], sides[1]), _notes(len(seeds), main, sides), original.header.title,
    )  # fmt: skip
    return result


def sides_of(study: Study, before: str, after: str) -> tuple[tuple[Side, Side], tuple[int, ...]]:
    """Return both sides and the seeds that they share; see ``compare``."""
    if before == after:
        raise BadInput("There is nothing to compare", "It is the same version twice.", "Choose two versions.")
    found = [read_version(study.path, one) if one else None for one in (before, after)]
    other = found[1] or found[0]
    assert other is not None
    seeds = tuple(s for s in other.seeds if all(version is None or s in version.seeds for version in found))
    if not seeds:
        why = f"'{found[0].name if found[0] else ''}' and '{other.name}' were trained with different seeds."
        raise BadInput("These versions cannot be compared", why, "Retrain one of them with the seeds of the other.")
    sides = []
    for version in found:
        source, side = (version, "after") if version is not None else (other, "before")
        stored = version_outcomes(study.path, source.id)
        chosen = [source.seeds.index(seed) for seed in seeds]
        said = {name.partition("/")[2]: values[chosen] for name, values in stored.items() if name.startswith(side)}
        changes = version_changes(study, version.id) if version is not None else []
        sides.append(Side(version, effective(changes), said))
    return (sides[0], sides[1]), seeds


def closeness(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return how right each model is on each row ``[k, n]``: 1 or 0, or of a regression minus the loss."""
    if rows.study.task.loss.classifies:
        return rows.right()
    before, after = rows.losses()
    return -before, -after


def _split_change(rows: Rows) -> SplitChange:
    classifies = rows.study.task.loss.classifies
    accuracy = paired_changes(*rows.right())[0] if classifies else None
    return SplitChange(rows.split, len(rows.targets), accuracy, paired_changes(*rows.losses())[0])


def _values(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return rows.right() if rows.study.task.loss.classifies else rows.losses()


def _by_class(rows: Rows, names: Sequence[str]) -> tuple[Slice, ...]:
    if not names:
        return ()
    found = paired_changes(*rows.right(), groups=rows.targets.numpy().astype(np.int64), n_groups=len(names))
    return tuple(Slice("", name, change) for name, change in zip(names, found, strict=True) if change.n)


def _by_slice(study: Study, rows: Rows, grouping: Grouping) -> tuple[Slice, ...]:
    result: list[Slice] = []
    for column in study.header.sensitive:
        groups = grouping(study.column(rows.split, column))[rows.kept.numpy()]
        names = list(dict.fromkeys(groups.tolist()))
        index = np.asarray([names.index(group) for group in groups.tolist()], np.int64)
        found = paired_changes(*_values(rows), groups=index, n_groups=len(names))
        result += [Slice(column, str(name), change) for name, change in zip(names, found, strict=True)]
    return tuple(result)


def _confusions(rows: Rows, n: int) -> tuple[np.ndarray, np.ndarray]:
    result = []
    for said in rows.said:
        counts = np.zeros((n, n))
        classes = predicted(said)
        for model in classes:
            np.add.at(counts, (rows.targets.numpy(), model.numpy()), 1 / len(classes))
        result.append(counts)
    return result[0], result[1]


def _agreement(study: Study, sides: tuple[Side, Side]) -> Paired:
    """Return on which share of the train rows that stay the models say what they were taught."""
    targets = torch.from_numpy(study.targets("train"))
    laid = split_changes(study, [c for c in sides[1].changes if c.split == "train"]).get("train")
    kept = torch.arange(len(targets)) if laid is None or laid.kept is None else torch.from_numpy(laid.kept)
    agree = []
    for side in sides:
        labels = _labels(study, "train", side, targets)[kept]
        said = side.said["train"].reshape(len(side.said["train"]), -1)[:, kept].long()
        agree.append((said == labels).double().numpy())
    return paired_changes(agree[0], agree[1])[0]


def alarm(reported: SplitChange, agreement: Paired | None) -> str:
    """Return the alarm about cleaning that fits the data to the model; empty if there is no reason for one.

    It rings when the models agree more with the cleaned training rows and are not more accurate on the reported rows:
    a mean change of zero or below. A gain that may be chance is no alarm; see ``doubt``.
    """
    gain = reported.accuracy
    if agreement is None or gain is None or not agreement.change > 0 or gain.change > 0:
        return ""
    what = "fell" if gain.change < 0 else "stayed the same"
    agree, spread = f"{100 * agreement.change:+.1f} points", f"95% interval {_points(gain.low)} to {_points(gain.high)}"
    return (
        f"The models agree better with the cleaned training labels ({agree}), but their accuracy on the "
        f"{reported.split} rows {what} ({_points(gain.change)} points, {spread}). The labels may have been fitted to "
        "the model instead of the truth: look at the changes again."
    )


def doubt(reported: SplitChange) -> str:
    """Return a sentence where the reported figure got better and chance alone might explain it; else nothing."""
    gain = reported.accuracy or reported.loss
    better = gain.change if reported.accuracy else -gain.change
    if not better > 0 or not gain.low <= 0 <= gain.high:
        return ""
    return (
        f"The model is not shown to be better: the interval of the change on the {reported.split} rows reaches zero, "
        "so that other seeds or other rows might show no gain."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def headline(reported: SplitChange, later: Side) -> str:
    """Return the result in one sentence."""
    count = len([change for change in later.changes if change.split == "train"])
    done = f"After {count:,} corrected training row{'' if count == 1 else 's'}, " if count else "Without a correction, "
    gain, shown, what = reported.accuracy or reported.loss, "{:.1%}", "accuracy"
    if reported.accuracy is None:
        shown, what = "{:.4g}", "the mean loss"
    figures = f"from {shown.format(gain.before)} to {shown.format(gain.after)}"
    if gain.low <= 0 <= gain.high:
        verb = f"{what} on the {reported.n:,} {reported.split} rows did not change measurably"
        return f"{done}{verb} ({figures})."
    verb = "rose" if gain.change > 0 else "fell"
    return f"{done}{what} on the {reported.n:,} {reported.split} rows {verb} {figures}."


def _total(gain: Mapping[str, object]) -> float | None:
    if not gain.get("method"):
        return None
    return float(sum(float(str(gain[name])) for name in ("relabelled", "dropped", "downweighted")))


def _by_what(gain: Mapping[str, object], before: str) -> str:
    if gain.get("method"):
        known = registry.entries().get(str(gain["method"]))
        return str(gain["method"]) if known is None else known.info.title
    if gain:
        return str(gain.get("why_not"))
    return "" if before == "" else "It is only predicted for changes of the original."


def _notes(pairs: int, main: Rows, sides: tuple[Side, Side]) -> tuple[str, ...]:
    over = (
        f"{pairs} pairs of models and over the rows" if pairs > 1 else "the rows alone, as there is one pair of models"
    )
    notes = [f"Means over {pairs} pair{'s' if pairs > 1 else ''} of models that share seed and batch order. Intervals "
             f"(95%) come from a bootstrap over {over}."]  # fmt: skip
    if main.split == "test":
        notes.append("This study has no locked split: these rows were looked at while the labels were cleaned.")
    changed = [c for side in sides for c in side.changes if c.split == "test"]
    if changed:
        notes.append(
            f"{len({c.row for c in changed}):,} test rows were corrected; both sides are measured on the result."
        )
    return tuple(notes)


def comparable(study: Study) -> list[tuple[str, str]]:
    """Return ``(id, name)`` of everything that can be compared, the original first."""
    return [("", "original"), *((version.id, version.name) for version in versions(study.path))]
