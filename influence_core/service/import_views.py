"""What the screen of an import draws of a file that is no study yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ImportColumn:
    """A column of an uploaded file.

    Attributes:
        kind: What its values are, in words ("whole numbers").
        n_distinct, n_missing: Of the first 20,000 rows.
        role: What it seems to be for: one of ``previews.ROLES``.
        plain: "feature" or "shown": its role where it has no special one.
    """

    name: str
    kind: str
    n_distinct: int
    n_missing: int
    examples: tuple[str, ...]
    role: str
    plain: str


@dataclass(frozen=True)
class Reading:
    """How far the reading of a large uploaded file is: what is being done, and the finished share of it, 0 to 1."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class ImportPreview:
    """An uploaded file before it is imported.

    Attributes:
        title: A name for the study.
        rows: The first few rows as text, a value per column.
        notes: What was decided while reading it, in sentences.
    """

    token: str
    file: str
    title: str
    n_rows: int
    columns: tuple[ImportColumn, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImportCheck:
    """Whether a study can be made of an upload with the chosen roles.

    Attributes:
        task: "classification" or "regression", as chosen or as the label suggests; empty without a label.
        roles: What the import takes; None if it cannot be made.
        problem: What, why and fix, if it cannot be made.
        column: The column that the problem is about, where it is about one.
        leaks: Columns that may give the label away, each with why.
        cost: What the import will take, in words; empty where it cannot be made.
    """

    task: str
    roles: dict[str, Any] | None
    problem: tuple[str, str, str] | None
    column: str | None
    leaks: tuple[tuple[str, str], ...] = ()
    cost: str = ""
