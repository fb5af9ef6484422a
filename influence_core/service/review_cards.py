"""The card of a row under review: the row, what it should be, and the rows that say so, many cards at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from influence_core import fitting, registry
from influence_core.errors import InfluenceError, Unavailable
from influence_core.measurement import Rows
from influence_core.service import data as rows
from influence_core.service import rowcards
from influence_core.service.cells import cut
from influence_core.service.opened import OpenStudy
from influence_core.service.review_tables import compared
from influence_core.service.review_views import Beside, BesideRow, Cell, ReviewCard
from influence_core.service.suspect_evidence import suspect_evidence
from influence_core.service.suspect_views import SuspectEvidence
from influence_core.service.suspected import found_suspects
from influence_core.service.views import Datum
from influence_core.workflows.default_method import default_method

SHOWN = 6  # rows of each kind
_WORDS = 240  # characters of a text beside the card
_TEXT = 20_000  # characters of the text under review: a browser gets slow far above
_SCORES_AT_ONCE = 8 << 20


def cards(held: OpenStudy, study: str, split: str, ids: Sequence[Any], first: int) -> list[ReviewCard]:
    """Return cards without what was decided: drawn once per opened study.

    Args:
        held: The study.
        study: Its name.
        split: ``train`` or ``test``.
        ids: Row ids, in the order of the queue.
        first: Place in the queue of the first one.
    """
    positions = held.study.task.positions(Rows(split, tuple(ids))).tolist()
    # What is computed later belongs on cards that were drawn before.
    chosen = _method(held)
    state = (chosen if isinstance(chosen, str) else "", id(found_suspects(held)))
    said = {p: held.recalled(("review card", split, p, state)) for p in positions}
    fresh = [p for p in dict.fromkeys(positions) if said[p] is None]
    for position, card in zip(fresh, _drawn(held, study, split, fresh), strict=True):
        held.remember(("review card", split, position, state), card)
        said[position] = card
    return [_placed(said[p], first + i) for i, p in enumerate(positions)]


def _placed(card: ReviewCard, position: int) -> ReviewCard:
    return ReviewCard(**{**vars(card), "position": position})


def _drawn(held: OpenStudy, study: str, split: str, positions: list[int]) -> list[ReviewCard]:
    if not positions:
        return []
    data = rows.data(held, split, positions, all_cells=True)
    pulls, note = _pulls(held, split, positions)
    near, hurts = _near(held, split, positions), _hurts(held, split, positions)
    _warm_suspected(held, split, positions)
    suspected = [suspicion(study, held, split, datum.row_id) for datum in data]
    sides = []
    for i, about in enumerate(suspected):
        first = _as_beside(about) if about is not None and about.neighbours else near[i]
        sides.append((first, *(pulls[i] if pulls else ()), hurts[i]))
    drawn = zip(data, positions, compared(held, data, sides), suspected, strict=True)
    return [_card(held, datum, position, *shown, about, note) for datum, position, shown, about in drawn]


def _warm_suspected(held: OpenStudy, split: str, positions: list[int]) -> None:
    """Draw the neighbours that speak for or against suspected labels, of all rows at once."""
    found = found_suspects(held) if split == "train" and not rows.is_regression(held) else None
    if found is not None and found.listed.neighbours is not None:
        rows.data(held, "train", np.unique(found.listed.neighbours[positions]).tolist())


def suspicion(study: str, held: OpenStudy, split: str, row_id: int | str) -> SuspectEvidence | None:
    """Return what speaks against a label where label errors were looked for; else None."""
    if split != "train" or rows.is_regression(held):
        return None
    try:
        found = suspect_evidence(study, split, row_id)
    except InfluenceError:  # cannot be had here: the model's own probabilities will do
        return None
    return found if found.ready else None


def _card(
    held: OpenStudy, datum: Datum, position: int, cells: tuple[Cell, ...], beside: tuple[Beside, ...],
    about: SuspectEvidence | None, note: str,
) -> ReviewCard:  # fmt: skip
    losses = rows.losses(held, datum.split)
    classes = rows.chances_in_words(held, datum.split, [position])
    others = [pair for pair in classes if pair[0] != datum.given]
    suggested, chance = (others[0] if others else (None, None)) if classes else (datum.predicted, None)
    chance_from = "the explained model, which was trained on this row" if datum.split == "train" else "the model"
    reasons: tuple[str, ...] = (_how_bad(losses, position, is_number=datum.error is not None),)
    if about is not None:
        classes, reasons = about.classes or classes, about.reasons or reasons
        suggested, chance = about.suggested or suggested, about.chance
        chance_from = "calibrated on the test rows"
    if datum.text is not None and len(datum.text) > _TEXT:
        reasons = (*reasons, f"cut: the text has {len(datum.text):,} letters")
    text = None if datum.text is None else cut(datum.text, _TEXT)
    error = None if datum.error is None else rows.figure(datum.error)
    return ReviewCard(
        0, datum.split, datum.row_id, datum.image, text, cells, datum.alt, datum.given, datum.predicted, error,
        suggested, chance, chance_from, reasons, classes, beside,
        _evidence(held, datum, suggested, chance, beside, about, note),
    )  # fmt: skip


def _how_bad(losses: np.ndarray, position: int, *, is_number: bool) -> str:
    """Return in words how a row's loss compares with those of all rows of its split."""
    rank, n = int((losses > losses[position]).sum()) + 1, len(losses)
    if is_number:
        return f"number {rank:,} of {n:,} rows by the size of the error"
    return f"loss {losses[position]:.3g}, number {rank:,} of {n:,} rows by its size"


