"""What an import will take, before it begins: rates measured on a few rows or images, times those there are."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import architectures
from influence_core.default_model import chosen_model
from influence_core.encoder import ColumnsEncoder, SentenceEncoder, TextEncoder
from influence_core.encoder.pictures import has_colour, opened_picture, pixels_of, small_copy
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import new_model, training
from influence_core.readers import limits
from influence_core.readers.images import ImageSource, usable
from influence_core.readers.roles import Roles, used_columns
from influence_core.readers.sources import Source

_ROWS, _FEW_ROWS, _STEPS, _TRIES = 500, 16, 4, 4  # measured; a language model is asked for few
_TRAIN = 0.7  # of the rows
_PASSES = 2  # over the source's rows, besides those that encode
_BASE_BYTES = 400 << 20  # of a process that has loaded the libraries
_BYTES_A_ROW = 17  # 64 bits of content, the label, the split
_COPY = 256  # pixels on the long side of the copy that people see
_START_SECONDS = 4.0  # of the worker process

_known: WeakKeyDictionary[Source | ImageSource, dict[Any, Any]] = WeakKeyDictionary()
_Shown = Literal["table", "text", "image"]
_Answer = Literal["classification", "regression"]


@dataclass(frozen=True)
class ImportCost:
    """What an import will take: seconds, bytes of the study on disk, bytes of memory while it is made."""

    seconds: float
    disk_bytes: float
    memory_bytes: float


@dataclass(frozen=True)
class _Rates:
    """Seconds for each row and numbers that a row becomes."""

    typed: float
    encoded: float
    width: int
    stored_bytes: float


def import_cost(source: Source, roles: Roles, read_seconds: float = 0.0) -> ImportCost:
    """Return what importing a table with these roles will take on this machine; within a factor of two or so.

    Args:
        source: The table.
        roles: Checked roles.
        read_seconds: What reading the file took, where it must be read again.
    """
    rates, n_train = _rates(source, roles), max(1, math.ceil(_TRAIN * source.n_rows))
    step, n_steps, n_weights = _training(source, roles, rates.width, n_train)
    # Encoded when the model is trained, and once more, all of it, when the study is opened.
    encoding = 2 * rates.encoded * (1 if roles.reading == "words" else 0.5)
    seconds = _START_SECONDS + read_seconds + source.n_rows * (_PASSES * rates.typed + encoding) + step * n_steps
    batch = limits.ROWS_AT_ONCE * rates.width * 4 * 3
    disk = source.n_rows * (rates.stored_bytes + 4 * rates.width) + 4 * n_weights
    return ImportCost(seconds, disk, _BASE_BYTES + _BYTES_A_ROW * source.n_rows + batch)


def images_cost(source: ImageSource, label: str, read_seconds: float = 0.0) -> ImportCost:
    """Return what importing images with this label will take on this machine; within a factor of two or so.

    Args:
        source: The images.
        label: A label that can be used.
        read_seconds: What looking at the images took, where it must be done again.
    """
    held = _known.setdefault(source, {})
    if "images" not in held:
        held["images"] = _image_rates(source)
    decoded, channels, stored = held["images"]
    task, n_train = source.task_of(label), max(1, math.ceil(_TRAIN * source.n_rows))
    shape = (channels, source.side, source.side)
    n_classes = 0 if task == "regression" else max(2, len(source.classes_of(label)))
    step, n_steps, n_weights = _measured_training(held, "image", task, shape, n_classes, n_train)
    pixels = math.prod(shape)
    seconds = _START_SECONDS + read_seconds + source.n_rows * decoded + step * n_steps
    disk = source.n_rows * (pixels + stored) + 4 * n_weights
    batch = limits.IMAGES_AT_ONCE * (4 * pixels + stored)
    return ImportCost(seconds, disk, _BASE_BYTES + _BYTES_A_ROW * source.n_rows + batch)


def _image_rates(source: ImageSource) -> tuple[float, int, float]:
    """Return seconds an image, channels, and bytes of the larger copy, by a few images that can be read."""
    side, n, n_bytes, colour = source.side, 0, 0, False
    rows = next(iter(source.batches())).slice(0, _FEW_ROWS)
    start = time.perf_counter()
    for read in source.readers(rows):
        try:
            image = opened_picture(usable(read()))
        except BadInput:
            continue
        n += 1
        colour = has_colour(pixels_of(image, (3, side, side))) or colour
        n_bytes += len(small_copy(image, _COPY)) if max(image.size) > side else 0
    return (time.perf_counter() - start) / max(n, 1), 3 if colour else 1, n_bytes / max(n, 1)


def _rates(source: Source, roles: Roles) -> _Rates:
    held = _known.setdefault(source, {})
    if "typed" not in held:
        start = time.perf_counter()
        rows = source.head(_ROWS)
        held["typed"] = (time.perf_counter() - start) / len(rows)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer)
        held["rows"], held["stored"] = rows, buffer.tell() / len(rows)
    key = ("text", roles.text, roles.reading) if roles.text else "columns"
    if key not in held:
        held[key] = _text_rate(held["rows"], roles) if roles.text else _column_rates(held["rows"], source)
    if roles.text:
        encoded, width = held[key]
    else:
        found = [held[key].get(name, (0.0, 1)) for name in used_columns(source, roles)]
        encoded, width = sum(rate for rate, _ in found), max(1, sum(width for _, width in found))
    return _Rates(held["typed"], encoded, width, held["stored"])


def _text_rate(rows: pa.Table, roles: Roles) -> tuple[float, int]:
    name = str(roles.text)
    if roles.reading == "meaning":
        rows = rows.slice(0, _FEW_ROWS)
        encoder = SentenceEncoder.installed(name)
        encoder.encoded(rows.slice(0, 1))  # loads the model
    else:
        encoder = TextEncoder(name, 2048, (1.0,) * 2048)
    start = time.perf_counter()
    encoder.encoded(rows)
    return (time.perf_counter() - start) / len(rows), encoder.shape[0]


def _column_rates(rows: pa.Table, source: Source) -> dict[str, tuple[float, int]]:
    """Return seconds a row and width of every column that can be encoded, as if it were read."""
    names = [info.name for info in source.columns if info.kind not in ("other", "text") and info.n_distinct > 1]
    if not names:
        return {}
    start = time.perf_counter()
    encoder = ColumnsEncoder.fitted(lambda: iter([rows]), names)
    encoder.encoded(rows)
    rate = (time.perf_counter() - start) / len(rows) / len(names)
    widths = {name: place.stop - place.start for name, place in encoder.parts}
    return {name: (rate, widths.get(name, 1)) for name in names}


def _training(source: Source, roles: Roles, width: int, n_train: int) -> tuple[float, int, int]:
    n_classes = 0 if roles.task == "regression" else max(2, source.column(roles.label).n_distinct)
    held = _known.setdefault(source, {})
    return _measured_training(held, "text" if roles.text else "table", roles.task, (width,), n_classes, n_train)


def _measured_training(
    held: dict[Any, Any], kind: _Shown, task: _Answer, shape: tuple[int, ...], n_classes: int, n_train: int
) -> tuple[float, int, int]:
    """Return seconds of a step of the training, measured, the number of steps, and all recorded numbers."""
    targets = np.zeros(n_train, np.float32 if not n_classes else np.int64)
    name, options, recipe = chosen_model(kind, task, shape, targets, n_classes)
    n_steps = recipe.epochs * math.ceil(n_train / recipe.batch_size)
    width = math.prod(shape)
    key = ("step", kind, task, n_classes, width.bit_length())
    if key in held:  # of about this width
        step, n_params = held[key]
        return step, n_steps, n_params * max(1, len(recipe.checkpoints))
    some = min(n_train, _STEPS * recipe.batch_size)
    inputs = np.random.default_rng(0).normal(size=(some, *shape)).astype(np.float32) / math.sqrt(width)
    rows = Examples((inputs, targets[:some]), "train")
    short = recipe.changed(epochs=_TRIES, checkpoints=())
    model = new_model(architectures.model_factory(name, options), short)
    times = [time.perf_counter()]
    with one_core():
        for _ in training(model, rows, LOSSES["cross_entropy" if n_classes else "mse"], short):
            times.append(time.perf_counter())
    # The quickest try: the first one wakes the library up, and others may have shared the processor.
    step = float(np.diff(times).min()) / math.ceil(some / recipe.batch_size)
    n_params = sum(parameter.numel() for parameter in model.parameters())
    held[key] = step, n_params
    return step, n_steps, n_params * max(1, len(recipe.checkpoints))


def cost_in_words(cost: ImportCost) -> str:
    """Return a cost as a person reads it."""
    seconds = cost.seconds
    minutes = seconds / 60
    took = f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    return f"About {took}, {_size(cost.disk_bytes)} on disk, {_size(cost.memory_bytes)} of memory"


def _size(n_bytes: float) -> str:
    if n_bytes < 1e6:
        return f"{max(1, n_bytes / 1e3):.0f} kB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"
