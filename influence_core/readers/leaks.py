"""Columns that give the label away: each is asked alone how well it tells the label of rows it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute

from influence_core.primitives.statistics import wilson_interval
from influence_core.readers import limits
from influence_core.readers.roles import Roles, used_columns
from influence_core.readers.sources import Source

pc: Any = _compute
_CELLS = 1_000_000  # looked at: with very many columns, fewer rows of each
_ROWS = (1000, 20_000)  # fewest and most
_BINS = 32  # of a column of numbers
_WORDS = 512  # different values of a column; rarer ones are one
_FOLDS = 2
_ALONE = 0.85  # of the errors of guessing that a column must take away by itself
_FAR = 0.5  # the other columns' median power may be up to this part of its own
_PURE = 0.8  # of the errors of guessing that one value, or having any, must take away among the rows that have it
_SIDE = (30, 0.01)  # rows, and share of them, that such a value must have
_COMMON = 0.8  # a label that this share of the rows has is no news
_known: WeakKeyDictionary[Source, dict[Any, Any]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Leak:
    """A column that may give the label away.

    Attributes:
        column: Its name.
        why: What was seen, as the end of a sentence that begins with the column.
    """

    column: str
    why: str


@dataclass(frozen=True)
class Power:
    """What a column says of the label by itself.

    Attributes:
        alone: Share of the errors of guessing that it takes away on rows not seen, at least (lower end of an interval).
        leak: Why it may give the label away, if the other columns are weak.
    """

    alone: float
    leak: str = ""


def powers(
    bins: Mapping[str, np.ndarray], label: pa.ChunkedArray, task: Literal["classification", "regression"]
) -> dict[str, Power]:
    """Return what each column says of the label by itself, measured on rows that were not used to learn it.

    For each bin of a column the commonest label (the mean rank of a number) of one half of the rows answers for the
    other half. Besides, a column that is empty in some rows, or has two values, is asked whether one side is nearly
    always one label: dates and flags that are filled in after the outcome look like that.

    Args:
        bins: Column -> each row's bin ``[n]``, 0 for missing, as ``binned`` returns them.
        label: The label of the rows, missing ones among them.
        task: Whether it names classes.

    Returns:
        The power of every column.
    """
    given = _given(label).to_numpy(zero_copy_only=False)
    if given.sum() < _SIDE[0]:
        return {name: Power(0.0) for name in bins}
    known = label.filter(pa.array(given))
    # Halves that do not depend on the order of the rows in the file.
    fold = np.random.default_rng(0).permutation(len(known)) % _FOLDS
    if task == "regression":
        values = known.cast(pa.float64()).to_numpy()
        ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)
        return {name: _number_power(found[given].astype(np.int64), ranks, fold) for name, found in bins.items()}
    names, labels = np.unique(np.asarray(known.to_pylist()).astype(str), return_inverse=True)
    if len(names) > limits.MAX_CLASSES:
        return {name: Power(0.0) for name in bins}
    return {name: _class_power(found[given].astype(np.int64), labels, names, fold) for name, found in bins.items()}


def binned(sample: pa.Table) -> dict[str, np.ndarray]:
    """Return each row's bin ``[n]``, int16, of every column that is not nested.

    Values are put into at most 32 bins of equal size (numbers, dates) or kept (words); missing is a bin of its own, 0.
    With very many columns fewer rows are taken.
    """
    rows = sample.slice(0, int(np.clip(_CELLS / max(1, sample.num_columns), *_ROWS)))
    found = {name: _bins(rows[name]) for name in rows.column_names}
    return {name: bins.astype(np.int16) for name, bins in found.items() if bins is not None}


def found_leaks(source: Source, roles: Roles) -> tuple[Leak, ...]:
    """Return the columns that the model would read and that may give the label away, found in the first rows.

    Each column's bins, and the powers for a label, are worked out once for a source.
    """
    if roles.text is not None:
        return ()
    held = _known.setdefault(source, {})
    if "bins" not in held:
        sample = source.head(limits.SAMPLE_ROWS)
        held["bins"], held["labels"] = binned(sample), sample
    key = (roles.label, roles.task)
    if key not in held:
        bins = {name: found for name, found in held["bins"].items() if name != roles.label}
        label = held["labels"][roles.label].slice(0, len(next(iter(bins.values()), ())))
        held[key] = powers(bins, label, roles.task)
    return leaks({name: held[key][name] for name in used_columns(source, roles) if name in held[key]})


def leak_notes(found: Sequence[Leak]) -> list[str]:
    """Return what a person should know of these columns, in sentences."""
    return [
        f"'{leak.column}' may give the label away: {leak.why}. If it was recorded after the outcome, leave it out."
        for leak in found
    ]


def leaks(found: dict[str, Power]) -> tuple[Leak, ...]:
    """Return the columns whose power stands far above the others' and is near to knowing the label.

    Args:
        found: The power of the columns that the model would read.
    """
    alone = np.asarray([power.alone for power in found.values()])
    result = []
    for place, (name, power) in enumerate(found.items()):
        rest = np.delete(alone, place)
        weak = len(rest) > 0 and float(np.median(rest)) <= _FAR * max(power.alone, _ALONE)
        if power.leak and weak:
            result.append(Leak(name, power.leak))
    return tuple(result)


def _given(values: pa.ChunkedArray) -> Any:
    given = pc.is_valid(values)
    return pc.and_(given, pc.invert(pc.fill_null(pc.is_nan(values), False))) if _floating(values) else given


def _floating(values: pa.ChunkedArray) -> bool:
    return pa.types.is_floating(values.type)


def _bins(values: pa.ChunkedArray) -> np.ndarray | None:
    """Return each value's bin ``[n]``, 0 for missing; None where the values are nested."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        codes = values.combine_chunks().dictionary_encode()
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        found = pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
        if found.max(initial=0) <= _WORDS:
            return found
        counts = np.bincount(found)
        rank = np.empty(len(counts), np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return np.where(found > 0, 1 + np.minimum(rank[found], _WORDS), 0)
    if not (pa.types.is_integer(kind) or _floating(values) or pa.types.is_timestamp(kind)):
        return None
    return _number_bins(values)


def _number_bins(values: pa.ChunkedArray) -> np.ndarray:
    numbers = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
    given = _given(values).to_numpy(zero_copy_only=False)
    plain = pc.fill_null(numbers, 0).to_numpy().astype(np.float64)
    known = plain[given]
    if not len(known):
        return np.zeros(len(plain), np.int64)
    different = np.unique(known)
    if len(different) <= _BINS:
        inner = different[1:]
    else:
        inner = np.unique(np.sort(known)[np.arange(1, _BINS) * len(known) // _BINS])
    return np.where(given, 1 + np.searchsorted(inner, plain, side="right"), 0)


def _number_power(bins: np.ndarray, ranks: np.ndarray, fold: np.ndarray) -> Power:
    """Return one minus the squared error of a bin's mean rank, over that of the mean."""
    wrong = 0.0
    for part in range(_FOLDS):
        seen, asked = fold != part, fold == part
        n = bins.max() + 1
        counts = np.bincount(bins[seen], minlength=n)
        mean = ranks[seen].mean()
        means = np.where(counts, np.bincount(bins[seen], ranks[seen], minlength=n) / np.maximum(counts, 1), mean)
        wrong += float(((ranks[asked] - means[bins[asked]]) ** 2).sum())
    share = 1 - wrong / max(float(((ranks - ranks.mean()) ** 2).sum()), 1e-12)
    leak = f"alone it explains {share:.0%} of the differences in the label" if share >= 0.95 else ""
    return Power(max(0.0, share), leak)


def _class_power(bins: np.ndarray, labels: np.ndarray, names: np.ndarray, fold: np.ndarray) -> Power:
    n = len(labels)
    k = int(labels.max()) + 1
    right = 0
    for part in range(_FOLDS):
        seen, asked = fold != part, fold == part
        table = np.bincount(bins[seen] * k + labels[seen], minlength=(int(bins.max()) + 1) * k).reshape(-1, k)
        answer = np.where(table.sum(1) > 0, table.argmax(1), np.bincount(labels[seen], minlength=k).argmax())
        right += int((answer[bins[asked]] == labels[asked]).sum())
    base = float(np.bincount(labels).max()) / n
    low = (wilson_interval(right, n)[0] - base) / max(1 - base, 1e-12)
    if low >= _ALONE:
        return Power(low, f"alone it tells the label of {_share(right / n)} of the rows (guessing: {_share(base)})")
    return Power(max(0.0, low), _telling_side(bins, labels, names))


def _telling_side(bins: np.ndarray, labels: np.ndarray, names: np.ndarray) -> str:
    """Say which side of a column that is empty or filled, or has two values, nearly always has one label; or ""."""
    n, empty = len(labels), bins == 0
    sides = [(~empty, "where it has a value"), (empty, "where it is empty")]
    values = np.unique(bins[~empty])
    if len(values) == 2:
        sides += [(bins == value, "where it has one of its two values") for value in values.tolist()]
    totals = np.bincount(labels) / n
    for side, where in sides:
        count = int(side.sum())
        if count < max(_SIDE[0], _SIDE[1] * n) or count == n:
            continue
        found = np.bincount(labels[side], minlength=len(totals))
        best = int(found.argmax())
        low = wilson_interval(int(found[best]), count)[0]
        if totals[best] <= _COMMON and (low - totals[best]) / (1 - totals[best]) >= _PURE:
            share = _share(found[best] / count)
            return f"{where}, the label is '{str(names[best])[:40]}' in {share} of {count:,} rows"
    return ""


def _share(value: float) -> str:
    return f"{value:.0%}" if round(value, 2) < 1 or value == 1 else f"{value:.3%}"
