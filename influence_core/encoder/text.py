"""A text as weighted counts of its words and pairs of words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from influence_core.encoder.base import Batches, Encoder, named_column
from influence_core.errors import BadInput

_WORD = re.compile(r"\w+")
_ROWS_AT_ONCE = 512  # counts of this many rows are held as float64


@final
@dataclass(frozen=True)
class TextEncoder(Encoder):
    """Hashed TF-IDF of words and neighbouring pairs, in lower case, each row of length 1.

    A term's position is ``crc32(term) mod n_features``, the same in every process; terms that meet share it. Position
    j of a row is ``count_j * idf_j`` over the row's Euclidean norm, with ``idf_j = ln((1 + n) / (1 + df_j)) + 1`` and
    ``df_j`` the train rows that have it. A row without words is all zero.
    """

    column: str
    n_features: int
    idf: tuple[float, ...]
    kind = "text"

    def __post_init__(self) -> None:
        """Check that there is a weight for each position."""
        if len(self.idf) != self.n_features:
            raise ValueError(f"{len(self.idf)} weights for {self.n_features} features")

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of features."""
        return (self.n_features,)

    @classmethod
    def fitted(cls, batches: Batches, column: str, n_features: int = 2048) -> TextEncoder:
        """Return the encoder with the weights of these rows, in one pass.

        Args:
            batches: Starts a pass over the train rows.
            column: The column of texts.
            n_features: Length of an encoded row.

        Raises:
            BadInput: No such column, ``n_features`` below 1, or no row has a word.
        """
        if n_features < 1:
            raise BadInput("The number of features cannot be used", f"It is {n_features}.", "Give at least 1.")
        n_rows, with_it = 0, np.zeros(n_features)
        for batch in batches():
            for counts in _counts(batch, column, n_features):
                n_rows += len(counts)
                with_it += (counts > 0).sum(0)
        if not with_it.any():
            why = f"None of the {n_rows} train rows has a word in '{column}'."
            raise BadInput("The texts are empty", why, "Choose another text column.")
        return cls(column, n_features, tuple((np.log((1 + n_rows) / (1 + with_it)) + 1).tolist()))

    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the weighted counts ``[n, n_features]``, each row of length 1 or all zero."""
        result = np.zeros((len(rows), self.n_features), np.float32)
        weights, start = np.asarray(self.idf), 0
        for counts in _counts(rows, self.column, self.n_features):
            values = counts * weights
            norm = np.linalg.norm(values, axis=1, keepdims=True)
            result[start : start + len(values)] = values / np.where(norm > 0, norm, 1.0)
            start += len(values)
        return result

    def words(self, row: pa.Table) -> list[tuple[str, list[int]]]:
        """Return the different words and pairs of one row, as first met, each with its positions.

        Raises:
            BadInput: Not exactly one row.
        """
        if len(row) != 1:
            raise BadInput("The words of one row are asked for", f"{len(row)} rows were given.", "Give one row.")
        (text,) = _texts(row, self.column)
        return [(term, [_position(term, self.n_features)]) for term in dict.fromkeys(_terms(text))]


def _texts(rows: pa.Table, column: str) -> list[str]:
    return ["" if value is None else str(value) for value in named_column(rows, column).to_pylist()]


def _terms(text: str) -> Iterator[str]:
    """Yield every word, then every pair."""
    words = _WORD.findall(text.lower())
    yield from words
    yield from (f"{first} {second}" for first, second in zip(words, words[1:], strict=False))


def _position(term: str, n_features: int) -> int:
    return zlib.crc32(term.encode()) % n_features


def _counts(rows: pa.Table, column: str, n_features: int) -> Iterator[np.ndarray]:
    """Yield the counts ``[some rows, n_features]``, float64, of all rows in order."""
    texts = _texts(rows, column)
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        some = texts[start : start + _ROWS_AT_ONCE]
        flat = [i * n_features + _position(term, n_features) for i, text in enumerate(some) for term in _terms(text)]
        counts = np.bincount(np.asarray(flat, np.int64), minlength=len(some) * n_features)
        yield counts.reshape(len(some), n_features).astype(np.float64)
