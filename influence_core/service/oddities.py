"""Further lists to look through: near-duplicates, test rows that are in train, outliers."""

from __future__ import annotations

from influence_core.errors import BadInput
from influence_core.service import data as rows
from influence_core.service.opened import opened, told_if_gone
from influence_core.service.suspect_views import Oddity, OddityPage
from influence_core.service.suspected import found_suspects
from influence_core.workflows.suspects import oddities as workflow

_WORDS = {
    "duplicates": ("the same as", "nearly the same as"),
    "leakage": ("the same as a train row", "nearly the same as a train row"),
    "outliers": ("far from every other row",) * 2,
}


@told_if_gone
def oddities(study: str, kind: str, page: int = 0, limit: int = 24) -> OddityPage:
    """Return one page of the near-duplicates, the leaked test rows, or the outliers.

    Raises:
        BadInput: An unknown kind.
    """
    held = opened(study)
    if kind not in workflow.KINDS or page < 0 or limit < 1:
        raise BadInput("There is no such list", f"kind is '{kind}'.", f"Use one of: {', '.join(workflow.KINDS)}.")
    if reason := workflow.unavailable(held.study.task):
        return OddityPage(kind, (), 0, "", reason)
    if found_suspects(held) is None:
        return OddityPage(kind, (), 0, "", "Look for label errors first: the distances come with them.")
    found = held.remembered(("oddities", kind), lambda: workflow.oddities(held.study.task, held.run, kind))
    part = slice(page * limit, (page + 1) * limit)
    cards = rows.data(held, found.split, found.positions[part].tolist())
    others = found.others[part].tolist()
    known = dict(zip((o for o in others if o >= 0), rows.data(held, "train", [o for o in others if o >= 0]),
                     strict=True))  # fmt: skip
    result = tuple(
        Oddity(part.start + i + 1, card, float(m), known.get(o), _WORDS[kind][m > 0])
        for i, (card, m, o) in enumerate(zip(cards, found.measures[part].tolist(), others, strict=True))
    )
    return OddityPage(kind, result, len(found.positions), found.measured, "")
