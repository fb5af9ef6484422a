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
class ImagesPreview:
    """Uploaded images before they are imported.

    Attributes:
        title: A name for the study.
        n_rows: Images that can be used.
        sizes: Width and height, in words.
        labels: What can be learned: "folder" where they lie in class folders, and the columns of a table beside them.
        label: What seems to be learned; empty where nothing does.
        notes: What was decided while looking at them, such as which files were left out, in sentences.
    """

    token: str
    file: str
    title: str
    n_rows: int
    sizes: str
    labels: tuple[str, ...]
    label: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImagesCheck:
    """Whether a study can be made of uploaded images with one label.

    Attributes:
        label: What is learned; empty without any.
        task: "classification" or "regression"; empty without a label.
        classes: Class and number of its images; empty for a regression.
        thumbnails: Data URI and label of a few images, of every class in turn.
        roles: What the import takes; None if it cannot be made.
        problem: What, why and fix, if it cannot be made.
        cost: What the import will take, in words; empty where it cannot be made.
    """

    label: str
    task: str
    classes: tuple[tuple[str, int], ...]
    thumbnails: tuple[tuple[str, str], ...]
    roles: dict[str, Any] | None
    problem: tuple[str, str, str] | None
    cost: str = ""


@dataclass(frozen=True)
class StudyPreview:
    """An uploaded study before it is put into place.

    Attributes:
        title: What the study is called, made safe for a name.
        kind: What its rows and labels are, in words.
        rows: Split -> number of rows; a split whose file does not say so is not counted.
        model: The model in words.
        reference: The code that the study names as its model, which stays off; empty for a built-in model.
        reviews, cache: Bytes of its decisions about labels and of its computed results.
        notes: What its maker's program noted, in sentences.
    """

    token: str
    file: str
    title: str
    description: str
    kind: str
    rows: dict[str, int]
    model: str
    reference: str
    reviews: int
    cache: int
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
