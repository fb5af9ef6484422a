"""A user's own held-out probabilities: matched to the rows and classes of a study by name, and kept in its folder.

They are one Parquet file, ``pred_probs.parquet``: a column of row ids and one per class, with their origin in the
schema's metadata, so that numbers and origin change together or not at all.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from influence_core.errors import BadInput, InfluenceError
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.tables import reading
from influence_core.workflows.suspects.held_out import check_classified, checked_probabilities

FILE_NAME = "pred_probs.parquet"
_ID, _ORIGIN = "row id", b"influence.origin"
_ID_NAMES = ("train_id", "row_id", "id", "index")  # beside the study's own name for it
_WHAT = "The probabilities do not fit the study"
_SHOWN = 5


@dataclass(frozen=True)
class Origin:
    """Where kept probabilities come from: the file's name, who gave them, and when, in seconds since 1970."""

    file: str
    by: str = ""
    at: float = 0.0


def matched_probabilities(study: Study, names: Sequence[str], columns: Mapping[str, np.ndarray]) -> Tensor:
    """Return the probabilities ``[n_train, C]`` of a table in the order of the study's train rows and classes.

    Args:
        study: A classification.
        names: The columns' names: one of row ids, and exactly the classes.
        columns: Name -> its values ``[n]``.

    Raises:
        BadInput: A column is missing or too many, a row is missing, unknown or there twice, or values are no
            probabilities.
    """
    check_classified(study.task)
    classes, ids = study.header.classes, study.task.ids("train")
    known = [name for name in dict.fromkeys((study.header.id, *_ID_NAMES)) if name in names and name not in classes]
    _check_columns(study, names, known)
    given = [_plain_id(value) for value in columns[known[0]].tolist()]
    _check_rows(given, [str(value) for value in ids.tolist()])
    place = {row: i for i, row in enumerate(given)}
    order = np.asarray([place[str(value)] for value in ids.tolist()])
    numbers = []
    for name in classes:
        values = columns[name]
        if values.dtype.kind not in "fiu":
            wrong = next((v for v in values.tolist() if not isinstance(v, int | float)), None)
            why = f"Column '{name}' holds {'nothing' if wrong is None else repr(wrong)[:40]}."
            raise BadInput("The probabilities cannot be read", why, "Give numbers from 0 to 1 in every row.")
        numbers.append(values.astype(np.float64)[order])
    return checked_probabilities(study.task, np.stack(numbers, 1))


def _plain_id(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check_columns(study: Study, names: Sequence[str], known: list[str]) -> None:
    classes = study.header.classes
    if not known:
        why = f"No column names the rows; there are: {_some(names)}."
        raise BadInput(_WHAT, why, f"Add the ids of the train rows as a column '{study.header.id}'.")
    missing, unknown = [c for c in classes if c not in names], [n for n in names if n not in classes and n != known[0]]
    if missing or unknown:
        parts = [f"It has no column for {_some(missing)}."] if missing else []
        parts += [f"{_some(unknown)} {'is' if len(unknown) == 1 else 'are'} no class of it."] if unknown else []
        raise BadInput(_WHAT, " ".join(parts), f"Name the columns '{known[0]}' and by class: {_some(classes)}.")


def _check_rows(given: list[str], wanted: list[str]) -> None:
    there, needed = set(given), set(wanted)
    missing = [row for row in wanted if row not in there]
    unknown = [row for row in given if row not in needed]
    parts = [f"{len(missing):,} train rows are missing ({_some(missing)})."] if missing else []
    parts += [f"{len(unknown):,} rows are no train rows ({_some(unknown)})."] if unknown else []
    if len(there) < len(given):
        seen: set[str] = set()
        twice = [row for row in given if row in seen or seen.add(row)]
        parts.append(f"{len(twice):,} rows are there more than once ({_some(twice)}).")
    if parts:
        said = f"It has {len(given):,} rows; the study has {len(wanted):,} train rows. {' '.join(parts)}"
        raise BadInput(_WHAT, said, "Give every train row once, and no other.")


def _some(names: Iterable[object]) -> str:
    shown = [str(name)[:40] for name in names]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN:,} more" if len(shown) > _SHOWN else "")


def keep_probabilities(study: Study, shares: Tensor, origin: Origin) -> None:
    """Keep probabilities ``[n_train, C]`` in the study's folder in place of earlier ones, all of them or none.

    Raises:
        StoreProblem: The disk is full or refuses; the earlier ones are still there.
    """
    ids, classes = study.task.ids("train"), study.header.classes
    arrays = [pa.array(ids.tolist()), *(pa.array(column) for column in shares.double().T.contiguous().numpy())]
    said = {_ORIGIN: json.dumps({**asdict(origin), "at": origin.at or time.time()}).encode()}
    table = pa.Table.from_arrays(arrays, names=[_ID, *(f"class {name}" for name in classes)])
    file = study.path / FILE_NAME
    part = study.path / f".{FILE_NAME}.{secrets.token_hex(4)}.part"
    with disk_errors(file):
        try:
            pq.write_table(table.replace_schema_metadata(said), part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def kept_origin(study: Study) -> Origin | None:
    """Return where the kept probabilities come from; None without any.

    Raises:
        BadInput: The file is damaged.
    """
    file = study.path / FILE_NAME
    try:
        with reading(file, "Your probabilities cannot be read", "Remove them, or give them again."):
            said = json.loads((pq.read_schema(file).metadata or {}).get(_ORIGIN, b"{}"))
            return Origin(str(said.get("file", ""))[:200], str(said.get("by", ""))[:200], float(said.get("at", 0)))
    except FileNotFoundError:
        return None


def kept_probabilities(study: Study) -> Tensor | None:
    """Return the kept probabilities of a study's, or of a version's, train rows ``[n_train, C]``; None without any.

    Raises:
        BadInput: The file is damaged, or is of other rows or classes.
    """
    file = study.path / FILE_NAME
    if not file.is_file():
        return None
    if study.header.task != "classification":
        return None
    classes, ids = study.header.classes, study.task.ids("train").tolist()
    with reading(file, "Your probabilities cannot be read", "Remove them, or give them again."):
        if pq.read_schema(file).names != [_ID, *(f"class {name}" for name in classes)]:
            raise BadInput(_WHAT, "They are of other classes.", "Give them again.")
        table = pq.read_table(file)
        place = {row: i for i, row in enumerate(table[_ID].to_pylist())}
        if any(row not in place for row in ids):
            raise BadInput(_WHAT, "They are of other rows.", "Give them again.")
        order = np.asarray([place[row] for row in ids])
        shares = np.stack([column.to_numpy()[order] for column in table.columns[1:]], 1)
        return checked_probabilities(study.task, shares)


def usable_probabilities(study: Study) -> Tensor | None:
    """Return the kept probabilities; None without any, or where they cannot be used."""
    with suppress(InfluenceError):
        return kept_probabilities(study)
    return None


def remove_probabilities(study: Study) -> None:
    """Forget the kept probabilities."""
    with disk_errors(study.path):
        (study.path / FILE_NAME).unlink(missing_ok=True)


__all__ = [
    "FILE_NAME", "Origin", "keep_probabilities", "kept_origin", "kept_probabilities", "matched_probabilities",
    "remove_probabilities", "usable_probabilities",
]  # fmt: skip