def _evidence(
    held: OpenStudy, datum: Datum, suggested: str | None, chance: float | None, beside: tuple[Beside, ...],
    about: SuspectEvidence | None, note: str,
) -> dict[str, Any]:  # fmt: skip
    """Return what is on screen, in short, for the audit."""
    checkpoints = held.study.header.checkpoints
    found: dict[str, Any] = {
        "fingerprint": held.study.fingerprint[:16], "method": note,
        "checkpoint": checkpoints[-1].get("file", "") if checkpoints else "",
        "predicted": datum.predicted, "suggested": suggested, "chance": _short(chance),
    }  # fmt: skip
    for side in beside:
        found[side.kind] = [[row.row_id, _short(row.score)] for row in side.rows]
    if about is not None:
        found["detectors"] = {name: _short(value) for name, value, _, _ in about.values}
    return found


def _short(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.4g}")


def _as_beside(about: SuspectEvidence) -> Beside:
    shown = about.neighbours[:SHOWN]
    note = f"{about.disagreeing} of {len(about.neighbours)} carry another label"
    return Beside("near", "Nearest training rows", note, tuple(_small(n.datum, n.score) for n in shown))


def _small(datum: Datum, score: float) -> BesideRow:
    words = cut(datum.text, _WORDS) if datum.text else " · ".join(f"{name} {value}" for name, value in datum.cells[:3])
    return BesideRow(datum.split, datum.row_id, datum.given, datum.predicted, datum.image, words, float(score))


def _beside(held: OpenStudy, split: str, chosen: list[tuple[int, float]]) -> tuple[BesideRow, ...]:
    found = rows.data(held, split, [place for place, _ in chosen])
    return tuple(_small(datum, score) for datum, (_, score) in zip(found, chosen, strict=True))


def _near(held: OpenStudy, split: str, positions: list[int]) -> list[Beside]:
    """Return the nearest train rows of each row, by what enters the last layer."""
    train, mine = rowcards.unit_embeddings(held, "train"), rowcards.unit_embeddings(held, split)[positions]
    similar = (mine @ train.T).numpy()
    if split == "train":
        similar[np.arange(len(positions)), positions] = -np.inf
    note = "cosine similarity in the last hidden layer"
    chosen = [_strongest(line, 1) for line in similar]
    warm(held, "train", chosen)
    return [Beside("near", "Nearest training rows", _numbers_of(held, line) + note, _beside(held, "train", line))
            for line in chosen]  # fmt: skip


