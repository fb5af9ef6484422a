"""Rows of a study as cards: thumbnail or cells, labels, prediction, and the planted truth where it is known."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from influence_core.encoder import Encoder, ImageEncoder, TensorEncoder
from influence_core.encoder.pictures import as_png, media_type
from influence_core.figures import figure
from influence_core.measurement import TYPED
from influence_core.service.cells import in_words, row_cells, row_texts, shown_columns
from influence_core.service.opened import OpenStudy
from influence_core.service.views import Datum


@dataclass(frozen=True)
class Answers:
    """What stands in the data of some rows, and what the model says of them, as cards show it."""

    given: list[str]
    predicted: list[str]
    confidence: list[float]
    error: list[float] | list[None]


def probabilities(held: OpenStudy, split: str) -> np.ndarray:
    """Return the explained model's probabilities ``[n, n_classes]`` on a split."""

    def make() -> np.ndarray:
        outputs = held.study.task.outputs_of(split)
        return held.study.task.loss.probabilities(outputs).numpy()  # type: ignore[union-attr]

    return held.remembered(("probabilities", split), make)


def given_labels(held: OpenStudy, split: str) -> np.ndarray:
    """Return the labels in the data as class indices ``[n]``."""
    return held.remembered(("labels", split), lambda: held.study.task.split(split).targets.numpy())


def is_regression(held: OpenStudy) -> bool:
    """Tell whether the study's labels are numbers."""
    return held.study.header.task == "regression"


def given_numbers(held: OpenStudy, split: str) -> np.ndarray:
    """Return the numbers in the data of a regression, float64 ``[n]``."""
    return held.remembered(
        ("numbers", split), lambda: held.study.task.split(split).targets.double().reshape(-1).numpy()
    )


def predicted_numbers(held: OpenStudy, split: str) -> np.ndarray:
    """Return the explained model's numbers of a regression, float64 ``[n]``."""

    def make() -> np.ndarray:
        return held.study.task.outputs_of(split).double().reshape(-1).numpy()

    return held.remembered(("predicted numbers", split), make)


def errors(held: OpenStudy, split: str) -> np.ndarray:
    """Return the predicted minus the given numbers ``[n]``."""
    return predicted_numbers(held, split) - given_numbers(held, split)


def worst_first(held: OpenStudy, split: str) -> np.ndarray:
    """Return all positions: wrong predictions first, or the largest errors first; ties in the order of the data."""
    if is_regression(held):
        return np.argsort(-np.abs(errors(held, split)), kind="stable")
    return np.argsort(probabilities(held, split).argmax(1) == given_labels(held, split), kind="stable")


def answers(held: OpenStudy, split: str, positions: Sequence[int] | slice) -> Answers:
    """Return what stands in the data of some rows and what the model says, as cards show it."""
    if is_regression(held):
        numbers, said = given_numbers(held, split)[positions], predicted_numbers(held, split)[positions]
        shown = [figure(value) for value in numbers.tolist()], [figure(value) for value in said.tolist()]
        return Answers(*shown, [0.0] * len(said), (said - numbers).tolist())
    classes, chances = held.study.header.classes, probabilities(held, split)[positions]
    given = [classes[label] for label in given_labels(held, split)[positions].tolist()]
    if split == TYPED:
        given = [""] * len(given)  # nobody has said what is true of it
    predicted = [classes[label] for label in chances.argmax(1).tolist()]
    return Answers(given, predicted, chances.max(1).astype(float).tolist(), [None] * len(given))


