"""A row on its own page: how badly the model fits it, its neighbours, and the test rows it helps and hurts."""

from __future__ import annotations

import numpy as np
import torch

from influence_core import fitting, registry
from influence_core.measurement import Rows
from influence_core.primitives.features import flat_inputs, layer_values
from influence_core.service import data as rows
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.views import RankedRow, RowCard

_NEIGHBOURS = 6
_AFFECTED = 6
_TEST_ROWS = 512


def row_card(study: str, split: str, row_id: object, method: str) -> RowCard:
    """Return everything known about one row.

    Raises:
        InfluenceError: No such row or method.
    """
    held = opened(study)
    value = held.study.row_id(split, row_id)
    position = int(held.study.task.positions(Rows(split, (value,)))[0])
    losses = rows.losses(held, split)
    entry = registry.found(method, held.study.task)
    helps, hurts, note = _affected(held, split, value, position, entry)
    return RowCard(
        rows.data(held, split, [position], all_cells=True)[0],
        rows.chances_in_words(held, split, [position]),
        float(losses[position]), int((losses > losses[position]).sum()) + 1, len(losses),
        _neighbours(held, split, position), entry.info.name, entry.info.title, helps, hurts, note,
    )  # fmt: skip


def unit_embeddings(held: OpenStudy, split: str) -> torch.Tensor:
    """Return unit vectors ``[n, d]`` of what enters the last layer, or of the raw input without one."""

    def make() -> torch.Tensor:
        task = held.study.task
        model, layer = task.model_at(-1), task.last_layer
        parts = []
        for _, batch in task.split(split).batches(1024, "cpu", torch.float32):
            parts.append(layer_values(model, batch.inputs, layer, "input") if layer else flat_inputs(batch.inputs))
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)

    return held.remembered(("unit embeddings", split), make)


def _neighbours(held: OpenStudy, split: str, position: int) -> tuple[RankedRow, ...]:
    similarity = unit_embeddings(held, "train") @ unit_embeddings(held, split)[position]
    if split == "train":
        similarity = similarity.clone()
        similarity[position] = -torch.inf
    others = len(similarity) - (split == "train")  # the row itself is no neighbour, however small the study
    # Sorted, not topk: that takes any of the rows that tie.
    top = similarity.argsort(descending=True, stable=True)[: min(_NEIGHBOURS, others)].tolist()
    cards = rows.data(held, "train", top)
    return tuple(
        RankedRow(i + 1, float(similarity[p]), card) for i, (p, card) in enumerate(zip(top, cards, strict=True))
    )


_Affected = tuple[tuple[RankedRow, ...], tuple[RankedRow, ...], str]


def _affected(held: OpenStudy, split: str, value: int | str, position: int, entry: registry.Entry) -> _Affected:
    """Return the test rows that a training row helps and hurts most, with a sentence on what was looked at."""
    task = held.study.task
    if split != "train":
        return (), (), "Only training rows influence predictions."
    reason = registry.missing(entry.info, task)
    if reason or not entry.info.scores:
        return (), (), f"{entry.info.title} cannot rank pairs of rows here{': it ' + reason if reason else ''}."
    estimator = entry.make()
    if entry.info.query == "solve":
        return (
            (),
            (),
            f"{entry.info.title} solves for every test row anew; choose another method to see what this row affects.",
        )
    if not fitting.is_fitted(task, estimator, held.run):
        return (), (), f"{entry.info.title} has not been computed yet; explain any prediction with it first."
    looked, scores = held.remembered(("test scores", entry.info.name), lambda: test_scores(held, estimator))
    column = scores[:, position]
    kind = fitting.default_measurement(estimator).kind
    first, at = ("largest errors", "number") if rows.is_regression(held) else ("wrong predictions", "label")
    note = f"Among {len(looked)} test rows, {first} first, on {kind} at the given {at}."
    return _strongest(held, looked, column, 1), _strongest(held, looked, column, -1), note


def test_scores(held: OpenStudy, estimator: registry.Estimator) -> tuple[np.ndarray, np.ndarray]:
    """Return the test rows that are looked at, worst first, and a method's scores ``[n_looked, n_train]``."""
    task = held.study.task
    looked = rows.worst_first(held, "test")[:_TEST_ROWS]
    query = Rows("test", tuple(task.ids("test")[looked].tolist()))
    fitted = fitting.fit(task, estimator, held.run)
    return looked, fitted.scores(query, fitting.default_measurement(estimator)).cpu().numpy()


def _strongest(held: OpenStudy, looked: np.ndarray, column: np.ndarray, sign: int) -> tuple[RankedRow, ...]:
    signed = np.where(np.isfinite(column), sign * column, -np.inf)
    top = np.argsort(-signed, kind="stable")[:_AFFECTED]
    top = top[signed[top] > 0]
    cards = rows.data(held, "test", looked[top].tolist())
    return tuple(RankedRow(i + 1, float(column[p]), card) for i, (p, card) in enumerate(zip(top, cards, strict=True)))
