"""Patches: the changes that reviewers decided, as a file; and the cleaned data in the shape in which they came."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.changes import Change, changes_of_table, patch_table
from influence_core.errors import BadInput
from influence_core.row_content import content_hashes
from influence_core.study import Study
from influence_core.tables import FORMATS, reading, table_bytes
from influence_core.workflows.patch_tables import RISKY, patch_rows

_LABEL = re.compile(r"; the label is '(.*)'\.\s*$")
_NO_PATCH = "Give a patch as `export --patch` writes it: CSV, JSON or Parquet."


def ids_are_numbers(study: Study) -> bool:
    """Tell whether the row ids of a study are numbers."""
    return study.column("train", study.header.id).dtype.kind in "iu"


def patch_bytes(changes: Sequence[Change], format: str) -> bytes:
    """Return a patch as a file; what a spreadsheet would run as a formula gets an apostrophe, which reading takes off.

    Raises:
        BadInput: Unknown format.
    """
    table = patch_table(changes)
    if format == "csv":
        for name in table.columns:
            if name != "weight":
                table[name] = [f"'{v}" if isinstance(v, str) and v.startswith(RISKY) else v for v in table[name]]
        return table.to_csv(index=False).encode()
    return table_bytes(table, format)


def read_patch(path: Path, study: Study, title: str = "", most: int | None = None) -> list[Change]:
    """Return the changes in a patch file.

    Args:
        path: The file; its ending says its format.
        study: The study that they are about.
        title: What messages call the file; default its path.
        most: Refuse a patch of more lines than this.

    Raises:
        BadInput: It is no patch, or a line of it says nothing that can be done.
    """
    format = path.suffix.lower().lstrip(".")
    if format not in FORMATS:
        raise BadInput("This is no patch", f"{title or path.name} is no {', '.join(FORMATS)} file.", _NO_PATCH)
    try:
        with reading(Path(title or path), "The patch cannot be read", _NO_PATCH):
            table = patch_rows(path, format, most)
    except FileNotFoundError:
        raise BadInput("There is no such patch", f"{path} does not exist.", _NO_PATCH) from None
    return changes_of_table(table, ids_are_numbers=ids_are_numbers(study))


def whole_table(study: Study) -> pa.Table:
    """Return all rows of a study, each with its ``split``, in the order in which they were given where that is known.

    Rows that the import numbered are sorted by their number; others stay in the order of their split.
    """
    parts = []
    for split in study.splits:
        table = study.rows(split, range(study.n_rows(split)))
        parts.append(table.append_column(free_name("split", table), pa.array([split] * len(table), pa.string())))
    table = pa.concat_tables(parts, promote_options="permissive")
    ids = table[study.header.id].to_numpy()
    if ids.dtype.kind in "iu" and np.array_equal(np.sort(ids), np.arange(1, len(ids) + 1)):
        table = table.take(pa.array(np.argsort(ids, kind="stable")))
    return table


def free_name(name: str, table: pa.Table) -> str:
    """Return the name, with underscores behind it if the table has it already."""
    while name in table.column_names:
        name += "_"
    return name


def users_shape(study: Study, table: pa.Table) -> pa.Table:
    """Return the table under the names that the user's own file had, as far as the study knows them.

    The label gets its own name back, and columns that made room for ours theirs; then the number that the import gave
    a row is left out. Columns that the import left out are not known.
    """
    header = study.header
    label = users_label(study)
    names = [str(name) for name in table.column_names]
    renamed = {f"original {name}": name for name in ("id", "label")}
    shown: list[str] = [renamed.get(name.rstrip("_"), name) if name.startswith("original ") else name for name in names]
    shown = [label if name == header.label else new for name, new in zip(names, shown, strict=True)]
    table = table.rename_columns(_distinct(shown, names))
    if shown.count(header.id) > 1:  # the user's own column of that name is there: ours was the import's number
        table = table.remove_column(names.index(header.id))
        table = table.rename_columns([name if name != f"original {header.id}" else header.id
                                      for name in table.column_names])  # fmt: skip
    return table


def users_label(study: Study) -> str:
    """Return the name that the label's column had in the user's own file, as far as the study knows it."""
    named = _LABEL.search(study.header.description)
    return str(named.group(1)) if named and study.header.label == "label" else study.header.label


def _distinct(wanted: Sequence[str], before: Sequence[str]) -> list[str]:
    """Return the wanted names where nobody else has them, else those before."""
    return [new if wanted.count(new) == 1 else old for new, old in zip(wanted, before, strict=True)]


def data_bytes(table: pa.Table, format: str) -> bytes:
    """Return cleaned data as a file; only CSV makes formulas inert, and writes lists as JSON.

    Raises:
        BadInput: Unknown format, or pictures in one that holds only texts.
    """
    if format == "parquet":
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        return buffer.getvalue().to_pybytes()
    raw = [
        field.name for field in table.schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    ]
    if raw:
        why = f"Column '{raw[0]}' holds files, which {format} cannot keep."
        raise BadInput("This format cannot hold the data", why, "Use parquet.")
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    frame = pd.DataFrame({name: table[name].to_pylist() if name in nested else table[name].to_pandas()
                          for name in table.column_names})  # fmt: skip
    if format == "csv":
        for name in nested:
            frame[name] = [json.dumps(value) for value in frame[name]]
    return table_bytes(frame, format)


def suffix(path: Path) -> str:
    """Return the format that a file's name asks for.

    Raises:
        BadInput: It asks for none that can be written.
    """
    format = path.suffix.lower().lstrip(".")
    if format not in FORMATS:
        fix = f"End its name in .{', .'.join(FORMATS)}."
        raise BadInput("Unknown format", f"The file is called {path.name}.", fix)
    return format


def with_rows_seen(changes: Sequence[Change], study: Study) -> list[Change]:
    """Return changes that know their row: its content, and its label where it was not kept, as the data are now.

    Args:
        changes: Changes of rows of this very study.
        study: The study.
    """
    seen: dict[tuple[str, Any], tuple[str, str]] = {}
    for split in {change.split for change in changes} & set(study.splits):
        wanted = {change.row for change in changes if change.split == split}
        rows = study.column(split, study.header.id).tolist()
        places = [i for i, row in enumerate(rows) if row in wanted]
        labels = study.column(split, study.header.label)
        hashes = content_hashes(study, split, places)
        seen |= {(split, rows[i]): (str(labels[i]), said) for i, said in zip(places, hashes, strict=True)}
    return [_seen(change, *seen.get((change.split, change.row), (None, ""))) for change in changes]


def _seen(change: Change, label: str | None, content: str) -> Change:
    return replace(change, old=label if change.old is None else change.old, content=change.content or content)


def merged(patches: Sequence[Sequence[Change]]) -> tuple[list[Change], list[tuple[Change, ...]]]:
    """Return the changes of several patches as one, and those that contradict each other, which are in none.

    Patches agree about a row if they come to the same: the names of those who decided and their comments are joined.

    Args:
        patches: The changes of each.

    Returns:
        The changes in the order in which they first appear; and for each row in dispute what the patches say of it.
    """
    by_row: dict[tuple[str, int | str], list[Change]] = {}
    for change in chain.from_iterable(patches):
        by_row.setdefault((change.split, change.row), []).append(change)
    agreed, disputed = [], []
    for said in by_row.values():
        if len({(c.action, c.new, c.weight, c.content) for c in said}) > 1:
            disputed.append(tuple(said))
        else:
            agreed.append(_joined(said))
    return agreed, disputed


def _joined(said: Sequence[Change]) -> Change:
    last = max(said, key=lambda change: change.at)
    names = ", ".join(dict.fromkeys(name for change in said for name in change.reviewer.split(", ") if name))
    comments = " / ".join(dict.fromkeys(change.comment for change in said if change.comment))
    return replace(last, reviewer=names, comment=comments)
