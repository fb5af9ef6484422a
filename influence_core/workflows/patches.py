"""Patches: the changes that reviewers decided, as a file; replayed on the data they are of, or on newer data.

What a patch wants is compared with what the data say now: a row whose label is no longer the one that was reviewed is a
conflict and stays as it is, a row that is gone is missing, one that has its new label already needs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.changes import COLUMNS, Change, changes_of_table, patch_table, same_label
from influence_core.errors import BadInput
from influence_core.study import Study
from influence_core.tables import FORMATS, reading, table_bytes

_RISKY = ("=", "+", "-", "@", "\t", "\r", "'")
_LABEL = re.compile(r"; the label is '(.*)'\.\s*$")
_NO_PATCH = "Give a patch as `export --patch` writes it: CSV, JSON or Parquet."


@dataclass(frozen=True)
class Outcome:
    """What became of one change: ``result`` is applied, already, conflict or missing; ``found`` the label there now."""

    change: Change
    result: str
    found: str | None = None


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
        counts = ", ".join(f"{len(self.of(name)):,} {said}" for name, said in _SAID.items())
        lines = [f"{o.change.split} row {o.change.row}: the label is {o.found!r}, but {o.change.old!r} was reviewed"
                 for o in self.of("conflict")]  # fmt: skip
        lines += [f"{o.change.split} row {o.change.row}: not there" for o in self.of("missing")]
        return "\n".join([f"{counts}.", *lines])


_SAID = {"applied": "applied", "already": "so already", "conflict": "in conflict", "missing": "missing"}


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
                table[name] = [f"'{v}" if isinstance(v, str) and v.startswith(_RISKY) else v for v in table[name]]
        return table.to_csv(index=False).encode()
    return table_bytes(table, format)


def read_patch(path: Path, study: Study) -> list[Change]:
    """Return the changes in a patch file.

    Raises:
        BadInput: It is no patch, or a line of it says nothing that can be done.
    """
    format = path.suffix.lower().lstrip(".")
    if format not in FORMATS:
        raise BadInput("This is no patch", f"{path.name} is no {', '.join(FORMATS)} file.", _NO_PATCH)
    try:
        with reading(path, "The patch cannot be read", _NO_PATCH):
            table = _loaded(path, format)
    except FileNotFoundError:
        raise BadInput("There is no such patch", f"{path} does not exist.", _NO_PATCH) from None
    return changes_of_table(table, ids_are_numbers=ids_are_numbers(study))


def _loaded(path: Path, format: str) -> pd.DataFrame:
    if format == "parquet":
        return pq.read_table(path).to_pandas()
    if format == "json":
        records = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise ValueError("it is no list of objects")
        return pd.DataFrame(records, columns=None if records else list(COLUMNS), dtype=object)
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return table.map(lambda v: v[1:] if v[:1] == "'" and v[1:].startswith(_RISKY) else v)


def whole_table(study: Study) -> pa.Table:
    """Return all rows of a study, each with its ``split``, in the order in which they were given where that is known.

    Rows that the import numbered are sorted by their number; others stay in the order of their split.
    """
    parts = []
    for split in study.splits:
        table = study.rows(split, range(study.n_rows(split)))
        parts.append(table.append_column(_free("split", table), pa.array([split] * len(table), pa.string())))
    table = pa.concat_tables(parts, promote_options="permissive")
    ids = table[study.header.id].to_numpy()
    if ids.dtype.kind in "iu" and np.array_equal(np.sort(ids), np.arange(1, len(ids) + 1)):
        table = table.take(pa.array(np.argsort(ids, kind="stable")))
    return table


def _free(name: str, table: pa.Table) -> str:
    while name in table.column_names:
        name += "_"
    return name


def replayed(study: Study, changes: Sequence[Change]) -> Replay:
    """Apply changes to the rows of a study; nothing of the study is changed.

    A dropped row is gone from the table; the weight of a row is in a column ``weight``, which is there if any row has
    one. Locked rows are in the table as they are.

    Args:
        study: The data that the changes are of, or a newer version of it.
        changes: What is to become of its rows.
    """
    table = whole_table(study)
    header, split_column = study.header, table.column_names[-1]
    is_number = header.task == "regression"
    labels: list[Any] = table[header.label].to_pylist()
    where = {pair: i for i, pair in enumerate(zip(table[split_column].to_pylist(), table[header.id].to_pylist(),
                                                  strict=True))}  # fmt: skip
    weights, kept, outcomes = np.ones(len(table)), np.ones(len(table), bool), []
    for change in changes:
        place = where.get((change.split, change.row))
        found = None if place is None else str(labels[place])
        outcome = Outcome(change, _result(change, found, is_number), found)
        outcomes.append(outcome)
        if place is None or outcome.result != "applied":
            continue
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
        table = table.append_column(_free("weight", table), pa.array(weights))
    return Replay(table.filter(pa.array(kept)), tuple(outcomes))


def _result(change: Change, found: str | None, is_number: bool) -> str:
    if found is None:
        return "already" if change.action == "drop" else "missing"
    if change.action == "keep":
        return "already"
    if change.action == "relabel" and same_label(found, change.new, is_number=is_number):
        return "already"
    agrees = change.old is None or same_label(found, change.old, is_number=is_number)
    return "applied" if agrees else "conflict"


def _as_label(change: Change, is_number: bool) -> Any:
    if not is_number:
        return change.new
    try:
        return float(str(change.new).replace(",", "").replace("−", "-"))
    except ValueError:
        why = f"{change.split} row {change.row}: the new label is {change.new!r}."
        raise BadInput("A new label is no number", why, "Correct the label in the patch.") from None


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


def with_labels_found(changes: Sequence[Change], study: Study) -> list[Change]:
    """Return changes whose old label, where it was not kept, is the one in the data now."""
    known: dict[str, dict[Any, str]] = {}
    for split in {change.split for change in changes if change.old is None} & set(study.splits):
        ids = study.column(split, study.header.id).tolist()
        known[split] = dict(zip(ids, map(str, study.column(split, study.header.label).tolist()), strict=True))
    return [
        replace(change, old=known.get(change.split, {}).get(change.row)) if change.old is None else change
        for change in changes
    ]
