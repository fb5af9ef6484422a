"""The input attribution of a prediction: a heat map of an image, the strongest columns of a table, words of a text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from influence_core.encoder import ColumnsEncoder, ImageEncoder, TableEncoder, TextEncoder
from influence_core.measurement import Measurement, Rows
from influence_core.service.cells import word_contributions
from influence_core.service.data import is_regression, png
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.views import InputAttribution
from influence_core.workflows.input_attribution import integrated_gradients

_PARTS = 8
# Neither the proponents' nor the opponents' colour: this map is about pixels, not about training rows.
_INK = np.array([0, 158, 115], dtype=np.float64)
_ONE = {"columns": "value", "words": "word or pair of words"}
_METHOD = "Integrated gradients (Captum)"


def input_attribution(study: str, split: str, row_id: object, target: str = "predicted") -> InputAttribution:
    """Return what a prediction rests on within its own input.

    Raises:
        InfluenceError: No such row or class.
    """
    held = opened(study)
    target = "true" if is_regression(held) and target == "predicted" else target
    value, chosen = held.study.row_id(split, row_id), held.study.target(target)
    return held.remembered(("input attribution", split, value, chosen), lambda: _drawn(study, split, value, chosen))


def _drawn(study: str, split: str, row_id: int | str, target: str | int) -> InputAttribution:
    held = opened(study)
    task, encoder = held.study.task, held.study.encoder
    query = task.query(Rows(split, (row_id,)), Measurement("logit", target))
    index = 0 if is_regression(held) else int(query.targets[0])  # of the model's output
    label, moved = "the predicted number", "the predicted number"
    if not is_regression(held):
        label = held.study.header.classes[index]
        moved = f"the logit of {label}"
    neutral = -encoder.mean / encoder.std if isinstance(encoder, ImageEncoder) else 0.0
    values = integrated_gradients(task, query.inputs, index, neutral).values.numpy()
    if isinstance(encoder, ImageEncoder):
        position = task.positions(Rows(split, (row_id,))).tolist()
        pixels = encoder.pixels(held.study.rows(split, position))[0]
        note = f"Darker green: the pixel speaks more for {label} (against a black image)."
        alt = f"Heat map of the pixels that speak for {label}"
        return InputAttribution(_METHOD, note, png(_overlaid(pixels, values)), (), alt)
    row = held.study.rows(split, task.positions(Rows(split, (row_id,))).tolist())
    named, what, neutral_row = _named_parts(held, row, values)
    parts = tuple(sorted(named, key=lambda part: -abs(part[1]))[:_PARTS])
    strongest = ", ".join(name for name, _ in parts[:3])
    note = f"How far each {_ONE[what]} moves {moved}, against {neutral_row}."
    return InputAttribution(_METHOD, note, None, parts, f"The {what} that matter most for {label}: {strongest}")


def _named_parts(held: OpenStudy, row: pa.Table, values: np.ndarray) -> tuple[list[tuple[str, float]], str, str]:
    """Return the contributions of a row by name, what the names are, and what the row was compared with."""
    encoder = held.study.encoder
    if isinstance(encoder, TextEncoder):
        return word_contributions(encoder, row, values), "words", "an empty text"
    if isinstance(encoder, ColumnsEncoder):
        sums = [(name, float(values[place].sum())) for name, place in encoder.parts]
        return sums, "columns", "average numbers and no categories"
    assert isinstance(encoder, TableEncoder)
    return list(zip(encoder.columns, values.tolist(), strict=True)), "columns", "an average row"


def _overlaid(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the image in faint grey with the positive contributions laid over it, ``[3, height, width]`` uint8."""
    grey = 255 - 0.35 * pixels.mean(0).astype(np.float64)
    strength = np.clip(values.sum(0), 0, None)
    strength = strength / max(float(strength.max()), 1e-12)
    painted = grey[None] * (1 - strength) + _INK[:, None, None] * strength
    return np.round(painted).astype(np.uint8)
