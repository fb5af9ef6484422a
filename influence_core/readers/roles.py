"""What each column of a user's table is for: guessed from names and values, corrected by the user, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from influence_core.config import Config
from influence_core.encoder import SentenceEncoder
from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.facts import HUGE, LARGEST, column_facts, repeated
from influence_core.readers.sources import ColumnInfo, Source
from influence_core.readers.splits import SPLIT_WORDS

_LABELS = ("label", "labels", "target", "class", "y", "outcome", "spam", "is_spam", "two_year_recid", "survived",
           "diagnosis", "species", "sentiment", "churn", "default", "fraud", "is_fraud", "response")  # fmt: skip
_SPLITS = ("split", "set", "fold", "partition", "subset", "dataset_split")
_ID = re.compile(r"(^|[_ ])(id|uuid|guid|key)$|^(index|column 1|unnamed: 0|row)$", re.IGNORECASE)
# Whole words only, and none that also name an ordinary amount: "weight" is mostly that of a body.
_SENSITIVE = re.compile(
    r"(^|[_ .-])(race|sex|gender|ethnicity|ethnic|religion|nationality|disability|sexual_orientation)($|[_ .-])",
    re.IGNORECASE,
)
_WEIGHT = re.compile(
    r"^(sample|instance|case|survey|row|person|importance|sampling)[_ .-]?weights?$|^(fnlwgt|pweight|perwt|wgt)$",
    re.IGNORECASE,
)
_SINGLE = ("label", "id", "text", "split", "weight")  # the label first: every study has one
_UNNAMED = re.compile(r"^(column \d+_*|unnamed: \d+)$", re.IGNORECASE)
_FEW = 20  # different whole numbers up to which a label names classes
_GROUPS = 50  # different values up to which a column names groups
_MANY_COLUMNS = 8  # usable columns from which a table with a text is a table


class Roles(Config):
    """What each column is for."""

    label: str = Field(min_length=1, description="The column that the model learns to say.")
    task: Literal["classification", "regression"] = Field("classification", description="Whether it names classes.")
    id: str | None = Field(None, description="A column with a different whole number or text in every row.")
    text: str | None = Field(None, description="The text that the model reads; other columns are then only shown.")
    reading: Literal["words", "meaning"] = Field(
        default="words",
        description="How a text is read: by its words, or by the meaning of its sentences (MiniLM; slower, its words "
        "cannot be told apart afterwards).",
    )
    split: str | None = Field(None, description="A column that says train, test or locked.")
    weight: str | None = Field(
        None, description="A column of sample weights: kept to look at; losses are not weighted."
    )
    features: tuple[str, ...] = Field(
        default=(), description="Columns that the model reads; none named: all that can be used."
    )
    sensitive: tuple[str, ...] = Field(
        default=(), description="Columns of protected groups: the overview compares them; read only if also a feature."
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
    other = {roles.label, roles.id, roles.split, roles.weight, *roles.sensitive, *roles.ignored}
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
    weight = next((i.name for i in rest if _WEIGHT.search(i.name) and i.kind in ("integer", "number")), None)
    rest = [info for info in rest if info.name not in (split, weight)]
    ids = [i.name for i in rest if _ID.search(i.name) and i.kind in ("integer", "category") and _unique(source, i)]
    row_id = min(ids, key=lambda name: (name.lower() != "id", source.names.index(name)), default=None)
    text = _guessed_text([info for info in rest if info.name != row_id], source)
    ignored = tuple(i.name for i in rest if _UNNAMED.match(i.name) and i.name not in (row_id, text))
    roles = Roles(label=chosen, task=task, id=row_id, text=text, split=split, weight=weight, ignored=ignored)
    # What the model reads is guessed without it: that a column is sensitive is a mark beside its role.
    roles = roles if text else roles.changed(features=used_columns(source, roles))
    names = (info.name for info in rest if info.name not in (row_id, text, *ignored) and is_sensitive(info))
    return roles.changed(sensitive=tuple(names))


def corrected_roles(guess: Roles, given: Mapping[str, Any]) -> Roles:
    """Return a guess with what the user says instead: a column that they give another role loses its guessed ones.

    Args:
        guess: As guessed.
        given: Fields of ``Roles``; a column named sensitive here is read only if ``features`` names it too.

    Raises:
        BadInput: An unknown field, or a value that it cannot have.
    """
    roles = guess.changed(**given)
    named = {name: getattr(roles, name) for name in given}
    lists = {name: set(named.get(name, ())) for name in ("features", "sensitive", "ignored")}
    single = {str(named[name]) for name in _SINGLE if named.get(name) is not None}
    changes: dict[str, Any] = {
        name: None
        for name in _SINGLE[1:]
        if name not in given and getattr(roles, name) in single.union(*lists.values())
    }
    others = {"features": single | lists["sensitive"] | lists["ignored"], "sensitive": single | lists["ignored"],
              "ignored": single | lists["features"] | lists["sensitive"]}  # fmt: skip
    for name, taken in others.items():
        if name not in given:
            changes[name] = tuple(column for column in getattr(roles, name) if column not in taken)
    return roles.changed(**changes)


def is_sensitive(info: ColumnInfo) -> bool:
    """Return whether a column seems to hold protected groups: by its name, and because few values repeat."""
    return bool(_SENSITIVE.search(info.name)) and info.kind != "other" and 2 <= info.n_distinct <= _GROUPS


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
    return not info.n_missing and info.n_distinct == seen and not repeated(source, info.name)


def check_roles(source: Source, roles: Roles) -> None:
    """Check that a study can be made with these roles.

    Raises:
        BadInput: Names the column, the row where there is one, and what to do.
    """
    _check_columns(source, roles)
    info = source.column(roles.label)
    if info.kind == "other":
        raise BadInput(
            "The label cannot be learned", f"'{info.name}' holds lists, objects or bytes.", "Choose another."
        )
    if roles.task == "regression" and info.kind not in ("number", "integer", "boolean"):
        example = info.examples[0][:40] if info.examples else ""
        why = f"'{info.name}' holds {info.kind} values such as '{example}'."
        raise BadInput("The label is no number", why, "Choose another label, or classification.")
    numbers = [name for name in used_columns(source, roles) if source.column(name).kind == "number"]
    column_facts(source, {roles.label, *numbers, *([roles.id] if roles.id else [])})  # all of them in one pass
    if roles.id is not None:
        wrong = "it holds numbers with fractions, dates or nested values"
        if source.column(roles.id).kind in ("integer", "category", "text"):
            wrong = repeated(source, roles.id)
        if wrong:
            raise BadInput("The id does not tell rows apart", f"'{roles.id}': {wrong}.",
                           "Choose another id, or none: rows are then numbered.")  # fmt: skip
    for name in numbers:
        _check_number(source, name)
    _check_label(source, roles)


def _check_columns(source: Source, roles: Roles) -> None:
    single = [name for name in (getattr(roles, role) for role in _SINGLE) if name is not None]
    for name in (*single, *roles.features, *roles.sensitive, *roles.ignored):
        source.column(name)
    for name in roles.sensitive:
        if name in roles.ignored or name in (roles.id, roles.split, roles.weight):
            raise BadInput("A column has two roles", f"'{name}' is used twice.", "Give each column one role.")
    if roles.label in roles.sensitive:
        raise BadInput("The label cannot be sensitive", f"'{roles.label}' is what the model says.", "Choose one role.")
    if roles.reading == "meaning":
        if roles.text is None:
            raise BadInput("There is no text to read", "reading is 'meaning' and no column is the text.", "Name one.")
        SentenceEncoder.installed(roles.text)  # says what to install
    if roles.weight is not None and source.column(roles.weight).kind not in ("integer", "number"):
        why = f"'{roles.weight}' holds {source.column(roles.weight).kind} values."
        raise BadInput("The weight is no number", why, "Choose a column of numbers, or give it another role.")
    features = () if roles.text is not None else roles.features
    for name in single:
        if single.count(name) > 1 or name in features or name in roles.ignored:
            raise BadInput("A column has two roles", f"'{name}' is used twice.", "Give each column one role.")
    if roles.text is not None and source.column(roles.text).kind not in ("text", "category"):
        why = f"'{roles.text}' holds {source.column(roles.text).kind} values."
        raise BadInput("The text is no text", why, "Choose a column of words, or use the columns as features.")
    for name in features:
        if name in roles.ignored:
            raise BadInput("A column has two roles", f"'{name}' is used twice.", "Give each column one role.")
        if source.column(name).kind == "other":
            raise BadInput("A feature cannot be used", f"'{name}' holds lists, objects or bytes.", "Ignore it.")
    used = used_columns(source, roles)
    if not any(source.column(name).n_distinct > 1 for name in used):
        why = "Every other column is empty, constant, or different in every row."
        raise BadInput("Nothing is left to learn from", why, "Name the features or the text.")


def _check_number(source: Source, name: str) -> None:
    huge = column_facts(source, [name])[name].huge
    if huge is not None:
        why = f"'{name}' is {huge[1]:g} in row {huge[0]:,}; up to {HUGE:g} can be used."
        raise BadInput("A number is too large", why, "Correct the row, use another unit, or ignore the column.")


def _check_label(source: Source, roles: Roles) -> None:
    name, n_rows = roles.label, source.n_rows
    facts = column_facts(source, [name])[name]
    if roles.task == "regression" and facts.large is not None:
        row, value = facts.large
        why = f"'{name}' is {value} in row {row:,}; the largest that can be learned is {LARGEST:g}."
        raise BadInput("A label is infinite or too large", why, "Correct the row, or use another unit.")
    if facts.missing > n_rows / 2:
        rows = ", ".join(f"{number:,}" for number in facts.missing_rows)
        why = f"'{name}' is missing in {facts.missing:,} of {n_rows:,} rows, first in {rows}."
        raise BadInput("Most labels are missing", why, "Choose another label, or fill them in.")
    if len(facts.values) < 2:
        why = f"'{name}' is '{str(next(iter(facts.values)))[:80]}' in every row."
        raise BadInput("The label has only one value", why, "Choose a label with two or more.")
    if roles.task == "classification" and len(facts.values) > limits.MAX_CLASSES:
        why = f"'{name}' has more than {limits.MAX_CLASSES:,} different values."
        raise BadInput("The label has too many classes", why, "Choose another label, or regression for numbers.")
