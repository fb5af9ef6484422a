"""Acts as a browser sends them: checked one by one, so that a bad one never holds up the others."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from influence_core.changes import RESOLVES, as_number
from influence_core.errors import BadInput
from influence_core.measurement import Rows
from influence_core.reviews import MAX_ROWS, Act, Decision, Logged, Reviews, Step
from influence_core.service import access
from influence_core.service import data as rows
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.review_views import NextSteps, Receipt, RowId, StepView
from influence_core.service.review_words import ago, step_words

MAX_ACTS = 500  # of one message
_MAX_EVIDENCE = 8_000  # characters
_WHAT = "This decision cannot be kept"


def reviewer_name(study: str, typed: str) -> str:
    """Return the name under which whoever asks reviews: of their account, or else the one they typed.

    Raises:
        BadInput: They may not review this study, or their name is none.
    """
    access.check(base_name(study), "reviewer")
    name = access.visitor().person or " ".join(str(typed).split())
    if not 0 < len(name) <= 100 or not name.isprintable() or name.lower().startswith(RESOLVES.strip()):
        why = f"The name is {name[:60]!r}."
        raise BadInput("Your decisions need a name", why, "Give one of at most 100 letters.")
    return name


def record_acts(study: str, reviewer: str, acts: Sequence[Mapping[str, Any]]) -> Receipt:
    """Write acts in their order; what is acknowledged is on the disk. One that is there already changes nothing.

    Args:
        study: The study's name.
        reviewer: The typed name; whoever is signed in reviews under their own.
        acts: Mappings with ``tab``, ``number``, ``kind`` (decide, undo or redo), ``decisions`` (each with ``split``,
            ``row``, ``action``, and where they apply ``label``, ``weight``, ``comment``, ``given``) and ``evidence``;
            an undo or redo of one act in particular names it by ``of``: its tab and number.

    Raises:
        BadInput: They may not review, or this is no list of acts.
        StoreProblem: The disk refuses; nothing was acknowledged.
    """
    name = reviewer_name(study, reviewer)
    if isinstance(acts, str | Mapping) or not isinstance(acts, Sequence) or len(acts) > MAX_ACTS:
        raise BadInput(_WHAT, f"This is no list of at most {MAX_ACTS} acts.", "Reload the page.")
    held, log = opened(base_name(study)), Reviews(study_folder(study))
    kept: list[tuple[str, int, tuple[RowId, ...]]] = []
    refused: list[tuple[str, int, str]] = []
    good: list[Act] = []
    for given in acts:
        tab, number = _named(given)
        try:
            good.append(_act(held, tab, number, given))
        except BadInput as problem:
            refused.append((tab, number, str(problem)))
    said: list[tuple[str, int, str]] = []
    for act in _recorded(log, name, good, refused):
        about = log.decisions(act.target) if act.target is not None else ()
        kept.append((act.tab, act.number, tuple(decision.row for decision in about)))
        if act.target is not None:
            said.append((act.tab, act.number, step_words(log.step(act.target))))
    return Receipt(tuple(kept), tuple(refused), tuple(said))


def next_steps(study: str, reviewer: str) -> NextSteps:
    """Return what a reviewer's next undo and redo are about, on whichever screen that was done.

    Raises:
        BadInput: They may not review this study, or their name is none.
    """
    name, log = reviewer_name(study, reviewer), Reviews(study_folder(study))
    return NextSteps(_view(log.next_step(name, "undo")), _view(log.next_step(name, "redo")))


def _view(step: Step | None) -> StepView | None:
    return None if step is None else StepView(step.seq, step_words(step), step.at, ago(time.time() - step.at))


def _recorded(log: Reviews, name: str, acts: list[Act], refused: list[tuple[str, int, str]]) -> list[Logged]:
    """Record all at once; if one is malformed, each by itself, so that the others are not lost."""
    if not acts:
        return []
    try:
        return log.record(name, acts)
    except BadInput:
        lines = []
        for act in acts:
            try:
                lines += log.record(name, [act])
            except BadInput as problem:
                refused.append((act.tab, act.number, str(problem)))
        return lines


def _named(given: Any) -> tuple[str, int]:
    """Return an act's tab and number, by which it is refused or acknowledged."""
    if not isinstance(given, Mapping):
        return "", 0
    number = given.get("number")
    return str(given.get("tab", ""))[:200], number if isinstance(number, int) and not isinstance(number, bool) else 0


