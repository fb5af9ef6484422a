"""What the screens say of a patch before it is applied: plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from influence_core.service.review_views import RowId

# What can become of a line of a patch, in the order in which it is told.
PATCH_STATES = {
    "fits": "Would be applied",
    "already": "So already",
    "decided": "Decided otherwise here",
    "conflict": "Another label",
    "changed": "Other content",
    "moved": "Moved",
    "missing": "Missing",
    "disputed": "Contradict each other",
}


@dataclass(frozen=True)
class PatchFile:
    """A patch that a browser brought: what it calls the file, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class PatchLine:
    """A line of a patch, and what would become of it.

    Attributes:
        state: One of ``PATCH_STATES``.
        does: What it does, such as ``ant → bee`` or ``drop``.
        by: Who decided so.
        why: The reason for its state; empty where it simply fits.
    """

    state: str
    split: str
    row_id: RowId
    does: str
    by: str
    why: str


@dataclass(frozen=True)
class PatchPage:
    """What would become of patches.

    Attributes:
        counts: Lines in each of ``PATCH_STATES``; rows in dispute count once.
        lines: The first lines in each state that there is.
        new_classes: Classes that the study does not have and that it would get.
        unchecked: Lines without the row's content, which is not compared.
    """

    counts: Mapping[str, int]
    lines: Mapping[str, tuple[PatchLine, ...]]
    new_classes: tuple[str, ...]
    unchecked: int


__all__ = ["PATCH_STATES", "PatchFile", "PatchLine", "PatchPage"]