def _numbers_of(held: OpenStudy, chosen: list[tuple[int, float]]) -> str:
    """Return in words which numbers the nearest rows of a regression carry: what this one could be compared with."""
    if not rows.is_regression(held) or not chosen:
        return ""
    given = rows.given_numbers(held, "train")[[place for place, _ in chosen]]
    return f"given {rows.figure(float(given.min()))} to {rows.figure(float(given.max()))}; "


def _strongest(line: np.ndarray, sign: int) -> list[tuple[int, float]]:
    """Return the places and values of the largest numbers of one sign, the largest first."""
    signed = np.where(np.isfinite(line), sign * line, -np.inf)
    count = min(SHOWN, len(signed))
    top = np.argpartition(-signed, count - 1)[:count]
    top = top[np.argsort(-signed[top], kind="stable")]
    return [(int(place), float(line[place])) for place in top if signed[place] > 0]


def warm(held: OpenStudy, split: str, chosen: Sequence[Sequence[tuple[int, float]]]) -> None:
    """Draw the small cards of many rows at once: files are read by groups of rows."""
    rows.data(held, split, sorted({place for line in chosen for place, _ in line}))


def _method(held: OpenStudy) -> tuple[Any, registry.Entry] | str:
    """Return the method that is fitted here, or a sentence on why there is none."""
    task = held.study.task
    try:
        entry = registry.found(default_method(task)[0], task)
    except Unavailable as problem:
        return problem.why
    estimator = entry.make()
    if entry.info.query == "solve" or not entry.info.scores:
        return f"{entry.info.title} cannot rank the rows of a queue."
    if not fitting.is_fitted(task, estimator, held.run):
        return f"{entry.info.title} has not been computed yet: explain any prediction with it first."
    return estimator, entry


def _pulls(held: OpenStudy, split: str, positions: list[int]) -> tuple[list[tuple[Beside, Beside]], str]:
    """Return which train rows push the model to each row's label, and which against it; with the method's title."""
    chosen = _method(held)
    if isinstance(chosen, str):
        return [(Beside("pro", "For this label", chosen), Beside("opp", "Against this label", chosen))] * len(
            positions
        ), ""
    estimator, entry = chosen
    fitted = fitting.fit(held.study.task, estimator, held.run)
    measurement, ids = fitting.default_measurement(estimator), held.study.task.ids(split)
    at_once = max(1, _SCORES_AT_ONCE // max(1, held.study.n_rows("train")))
    sides: tuple[list[list[tuple[int, float]]], ...] = ([], [])
    for start in range(0, len(positions), at_once):
        here = positions[start : start + at_once]
        scores = fitted.scores(Rows(split, tuple(ids[here].tolist())), measurement).cpu().numpy().copy()
        if split == "train":
            scores[np.arange(len(here)), here] = 0.0  # the row itself says nothing about its label
        for line in scores:
            sides[0].append(_strongest(line, 1))
            sides[1].append(_strongest(line, -1))
    warm(held, "train", [*sides[0], *sides[1]])
    kinds = (("pro", "For this label"), ("opp", "Against this label"))
    made = [[Beside(kind, title, entry.info.title, _beside(held, "train", line)) for line in side]
            for (kind, title), side in zip(kinds, sides, strict=True)]  # fmt: skip
    return list(zip(made[0], made[1], strict=True)), entry.info.title


def _hurts(held: OpenStudy, split: str, positions: list[int]) -> list[Beside]:
    """Return the test rows that each train row pushes away from their labels, wrong ones first."""
    chosen = "Only training rows influence predictions." if split != "train" else _method(held)
    title = "Test rows it hurts"
    if isinstance(chosen, str):
        return [Beside("hurts", title, chosen)] * len(positions)
    estimator, entry = chosen
    key = ("test scores", entry.info.name)
    looked, scores = held.remembered(key, lambda: rowcards.test_scores(held, estimator))
    lines = [[(int(looked[t]), value) for t, value in _strongest(scores[:, p], -1)] for p in positions]
    warm(held, "test", lines)
    note = f"{entry.info.title}, among {len(looked):,}"
    return [Beside("hurts", title, note, _beside(held, "test", line)) for line in lines]
