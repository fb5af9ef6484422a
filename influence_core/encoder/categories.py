"""Columns of words: which ones are frequent in train, and a column as one number for each of those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute

from influence_core.errors import BadInput

# pyarrow makes its functions at import time, which type checkers do not see.
pc: Any = _compute
_LONGEST = 500
_GONE = -2


@dataclass(frozen=True)
class CategoryColumn:
    """A column of words: a number for each frequent one, 1 where the value is it and 0 elsewhere.

    Words are told apart by their first 500 characters.

    Attributes:
        values: The most frequent words of train, the most frequent first.
        other: Whether train has further ones, which share a number; else a word that train never had is all zero.
        missing: Whether train has missing ones, which have a number; else a missing one is all zero.
    """

    name: str
    values: tuple[str, ...]
    other: bool
    missing: bool
    role: str = "category"

    @property
    def width(self) -> int:
        """Return how many numbers a value becomes."""
        return len(self.values) + int(self.other) + int(self.missing)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return a name for each of them."""
        rest = [word for word, there in (("other", self.other), ("missing", self.missing)) if there]
        return (*(f"{self.name} = {value}" for value in self.values), *(f"{self.name} {word}" for word in rest))

    def encode_into(self, values: pa.ChunkedArray, out: np.ndarray) -> None:
        """Write the encoded values into ``[n, width]``, which holds zeros.

        Raises:
            BadInput: They are no words.
        """
        if not is_category(values.type):
            if not pa.types.is_null(values.type):
                raise BadInput(
                    f"The column '{self.name}' has changed its kind",
                    f"In train it held words, here it is {values.type}.",
                    "Restore the data from a copy, or import it again.",
                )
        place = self._places(values)
        gone = place == _GONE
        rows = np.flatnonzero(place >= 0)
        out[rows, place[rows]] = 1
        if self.other:
            out[~gone & (place < 0), len(self.values)] = 1
        if self.missing:
            out[gone, -1] = 1

    def _places(self, values: pa.ChunkedArray) -> np.ndarray:
        """Return the place ``[n]`` of every word among ``values``; -1 for another word, -2 for none."""
        whole = values.cast(pa.string()).combine_chunks()
        if isinstance(whole, pa.ChunkedArray):
            whole = pa.concat_arrays([*whole.chunks, pa.array([], pa.string())])
        found = whole.dictionary_encode()
        different = _words(found.dictionary)
        places = pc.fill_null(pc.index_in(different, value_set=pa.array(self.values, pa.string())), -1).to_numpy()
        indices = found.indices.fill_null(len(places)).to_numpy()
        return np.append(places, _GONE)[indices]

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> CategoryColumn:
        """Make a column from its fields.

        Raises:
            TypeError: Fields are missing or unknown.
        """
        return cls(**{**options, "values": tuple(options["values"])})


class CategoryCounts:
    """How often each word of a column stands in the rows so far.

    Args:
        n_counted: Different words that may be kept; beyond, the rarer half is forgotten.
    """

    def __init__(self, n_counted: int) -> None:
        """Start with no rows."""
        self.n_counted = n_counted
        self.n_missing, self.forgotten = 0, False
        self._counts: Counter[str] = Counter()

    def add(self, values: pa.ChunkedArray) -> None:
        """Add the values of a batch."""
        self.n_missing += values.null_count
        counted = pc.value_counts(values.cast(pa.string()).drop_null())
        for word, count in zip(_words(counted.field(0)).to_pylist(), counted.field(1).to_pylist(), strict=True):
            self._counts[word] += count
        if len(self._counts) > self.n_counted:
            self._counts = Counter(dict(_most(self._counts, self.n_counted // 2)))
            self.forgotten = True

    def column(self, name: str, max_categories: int) -> CategoryColumn:
        """Return the column that the rows so far make: of no width where all values are alike."""
        values = tuple(word for word, _ in _most(self._counts, max_categories))
        other = self.forgotten or len(self._counts) > len(values)
        missing = self.n_missing > 0
        if len(values) + int(other) + int(missing) < 2:
            return CategoryColumn(name, (), False, False)
        return CategoryColumn(name, values, other, missing)


def _most(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    """Return the most frequent words, equally frequent ones by the alphabet: whatever the order of rows."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]


def is_category(kind: pa.DataType) -> bool:
    """Return whether values of a type are words."""
    if pa.types.is_dictionary(kind):
        return is_category(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _words(values: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(values, 0, _LONGEST)
