"""Rows that are in no split: typed or pasted, kept beside a study, and asked about like any row.

A row's id is the hash of its content, so that an answer kept for an id is the answer to that content for ever. The
content is kept as ``typed/<id>.json`` in the study's folder: a bounded number, the least recently used go first.
Nothing of it enters the study's data, fingerprint or splits.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from influence_core.config import digest
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.measurement import TYPED, Rows
from influence_core.study import Study
from influence_core.workflows.typed_values import checked_values, fields, row_table

KEPT = 200
FORMAT = 1
_MAX_BYTES = 16 << 20
_ID = re.compile("[0-9a-f]{32}")


class TypedStudy(Study):
    """A study with typed rows as one more split to ask about; everything else is the study's own."""

    def __init__(self, study: Study, ids: Sequence[str]) -> None:
        """Read and encode the rows.

        Raises:
            BadInput: A row is not kept any more, or does not fit the study.
        """
        super().__init__(study.path)
        _ = study.task, study.planted  # computed once for every view
        self.__dict__.update(study.__dict__)
        values = [stored(study, row_id) for row_id in ids]
        tables = [row_table(study, row_id, one) for row_id, one in zip(ids, values, strict=True)]
        self.typed_values = dict(zip(ids, values, strict=True))
        self._typed_rows = pa.concat_tables(tables)
        self.__dict__["task"] = study.task.with_typed(_examples(study, self._typed_rows, values), ids)

    def rows(self, split: str, positions: Sequence[int]) -> pa.Table:
        """Return raw rows by position; of the typed rows as they were typed."""
        return self._typed_rows.take(list(positions)) if split == TYPED else super().rows(split, positions)

    def n_rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return len(self._typed_rows) if split == TYPED else super().n_rows(split)


def with_typed(study: Study, ids: Sequence[str]) -> TypedStudy:
    """Return the study with these typed rows as its split ``typed``.

    Raises:
        BadInput: A row is not kept any more, or does not fit the study.
    """
    return TypedStudy(study, tuple(dict.fromkeys(str(row_id) for row_id in ids)))


def typed(study: Study, values: Mapping[str, Any] | str | bytes | Path | None, named: Mapping[str, Any]) -> Rows:
    """Keep a row that is in no split, and return it as a query; see ``Study.typed``.

    Raises:
        BadInput: A value is missing or cannot be one of its column, a column is unknown, or the disk is full.
    """
    given = dict(named)
    if isinstance(values, Mapping):
        given = {str(name): value for name, value in values.items()} | given
    inputs = [field for field in fields(study) if not field.is_label]
    if values is not None and not isinstance(values, Mapping):
        if len(inputs) != 1 or inputs[0].name in given:
            raise BadInput(
                "The row cannot be typed so", f"A row of this study has {len(inputs)} columns.",
                "Give a mapping of column names to values.",
            )  # fmt: skip
        given[inputs[0].name] = values
    if len(inputs) == 1 and inputs[0].kind in given and inputs[0].name not in given:
        given[inputs[0].name] = given.pop(inputs[0].kind)  # text= and image= whatever the column is called
    return Rows(TYPED, (keep(study, checked_values(study, given)),))


def keep(study: Study, values: Mapping[str, Any]) -> str:
    """Write checked values beside the study, and return the row's id.

    Raises:
        BadInput: They do not become finite inputs, or cannot be written.
    """
    row_id = digest([FORMAT, dict(values)])
    _examples(study, row_table(study, row_id, values), [values])
    folder = _folder(study)
    path = folder / f"{row_id}.json"
    beside = folder / f".{row_id}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(exist_ok=True)
        beside.write_text(json.dumps({"format": FORMAT, "values": values}, ensure_ascii=False), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise BadInput(
            "What was typed cannot be kept", f"{folder}: {error.strerror}.", "Free some space or the permission."
        ) from None
    _forget_old(folder, path)
    return row_id


def stored(study: Study, row_id: str) -> dict[str, Any]:
    """Return the values of a typed row.

    Raises:
        BadInput: It is not kept any more, damaged, or does not fit the study.
    """
    path = _folder(study) / f"{row_id}.json"
    again = f"Type it again: the last {KEPT} inputs of a study are kept, on the machine where they were typed."
    gone = BadInput("This input is not kept any more", f"The study has no typed row {str(row_id)[:40]!r}.", again)
    if not _ID.fullmatch(row_id):
        raise gone
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            raise gone
        kept = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        os.utime(path)
    except FileNotFoundError:
        raise gone from None
    except PermissionError:
        why = f"{path} is not ours to read."
        raise BadInput("This input cannot be read", why, "Correct its permissions.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput("This input cannot be read", f"{path}: {error}.", "Type it again.") from None
    values = kept.get("values") if isinstance(kept, dict) else None
    if not isinstance(values, dict) or digest([FORMAT, values]) != row_id:
        raise BadInput("This input cannot be read", f"{path} has been changed.", "Type it again.")
    return checked_values(study, values)


def touch(study: Study, row_id: str) -> None:
    """Note that a row is used, so that others are forgotten before it."""
    if _ID.fullmatch(row_id):
        with suppress(OSError):
            os.utime(_folder(study) / f"{row_id}.json", follow_symlinks=False)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _folder(study: Study) -> Path:
    folder = study.path / TYPED
    if folder.is_symlink():
        raise BadInput("What was typed cannot be kept", f"{folder} leads out of the study.", "Delete this link.")
    return folder


def _forget_old(folder: Path, newest: Path) -> None:
    """Delete what was not used for longest; another process may be doing the same."""
    ages = []
    for path in folder.glob("*.json"):
        with suppress(OSError):
            ages.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(ages, reverse=True)[KEPT:]:
        if path != newest:
            with suppress(OSError):
                path.unlink()


def _examples(study: Study, rows: pa.Table, values: Sequence[Mapping[str, Any]]) -> Examples:
    """Return typed rows as the task takes them; a classification has class 0 as a target that nobody reads."""
    encoder, header = study.encoder, study.header
    with np.errstate(all="ignore"):
        arrays = encoder.arrays(rows)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise BadInput(
            "The row cannot be used", "A value is too large for the model.", "Type numbers nearer to those of the data."
        )
    inputs = encoder.called({name: torch.from_numpy(array) for name, array in arrays.items()})
    like = study.task.split("train").targets[:1]
    if header.task == "classification":
        targets = torch.zeros((len(rows), *like.shape[1:]), dtype=like.dtype)
    else:
        numbers = torch.tensor([float(one[header.label]) for one in values], dtype=like.dtype)
        targets = numbers.reshape(-1, *([1] * (like.dim() - 1)))
    return Examples((inputs, targets), TYPED)