def _act(held: OpenStudy, tab: str, number: int, given: Any) -> Act:
    if not isinstance(given, Mapping):
        raise BadInput(_WHAT, "It is no act.", "Reload the page.")
    decisions, evidence = given.get("decisions", ()), given.get("evidence", {})
    if not isinstance(decisions, Sequence) or not all(isinstance(d, Mapping) for d in decisions):
        raise BadInput(_WHAT, "Its decisions are none.", "Reload the page.")
    if len(decisions) > MAX_ROWS:
        raise BadInput(_WHAT, f"It is about {len(decisions):,} rows.", f"Choose at most {MAX_ROWS:,}.")
    if not isinstance(evidence, Mapping) or len(json.dumps(evidence)) > _MAX_EVIDENCE:
        evidence = {"left out": "too long"}
    kind: Any = given.get("kind", "decide")
    made = filled(held, [_decision(held, d) for d in decisions])
    return Act(tab, number, kind, made, evidence, _named_by(given.get("of")))


def _named_by(given: Any) -> tuple[str, int] | None:
    """Return the act that an undo names; None for none."""
    if given is None:
        return None
    tab, number = given if isinstance(given, Sequence) and len(given) == 2 else (None, None)
    if not isinstance(tab, str) or isinstance(number, bool) or not isinstance(number, int) or abs(number) >= 2**63:
        raise BadInput(_WHAT, f"It is about the act {str(given)[:40]!r}.", "Reload the page.")
    return tab, number


def _decision(held: OpenStudy, given: Mapping[str, Any]) -> Decision:
    texts = {name: given.get(name) for name in ("label", "given")}
    row, weight, comment, action = given.get("row"), given.get("weight"), given.get("comment", ""), given.get("action")
    split: Any = given.get("split", "train")
    if isinstance(row, bool) or not isinstance(row, int | str):
        raise BadInput(_WHAT, f"The row is {str(row)[:40]!r}.", "Reload the page.")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float)):
        raise BadInput(_WHAT, f"The weight is {str(weight)[:40]!r}.", "Give a number from 0 to 1.")
    if not isinstance(comment, str) or not all(text is None or isinstance(text, str) for text in texts.values()):
        raise BadInput(_WHAT, "A label or comment is no text.", "Reload the page.")
    label = texts["label"].strip() if texts["label"] is not None else None
    if label is not None:
        check_label(held, label)
    done: Any = action
    return Decision(split, row, done, label, weight, comment, texts["given"])


def check_label(held: OpenStudy, label: str) -> None:
    """Raise ``BadInput`` for a label that no row of the study can get: no number, or a class in another spelling."""
    known = held.study.header.classes
    if rows.is_regression(held):
        if not isinstance(as_number(label), float):
            raise BadInput(_WHAT, f"'{label[:40]}' is no number.", "Type a number, such as 3.5.")
    elif label not in known:
        _check_new_class(label, known)


def _check_new_class(name: str, known: Sequence[str]) -> None:
    """Raise if a new class is one of the study in another spelling, or could not be told from one by eye."""
    if not name.isprintable():
        raise BadInput(_WHAT, f"The class {name[:80]!r} has invisible characters.", "Type its name again.")
    twin = next((one for one in known if _spelling(one) == _spelling(name)), None)
    if twin is not None:
        raise BadInput(_WHAT, f"'{name[:80]}' is the class '{twin}' in another spelling.", f"Choose '{twin}'.")


def _spelling(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def filled(held: OpenStudy, decisions: list[Decision]) -> tuple[Decision, ...]:
    """Return the decisions with the label that the row has now where it was not sent; every row must be there."""
    result = []
    for split in dict.fromkeys(decision.split for decision in decisions):
        here = [decision for decision in decisions if decision.split == split]
        if split in ("train", "test"):
            places = held.study.task.positions(Rows(split, tuple(d.row for d in here))).tolist()
            missing = [p for d, p in zip(here, places, strict=True) if d.given is None]
            given = dict(zip(missing, rows.answers(held, split, missing).given, strict=True)) if missing else {}
            here = [replace(d, given=given[p]) if d.given is None else d for d, p in zip(here, places, strict=True)]
        result += here  # the log refuses other splits, in its own words
    return tuple(result)


def next_number(study: str, reviewer: str, tab: str) -> int:
    """Return a number that no act of this reviewer from this tab has yet."""
    name = reviewer_name(study, reviewer)
    return Reviews(study_folder(study)).last_number(name, tab) + 1
