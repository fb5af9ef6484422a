"""What speaks against one label, from stored arrays: reasons in words, disagreeing neighbours, mistakes it feeds."""

from __future__ import annotations

import numpy as np

from influence_core.errors import BadInput
from influence_core.measurement import Rows
from influence_core.service import data as rows
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.suspect_views import SuspectEvidence
from influence_core.service.suspected import Found, found_suspects
from influence_core.service.views import Datum, RankedRow
from influence_core.workflows.suspects.detectors import detectors
from influence_core.workflows.suspects.predictions import neighbour_votes
from influence_core.workflows.suspects.ranking import COMBINED


def reasons(held: OpenStudy, found: Found, position: int) -> tuple[str, ...]:
    """Return why a train row is suspected, each in a few plain words."""
    listed = found.listed
    if listed.beliefs is None:
        return _reasons_of_number(held, found, position)
    best = int(listed.beliefs.suggested[position])
    name, said = held.study.header.classes[best], []
    if listed.neighbours is not None:
        around = rows.given_labels(held, "train")[listed.neighbours[position]]
        count = int((around == best).sum())
        said += [f"{count} of {len(around)} neighbours say {name}"] if count else []
    if listed.said is not None:
        said += _over_training(held, listed.said[:, position], best, str(name))
    if listed.said_held_out is not None and int(listed.said_held_out[position]) == best:
        said.append(f"models that did not see the row say {name}")
    if listed.flags:
        said.append(f"in {int(listed.flagged[position])} of {len(listed.flags)} detectors")
    return tuple(said)


def _over_training(held: OpenStudy, said: np.ndarray, best: int, name: str) -> list[str]:
    times = np.flatnonzero(said == best)
    if not len(times):
        return []
    if times[-1] == len(said) - 1:
        return [f"the model says {name}"]
    epoch = held.study.header.checkpoints[int(times[-1])].get("epoch")
    return [f"the model said {name} until {f'epoch {epoch}' if epoch else f'checkpoint {int(times[-1]) + 1}'}"]


def _reasons_of_number(held: OpenStudy, found: Found, position: int) -> tuple[str, ...]:
    values = found.listed.columns[found.listed.default]
    share = float((values < values[position]).mean())
    source = "models that did not see the row" if found.listed.held_out else "the model"
    off = rows.figure(float(rows.errors(held, "train")[position]))
    return (f"the model is off by {off}", f"{source} err more here than on {share:.1%} of the rows")


def feeding_rows(held: OpenStudy, found: Found, position: int) -> tuple[Datum, ...]:
    """Return the wrong test predictions that a train row feeds, the most first."""
    places = found.listed.feeds[position]
    return rows.data(held, "test", places[places >= 0].tolist())


def suspect_evidence(study: str, split: str, row: object) -> SuspectEvidence:
    """Return what speaks against one label; of test rows, and before the search, only what the model says.

    Raises:
        BadInput: No such row, or it is locked.
    """
    held = opened(study)
    if split == "locked":
        raise BadInput("Locked rows are not cleaned", "They are kept to measure, and never to choose.", "Use train.")
    value = held.study.row_id(split, row)
    position = int(held.study.task.positions(Rows(split, (value,)))[0])
    given = rows.answers(held, split, [position]).given[0]
    found = found_suspects(held) if split == "train" else None
    if found is None:
        classes = rows.chances_in_words(held, split, [position])
        other = next(((name, chance) for name, chance in classes if name != given), ("", 0.0))
        wrong = 1 - dict(classes).get(given, 1.0)
        return SuspectEvidence(
            split, value, False, given, *other, wrong, classes, (), (), 0, (), 0, held.study.n_rows("train"), (), 0, ()
        )
    listed, names = found.listed, held.study.header.classes
    classes, suggested = (), ("", 0.0, 0.0)
    if listed.beliefs is not None:
        chances = listed.beliefs.likelihood[position]
        classes = tuple((str(names[c]), float(chances[c])) for c in np.argsort(-chances, kind="stable").tolist())
        best = int(listed.beliefs.suggested[position])
        suggested = (str(names[best]), float(listed.beliefs.chance[position]), float(listed.beliefs.wrong[position]))
    near = _neighbours(held, found, position)
    known = detectors()
    return SuspectEvidence(
        split, value, True, given, *suggested, classes, reasons(held, found, position),
        tuple(known[name].title for name, flags in listed.flags.items() if flags[position]), len(listed.flags),
        tuple(
            (known[name].title, float(values[position]), known[name].unit, known[name].in_sample)
            for name, values in listed.columns.items() if name != COMBINED
        ),
        int(_ranks(held, found)[position]), len(listed.ids), near, sum(row.datum.given != given for row in near),
        feeding_rows(held, found, position),
    )  # fmt: skip


def _ranks(held: OpenStudy, found: Found) -> np.ndarray:
    def make() -> np.ndarray:
        order = found.listed.order()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(1, len(order) + 1)
        return ranks

    return held.remembered(("suspect ranks", found.key), make)


def _neighbours(held: OpenStudy, found: Found, position: int) -> tuple[RankedRow, ...]:
    if found.listed.neighbours is None:
        return ()
    votes = held.remembered(("votes",), lambda: neighbour_votes(held.study.task, held.run))
    places = found.listed.neighbours[position].tolist()
    cards, distances = rows.data(held, "train", places), votes.distances[position].tolist()
    return tuple(RankedRow(i + 1, d, c) for i, (d, c) in enumerate(zip(distances, cards, strict=True)))
