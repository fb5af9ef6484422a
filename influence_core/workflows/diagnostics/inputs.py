"""``if_input_grad`` by id: which numbers of the training rows an answer hangs on (``workflows/input_influence.py``)."""

from __future__ import annotations

import pandas as pd
from pydantic import Field
from torch import Tensor

from influence_core.config import Config
from influence_core.measurement import Rows
from influence_core.workflows.diagnostics.catalogue import (
    KIND_HELP,
    Answer,
    Findings,
    Kind,
    diagnostic,
    explained,
    fitted_method,
    known_ids,
    query_rows,
)
from influence_core.workflows.input_influence import input_influence


class InputGradConfig(Config):
    """Which answer, and which training rows."""

    method: str = Field("influence", description="if_exact, if_ggn, if_cg or if_lissa; influence: by the model's size.")
    measurement: Kind = Field("", description=KIND_HELP)
    test: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="Ids of test rows, as one query; empty: one drawn by the seed."
    )
    train: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="Ids of training rows; empty: the top proponents and opponents."
    )
    k: int = Field(5, ge=1, description="Proponents, and opponents, where no training row is named.")
    top: int = Field(10, ge=1, description="Numbers per training row, the strongest first.")


@diagnostic(
    "if_input_grad", "Influence of training inputs",
    "Which numbers (pixels, columns) of the training rows would change an answer, and by how much per unit.",
    "Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017", InputGradConfig,
)  # fmt: skip
def _input_gradients(findings: Findings, config: InputGradConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``train_id``; ``place`` of a number in the row as the model takes it; ``derivative`` of the measurement in
    it; ``norm`` of the row's whole gradient.
    """
    estimator, fitted = fitted_method(findings, config.method)
    measurement = explained(estimator, config.measurement)
    chosen = query_rows(findings, config.test, 1)
    query = Rows(chosen.split, chosen.ids, "mean")
    if config.train is not None:
        ids = known_ids(findings, "train", config.train)
    else:
        order = fitted.scores(query, measurement)[0].argsort(descending=True).cpu()
        k = min(config.k, len(order))
        places = dict.fromkeys([*order[:k].tolist(), *order[-k:].flip(0).tolist()])
        ids = findings.task.ids("train")[list(places)].tolist()
    found = input_influence(fitted, query, Rows("train", tuple(ids)), measurement).double().cpu()
    lines = [line for row, slope in zip(ids, found, strict=True) for line in _strongest(row, slope, config.top)]
    asked = ", ".join(str(value) for value in chosen.ids[:5])
    return pd.DataFrame(lines, columns=["train_id", "place", "derivative", "norm"]), (
        f"Change of {measurement.name} of test row {asked} per unit of an encoded input.",
        "place is the index within the row as the model takes it, counted from 0 along each of its dimensions.",
    )


def _strongest(row: int | str, slope: Tensor, top: int) -> list[tuple[int | str, str, float, float]]:
    flat, shape, found = slope.reshape(-1), slope.shape, []
    for position in flat.abs().argsort(descending=True, stable=True)[:top].tolist():
        place, left = [], position
        for size in reversed(shape):
            place.append(left % size)
            left //= size
        found.append((row, ",".join(str(i) for i in reversed(place)), float(flat[position]), float(flat.norm())))
    return found
