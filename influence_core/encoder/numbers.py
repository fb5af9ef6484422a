"""Numbers, dates and truth values: what train says about a column, and a column in those terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from influence_core.errors import BadInput

Role = Literal["number", "date", "boolean"]
_LARGEST = 1e100  # squares of larger numbers overflow
_FURTHEST = 10.0


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers; a date is its days since 1970, a truth value 0 or 1.

    Missing (also NaN) becomes the median of train, an infinity the nearest of its smallest and largest number. Then
    ``(value - mean) / std`` with the mean and standard deviation of the train column so filled, cut at 10 either way:
    one wild value would else make a training step diverge. A second number is 1 where the value is missing.

    Attributes:
        varies: Whether train has two different numbers; else there is no first number.
        missing: Whether train has missing ones; else there is no second number.
    """

    name: str
    role: Role
    median: float
    mean: float
    std: float
    low: float
    high: float
    varies: bool
    missing: bool

    @property
    def width(self) -> int:
        """Return how many numbers a value becomes."""
        return int(self.varies) + int(self.missing)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return a name for each of them."""
        return ((self.name,) if self.varies else ()) + ((f"{self.name} missing",) if self.missing else ())

    def encode_into(self, values: pa.ChunkedArray, out: np.ndarray) -> None:
        """Write the encoded values into ``[n, width]``.

        Raises:
            BadInput: They are not of this role.
        """
        if not is_number(values.type) or role_of(values.type) != self.role:
            if not pa.types.is_null(values.type):
                raise BadInput(
                    f"The column '{self.name}' has changed its kind",
                    f"In train it held the kind '{self.role}', here it is {values.type}.",
                    "Restore the data from a copy, or import it again.",
                )
        numbers = as_numbers(values)
        gone = np.isnan(numbers)
        if self.varies:
            limited = numbers
            if not _is_plain(numbers):
                limited = np.clip(np.where(gone, self.median, numbers), -_LARGEST, _LARGEST)
                limited = np.where(np.isinf(numbers), np.clip(numbers, self.low, self.high), limited)
            scaled = np.subtract(limited, self.mean)
            scaled /= self.std
            out[:, 0] = np.clip(scaled, -_FURTHEST, _FURTHEST, out=scaled)
        if self.missing:
            out[:, -1] = gone

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> NumberColumn:
        """Make a column from its fields.

        Raises:
            TypeError: Fields are missing or unknown.
            ValueError: A standard deviation that is not above 0.
        """
        column = cls(**options)
        if not column.std > 0:
            raise ValueError(f"the standard deviation of '{column.name}' is {column.std}")
        return column


class NumberSums:
    """What is gathered about a column of numbers, batch by batch.

    Args:
        kind: The column's type.
        n_sampled: Numbers that may be kept for the median.
    """

    def __init__(self, kind: pa.DataType, n_sampled: int) -> None:
        """Start with no rows."""
        self.role: Role = role_of(kind)
        self.n_sampled = n_sampled
        self.n_missing, self.count, self.mean, self.squares = 0, 0, 0.0, 0.0
        self.low, self.high, self.infinite = np.inf, -np.inf, [0, 0]
        self._sample: list[np.ndarray] = []
        self._kept, self._seen, self._every = 0, 0, 1

    def add(self, values: pa.ChunkedArray) -> None:
        """Add the values of a batch."""
        finite = numbers = as_numbers(values)
        if not _is_plain(numbers):
            given = numbers[~np.isnan(numbers)]
            self.n_missing += len(numbers) - len(given)
            finite = np.clip(given[np.isfinite(given)], -_LARGEST, _LARGEST)
            self.infinite[0] += int((given == -np.inf).sum())
            self.infinite[1] += int((given == np.inf).sum())
        if not len(finite):
            return
        self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        mean = float(finite.mean())
        self._merge(len(finite), mean, float(np.square(finite - mean).sum()))
        self._keep(finite)

    def _merge(self, count: int, mean: float, squares: float) -> None:
        """Add a group of numbers, given its mean and its sum of squares about it (Chan, Golub and LeVeque, 1983)."""
        if not count:
            return
        total, step = self.count + count, mean - self.mean
        self.squares += squares + step * step * self.count * count / total
        self.mean += step * count / total
        self.count = total

    def _keep(self, numbers: np.ndarray) -> None:
        """Keep every k-th number, k doubled whenever too many are held."""
        first = -self._seen % self._every
        self._seen += len(numbers)
        self._sample.append(numbers[first :: self._every])
        self._kept += len(self._sample[-1])
        while self._kept > self.n_sampled:
            self._sample = [np.concatenate(self._sample)[::2]]
            self._kept, self._every = len(self._sample[0]), self._every * 2

    def column(self, name: str, max_categories: int) -> NumberColumn:
        """Return the column that the rows so far make."""
        del max_categories
        median = float(np.median(np.concatenate(self._sample))) if self._sample else 0.0
        low, high = (self.low, self.high) if self._sample else (0.0, 0.0)
        varies = low < high
        self._merge(self.infinite[0], low, 0.0)
        self._merge(self.infinite[1], high, 0.0)
        known = self.count
        self._merge(self.n_missing, median, 0.0)
        std = float(np.sqrt(self.squares / max(1, self.count)))
        varies = varies and std > 0
        missing = 0 < self.n_missing and 0 < known
        return NumberColumn(name, self.role, median, self.mean, std if varies else 1.0, low, high, varies, missing)


def _is_plain(numbers: np.ndarray) -> bool:
    """Return whether no number is missing, infinite or huge: most columns need no look at each value."""
    return bool(-_LARGEST <= numbers.min(initial=0.0) and numbers.max(initial=0.0) <= _LARGEST)


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of a type are numbers, dates or truth values."""
    types = pa.types
    plain = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    return plain or types.is_date(kind) or types.is_timestamp(kind)


def role_of(kind: pa.DataType) -> Role:
    """Return what values of a numeric type are."""
    if pa.types.is_boolean(kind):
        return "boolean"
    return "date" if pa.types.is_date(kind) or pa.types.is_timestamp(kind) else "number"


def as_numbers(values: pa.ChunkedArray) -> np.ndarray:
    """Return a column as float64 ``[n]``, missing as NaN, dates in days since 1970."""
    kind = values.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        unit = "s" if pa.types.is_date(kind) else kind.unit
        whole = values.cast(pa.timestamp("s") if pa.types.is_date(kind) else kind).cast(pa.int64())
        per_day = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        return whole.cast(pa.float64(), safe=False).to_numpy() / per_day
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    return values.cast(pa.float64(), safe=False).to_numpy()
