"""In which columns a table row under review differs from the rows beside it, as the model reads them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.encoder import ColumnsEncoder, TableEncoder
from influence_core.measurement import Rows
from influence_core.service.cells import in_words
from influence_core.service.opened import OpenStudy
from influence_core.service.review_views import Beside, BesideRow, Cell
from influence_core.service.views import Datum

_VALUE = 400  # characters of a value of the row under review
_SAME = 1e-6  # encoded numbers are standard deviations, or 0 and 1 for categories
_DIFFERENT = 4  # columns named beside a row


@dataclass(frozen=True)
class _Side:
    """Rows of a split that are on screen: ``at`` is where a position stands in ``encoded`` and in ``values``."""

    at: dict[int, int]
    encoded: np.ndarray
    values: dict[str, list[Any]]


class Comparison:
    """Rows of a table beside each other.

    A number differs by its distance in standard deviations of train, a category by 1 or not at all; categories that
    the model reads as one, because they are rare, do not differ. Numbers that lie as far out as the encoder goes, and
    are clipped there, do not differ either.
    """

    def __init__(self, held: OpenStudy, rows: Sequence[tuple[str, int]]) -> None:
        """Read all rows at once; ``rows`` are splits and positions."""
        encoder = held.study.encoder
        if isinstance(encoder, ColumnsEncoder):
            self.parts = dict(encoder.parts)
        elif isinstance(encoder, TableEncoder):
            self.parts = {name: slice(i, i + 1) for i, name in enumerate(encoder.columns)}
        else:
            raise TypeError(f"rows of a {encoder.kind} encoder have no columns to compare")
        self._sides: dict[str, _Side] = {}
        for split in dict.fromkeys(split for split, _ in rows):
            positions = sorted({position for here, position in rows if here == split})
            table: pa.Table = held.study.rows(split, positions)
            values = {name: table.column(name).to_pylist() for name in table.column_names}
            at = {position: i for i, position in enumerate(positions)}
            self._sides[split] = _Side(at, encoder.encoded(table), values)

    def apart(self, one: tuple[str, int], other: tuple[str, int]) -> dict[str, float]:
        """Return, for every column that the model reads, how far two rows lie apart there."""
        difference = np.abs(self._encoded([one])[0] - self._encoded([other])[0])
        return {name: float(difference[place].max()) for name, place in self.parts.items()}

    def outside(self, one: tuple[str, int], others: Sequence[tuple[str, int]]) -> set[str]:
        """Return the columns in which a row lies outside of the range of the others, or has a category of its own."""
        mine, around = self._encoded([one])[0], self._encoded(others)
        out = (mine < around.min(0) - _SAME) | (mine > around.max(0) + _SAME)
        return {name for name, place in self.parts.items() if out[place].any()}

    def value(self, row: tuple[str, int], name: str) -> Any:
        """Return what stands in the data; None where a split has no such column."""
        side = self._sides[row[0]]
        return side.values[name][side.at[row[1]]] if name in side.values else None

    def around(self, name: str, others: Sequence[tuple[str, int]]) -> str:
        """Return the values of some rows in short: a range of numbers or dates, else the most frequent, counted."""
        values = [self.value(row, name) for row in others]
        there = [value for value in values if not _missing(value)]
        gone = len(values) - len(there)
        if not there:
            return in_words(None)
        if all(_has_order(value) for value in there):
            low, high = _day(min(there)), _day(max(there))
            return (low if low == high else f"{low} to {high}") + (f", {gone} missing" if gone else "")
        (first, count), *_ = Counter(in_words(value) for value in values).most_common(1)
        return first if count == len(values) else f"{first} ({count} of {len(values)})"

    def _encoded(self, rows: Sequence[tuple[str, int]]) -> np.ndarray:
        return np.stack([self._sides[split].encoded[self._sides[split].at[position]] for split, position in rows])


def _day(value: Any) -> str:
    """Return the end of a range: of a time only its day."""
    return in_words(value.date() if isinstance(value, datetime.datetime) else value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _has_order(value: Any) -> bool:
    return isinstance(value, int | float | datetime.date) and not isinstance(value, bool)


def compared(
    held: OpenStudy, data: Sequence[Datum], beside: Sequence[tuple[Beside, ...]]
) -> list[tuple[tuple[Cell, ...], tuple[Beside, ...]]]:
    """Return the cells of rows under review beside their nearest rows' values, and the evidence with what differs.

    Args:
        held: The study.
        data: The rows, with all cells.
        beside: The evidence of each.
    """
    if not isinstance(held.study.encoder, ColumnsEncoder | TableEncoder):
        return [(tuple(Cell(*cell) for cell in datum.cells), sides) for datum, sides in zip(data, beside, strict=True)]
    places = _places(held, data, beside)
    comparison = Comparison(held, list(places.values()))
    result = []
    for datum, sides in zip(data, beside, strict=True):
        mine = places[datum.split, datum.row_id]
        near = [places[row.split, row.row_id] for side in sides if side.kind == "near" for row in side.rows]
        shown = tuple(replace(side, rows=tuple(_differing(comparison, mine, row, places[row.split, row.row_id])
                                               for row in side.rows)) for side in sides)  # fmt: skip
        result.append((_cells(comparison, datum, mine, near), shown))
    return result


def _places(
    held: OpenStudy, data: Sequence[Datum], beside: Sequence[tuple[Beside, ...]]
) -> dict[tuple[str, int | str], tuple[str, int]]:
    """Return split and position of every row on screen, by its split and id."""
    rows: list[Datum | BesideRow] = [*data, *(row for sides in beside for side in sides for row in side.rows)]
    found = {}
    for split in dict.fromkeys(row.split for row in rows):
        ids = list(dict.fromkeys(row.row_id for row in rows if row.split == split))
        positions = held.study.task.positions(Rows(split, tuple(ids))).tolist()
        found |= {(split, row_id): (split, position) for row_id, position in zip(ids, positions, strict=True)}
    return found


def _cells(
    comparison: Comparison, datum: Datum, mine: tuple[str, int], near: list[tuple[str, int]]
) -> tuple[Cell, ...]:
    """Return the cells: those that differ from the nearest rows first, those that the model does not read last."""
    outside = comparison.outside(mine, near) if near else set()
    cells = [
        Cell(
            name, in_words(comparison.value(mine, name), _VALUE),
            comparison.around(name, near) if near and name in comparison.parts else "", name in outside,
            name in comparison.parts,
        )
        for name, _ in datum.cells
    ]  # fmt: skip
    return tuple(sorted(cells, key=lambda cell: (not cell.read, not cell.differs)))


def _differing(comparison: Comparison, mine: tuple[str, int], row: BesideRow, place: tuple[str, int]) -> BesideRow:
    apart = comparison.apart(mine, place)
    names = sorted((name for name, far in apart.items() if far > _SAME), key=lambda name: -apart[name])
    said = tuple(
        (name, in_words(comparison.value(place, name)), in_words(comparison.value(mine, name)))
        for name in names[:_DIFFERENT]
    )
    return replace(row, differs=said, alike=len(apart) - len(names), columns=len(apart))
