"""A table of mixed columns as numbers: numbers, dates and truth values standardised, categories one-hot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import pyarrow as pa

from influence_core.encoder.base import Batches, Encoder, named_column
from influence_core.encoder.categories import CategoryColumn, CategoryCounts, is_category
from influence_core.encoder.numbers import NumberColumn, NumberSums, is_number
from influence_core.errors import BadInput

_WIDEST = 20_000  # encoded numbers that categories may take together
_SAMPLED = 1 << 22  # numbers held for medians, all columns together
_COUNTED = 2_000_000  # categories counted, all columns together


@final
@dataclass(frozen=True)
class ColumnsEncoder(Encoder):
    """Columns of any plain kind, side by side in their order; see ``NumberColumn`` and ``CategoryColumn``."""

    columns: tuple[NumberColumn | CategoryColumn, ...]
    kind = "columns"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many numbers a row becomes."""
        return (sum(column.width for column in self.columns),)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Return a name for each encoded number."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @cached_property
    def parts(self) -> tuple[tuple[str, slice], ...]:
        """Return each column's name and where its encoded numbers stand."""
        ends = np.cumsum([column.width for column in self.columns]).tolist()
        return tuple(
            (column.name, slice(end - column.width, end)) for column, end in zip(self.columns, ends, strict=True)
        )

    @classmethod
    def fitted(cls, batches: Batches, columns: Sequence[str], max_categories: int = 50) -> ColumnsEncoder:
        """Return the encoder with the statistics of these rows, in one pass.

        A column whose train values are all alike is left out; missing counts as a value. Memory does not grow with the
        rows: medians come from a sample of at least 1,024 numbers a column (4 million over all columns, evenly spread;
        with fewer numbers they are exact), counts of categories are exact up to 1,000 different ones a column (2
        million over all columns), after which the rarest are forgotten from time to time.

        Args:
            batches: Starts a pass over the train rows.
            columns: Those to encode.
            max_categories: The most frequent ones that get a number of their own; lower where very many columns hold
                categories, so that these take about 20,000 numbers at most.

        Raises:
            BadInput: No such column, or one of lists, bytes or other nested values.
        """
        sums: dict[str, NumberSums | CategoryCounts] = {}
        for batch in batches():
            for name in columns:
                values = named_column(batch, name)
                if name not in sums:
                    if pa.types.is_null(values.type):
                        continue
                    sums[name] = _started(name, values.type, len(columns))
                sums[name].add(values)
        n_words = sum(isinstance(one, CategoryCounts) for one in sums.values())
        most = max(2, min(max_categories, _WIDEST // max(1, n_words)))
        found = [sums[name].column(name, most) for name in columns if name in sums]
        return cls(tuple(column for column in found if column.width))

    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the encoded columns ``[n, width]``.

        Raises:
            BadInput: A column is missing, or of another type than in train.
        """
        result = np.zeros((len(rows), *self.shape), np.float32)
        for column, (name, place) in zip(self.columns, self.parts, strict=True):
            column.encode_into(named_column(rows, name), result[:, place])
        return result

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> ColumnsEncoder:
        """Make an encoder from what ``to_json`` gave, without its kind.

        Raises:
            TypeError: Options are missing or unknown.
        """
        (columns,) = (options[name] for name in options) if set(options) == {"columns"} else (None,)
        if not isinstance(columns, list):
            raise TypeError("the one option is a list 'columns'")
        kinds = {"number": NumberColumn, "date": NumberColumn, "boolean": NumberColumn, "category": CategoryColumn}
        return cls(tuple(kinds[str(one["role"])].from_json(one) for one in columns))


def _started(name: str, kind: pa.DataType, n_columns: int) -> NumberSums | CategoryCounts:
    if is_number(kind):
        return NumberSums(kind, max(1024, _SAMPLED // n_columns))
    if is_category(kind):
        return CategoryCounts(max(1000, _COUNTED // n_columns))
    raise BadInput(
        f"The column '{name}' cannot be encoded",
        f"It holds values of type {kind}.",
        "Leave it out, or turn it into numbers, dates or words.",
    )
