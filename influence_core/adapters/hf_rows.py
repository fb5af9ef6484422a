"""Tokenised rows as a Trainer takes them, padded to one length, and what people see of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from influence_core.adapters.torch_study import Split
from influence_core.errors import BadInput
from influence_core.examples import Examples

_LABELS = ("labels", "label", "label_ids")
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """What the columns of the rows are for.

    Attributes:
        inputs: Names that the model is called with.
        label: Name of the label.
        padding: Input -> what fills a row that is shorter than the longest.
        length: Tokens of the longest row of any split; None where rows have no tokens.
        number: Whether labels are numbers, not classes.
    """

    inputs: tuple[str, ...]
    label: str
    padding: Mapping[str, int]
    length: int | None
    number: bool


def columns_of(model: nn.Module, splits: Mapping[str, Any], pad_token: int, number: bool) -> Columns:
    """Return the columns' roles, found as the Trainer finds them: by the names of the arguments of ``forward``.

    Args:
        model: Says which inputs there are.
        splits: Split name -> rows with a length, each a mapping.
        pad_token: Token that fills short rows.
        number: Whether labels are numbers.

    Raises:
        BadInput: Rows are no mappings, or lack inputs or labels.
    """
    first = _item(splits["train"], 0, "train")
    accepted = [name for name in inspect.signature(model.forward).parameters if name not in _LABELS]
    inputs = [name for name in accepted if name in first]
    label = next((name for name in _LABELS if name in first), None)
    main = getattr(model, "main_input_name", "input_ids")
    if main not in inputs or label is None:
        missing = f"'{main}'" if main not in inputs else "'label'"
        raise BadInput(
            "The rows cannot be given to the model",
            f"They have {', '.join(map(str, first))}, and no {missing}.",
            "Give the tokenised data sets that the Trainer was given.",
        )
    if main != "input_ids":
        return Columns(tuple(inputs), label, {}, None, number)
    lengths = {split: [len(_item(rows, i, split)[main]) for i in range(len(rows))] for split, rows in splits.items()}
    longest = max(max(values) for values in lengths.values())
    uneven = any(min(values) < longest for values in lengths.values())
    if uneven and "attention_mask" not in inputs and "attention_mask" in accepted:
        inputs.append("attention_mask")
    return Columns(
        tuple(inputs), label, {"input_ids": pad_token, "attention_mask": 0, "token_type_ids": 0}, longest, number
    )


def _item(rows: Any, index: int, split: str) -> Mapping[str, Any]:
    try:
        item = rows[index]
    except Exception as error:  # noqa: BLE001  (whatever the user's data set raises)
        why = f"Row {index}: {type(error).__name__}: {' '.join(str(error).split())[:200]}."
        raise BadInput(f"The {split} data cannot be read", why, "Correct the data set.") from error
    if not isinstance(item, Mapping):
        why = f"Row {index} is a {type(item).__name__}."
        raise BadInput(f"The {split} data cannot be read", why, "Give rows as mappings, as the Trainer takes them.")
    return item


class PaddedRows(Dataset):
    """Rows as ``(inputs, target)``, read one at a time.

    Args:
        rows: The user's data set.
        columns: Roles.
        split: Its name, for messages.
        padded: Whether to fill short rows; else each keeps its own length.
    """

    def __init__(self, rows: Any, columns: Columns, split: str, *, padded: bool = True) -> None:
        """Keep the rows; nothing is read."""
        self.rows, self.columns, self.split, self.padded = rows, columns, split, padded

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return the inputs and the label of a row.

        Raises:
            BadInput: It lacks one, or holds something that is no number.
        """
        item = _item(self.rows, index, self.split)
        inputs = {name: self._input(item, name, index) for name in self.columns.inputs}
        label = self._tensor(item, self.columns.label, index)
        return inputs, label.float() if self.columns.number else label

    def _input(self, item: Mapping[str, Any], name: str, index: int) -> Tensor:
        if name == "attention_mask" and name not in item:
            value = torch.ones(len(item["input_ids"]), dtype=torch.long)
        else:
            value = self._tensor(item, name, index)
        length = self.columns.length
        if length is None or not self.padded or name not in self.columns.padding or not value.dim():
            return value
        filled = value.new_full((length,), self.columns.padding[name])
        filled[: len(value)] = value
        return filled

    def _tensor(self, item: Mapping[str, Any], name: str, index: int) -> Tensor:
        try:
            return torch.as_tensor(item[name])
        except (KeyError, TypeError, ValueError, RuntimeError):
            held = f"holds {str(item[name])[:60]!r}" if name in item else "is missing"
            why = f"Row {index}: '{name}' {held}."
            raise BadInput(f"The {self.split} data cannot be read", why, "Give tokens and labels as numbers.") from None


def split_of(rows: Any, columns: Columns, split: str, show: Sequence[str] | None, decode: Callable | None) -> Split:
    """Return a split of the study: padded inputs, ids, and the columns that people see.

    Args:
        rows: The user's data set; its column ``id`` gives the ids, else they are 0..n-1.
        columns: Roles.
        split: Its name.
        show: Columns to show, the first text among them as the row's text; None: all texts and numbers.
        decode: ``tokens -> text`` where there is no column of texts.
    """
    first = _item(rows, 0, split)
    used = {*columns.inputs, columns.label, "id"}
    names = list(show) if show is not None else [n for n, v in first.items() if n not in used and _is_cell(v)]
    unknown = [name for name in names if name not in first]
    if unknown:
        why = f"'{unknown[0]}' is not among {', '.join(map(str, first))}."
        raise BadInput(f"There is no such column in the {split} data", why, "Correct show=.")
    names = names[:_MOST_SHOWN] if show is None else names
    text = next((n for n in sorted(names, key=lambda n: n != "text") if isinstance(first[n], str)), None)
    cells: dict[str, list[Any]] = {name: [] for name in names}
    decoded: list[str] = []
    ids: list[Any] | None = [] if "id" in first and "id" not in columns.inputs else None
    for index in range(len(rows)):
        item = _item(rows, index, split)
        for name in names:
            cells[name].append(_cell(item.get(name)))
        if text is None and decode is not None:
            decoded.append(decode(_tokens(item, columns)))
        if ids is not None:
            ids.append(_cell(item.get("id")))
    shown = {"text" if name == text else name: _array(values) for name, values in cells.items()}
    if decoded:
        shown = {"text": pa.array(decoded, pa.string()), **{n: v for n, v in shown.items() if n != "text"}}
    examples = Examples(PaddedRows(rows, columns, split), split)
    return Split(examples, None, ids, pa.table(shown) if shown else None)


def _tokens(item: Mapping[str, Any], columns: Columns) -> list[int]:
    return [int(token) for token in item["input_ids"]] if "input_ids" in columns.inputs else []


def _is_cell(value: Any) -> bool:
    plain = isinstance(value, (str, bool, int, float, np.generic))
    return plain or (isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0)


def _cell(value: Any) -> Any:
    return value.item() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value


def _array(values: Iterable[Any]) -> pa.Array:
    values = list(values)
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def token_decoder(folder: Path) -> Callable[[list[int]], str] | None:
    """Return ``tokens -> text`` from the ``tokenizer.json`` beside a checkpoint, or None where there is none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001  (the library raises plain Exceptions; without it, cards show the tokens)
        return None
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True)
