"""What a check found, kept with the study: predicted and actual change of one prediction, and what they come to.

A check is a file ``checks/<prediction>/<key>.json`` beside the study's data. The prediction's folder is named after the
study's fingerprint, so a study or version with other labels or weights has no checks yet. A file is written beside and
renamed; one that cannot be read is passed over, and the check can be made again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from influence_core.config import digest
from influence_core.measurement import Rows
from influence_core.metrics.intervals import Figure, t_interval
from influence_core.store import disk_errors
from influence_core.study import Study

FOLDER = "checks"
FORMAT = 1
Action = Literal["drop", "flip", "downweight"]
ACTIONS = get_args(Action)
SIDES = ("proponents", "opponents", "rows")


@dataclass(frozen=True)
class Pairs:
    """Paired trainings: the measurement and what the model says, without the change and with it.

    Attributes:
        seeds: Of each pair; both of its models start from the same weights and take the rows in the same order.
        before, after: The measurement ``[pairs]``; of several rows the mean.
        said_before, said_after: Predicted class, or number as text; empty where several rows are one query.
    """

    seeds: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    said_before: tuple[str, ...] = ()
    said_after: tuple[str, ...] = ()

    @property
    def changes(self) -> np.ndarray:
        """Return the measurement with the change minus without it ``[pairs]``."""
        return np.asarray(self.after, float) - np.asarray(self.before, float)

    @property
    def change(self) -> Figure:
        """Return the mean change with Student's 95% interval over the pairs."""
        return t_interval(self.changes)

    @property
    def flips(self) -> int:
        """Return in how many pairs the model says something else with the change."""
        return sum(one != other for one, other in zip(self.said_before, self.said_after, strict=True))


@dataclass(frozen=True)
class Foreseen:
    """What a method foresaw.

    Attributes:
        method, title: Which one.
        change: Of the measurement; None where its scores are no amounts of it.
        sign: 1: the measurement rises, -1: it falls, 0: neither is said.
        note: How the number was made of the scores, or why there is none.
    """

    method: str
    title: str
    change: float | None
    sign: int
    note: str


@dataclass(frozen=True)
class Check:
    """Rows that were dropped, relabelled or made lighter, and what became of a prediction.

    Attributes:
        key: What was asked, hashed.
        made: When, in ISO 8601.
        split, ids, reduce: The explained rows.
        kind, target: The measurement, as ``Measurement`` takes it, a class by name.
        explained: The label that it is measured at; empty for several rows or a regression.
        method, config: Whose scores chose the rows.
        action, side: What was done to which of its rows.
        changed: Their ids; ``labels`` the new ones of a flip, ``weight`` that of a down-weighting.
        actual: Pairs with and without the change.
        random: Pairs with the same done to as many random rows; each pair draws its own.
        foreseen: By the method that chose the rows; then by influence functions, where that one gives no amounts.
        converged: Training ends at the same weights whatever the seed: one pair is all there is to know.
        regression: The model predicts a number.
        notes: What else a reader should know.
        seconds: Of the models that were trained for it.
    """

    key: str
    made: str
    split: str
    ids: tuple[int | str, ...]
    reduce: str | None
    kind: str
    target: str
    explained: str
    method: str
    config: dict[str, Any]
    action: Action
    side: str
    changed: tuple[int | str, ...]
    labels: tuple[str, ...]
    weight: float
    actual: Pairs
    random: Pairs
    foreseen: tuple[Foreseen, ...]
    converged: bool
    regression: bool
    notes: tuple[str, ...]
    seconds: float

    @property
    def headline(self) -> str:
        """Return in one sentence what became of the prediction."""
        said = self.actual
        if len(self.ids) > 1:
            return f"{_with(self)}, {_moves(said.change)} over these {len(self.ids)} predictions."
        if self.regression:
            before, after = (_mean_number(values) for values in (said.said_before, said.said_after))
            mean = f" (means of {len(said.seeds)} trainings)" if len(said.seeds) > 1 else ""
            return f"{_with(self)} the model says {after} instead of {before}{mean}."
        times = "" if self.converged else f" in {said.flips} of {_trainings(len(said.seeds))}"
        if said.flips:
            pairs = [pair for pair in zip(said.said_before, said.said_after, strict=True) if pair[0] != pair[1]]
            (before, after), count = Counter(pairs).most_common(1)[0]
            if count == said.flips:
                return f"{_with(self)} the model says {after} instead of {before}{times}."
            return f"{_with(self)} the model says something else{times}, mostly {after} instead of {before}."
        label = Counter(said.said_after).most_common(1)[0][0]
        if len(set(said.said_after)) > 1:
            return f"{_with(self)} the model says in every training what it said before."
        trainings = "" if self.converged else f" in all {len(said.seeds)} trainings" if len(said.seeds) > 1 else ""
        return f"{_with(self)} the model still says {label}{trainings}."

    @property
    def findings(self) -> tuple[str, ...]:
        """Return what the numbers mean for each other, a sentence each."""
        found = [*_against_noise(self), *_against_random(self)]
        found += [sentence for one in self.foreseen if (sentence := _against(self, one))]
        wrong = [label for label in self.actual.said_before if self.explained and label != self.explained]
        if wrong and self.target == "predicted" and not self.regression:
            found.append(
                f"Trained as it is, the model says {self.explained} in only {len(self.actual.seeds) - len(wrong)} of "
                f"{_trainings(len(self.actual.seeds))}: the prediction depends on the seed."
            )
        return tuple(found)


