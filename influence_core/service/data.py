"""Rows of a study as cards: thumbnail or cells, labels, prediction, and the planted truth where it is known."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from influence_core.encoder import ImageEncoder, TableEncoder
from influence_core.service.opened import OpenStudy
from influence_core.service.views import Datum

_CELLS_ON_CARD = 6


def probabilities(held: OpenStudy, split: str) -> np.ndarray:
    """Return the explained model's probabilities ``[n, n_classes]`` on a split."""

    def make() -> np.ndarray:
        outputs = held.study.task.outputs_of(split)
        return held.study.task.loss.probabilities(outputs).numpy()  # type: ignore[union-attr]

    return held.remembered(("probabilities", split), make)


def given_labels(held: OpenStudy, split: str) -> np.ndarray:
    """Return the labels in the data as class indices ``[n]``."""
    return held.remembered(("labels", split), lambda: held.study.task.split(split).targets.numpy())


def data(held: OpenStudy, split: str, positions: Sequence[int], *, all_cells: bool = False) -> tuple[Datum, ...]:
    """Return the cards of some rows, by position; each is drawn once."""
    wanted = [int(position) for position in positions]
    known = {p: held.recalled(("datum", split, p, all_cells)) for p in wanted}
    fresh = sorted(position for position, datum in known.items() if datum is None)
    if fresh:
        for position, datum in zip(fresh, drawn(held, split, fresh, all_cells=all_cells), strict=True):
            held.remember(("datum", split, position, all_cells), datum)
            known[position] = datum
    return tuple(known[position] for position in wanted)


def drawn(held: OpenStudy, split: str, positions: list[int], *, all_cells: bool) -> list[Datum]:
    """Return cards that are not remembered: of more rows than anybody looks at."""
    study = held.study
    rows = study.rows(split, positions)
    encoder, classes = study.encoder, study.header.classes
    chances = probabilities(held, split)[positions]
    labels = given_labels(held, split)[positions]
    planted = study.planted[positions] if split == "train" and study.planted is not None else None
    truth = study.true_labels[positions] if planted is not None and study.true_labels is not None else None
    pixels = encoder.pixels(rows) if isinstance(encoder, ImageEncoder) else None
    cells = _cells(rows, encoder, all_cells) if isinstance(encoder, TableEncoder) else None
    result = []
    for i, row_id in enumerate(study.task.ids(split)[positions].tolist()):
        given, predicted = classes[labels[i]], classes[int(chances[i].argmax())]
        kind = "image" if pixels is not None else "table row"
        flipped = None if planted is None else bool(planted[i])
        result.append(
            Datum(
                split,
                row_id,
                study.header.modality,
                png(pixels[i]) if pixels is not None else None,
                cells[i] if cells is not None else (),
                None,
                given,
                predicted,
                float(chances[i].max()),
                str(truth[i]) if flipped and truth is not None else None,
                flipped,
                f"{split} {kind} {row_id}, labelled {given}, predicted {predicted}",
            )  # fmt: skip
        )
    return result


def _cells(rows: pa.Table, encoder: TableEncoder, all_cells: bool) -> list[tuple[tuple[str, str], ...]]:
    """Return ``(column, value)`` per row, the values furthest from the train mean first."""
    distance = np.abs(encoder.encoded(rows))
    values = np.stack([rows.column(name).to_numpy() for name in encoder.columns], 1)
    count = len(encoder.columns) if all_cells else _CELLS_ON_CARD
    order = np.argsort(-distance, axis=1, kind="stable")[:, :count]
    return [
        tuple((encoder.columns[j], f"{values[i, j]:.4g}") for j in columns) for i, columns in enumerate(order.tolist())
    ]


def png(pixels: np.ndarray) -> str:
    """Return an image ``[channels, height, width]`` of 8-bit numbers as a PNG data URI."""
    from PIL import Image

    image = Image.fromarray(pixels[0]) if len(pixels) == 1 else Image.fromarray(np.moveaxis(pixels, 0, -1))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def losses(held: OpenStudy, split: str) -> np.ndarray:
    """Return the explained model's loss on every row of a split ``[n]``."""

    def make() -> np.ndarray:
        task = held.study.task
        with torch.no_grad():
            return task.loss.from_outputs(task.outputs_of(split), task.split(split).targets).numpy()  # type: ignore[union-attr]

    return held.remembered(("losses", split), make)
