"""What each column of a user's table is for: guessed from names and values, corrected by the user, checked."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from pydantic import Field

from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.sources import ColumnInfo, Source
from influence_core.readers.splits import SPLIT_WORDS, content_hashes

_LABELS = ("label", "labels", "target", "class", "y", "outcome", "spam", "is_spam", "two_year_recid", "survived",
           "diagnosis", "species", "sentiment", "churn", "default", "fraud", "is_fraud", "response")  # fmt: skip
_SPLITS = ("split", "set", "fold", "partition", "subset", "dataset_split")
_ID = re.compile(r"(^|[_ ])(id|uuid|guid|key)$|^(index|column 1|unnamed: 0|row)$", re.IGNORECASE)
_UNNAMED = re.compile(r"^(column \d+_*|unnamed: \d+)$", re.IGNORECASE)
_FEW = 20  # different whole numbers up to which a label names classes
_LARGEST = 1e15  # of a number to learn: its square must be far from what float32 holds
_HUGE = 1e30  # of a feature; infinite ones are clipped to the range of train
_MANY_COLUMNS = 8  # usable columns from which a table with a text is a table


class Roles(Config):
    """What each column is for."""

    label: str = Field(min_length=1, description="The column that the model learns to say.")
    task: Literal["classification", "regression"] = Field("classification", description="Whether it names classes.")
    id: str | None = Field(None, description="A column with a different whole number or text in every row.")
    text: str | None = Field(None, description="The text that the model reads; other columns are then only shown.")
    split: str | None = Field(None, description="A column that says train, test or locked.")
    features: tuple[str, ...] = Field(
        default=(), description="Columns that the model reads; none named: all that can be used."
    )
    ignored: tuple[str, ...] = Field(default=(), description="Columns that are left out of the study.")


def used_columns(source: Source, roles: Roles) -> tuple[str, ...]:
    """Return the columns that the model reads.

    Those named, or every column without another role whose values can tell rows apart: constant columns, words that
    hardly ever repeat (names, file numbers), columns that number the rows, texts, and nested values cannot.
    """
    if roles.text is not None:
        return (roles.text,)
    if roles.features:
        return roles.features
    other = {roles.label, roles.id, roles.split, *roles.ignored}
    return tuple(info.name for info in source.columns if info.name not in other and _usable(info, source))


def _usable(info: ColumnInfo, source: Source) -> bool:
    seen = min(source.n_rows, limits.SAMPLE_ROWS)
    known = seen - info.n_missing
    if info.n_distinct < 2 or info.kind in ("other", "text"):
        return False
    if known == seen and info.n_distinct == seen and info.kind == "integer" and _ID.search(info.name):
        return False  # it numbers the rows
    return info.kind != "category" or info.n_distinct <= max(20, 0.3 * known)


def guessed_roles(source: Source, label: str | None = None) -> Roles:
    """Guess what each column is for.

    Nothing is guessed from what a name says about time: whether a column was recorded after the outcome is for the
    user to say.

    Args:
        source: The table.
        label: The label's column, if the user named it.

    Raises:
        BadInput: No such column, or none that could be a label.
    """
    chosen = source.column(label).name if label is not None else _guessed_label(source)
    task = _guessed_task(source.column(chosen), source)
    rest = [info for info in source.columns if info.name != chosen]
    split = next((i.name for i in rest if i.name.lower() in _SPLITS and _is_split(i)), None)
    rest = [info for info in rest if info.name != split]
    ids = [i.name for i in rest if _ID.search(i.name) and i.kind in ("integer", "category") and _unique(source, i)]
    row_id = min(ids, key=lambda name: (name.lower() != "id", source.names.index(name)), default=None)
    text = _guessed_text([info for info in rest if info.name != row_id], source)
    ignored = tuple(i.name for i in rest if _UNNAMED.match(i.name) and i.name not in (row_id, text))
    roles = Roles(label=chosen, task=task, id=row_id, text=text, split=split, ignored=ignored)
    return roles if text else roles.changed(features=used_columns(source, roles))


def _guessed_label(source: Source) -> str:
    fit = [info for info in source.columns if info.n_distinct > 1 and info.kind in ("boolean", "integer", "category",
                                                                                     "number")]  # fmt: skip
    for wanted in _LABELS:
        for info in fit:
            if info.name.lower() == wanted:
                return info.name
    words = [i for i in fit if not (i.kind == "category" and not _usable(i, source)) and not _UNNAMED.match(i.name)]
    if not words:
        raise BadInput("No column can be the label", f"{source.path} has none with two values that repeat.",
                       "Name the label's column.")  # fmt: skip
    return words[-1].name


def _guessed_task(info: ColumnInfo, source: Source) -> Literal["classification", "regression"]:
    if info.kind == "integer":
        return "classification" if info.n_distinct <= _FEW else "regression"
    if info.kind != "number":
        return "classification"
    values = source.head(limits.SAMPLE_ROWS)[info.name].drop_null().unique().to_pylist()
    few = len(values) <= _FEW // 2 and all(float(value).is_integer() for value in values)
    return "classification" if few else "regression"


def _is_split(info: ColumnInfo) -> bool:
    return info.kind == "category" and 2 <= info.n_distinct <= 5 and all(
        example.lower() in SPLIT_WORDS for example in info.examples
    )  # fmt: skip


def _guessed_text(rest: list[ColumnInfo], source: Source) -> str | None:
    seen = min(source.n_rows, limits.SAMPLE_ROWS)
    texts = [i for i in rest if i.kind == "text" and i.n_distinct > 0.5 * (seen - i.n_missing)]
    if not texts or sum(_usable(info, source) for info in rest) >= _MANY_COLUMNS:
        return None
    head = source.head(1000)
    return max(texts, key=lambda i: sum(len(text or "") for text in head[i.name].to_pylist())).name


def _unique(source: Source, info: ColumnInfo) -> bool:
    """Return whether every row has a value and no two the same; decided over all rows."""
    seen = min(source.n_rows, limits.SAMPLE_ROWS)
    return not info.n_missing and info.n_distinct == seen and _repeated(source, info.name) is None


def _repeated(source: Source, name: str) -> str | None:
    """Return what is wrong with a column as id, or None: a missing or repeated value, with its rows."""
    hashes, row = [], 0
    for batch in source.batches():
        missing = np.flatnonzero(batch[name].is_null().to_numpy())
        if len(missing):
            return f"row {row + missing[0] + 1:,} has none"
        hashes.append(content_hashes(batch, [name]))
        row += len(batch)
    # 8 bytes a row; of a million different values, two share them once in thirty million tables.
    found = np.concatenate(hashes)
    order = np.argsort(found, kind="stable")
    again = order[1:][found[order][1:] == found[order][:-1]]
    if not len(again):
        return None
    second = int(again.min())
    first = int(np.flatnonzero(found == found[second])[0])
    return f"rows {first + 1:,} and {second + 1:,} both have '{_cell(source, name, second)[:80]}'"


def _cell(source: Source, name: str, row: int) -> str:
    for batch in source.batches():
        if row < len(batch):
            return str(batch[name][row].as_py())
        row -= len(batch)
    return ""


def check_roles(source: Source, roles: Roles) -> None:
    """Check that a study can be made with these roles.

    Raises:
        BadInput: Names the column, the row where there is one, and what to do.
    """
    _check_columns(source, roles)
    info = source.column(roles.label)
    if roles.task == "regression" and info.kind not in ("number", "integer", "boolean"):
        example = info.examples[0][:40] if info.examples else ""
        why = f"'{info.name}' holds {info.kind} values such as '{example}'."
        raise BadInput("The label is no number", why, "Choose another label, or classification.")
    if roles.id is not None:
        wrong = "it holds numbers with fractions, dates or nested values"
        if source.column(roles.id).kind in ("integer", "category", "text"):
            wrong = _repeated(source, roles.id) or ""
        if wrong:
            raise BadInput("The id does not tell rows apart", f"'{roles.id}': {wrong}.",
                           "Choose another id, or none: rows are then numbered.")  # fmt: skip
    _check_numbers(source, roles)
    _check_label(source, roles)


def _check_columns(source: Source, roles: Roles) -> None:
    single = [name for name in (roles.label, roles.id, roles.text, roles.split) if name is not None]
    for name in (*single, *roles.features, *roles.ignored):
        source.column(name)
    features = () if roles.text is not None else roles.features
    for name in single:
        if single.count(name) > 1 or name in features or name in roles.ignored:
            raise BadInput("A column has two roles", f"'{name}' is used twice.", "Give each column one role.")
    if roles.text is not None and source.column(roles.text).kind not in ("text", "category"):
        why = f"'{roles.text}' holds {source.column(roles.text).kind} values."
        raise BadInput("The text is no text", why, "Choose a column of words, or use the columns as features.")
    for name in features:
        if source.column(name).kind == "other":
            raise BadInput("A feature cannot be used", f"'{name}' holds lists, objects or bytes.", "Ignore it.")
    used = used_columns(source, roles)
    if not any(source.column(name).n_distinct > 1 for name in used):
        why = "Every other column is empty, constant, or different in every row."
        raise BadInput("Nothing is left to learn from", why, "Name the features or the text.")


def _check_numbers(source: Source, roles: Roles) -> None:
    names = [name for name in used_columns(source, roles) if source.column(name).kind == "number"]
    row = 0
    for batch in source.batches() if names else ():
        for name in names:
            values = np.abs(batch[name].to_numpy().astype(np.float64))
            huge = np.flatnonzero((values > _HUGE) & np.isfinite(values))
            if len(huge):
                place = int(huge[0])
                found = batch[name][place].as_py()
                why = f"'{name}' is {found:g} in row {row + place + 1:,}; up to {_HUGE:g} can be used."
                raise BadInput("A number is too large", why, "Correct the row, use another unit, or ignore the column.")
        row += len(batch)


def _check_label(source: Source, roles: Roles) -> None:
    known: set[object] = set()
    missing, first, row = 0, [], 0
    for batch in source.batches():
        for value in batch[roles.label].to_pylist():
            row += 1
            if value is None or value != value:
                missing += 1
                first += [row] if len(first) < 3 else []
                continue
            if roles.task == "regression" and abs(float(value)) > _LARGEST:
                why = f"'{roles.label}' is {value} in row {row:,}; the largest that can be learned is {_LARGEST:g}."
                raise BadInput("A label is infinite or too large", why, "Correct the row, or use another unit.")
            if len(known) <= limits.MAX_CLASSES:
                known.add(value)
    if missing > row / 2:
        rows = ", ".join(f"{number:,}" for number in first)
        why = f"'{roles.label}' is missing in {missing:,} of {row:,} rows, first in {rows}."
        raise BadInput("Most labels are missing", why, "Choose another label, or fill them in.")
    if len(known) < 2:
        why = f"'{roles.label}' is '{str(next(iter(known)))[:80]}' in every row."
        raise BadInput("The label has only one value", why, "Choose a label with two or more.")
    if roles.task == "classification" and len(known) > limits.MAX_CLASSES:
        why = f"'{roles.label}' has more than {limits.MAX_CLASSES:,} different values."
        raise BadInput("The label has too many classes", why, "Choose another label, or regression for numbers.")