# -- sentences ------------------------------------------------------------------------------------------------------


def _with(check: Check) -> str:
    n = len(check.changed)
    these = "this row" if n == 1 else f"these {n} rows"
    if check.action == "drop":
        return f"Without {these}"
    if check.action == "downweight":
        return f"With {these} counting {check.weight:g} instead of 1"
    new = set(check.labels)
    as_what = f"labelled {check.labels[0]}" if len(new) == 1 else "relabelled"
    return f"With {these} {as_what}"


def _trainings(count: int) -> str:
    return f"{count} training" if count == 1 else f"{count} trainings"


def _mean_number(values: Sequence[str]) -> str:
    return _number(float(np.mean([float(value) for value in values])))


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _moves(change: Figure) -> str:
    if change.value == 0:
        return "the mean measurement stays as it is"
    return f"the mean measurement {'rises' if change.value > 0 else 'falls'} by {_number(abs(change.value))}"


def _against_noise(check: Check) -> list[str]:
    change = check.actual.change
    if np.isfinite(change.low) and change.low < 0 < change.high:
        return ["The trainings disagree on whether the measurement rises or falls; more of them may tell."]
    return []


def _against_random(check: Check) -> list[str]:
    random, actual, n = check.random.change, check.actual.change, len(check.changed)
    if not random.n:
        return []
    rows = "One random row moves" if n == 1 else f"{n} random rows move"
    low, high = (random.low, random.high) if np.isfinite(random.low) else (random.value, random.value)
    if low <= actual.value <= high:
        return [f"{rows} the measurement as much."]
    times = abs(actual.value) / abs(random.value) if random.value else np.inf
    if times < 1:
        return [f"{rows} the measurement even more."]
    if times >= 100:
        rows = "One random row hardly moves" if n == 1 else f"{n} random rows hardly move"
        return [f"{rows} the measurement."]
    how = f"{times:.2g} times less" if times >= 1.5 else "less"
    return [f"{rows} the measurement {how}."]


def _against(check: Check, one: Foreseen) -> str:
    """Return how well a method foresaw the change; empty where it said nothing."""
    actual = check.actual.change
    if one.sign == 0:
        return ""
    if np.sign(actual.value) != one.sign:
        came = "nothing moved" if actual.value == 0 else "it " + ("rose" if actual.value > 0 else "fell")
        return f"{one.title} foresaw that the measurement {_verb(one.sign)}; {came}."
    if one.change is None:
        return f"{one.title} foresaw the direction: the measurement {_verb(one.sign)}."
    share = one.change / actual.value
    if np.isfinite(actual.low) and actual.low <= one.change <= actual.high:
        return f"{one.title} foresaw {_number(one.change)}, within the interval of what happened."
    return f"{one.title} foresaw {_number(one.change)}, {share:.2g} times what happened."


def _verb(sign: int) -> str:
    return "rises" if sign > 0 else "falls"


# -- files ----------------------------------------------------------------------------------------------------------


def kept_check(study: Study, rows: Rows, key: str) -> Check | None:
    """Return a check that was made, or None."""
    return _read(_folder(study, rows) / f"{key}.json")


def kept_checks(study: Study, rows: Rows) -> list[Check]:
    """Return all checks of a prediction, the newest first."""
    folder = _folder(study, rows)
    found = [_read(path) for path in folder.glob("*.json")] if folder.is_dir() else []
    return sorted((check for check in found if check is not None), key=lambda check: (check.made, check.key))[::-1]


def keep_check(study: Study, rows: Rows, check: Check) -> None:
    """Write a check, all of it or nothing.

    Raises:
        StoreProblem: The disk is full or refuses.
    """
    path = _folder(study, rows) / f"{check.key}.json"
    with disk_errors(study.path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        beside.write_text(json.dumps({"format": FORMAT, **asdict(check)}), encoding="utf-8")
        os.replace(beside, path)


def _folder(study: Study, rows: Rows) -> Path:
    return study.path / FOLDER / digest([study.task.fingerprint, rows.split, list(rows.ids), rows.reduce])


def _read(path: Path) -> Check | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        for name in ("actual", "random"):
            content[name] = Pairs(**{field.name: tuple(content[name][field.name]) for field in fields(Pairs)})
        content["foreseen"] = tuple(Foreseen(**one) for one in content["foreseen"])
        for name in ("ids", "changed", "labels", "notes"):
            content[name] = tuple(content[name])
        return Check(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
