"""From rows of cells to batches of text columns, in bounded memory; and what column names may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from influence_core.errors import BadInput
from influence_core.readers import limits

Cells = Sequence[str | None]


def cleaned_names(names: Sequence[str], where: str) -> list[str]:
    """Return usable column names: trimmed, the unnamed ones called ``column 1`` and so on by their place.

    Args:
        names: As they stand in the file; equal ones are left to the caller.
        where: The file, for messages.

    Raises:
        BadInput: Too many columns, or a name that is no name.
    """
    if len(names) > limits.MAX_COLUMNS:
        why = f"{where} has {len(names):,} columns; {limits.MAX_COLUMNS:,} can be read."
        raise BadInput("The table has too many columns", why, "Keep the columns that matter, or check the separator.")
    taken, cleaned = set(), []
    for place, name in enumerate(names, 1):
        text = "".join(c if c.isprintable() else " " for c in name).strip()
        if len(text) > limits.MAX_NAME:
            why = f"{where}: column {place} begins with '{text[:40]}' and goes on for {len(text):,} characters."
            raise BadInput("A column name is too long", why, "Check that the first line holds the column names.")
        if not text:
            text = f"column {place}"
            while text in taken or text in names:
                text += "_"
        taken.add(text)
        cleaned.append(text)
    return cleaned


def string_batches(rows: Iterable[Cells], n_columns: int, chars: Callable[[], int]) -> Iterator[list[pa.Array]]:
    """Yield the rows as text columns, cut where a batch has enough rows, cells or characters.

    Args:
        rows: Cells, every row ``n_columns`` long; None is missing.
        n_columns: Number of columns.
        chars: Characters read so far.
    """
    most = max(1, min(limits.ROWS_AT_ONCE, limits.CELLS_AT_ONCE // n_columns))
    source = iter(rows)
    while True:
        before, block = chars(), list(islice(source, 1))
        if not block:
            return
        for row in islice(source, most - 1):
            block.append(row)
            if chars() - before > limits.CHARS_AT_ONCE:
                break
        yield [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