def exported_answers(held: OpenStudy, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the given and the predicted labels ``[n]`` of a split for a file: class names, or numbers as they are."""
    if is_regression(held):
        return given_numbers(held, split), predicted_numbers(held, split)
    classes = np.asarray(held.study.header.classes)
    return classes[given_labels(held, split)], classes[probabilities(held, split).argmax(1)]


def chances_in_words(held: OpenStudy, split: str, positions: Sequence[int]) -> tuple[tuple[str, float], ...]:
    """Return every class with its mean probability over some rows, the highest first; nothing for a regression."""
    if is_regression(held):
        return ()
    chances = probabilities(held, split)[positions].mean(0)
    classes = held.study.header.classes
    return tuple((classes[c], float(chances[c])) for c in np.argsort(-chances, kind="stable").tolist())


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
    rows = _looked_at(held, split, positions)
    encoder = study.encoder
    said = answers(held, split, positions)
    planted = study.planted[positions] if split == "train" and study.planted is not None else None
    truth = study.true_labels[positions] if planted is not None and study.true_labels is not None else None
    pictures = _pictures(rows, encoder)
    cells, texts = row_cells(rows, held, all_cells), row_texts(rows, encoder, all_cells)
    kind = {"image": "image", "text": "text"}.get(study.header.modality, "table row")
    result = []
    for i, row_id in enumerate(study.task.ids(split)[positions].tolist()):
        flipped = None if planted is None else bool(planted[i])
        result.append(
            Datum(
                split,
                row_id,
                study.header.modality,
                pictures[i],
                cells[i],
                texts[i],
                said.given[i],
                said.predicted[i],
                said.confidence[i],
                str(truth[i]) if flipped and truth is not None else None,
                flipped,
                _in_words(split, f"{kind} {row_id}", said, i),
                said.error[i],
            )  # fmt: skip
        )
    return result


def _in_words(split: str, row: str, said: Answers, i: int) -> str:
    """Return a row for screen readers; a typed one has no label, and an id that says nothing."""
    if split == TYPED:
        return f"Your input, predicted {said.predicted[i]}"
    return f"{split} {row}, labelled {said.given[i]}, predicted {said.predicted[i]}"


def _looked_at(held: OpenStudy, split: str, positions: list[int]) -> pa.Table:
    """Return raw rows; of a tensor study the inputs only where they are all there is to see, as they may be long."""
    study, encoder = held.study, held.study.encoder
    if not isinstance(encoder, TensorEncoder) or encoder.picture is not None:
        return study.rows(split, positions)
    shown = shown_columns(held, split)
    return study.some_columns(split, positions, [study.header.id, *shown]) if shown else study.rows(split, positions)


def _pictures(rows: pa.Table, encoder: Encoder) -> Sequence[str | None]:
    """Return what is seen of each row as a data URI: the larger copy where the study keeps one."""
    if isinstance(encoder, ImageEncoder):
        return [data_uri(content) for content in encoder.shown(rows)]
    pixels = row_pixels(rows, encoder)
    return [None] * len(rows) if pixels is None else [png(image) for image in pixels]


def row_pixels(rows: pa.Table, encoder: Encoder) -> np.ndarray | None:
    """Return the pictures ``[n, channels, height, width]``, uint8, or None where rows are no pictures."""
    if isinstance(encoder, ImageEncoder) or (isinstance(encoder, TensorEncoder) and encoder.picture is not None):
        return encoder.pixels(rows)
    return None


def searched_words(held: OpenStudy, split: str) -> list[str]:
    """Return, for every row of a split, what a search looks through beside id and labels."""
    study, n = held.study, held.study.n_rows(split)
    if isinstance(study.encoder, TensorEncoder):
        columns = {name: study.column(split, name).tolist() for name in shown_columns(held, split)}
        whole = {name: [v if isinstance(v, str) else in_words(v) for v in values] for name, values in columns.items()}
        return [" ".join(f"{name} {values[i]}" for name, values in whole.items()) for i in range(n)]
    if study.header.modality == "image":
        return [""] * n
    cards = drawn(held, split, list(range(n)), all_cells=True)
    return [f"{card.text or ''} {' '.join(f'{a} {b}' for a, b in card.cells)}" for card in cards]


def png(pixels: np.ndarray) -> str:
    """Return an image ``[channels, height, width]`` of 8-bit numbers as a PNG data URI."""
    return data_uri(as_png(pixels))


def data_uri(content: bytes) -> str:
    """Return the bytes of a PNG or JPEG file as a data URI."""
    return f"data:{media_type(content)};base64,{base64.b64encode(content).decode()}"


def losses(held: OpenStudy, split: str) -> np.ndarray:
    """Return the explained model's loss on every row of a split ``[n]``."""

    def make() -> np.ndarray:
        task = held.study.task
        with torch.no_grad():
            return task.loss.from_outputs(task.outputs_of(split), task.split(split).targets).numpy()  # type: ignore[union-attr]

    return held.remembered(("losses", split), make)
