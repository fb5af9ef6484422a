"""Data as PyTorch users have it, as rows of a split: tensors, Datasets of pairs or dicts, ``datasets`` splits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from influence_core.adapters.torch_rows import is_shown
from influence_core.errors import BadInput
from influence_core.examples import Examples

TARGETS = ("labels", "label", "targets", "target", "y")


class Forward:
    """What a model's ``forward`` can be called with.

    Args:
        module: The model.
    """

    def __init__(self, module: nn.Module) -> None:
        """Read the signature."""
        parameters = list(inspect.signature(module.forward).parameters.values())
        self.any_name = any(one.kind is one.VAR_KEYWORD for one in parameters)
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self.names = [one.name for one in parameters if one.kind in named]
        needed = [one for one in parameters if one.default is one.empty and one.kind in named]
        self.needed = [one.name for one in needed]

    def chosen(self, tensors: Sequence[str], split: str) -> list[str]:
        """Return which of these columns are inputs; empty: the one there is, as a single tensor.

        Raises:
            BadInput: None can be told to be one, or the model needs one that is missing.
        """
        taken = [name for name in tensors if name in self.names]
        lacking = [name for name in self.needed if name not in tensors]
        if taken and not lacking:
            return taken
        if not taken and len(tensors) == 1 and len(self.needed) <= 1:
            return []
        if not taken and self.any_name and tensors and not self.needed:
            return list(tensors)
        raise BadInput(
            f"The {split} columns do not fit the model",
            f"Its forward takes {', '.join(self.names) or 'nothing by name'}; of the data, "
            f"{', '.join(tensors) or 'no column'} can be made a tensor.",
            "Name the columns as forward does, or give (inputs, targets).",
        )


def split_rows(data: Any, forward: Forward, split: str) -> tuple[Examples, pa.Table | None]:
    """Return inputs with targets, and what else the data has to look at.

    Args:
        data: ``(inputs, targets)``, a mapping of tensors with one of ``labels``, ``label``, ``targets``, ``target`` or
            ``y``, a torch ``Dataset`` of pairs or of such mappings, or a split of the ``datasets`` library.
        forward: Which names are inputs.
        split: For messages.

    Raises:
        BadInput: It is none of these, or its rows are not alike.
    """
    if isinstance(data, Mapping):
        return _columns(dict(data), forward, split)
    if hasattr(data, "column_names") and hasattr(data, "with_format"):
        return _hugging_face(data, forward, split)
    if isinstance(data, tuple) and len(data) == 2:
        return Examples(data, split), None
    if isinstance(data, tuple) and len(data) == 3:
        raise _weighted(split)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or isinstance(data, str) or not len(data):
        return Examples(data, split), None  # which says what is wrong
    first = data[0]
    if isinstance(first, Mapping):
        return _dicts(data, first, forward, split)
    if isinstance(first, (tuple, list)) and len(first) == 3:
        raise _weighted(split)
    return Examples(data, split), None


def _weighted(split: str) -> BadInput:
    return BadInput(
        f"The {split} data cannot be kept in a study",
        "Its rows have three parts; a third one, such as sample weights, makes another loss.",
        "Give (input, target) pairs, if the model was trained without weights; several inputs go into a tuple.",
    )


def _target_name(names: Sequence[str], split: str) -> str:
    found = [name for name in TARGETS if name in names]
    if len(found) != 1:
        why = f"Of {', '.join(names)}, {len(found) or 'none'} of {', '.join(TARGETS)} can be meant."
        raise BadInput(
            f"The {split} targets are not named", why, "Name one column 'labels', or give (inputs, targets)."
        )
    return found[0]


def _columns(columns: dict[str, Any], forward: Forward, split: str) -> tuple[Examples, pa.Table | None]:
    targets = columns.pop(_target_name(list(columns), split))
    tensors = {name: value for name, value in columns.items() if isinstance(value, (Tensor, np.ndarray))}
    names = forward.chosen(list(tensors), split)
    inputs = {name: tensors[name] for name in names} if names else next(iter(tensors.values()))
    rest = {name: pa.array(value) for name, value in columns.items() if isinstance(value, (list, tuple))}
    return Examples((inputs, targets), split), pa.table(rest) if rest else None


class _Rows(torch.utils.data.Dataset):
    """Rows that are mappings, as pairs of inputs and target; read one at a time, whenever they are asked for."""

    def __init__(self, data: Any, names: Sequence[str], target: str, single: str | None) -> None:
        self._data, self._names, self._target, self._single = data, names, target, single

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        row = self._data[index]
        inputs = {name: torch.as_tensor(row[name]) for name in self._names}
        return (inputs if self._single is None else inputs[self._single]), torch.as_tensor(row[self._target])


def _dicts(data: Any, first: Mapping[str, Any], forward: Forward, split: str) -> tuple[Examples, pa.Table | None]:
    target = _target_name(list(first), split)
    tensors = [name for name, value in first.items() if name != target and _is_numeric(value)]
    names = forward.chosen(tensors, split)
    plain = [
        name for name, value in first.items()
        if name not in (target, *(names or tensors)) and isinstance(value, (str, int, float, bool))
    ]  # fmt: skip
    shown = None
    if plain:
        rows = (data[index] for index in range(len(data)))
        lines = [[row[name] for name in plain] for row in rows]
        shown = pa.table({name: [line[j] for line in lines] for j, name in enumerate(plain)})
    rows = _Rows(data, names or tensors, target, None if names else tensors[0])
    return Examples(rows, split), shown


def _is_numeric(value: Any) -> bool:
    """Tell whether a value is a tensor, an array or nested lists of numbers; a bare number is something to show."""
    if isinstance(value, (Tensor, np.ndarray)):
        return not isinstance(value, np.ndarray) or value.dtype.kind in "biuf"
    if isinstance(value, (list, tuple)) and value:
        return _is_numeric(value[0]) or isinstance(value[0], (bool, int, float))
    return False


def _hugging_face(data: Any, forward: Forward, split: str) -> tuple[Examples, pa.Table | None]:
    target = _target_name(list(data.column_names), split)
    plain = data.with_format(None)
    if not len(plain):
        raise BadInput(f"The {split} data is empty", "It has no rows.", "Give at least one row.")
    arrow = data.with_format("arrow")
    kinds = {field.name: field.type for field in arrow[:1].schema}
    tensors = [name for name in data.column_names if name != target and _is_numbers(kinds[name])]
    listed = [name for name in tensors if _is_list(kinds[name])]
    names = forward.chosen(tensors if set(tensors) & set(forward.names) else listed, split)
    used = names or listed
    rows = _Rows(plain, used, target, None if names else used[0])
    others = [name for name in data.column_names if name not in (target, *used) and is_shown(kinds[name])]
    shown = arrow.select_columns(others)[:] if others else None
    return Examples(rows, split), shown


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    extended = isinstance(kind, pa.ExtensionType)
    return extended or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_numbers(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.ExtensionType):  # an array of fixed shape, as `datasets` has it
        return _is_numbers(kind.storage_type)
    if _is_list(kind):
        return _is_numbers(kind.value_type)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def shown_table(value: Any, n_rows: int, split: str) -> pa.Table | None:
    """Return what is shown beside the inputs as a table.

    Args:
        value: None, a pandas data frame, a ``pa.Table`` or a mapping of lists.
        n_rows: Rows of the split.
        split: For messages.

    Raises:
        BadInput: It is no table, or has another number of rows.
    """
    if value is None:
        return None
    try:
        if isinstance(value, Mapping):
            table = pa.table(dict(value))
        else:
            table = value if isinstance(value, pa.Table) else pa.Table.from_pandas(value, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        why = f"show is a {type(value).__name__}: {' '.join(str(error).split())[:200].rstrip('.')}."
        raise BadInput(f"What is shown of the {split} rows is no table", why, "Give a data frame.") from None
    if len(table) != n_rows:
        why = f"There are {len(table)} lines for {n_rows} rows."
        raise BadInput(f"What is shown of the {split} rows does not match", why, "Give one line for each row.")
    return table
