"""The input attribution of a prediction, drawn: a heat map over the image, or the strongest columns of a table row."""

from __future__ import annotations

import numpy as np

from influence_core.encoder import ImageEncoder, TableEncoder
from influence_core.measurement import Measurement, Rows
from influence_core.service.data import png
from influence_core.service.opened import opened
from influence_core.service.views import InputAttribution
from influence_core.workflows.input_attribution import integrated_gradients

_PARTS = 8
# Neither the proponents' nor the opponents' colour: this map is about pixels, not about training rows.
_INK = np.array([0, 158, 115], dtype=np.float64)
_METHOD = "Integrated gradients (Captum)"


def input_attribution(study: str, split: str, row_id: object, target: str = "predicted") -> InputAttribution:
    """Return what a prediction rests on within its own input.

    Raises:
        InfluenceError: No such row or class.
    """
    held = opened(study)
    value, chosen = held.study.row_id(split, row_id), held.study.target(target)
    return held.remembered(("input attribution", split, value, chosen), lambda: _drawn(study, split, value, chosen))


def _drawn(study: str, split: str, row_id: int | str, target: str | int) -> InputAttribution:
    held = opened(study)
    task, encoder = held.study.task, held.study.encoder
    query = task.query(Rows(split, (row_id,)), Measurement("logit", target))
    label = held.study.header.classes[int(query.targets[0])]
    neutral = -encoder.mean / encoder.std if isinstance(encoder, ImageEncoder) else 0.0
    result = integrated_gradients(task, query.inputs, int(query.targets[0]), neutral)
    values = result.values.numpy()
    if isinstance(encoder, ImageEncoder):
        position = task.positions(Rows(split, (row_id,))).tolist()
        pixels = encoder.pixels(held.study.rows(split, position))[0]
        note = f"Darker green: the pixel speaks more for {label} (against a black image)."
        alt = f"Heat map of the pixels that speak for {label}"
        return InputAttribution(_METHOD, note, png(_overlaid(pixels, values)), (), alt)
    assert isinstance(encoder, TableEncoder)
    order = np.argsort(-np.abs(values), kind="stable")[:_PARTS]
    parts = tuple((encoder.columns[i], float(values[i])) for i in order.tolist())
    strongest = ", ".join(name for name, _ in parts[:3])
    note = f"How far each value moves the logit of {label}, against an average row."
    return InputAttribution(_METHOD, note, None, parts, f"The columns that matter most for {label}: {strongest}")


def _overlaid(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the image in faint grey with the positive contributions laid over it, ``[3, height, width]`` uint8."""
    grey = 255 - 0.35 * pixels.mean(0).astype(np.float64)
    strength = np.clip(values.sum(0), 0, None)
    strength = strength / max(float(strength.max()), 1e-12)
    painted = grey[None] * (1 - strength) + _INK[:, None, None] * strength
    return np.round(painted).astype(np.uint8)
