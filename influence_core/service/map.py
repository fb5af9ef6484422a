"""The map: train and test rows in two dimensions, and what lies in a region that somebody drew on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from influence_core.errors import BadInput, InfluenceError
from influence_core.measurement import TYPED
from influence_core.primitives.polygons import polygon_corners
from influence_core.service import data as cards
from influence_core.service import tasks
from influence_core.service.catalog import UNITS_IN_WORDS
from influence_core.service.map_colours import coloured
from influence_core.service.map_rows import MapRows, check_request, map_rows, needed, umap_needed, umap_seconds
from influence_core.service.map_views import (
    GroupInfluence,
    MapLink,
    MapNeeded,
    MapPoints,
    MapRequest,
    MapSelection,
    MapView,
)  # fmt: skip
from influence_core.service.opened import OpenStudy, opened, told_if_gone
from influence_core.service.requests import Question, measured_in_words
from influence_core.service.views import Datum, JobView, RowId
from influence_core.workflows.projection import SPLITS, ProjectionConfig

MAX_POINTS = 20_000
_MAX_GHOSTS = 5_000
_MAX_QUERY = 200
_BINS = 200
_EXAMPLES = 12
_PLACE_WORDS = {
    "penultimate": "what enters the model's last layer", "input": "the raw input",
    "gradients": "the last layer's gradients, projected at random",
}  # fmt: skip


@told_if_gone
def map_points(study: str, asked: MapRequest) -> MapView | MapNeeded:
    """Return the map as it can be drawn now, or what has to be computed first.

    Raises:
        InfluenceError: A place that the model does not have, or a choice that does not exist.
    """
    held = opened(study)
    rows = map_rows(study, held, asked)
    if isinstance(rows, MapNeeded):
        return rows
    kept = rows.matching(asked)
    matching, others = np.flatnonzero(kept), np.flatnonzero(~kept)
    places, ghosts = _sampled(matching, MAX_POINTS), _sampled(others, _MAX_GHOSTS)
    question, problem = _question(study, asked)
    colours = coloured(rows, asked, places, question)
    points = MapPoints(
        rows.xy[places, 0], rows.xy[places, 1], tuple(rows.ids[places].tolist()), rows.label_names(places),
        rows.is_test[places], colours.codes, colours.values.astype(np.float32),
    )  # fmt: skip
    query, links, words = _links(rows, question, problem)
    umap = umap_needed(study, held, asked, rows)
    drawn = "umap" if asked.drawn == "umap" and umap is None else "pca"
    return MapView(
        rows.key, drawn, _axes_in_words(rows, drawn, asked.place), umap, rows.n, len(matching), points,
        colours.colours, rows.xy[ghosts], _density(rows, matching) if len(matching) > len(places) else None, rows.box,
        query, links, words, rows.classes, rows.is_regression,
    )  # fmt: skip


def _sampled(places: np.ndarray, most: int) -> np.ndarray:
    """Return all, or as many as are drawn, the same ones every time."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(0).choice(places, most, replace=False, shuffle=False))


def _axes_in_words(rows: MapRows, drawn: str, place: str) -> str:
    where = _PLACE_WORDS[place]
    if drawn == "umap":
        return f"UMAP of {where}: neighbours there are neighbours here; distances between far groups mean little."
    share = "" if rows.share is None else f", which keep {rows.share:.0%} of the variance"
    return f"The first two principal components of {where}{share}."


def _density(rows: MapRows, places: np.ndarray) -> np.ndarray:
    """Return how many of some rows lie in each cell of the box ``[bins, bins]``; heights are rows."""
    low_x, high_x, low_y, high_y = rows.box
    xy = rows.xy[places]
    across = ((xy[:, 0] - low_x) * (_BINS / (high_x - low_x))).astype(np.int32).clip(0, _BINS - 1)
    up = ((xy[:, 1] - low_y) * (_BINS / (high_y - low_y))).astype(np.int32).clip(0, _BINS - 1)
    return np.bincount(up * _BINS + across, minlength=_BINS * _BINS).reshape(_BINS, _BINS)


def _question(study: str, request: MapRequest) -> tuple[Question | None, str]:
    """Return the query of the lines, or why there is none."""
    if request.query is None or not request.query.ids:
        return None, ""
    try:
        return Question(study, request.query), ""
    except InfluenceError as problem:  # the map is worth drawing without it
        return None, str(problem)


def _links(rows: MapRows, question: Question | None, problem: str) -> tuple[np.ndarray, tuple[MapLink, ...], str]:
    """Return where the explained rows are, lines to their strongest training rows, and a sentence."""
    nowhere = np.empty((0, 2), np.float32)
    if question is None:
        return nowhere, (), problem
    title = _title(question)
    if question.rows.split == TYPED:
        return nowhere, (), f"{title} is in no split, so it has no place here."
    found = [rows.position(question.rows.split, value) for value in question.rows.ids[:_MAX_QUERY]]
    query = rows.xy[[place for place in found if place is not None]]
    if not question.ready:
        return query, (), f"{title}: {question.info.title} has not been computed for it yet; open Explain."
    scores, k = question.scores(), question.request.k
    order = np.argsort(-np.nan_to_num(scores, nan=0.0), kind="stable")
    last = order[::-1][:k]
    strongest = np.concatenate([order[:k][scores[order[:k]] > 0], last[scores[last] < 0]])
    names, ids = rows.label_names(strongest), rows.ids[strongest].tolist()
    links = tuple(
        MapLink(float(rows.xy[i, 0]), float(rows.xy[i, 1]), row_id, name, float(scores[i]))
        for i, row_id, name in zip(strongest, ids, names, strict=True)
    )
    return query, links, f"{title} with its strongest training rows by {question.info.title}."


