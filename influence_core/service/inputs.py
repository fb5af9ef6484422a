"""The input attribution of a prediction: a heat map of an image, the strongest columns of a table, words of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.encoder import (
    ColumnsEncoder,
    Encoder,
    ImageEncoder,
    SentenceEncoder,
    TableEncoder,
    TensorEncoder,
    TextEncoder,
)
from influence_core.measurement import Measurement, Rows
from influence_core.service.cells import number_name, word_contributions
from influence_core.service.data import is_regression, png, row_pixels
from influence_core.service.opened import OpenStudy
from influence_core.service.typed import opened_for
from influence_core.service.views import InputAttribution
from influence_core.workflows.input_attribution import integrated_gradients

_PARTS = 8
# Neither the proponents' nor the opponents' colour: this map is about pixels, not about training rows.
_INK = np.array([0, 158, 115], dtype=np.float64)
_ONE = {"columns": "value", "words": "word or pair of words", "numbers": "number"}
_NO_WORDS = (
    "The model reads the meaning of the whole text at once, so that what each word adds cannot be told. Import the "
    "texts with reading by words to see it."
)
_METHOD = "Integrated gradients (Captum)"


def input_attribution(study: str, split: str, row_id: object, target: str = "predicted") -> InputAttribution:
    """Return what a prediction rests on within its own input.

    Raises:
        InfluenceError: No such row or class.
    """
    held = opened_for(study, split, (row_id,))
    target = "true" if is_regression(held) and target == "predicted" else target
    value, chosen = held.study.row_id(split, row_id), held.study.target(target)
    return held.remembered(("input attribution", split, value, chosen), lambda: _drawn(study, split, value, chosen))


def _drawn(study: str, split: str, row_id: int | str, target: str | int) -> InputAttribution:
    held = opened_for(study, split, (row_id,))
    task, encoder = held.study.task, held.study.encoder
    reason = _unreadable(encoder)
    if reason:
        return _not_possible(reason)
    query = task.query(Rows(split, (row_id,)), Measurement("logit", target))
    index = 0 if is_regression(held) else int(query.targets[0])  # of the model's output
    label, moved = "the predicted number", "the predicted number"
    if not is_regression(held):
        label = held.study.header.classes[index]
        moved = f"the logit of {label}"
    try:
        values = integrated_gradients(task, query.inputs, index, _neutral(encoder)).values.numpy()
    except RuntimeError as error:
        if "reference" not in held.study.header.model:
            raise
        # The user's forward does something that has no gradient in its input.
        return _not_possible(f"The model gives no gradient in its input: {' '.join(str(error).split())[:120]}.")
    row = held.study.rows(split, task.positions(Rows(split, (row_id,))).tolist())
    pixels = row_pixels(row, encoder)
    if pixels is not None:
        note = f"Darker green: the pixel speaks more for {label} (against a black image)."
        alt = f"Heat map of the pixels that speak for {label}"
        return InputAttribution(_METHOD, note, png(_overlaid(pixels[0], values)), (), alt)
    named, what, neutral_row = _named_parts(held, row, values)
    parts = tuple(sorted(named, key=lambda part: -abs(part[1]))[:_PARTS])
    strongest = ", ".join(name for name, _ in parts[:3])
    note = f"How far each {_ONE[what]} moves {moved}, against {neutral_row}."
    return InputAttribution(_METHOD, note, None, parts, f"The {what} that matter most for {label}: {strongest}")


def _unreadable(encoder: Encoder) -> str:
    """Return why the input cannot be attributed by gradients, in a sentence; empty if it can."""
    if isinstance(encoder, SentenceEncoder):
        return _NO_WORDS
    if not isinstance(encoder, TensorEncoder):
        return ""
    if encoder.form != "tensor":
        return "The model is called with several tensors, so no single one can be followed from nothing to this row."
    return "" if encoder.inputs[0].is_real else "The model reads whole numbers (tokens, say), which have no gradient."


def _not_possible(reason: str) -> InputAttribution:
    return InputAttribution("", reason, None, (), "What the prediction rests on in its input cannot be shown")


def _neutral(encoder: Encoder) -> Any:
    """Return the number that means "nothing there" in encoded inputs: black in pictures, perhaps one per channel."""
    if isinstance(encoder, ImageEncoder):
        return encoder.neutral
    return encoder.picture[0] if isinstance(encoder, TensorEncoder) and encoder.picture is not None else 0.0


def _named_parts(held: OpenStudy, row: pa.Table, values: np.ndarray) -> tuple[list[tuple[str, float]], str, str]:
    """Return the contributions of a row by name, what the names are, and what the row was compared with."""
    encoder = held.study.encoder
    if isinstance(encoder, TextEncoder):
        return word_contributions(encoder, row, values), "words", "an empty text"
    if isinstance(encoder, ColumnsEncoder):
        sums = [(name, float(values[place].sum())) for name, place in encoder.parts]
        return sums, "columns", "average numbers and no categories"
    if isinstance(encoder, TensorEncoder):
        flat = values.reshape(-1)
        strongest = np.argsort(-np.abs(flat), kind="stable")[:_PARTS].tolist()
        return [(number_name(encoder.inputs[0], j), float(flat[j])) for j in strongest], "numbers", "an input of zeros"
    assert isinstance(encoder, TableEncoder)
    return list(zip(encoder.columns, values.tolist(), strict=True)), "columns", "an average row"


def _overlaid(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the image in faint grey with the positive contributions laid over it, ``[3, height, width]`` uint8."""
    grey = 255 - 0.35 * pixels.mean(0).astype(np.float64)
    strength = np.clip(values.sum(0), 0, None)
    strength = strength / max(float(strength.max()), 1e-12)
    painted = grey[None] * (1 - strength) + _INK[:, None, None] * strength
    return np.round(painted).astype(np.uint8)
