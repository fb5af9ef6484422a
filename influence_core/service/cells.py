"""What a card shows of a row's content: the cells of a table, the words of a text."""

from __future__ import annotations

import datetime
from collections import Counter

import numpy as np
import pyarrow as pa

from influence_core.encoder import (
    ColumnsEncoder,
    Encoder,
    SentenceEncoder,
    TableEncoder,
    TensorEncoder,
    TensorInput,
    TextEncoder,
)
from influence_core.service.opened import OpenStudy

TEXT = "text"  # the column of a tensor study that people read
_CELLS_ON_CARD = 6
_NUMBERS_ON_PAGE = 64
_TEXT_ON_CARD = 300
_VALUE_ON_CARD = 80
_SAMPLE = 512


def row_texts(rows: pa.Table, encoder: Encoder, whole: bool) -> list[str | None]:
    """Return the text of every row, cut at the end of a word where the card is small; None for what is no text."""
    column = getattr(encoder, "column", None) if isinstance(encoder, TextEncoder | SentenceEncoder) else None
    if isinstance(encoder, TensorEncoder) and TEXT in rows.column_names:
        column = TEXT
    if column is None:
        return [None] * len(rows)
    texts = ["" if value is None else str(value) for value in rows.column(column).to_pylist()]
    return list(texts) if whole else [cut(text, _TEXT_ON_CARD) for text in texts]


def cut(text: str, length: int) -> str:
    """Return a text of at most ``length`` letters, and an ellipsis where it was longer."""
    if len(text) <= length:
        return text
    head = text[:length]
    # At a word's end, but a single endless word is cut anywhere.
    return (head.rsplit(maxsplit=1)[0] if len(head.split()) > 1 else head) + "…"


def row_cells(rows: pa.Table, held: OpenStudy, all_cells: bool) -> list[tuple[tuple[str, str], ...]]:
    """Return ``(column, value)`` per row, the values furthest from the train mean first."""
    encoder = held.study.encoder
    if isinstance(encoder, ColumnsEncoder):
        return _mixed_cells(rows, held, encoder, all_cells)
    if isinstance(encoder, TensorEncoder):
        return _shown_cells(rows, held, encoder, all_cells)
    if not isinstance(encoder, TableEncoder):
        return [()] * len(rows)
    distance = np.abs(encoder.encoded(rows))
    values = np.stack([rows.column(name).to_numpy() for name in encoder.columns], 1)
    count = len(encoder.columns) if all_cells else _CELLS_ON_CARD
    order = np.argsort(-distance, axis=1, kind="stable")[:, :count]
    return [
        tuple((encoder.columns[j], f"{values[i, j]:.4g}") for j in columns) for i, columns in enumerate(order.tolist())
    ]


def shown_columns(held: OpenStudy, split: str) -> list[str]:
    """Return the columns of a tensor study that people look at: all but id, label and what the model is called with."""
    header, encoder = held.study.header, held.study.encoder
    hidden = {header.id, header.label}
    if isinstance(encoder, TensorEncoder):
        hidden |= {one.column for one in encoder.inputs}
    return [name for name in held.study.column_names(split) if name not in hidden]


def _shown_cells(
    rows: pa.Table, held: OpenStudy, encoder: TensorEncoder, all_cells: bool
) -> list[tuple[tuple[str, str], ...]]:
    """Return the shown columns; of a row that has none, and is neither picture nor text, its first numbers."""
    inputs = {one.column for one in encoder.inputs}
    header = held.study.header
    names = [name for name in rows.column_names if name not in {header.id, header.label, TEXT, *inputs}]
    if names:
        shown = {name: [in_words(value) for value in rows.column(name).to_pylist()] for name in names}
        kept = names if all_cells else names[:_CELLS_ON_CARD]
        return [tuple((name, shown[name][i]) for name in kept) for i in range(len(rows))]
    if encoder.picture is not None or TEXT in rows.column_names:
        return [()] * len(rows)
    limit, cells = _NUMBERS_ON_PAGE if all_cells else _CELLS_ON_CARD, [[] for _ in range(len(rows))]
    for one in encoder.inputs:
        values = one.read(rows).reshape(len(rows), -1)[:, :limit]
        for row, numbers in zip(cells, values.tolist(), strict=True):
            row += [(number_name(one, j), in_words(value)) for j, value in enumerate(numbers)]
    return [tuple(row[:limit]) for row in cells]


def number_name(one: TensorInput, place: int) -> str:
    """Return what a number of an input is called, by its place in the row: ``value 3``, ``input_ids [0, 2]``."""
    index = [int(i) for i in np.unravel_index(place, one.shape or (1,))]
    shown = str(index[0]) if len(index) == 1 else str(index)
    return f"{one.name} {shown}" if one.name else f"value {shown}"


def _mixed_cells(
    rows: pa.Table, held: OpenStudy, encoder: ColumnsEncoder, all_cells: bool
) -> list[tuple[tuple[str, str], ...]]:
    """Return cells as they stand in the table; a column is as far out as the furthest of its encoded numbers."""
    columns = [name for name, _ in encoder.parts]
    mean, std = _train_moments(held)
    distance = np.abs(encoder.encoded(rows) - mean) / std
    by_column = np.stack([distance[:, place].max(1) for _, place in encoder.parts], 1)
    order = np.argsort(-by_column, axis=1, kind="stable")
    shown = {name: [in_words(value) for value in rows.column(name).to_pylist()] for name in rows.column_names}
    header = held.study.header
    others = [name for name in rows.column_names if name not in (header.id, header.label, *columns)]
    result = []
    for i, places in enumerate(order.tolist()):
        names = [columns[j] for j in places] + others
        result.append(tuple((name, shown[name][i]) for name in (names if all_cells else names[:_CELLS_ON_CARD])))
    return result


def in_words(value: object, length: int = _VALUE_ON_CARD) -> str:
    """Return a value of a table as a card shows it: missing as a dash, a number short, else at most ``length`` long."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e12 else f"{value:.0f}"
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return cut(str(value), length)


def _train_moments(held: OpenStudy) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the encoded numbers over rows of train; a constant one has the scale 1."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        values = held.study.encoder.encoded(held.study.rows("train", _spread(held.study.n_rows("train"))))
        std = values.std(0)
        return values.mean(0), np.where(std > 0, std, 1.0)

    return held.remembered(("train moments",), make)


def _spread(n: int) -> list[int]:
    """Return positions evenly spread over ``n`` rows: all, or as many as a sample has."""
    return np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)).tolist()


def word_contributions(encoder: TextEncoder, row: pa.Table, values: np.ndarray) -> list[tuple[str, float]]:
    """Return what each word and pair of words of a text contributes, in the order in which they first stand there.

    Args:
        encoder: Says at which places a word is counted.
        row: One row.
        values: Contributions of the encoded numbers ``[n_features]``.

    Returns:
        ``(words, contribution)``, which add up to the sum of ``values``; those that share a place have equal parts.
    """
    words = encoder.words(row)
    sharers = Counter(place for _, places in words for place in places)
    return [(word, sum(float(values[place]) / sharers[place] for place in places)) for word, places in words]