def _title(question: Question) -> str:
    ids, split = question.rows.ids, question.rows.split
    if split == TYPED:
        return "Your input"
    return f"{split.capitalize()} row {ids[0]}" if len(ids) == 1 else f"{len(ids)} {split} rows"


@told_if_gone
def start_projection(study: str, asked: MapRequest, drawn: str, client: str) -> JobView:
    """Queue the computation of a projection, or join the job that is doing it already."""
    check_request(asked)
    held = opened(study)
    config = ProjectionConfig.checked({"place": asked.place, "kind": drawn})
    seconds = umap_seconds(held.study.n_rows("train") + held.study.n_rows("test"))
    what = needed(study, held, config, seconds)
    argv = ["project", "--place", asked.place, "--kind", drawn]
    return tasks.submitted(study, what.key, what.title, argv, client, what.seconds)


def _selected(study: str, request: MapRequest, polygon: Sequence[Sequence[float]]) -> tuple[MapRows, np.ndarray]:
    corners = polygon_corners(polygon)
    rows = map_rows(study, opened(study), request)
    if isinstance(rows, MapNeeded):
        raise BadInput("The map is not there yet", "Its projection is being computed.", "Wait until it is drawn.")
    return rows, np.flatnonzero(rows.sorted.inside(corners) & rows.matching(request))


@told_if_gone
def rows_in_polygon(study: str, asked: MapRequest, polygon: Sequence[Sequence[float]]) -> MapSelection:
    """Return what lies in a region: of all rows that the filters leave, whether drawn or not.

    Args:
        study: Its name.
        asked: The map on which the region was drawn.
        polygon: Corners in the map's coordinates.

    Raises:
        InfluenceError: No region, or the map cannot be drawn.
    """
    rows, places = _selected(study, asked, polygon)
    count = {"train": int((~rows.is_test[places]).sum()), "test": int(rows.is_test[places].sum())}
    mix, numbers = (), None
    if rows.is_regression and len(places):
        given = rows.given[places]
        numbers = (float(given.min()), float(given.mean()), float(given.max()))
    elif not rows.is_regression:
        counts = np.bincount(rows.given[places], minlength=len(rows.classes))
        order = np.argsort(-counts, kind="stable")
        mix = tuple((rows.classes[i], int(counts[i])) for i in order.tolist() if counts[i])
    loss = rows.loss[places] if rows.knows_model and len(places) else None
    wrong = int(rows.wrong[places].sum()) if rows.knows_model and not rows.is_regression else None
    influence, note = _group_influence(study, asked, rows, places)
    return MapSelection(
        count, mix, wrong, None if loss is None else float(loss.mean()), numbers, _examples(rows, places, loss),
        influence, note,
    )  # fmt: skip


def _examples(rows: MapRows, places: np.ndarray, loss: np.ndarray | None) -> tuple[tuple[str, RowId], ...]:
    worst = places[:_EXAMPLES]
    if loss is not None and len(places) > _EXAMPLES:
        # All that tie for the last place, then the first of them: a partition alone keeps any.
        last = -np.partition(-loss, _EXAMPLES - 1)[_EXAMPLES - 1]
        places, loss = places[loss >= last], loss[loss >= last]
    if loss is not None:
        worst = places[np.argsort(-loss, kind="stable")[:_EXAMPLES]]
    splits = (SPLITS[int(test)] for test in rows.is_test[worst])
    return tuple(zip(splits, rows.ids[worst].tolist(), strict=True))


def _group_influence(
    study: str, request: MapRequest, rows: MapRows, places: np.ndarray
) -> tuple[GroupInfluence | None, str]:
    question, problem = _question(study, request)
    train = places[~rows.is_test[places]]
    if question is None:
        return None, problem or "Choose a prediction on Explain to see what these rows together do to it."
    if not len(train):
        return None, "Only training rows influence predictions; there are none here."
    info = question.info
    if not info.additive:
        return None, f"{info.title} gives rows no scores that add up to a group's."
    if not question.ready:
        return None, f"{info.title} has not been computed for {_title(question)} yet; open Explain."
    scores = np.nan_to_num(question.scores(), nan=0.0)
    return GroupInfluence(
        _title(question), info.title, measured_in_words(question), info.units, UNITS_IN_WORDS[info.units],
        float(scores[train].sum()), float(scores.sum()), len(train),
    ), ""  # fmt: skip


@told_if_gone
def row_ids_in_polygon(
    study: str, asked: MapRequest, polygon: Sequence[Sequence[float]], split: str = "train"
) -> tuple[RowId, ...]:
    """Return the ids of a split's rows in a region, the model's greatest losses first: the order of a review."""
    rows, places = _selected(study, asked, polygon)
    if split not in SPLITS:
        raise BadInput("These rows cannot be reviewed", f"The split is '{split}'.", "Use train or test.")
    places = places[rows.is_test[places] == (split == "test")]
    if rows.knows_model:
        places = places[np.argsort(-rows.loss[places], kind="stable")]
    return tuple(rows.ids[places].tolist())


@told_if_gone
def map_cards(study: str, rows: Sequence[tuple[str, RowId]]) -> tuple[Datum, ...]:
    """Return the cards of a few rows ``(split, id)``, in their order.

    Raises:
        InfluenceError: No such row, or one of a split that is not on the map.
    """
    held = opened(study)
    return tuple(_card(held, split, row_id) for split, row_id in rows[:_EXAMPLES])


def _card(held: OpenStudy, split: str, row_id: RowId) -> Datum:
    if split not in SPLITS:
        raise BadInput("This row is not on the map", f"Its split is '{split}'.", "Choose a train or test row.")
    value = held.study.row_id(split, row_id)
    positions = held.study.task.ids(split)
    return cards.data(held, split, np.flatnonzero(positions == value)[:1].tolist())[0]
