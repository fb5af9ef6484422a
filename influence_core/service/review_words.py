"""What an undo or a redo would be about, in the words that every screen uses."""

from __future__ import annotations

from influence_core.reviews import Decision, Step

_DONE = {"keep": "kept {}", "relabel": "relabelled {}", "drop": "dropped {}", "downweight": "down-weighted {}",
         "unsure": "marked {} unsure"}  # fmt: skip
NOTHING = {"undo": "Nothing is left to undo.", "redo": "Nothing is left to redo."}


def step_words(step: Step) -> str:
    """Return what an act did to one row, or to how many."""
    if step.n_rows == 1:
        return decision_words(step.first)
    rows = f"{step.n_rows:,} rows"
    actions = {action for action, _, _ in step.counts}
    if len(actions) > 1:
        return f"{step.n_rows:,} decisions"
    (action, label, _), *more = step.counts
    to = f" as '{label}'" if action == "relabel" and not more else ""
    return f"{_DONE[action].format(rows)}{to}"


def decision_words(decision: Decision) -> str:
    """Return what was decided about one row; the desk says the same of what is not saved yet (``review.js``)."""
    row = f"row {decision.row}" if decision.split == "train" else f"{decision.split} row {decision.row}"
    if decision.action == "relabel":
        return f"'{decision.given if decision.given is not None else '–'}' → '{decision.label}' on {row}"
    if decision.action == "keep" and decision.given is not None:
        return f"kept '{decision.given}' on {row}"
    words = _DONE[decision.action].format(row)
    return f"{words} to {decision.weight:g}" if decision.weight is not None else words


def ago(seconds: float) -> str:
    """Return how long something is past, as people say it."""
    if seconds < 60:
        return "just now"
    for unit, size, until in (("min", 60, 3600), ("h", 3600, 86400)):
        if seconds < until:
            return f"{int(seconds // size)} {unit} ago"
    days = int(seconds // 86400)
    return f"{days} day{'s' if days > 1 else ''} ago"
