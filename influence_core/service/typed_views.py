"""What the screens draw of an input that somebody types: the form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TypedField:
    """One thing to type for a row of one's own.

    Attributes:
        kind: "number", "date", "boolean", "category", "text" or "image".
        value: What the form starts with, as text.
        typical: The usual value in train, as text; empty where there is none.
        choices: Words to choose from; others may be typed in a category.
        optional: Whether it may be left empty, which means missing.
    """

    name: str
    kind: str
    value: str
    typical: str
    choices: tuple[str, ...]
    optional: bool
    is_label: bool


@dataclass(frozen=True)
class TypedForm:
    """What is typed for a row of one's own: the fields to draw, and how many columns keep their value undrawn."""

    fields: tuple[TypedField, ...]
    n_hidden: int
    max_letters: int
