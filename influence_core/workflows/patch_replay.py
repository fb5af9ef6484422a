"""A patch replayed on the data it is of, or on newer data: what fits is done, what does not is listed and left alone.

A change is about a row that somebody looked at. On newer data the row of that id may be another one: rows that are
numbered by their place move when one is inserted above. So the content is compared first, where the patch knows it, and
then the label; a row that says something else is never changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.changes import Change, as_number, same_label
from influence_core.errors import BadInput
from influence_core.figures import figure
from influence_core.row_content import content_hashes
from influence_core.study import Study
from influence_core.workflows.patches import free_name, whole_table

Place = tuple[str, int | str]  # split and row id
_CLEANED = ("train", "test")
_SAID = {
    "applied": "applied", "already": "so already", "conflict": "in conflict", "missing": "missing",
    "changed": "with other content", "moved": "moved",
}  # fmt: skip
_ALWAYS_SAID = ("applied", "already", "conflict", "missing")


@dataclass(frozen=True)
class Outcome:
    """What became of one change.

    Attributes:
        change: The change.
        result: ``applied``; ``already``, as the data are; ``conflict``, the label is not the one that was reviewed;
            ``changed``, the row of this id says something else; ``moved``, and the row that was reviewed is at ``at``;
            ``missing``.
        found: The label there now.
        at: Where it was applied, or the row is now, if not at the place that the patch names.
    """

    change: Change
    result: str
    found: str | None = None
    at: Place | None = None

    def in_words(self) -> str:
        """Return why the change was left alone, or where else it was made; empty for what fitted."""
        change, row = self.change, f"{self.change.split} row {self.change.row}"
        now = "" if self.at is None else f"{self.at[0]} row {self.at[1]}"
        there = f" at {now}" if now else ""
        said = {
            "conflict": f"{row}: the label{there} is {self.found!r}, but {change.old!r} was reviewed",
            "missing": f"{row}: not there",
            "changed": f"{row}: its content is not what was reviewed",
            "moved": f"{row}: what was reviewed is now {now}; --follow changes it there",
            "applied": f"{row}: changed at {now}, where what was reviewed is now" if now else "",
        }
        return said.get(self.result, "")


@dataclass(frozen=True)
class Replay:
    """A patch applied to data: the new table, and what became of every change, in the order of the patch."""

    table: pa.Table
    outcomes: tuple[Outcome, ...]

    def of(self, result: str) -> list[Outcome]:
        """Return the outcomes with this result."""
        return [outcome for outcome in self.outcomes if outcome.result == result]

    def in_words(self) -> str:
        """Return the counts as a sentence, and every row that was left alone with the reason."""
        counts = {name: len(self.of(name)) for name in _SAID}
        first = ", ".join(f"{counts[name]:,} {said}" for name, said in _SAID.items()
                          if counts[name] or name in _ALWAYS_SAID)  # fmt: skip
        unchecked = sum(not outcome.change.content for outcome in self.outcomes)
        note = f" The content of {unchecked:,} rows was not compared: the patch does not know it." if unchecked else ""
        lines = [words for name in _SAID for outcome in self.of(name) if (words := outcome.in_words())]
        return "\n".join([f"{first}.{note}", *lines])


def replayed(study: Study, changes: Sequence[Change], *, follow: bool = False) -> Replay:
    """Apply changes to the rows of a study; nothing of the study is changed.

    A dropped row is gone from the table; the weight of a row is in a column ``weight``, which is there if any row has
    one. Locked rows are in the table as they are.

    Args:
        study: The data that the changes are of, or a newer version of it.
        changes: What is to become of its rows.
        follow: Change a row that has moved where it is now, if its content is there exactly once.
    """
    table, done = whole_table(study), outcomes(study, changes, follow=follow)
    header, split_column = study.header, table.column_names[-1]
    is_number = header.task == "regression"
    labels: list[Any] = table[header.label].to_pylist()
    splits, ids = table[split_column].to_pylist(), table[header.id].to_pylist()
    where = {pair: i for i, pair in enumerate(zip(splits, ids, strict=True))}
    weights, kept = np.ones(len(table)), np.ones(len(table), bool)
    for outcome in done:
        if outcome.result != "applied":
            continue
        change = outcome.change
        place = where[outcome.at or (change.split, change.row)]
        if change.action == "relabel":
            labels[place] = _as_label(change, is_number)
        elif change.action == "drop":
            kept[place] = False
        elif change.weight is not None:
            weights[place] = change.weight
    index = table.column_names.index(header.label)
    kind = table.schema.field(index).type
    column = pa.array(labels, kind) if is_number else pa.array([str(label) for label in labels]).cast(kind)
    table = table.set_column(index, header.label, column)
    if (weights != 1).any():
        table = table.append_column(free_name("weight", table), pa.array(weights))
    return Replay(table.filter(pa.array(kept)), done)


def outcomes(study: Study, changes: Sequence[Change], *, follow: bool = False) -> tuple[Outcome, ...]:
    """Return what would become of each change, in their order, without making the table.

    Args:
        study: The data that the changes are of, or a newer version of it.
        changes: What is to become of its rows; one for each row.
        follow: A row that has moved is changed where it is now, if its content is there exactly once.
    """
    here, is_number = _Here(study), study.header.task == "regression"
    here.read([(change.split, change.row) for change in changes if change.content])
    own = [_fits(here, change) for change in changes]
    taken = {(change.split, change.row) for change, fits in zip(changes, own, strict=True) if fits}
    found_out = []
    for change, fits in zip(changes, own, strict=True):
        place = (change.split, change.row)
        if fits:
            found = here.labels[place]
            found_out.append(Outcome(change, _result(change, found, is_number), found))
            continue
        now = here.by_content.get(change.content, []) if change.content else []
        if len(now) == 1 and now[0] not in taken:
            found = here.labels[now[0]]
            result = _result(change, found, is_number) if follow else "moved"
            taken |= set(now) if follow else set()
            found_out.append(Outcome(change, result, found, now[0]))
        elif place in here.labels:
            found_out.append(Outcome(change, "changed", here.labels[place]))
        else:
            gone = "already" if change.action == "drop" and not now else "missing"
            found_out.append(Outcome(change, gone))
    return tuple(found_out)


def check_content(study: Study, changes: Sequence[Change]) -> None:
    """Refuse changes of rows that say something else here than what was reviewed.

    Raises:
        BadInput: There is such a row.
    """
    here = _Here(study)
    for change in changes:
        place = (change.split, change.row)
        if change.content and place in here.labels and here.content(place) != change.content:
            why = f"The content of {change.split} row {change.row!r} is not what was reviewed."
            fix = "`replay` lists what fits, and with --follow finds rows that have moved."
            raise BadInput("The changes were made on other data", why, fix)


class _Here:
    """The rows that may be changed: their labels, and their content as far as it is asked for."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ids = {
            split: study.column(split, study.header.id).tolist() for split in _CLEANED if split in study.splits
        }
        self._positions = {(split, row): i for split, ids in self._ids.items() for i, row in enumerate(ids)}
        self.labels = {
            (split, row): str(label) for split, ids in self._ids.items()
            for row, label in zip(ids, study.column(split, study.header.label).tolist(), strict=True)
        }  # fmt: skip
        self._content: dict[Place, str] = {}

    def read(self, places: Sequence[Place]) -> None:
        """Read the content of these rows, many at once."""
        for split in self._ids:
            wanted = sorted({self._positions[place] for place in places if place[0] == split and place in self.labels})
            hashes = content_hashes(self._study, split, wanted)
            self._content |= {(split, self._ids[split][i]): said for i, said in zip(wanted, hashes, strict=True)}

    def content(self, place: Place) -> str:
        """Return the hash of a row's content."""
        if place not in self._content:
            self.read([place])
        return self._content[place]

    @cached_property
    def by_content(self) -> dict[str, list[Place]]:
        """Return where each content is, over all rows."""
        self.read(list(self.labels))
        found: dict[str, list[Place]] = defaultdict(list)
        for place, said in self._content.items():
            found[said].append(place)
        return found


def _fits(here: _Here, change: Change) -> bool:
    """Tell whether the row that the change names is the one that was reviewed, as far as that is known."""
    place = (change.split, change.row)
    return place in here.labels and (not change.content or here.content(place) == change.content)


def _result(change: Change, found: str, is_number: bool) -> str:
    if change.action == "keep":
        return "already"
    if change.action == "relabel" and same_label(found, change.new, is_number=is_number):
        return "already"
    return "applied" if was_reviewed(change, found, is_number=is_number) else "conflict"


def was_reviewed(change: Change, found: str, *, is_number: bool) -> bool:
    """Tell whether a label is the one that the reviewer saw, as far as that was kept; of a number, its first digits."""
    if change.old is None or same_label(found, change.old, is_number=is_number):
        return True
    return is_number and isinstance(value := as_number(found), float) and figure(value) == change.old


def _as_label(change: Change, is_number: bool) -> Any:
    if not is_number:
        return change.new
    value = as_number(change.new)
    if isinstance(value, float):
        return value
    why = f"{change.split} row {change.row}: the new label is {change.new!r}."
    raise BadInput("A new label is no number", why, "Correct the label in the patch.")
