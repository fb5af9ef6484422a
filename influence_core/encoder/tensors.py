"""A user's own tensors, kept number by number: what their model is called with, whatever made it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute
import torch

from influence_core.encoder.base import Encoder, named_column
from influence_core.errors import BadInput

# pyarrow makes its functions at import time, which type checkers do not see.
pc: Any = _compute
Form = Literal["tensor", "keywords", "positions"]
DTYPES = ("float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
LARGEST_INPUT = 1 << 28  # numbers of one row's input; a longer list column cannot be addressed in Parquet
_WIDENED = {"float16": "float32", "bfloat16": "float32"}  # exactly, and Parquet readers know no short ones
_SMALLEST_PICTURE = 4
_COLUMN = re.compile(r"input(\.[^\W\d]\w*|\.\d+)?")


@dataclass(frozen=True)
class TensorInput:
    """One input of the model: the list column that holds it, the shape of a row, the type of its numbers."""

    column: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        """Check what may come from a file of anybody's."""
        if not isinstance(self.column, str) or not _COLUMN.fullmatch(self.column):
            raise ValueError(f"'{self.column}' is no name of an input column")
        if self.dtype not in DTYPES:
            raise ValueError(f"'{self.dtype}' is none of {', '.join(DTYPES)}")
        if not all(isinstance(size, int) and size > 0 for size in self.shape) or self.size > LARGEST_INPUT:
            raise ValueError(f"the shape of '{self.column}' is {list(self.shape)}")

    @property
    def size(self) -> int:
        """Return how many numbers a row has."""
        return math.prod(self.shape)

    @property
    def is_real(self) -> bool:
        """Return whether its numbers have fractions."""
        return self.dtype.startswith("float")

    @property
    def name(self) -> str:
        """Return the name or the position in the call; empty for a single tensor."""
        return self.column.partition(".")[2]

    def listed(self, values: np.ndarray) -> pa.FixedSizeListArray:
        """Return rows ``[n, *shape]`` as a column of lists."""
        flat = np.ascontiguousarray(values, dtype=self.dtype).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), self.size)

    def read(self, rows: pa.Table) -> np.ndarray:
        """Return the rows ``[n, *shape]`` of a table.

        Raises:
            BadInput: No such column, or its lists are not of this length and type.
        """
        column = named_column(rows, self.column)
        if not len(column):
            return np.zeros((0, *self.shape), self.dtype)
        kind = column.type
        fixed = pa.types.is_fixed_size_list(kind)
        if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise self._odd(f"it holds {kind}, not lists of numbers")
        flat = [chunk.flatten() for chunk in column.chunks]
        n_values = sum(len(part) for part in flat)
        holes = column.null_count + sum(part.null_count for part in flat)
        lengths = [kind.list_size] if fixed else pc.list_value_length(column).unique().to_pylist()
        if holes or n_values != len(column) * self.size or lengths != [self.size]:
            raise self._odd("a row has another number of values, or a missing one")
        values = pa.concat_arrays(flat).cast(pa.from_numpy_dtype(np.dtype(self.dtype)))
        return values.to_numpy(zero_copy_only=False).reshape(-1, *self.shape)

    def _odd(self, why: str) -> BadInput:
        asked = f"{self.size} numbers of type {self.dtype} in every row"
        return BadInput(
            f"The column '{self.column}' does not fit the model",
            f"encoder.json asks for {asked}; {why}.",
            "Restore the data from a copy, or build the study again.",
        )


@final
@dataclass(frozen=True)
class TensorEncoder(Encoder):
    """Inputs of a model that come as tensors already: nothing is scaled, integers stay integers.

    Attributes:
        form: How the model is called: with one tensor, with keywords, or with positions.
        inputs: One entry for each, in the order of the call.
        picture: The numbers that are black and white, where the one input is an image ``[1 or 3, height, width]``.
    """

    form: Form
    inputs: tuple[TensorInput, ...]
    picture: tuple[float, float] | None = None
    kind = "tensors"

    def __post_init__(self) -> None:
        """Check that the parts go together."""
        columns = [one.column for one in self.inputs]
        if self.form not in ("tensor", "keywords", "positions") or not columns or len(set(columns)) < len(columns):
            raise ValueError(f"the form is '{self.form}', the columns are {columns}")
        wanted = {"tensor": ["input"], "positions": [f"input.{i}" for i in range(len(columns))]}.get(self.form, columns)
        if columns != wanted or (self.form == "keywords" and not all(one.name.isidentifier() for one in self.inputs)):
            raise ValueError(f"{columns} cannot be the columns of a call by {self.form}")
        if self.picture is not None and not (self.is_image and self.picture[0] < self.picture[1]):
            raise ValueError("the picture needs one input of the shape [1 or 3, height, width], and low < high")

    @property
    def is_image(self) -> bool:
        """Return whether the one input has the shape of a grey or a colour image."""
        return self.form == "tensor" and is_image(self.inputs[0].shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one row of the first input."""
        return self.inputs[0].shape

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the shape and the type of every array: ``inputs``, or ``inputs.0``, ``inputs.1``, ... of several."""
        names = ["inputs"] if self.form == "tensor" else [f"inputs.{i}" for i in range(len(self.inputs))]
        return {name: (one.shape, one.dtype) for name, one in zip(names, self.inputs, strict=True)}

    def encoded(self, rows: pa.Table) -> Any:
        """Return the inputs: an array ``[n, ...]``, or a dict of arrays by name or by position (as text)."""
        if self.form == "tensor":
            return self.inputs[0].read(rows)
        return {one.name: one.read(rows) for one in self.inputs}

    def arrays(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """Return the inputs as the arrays of ``layout``."""
        return {name: one.read(rows) for name, one in zip(self.layout, self.inputs, strict=True)}

    def called(self, arrays: Mapping[str, Any]) -> Any:
        """Return the call's tensor, its keywords, or its positions."""
        values = [arrays[name] for name in self.layout]
        if self.form == "tensor":
            return values[0]
        if self.form == "positions":
            return tuple(values)
        return {one.name: value for one, value in zip(self.inputs, values, strict=True)}

    def columns(self, inputs: Any) -> dict[str, pa.Array]:
        """Return the columns that keep some rows of model inputs, given in the form of the call.

        Raises:
            BadInput: A row has another shape or type than the first ones had.
        """
        columns = {}
        for one, value in zip(self.inputs, _values(inputs), strict=True):
            array = as_array(value)
            if array.shape[1:] != one.shape or array.dtype != np.dtype(one.dtype):
                raise BadInput(
                    "The rows are not alike",
                    f"{_told(one.name)} had the shape {list(one.shape)} of {one.dtype}; here it is "
                    f"{list(array.shape[1:])} of {array.dtype}.",
                    "Give every row the same shape and type: pad texts, resize pictures.",
                )
            columns[one.column] = one.listed(array)
        return columns

    def pixels(self, rows: pa.Table) -> np.ndarray:
        """Return the pictures ``[n, channels, height, width]`` as 8-bit numbers; ``picture`` must be known."""
        low, high = cast(tuple[float, float], self.picture)
        values = (self.inputs[0].read(rows).astype(np.float64) - low) / (high - low)
        return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as JSON values."""
        picture = None if self.picture is None else {"low": self.picture[0], "high": self.picture[1]}
        inputs = [{"column": one.column, "shape": list(one.shape), "dtype": one.dtype} for one in self.inputs]
        return {"kind": self.kind, "form": self.form, "inputs": inputs, "picture": picture}

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> TensorEncoder:
        """Make an encoder from what ``to_json`` gave, without its kind.

        Raises:
            TypeError: Options are missing or unknown.
            ValueError: They do not go together.
        """
        if set(options) != {"form", "inputs", "picture"}:
            raise TypeError("the options are form, inputs and picture")
        inputs = tuple(TensorInput(one["column"], tuple(one["shape"]), one["dtype"]) for one in options["inputs"])
        picture = options["picture"]
        seen = None if picture is None else (float(picture["low"]), float(picture["high"]))
        return cls(options["form"], inputs, seen)

    @classmethod
    def of(cls, inputs: Any) -> TensorEncoder:
        """Return the encoder of model inputs, given some rows of them in the form of the call; no picture yet.

        Args:
            inputs: A tensor or array ``[n, ...]``, a mapping (called by keywords) or a sequence (by positions) of them.

        Raises:
            BadInput: Something else, an input without numbers, or a type of number that cannot be kept.
        """
        try:
            if isinstance(inputs, Mapping):
                return cls("keywords", tuple(_described(f"input.{name}", value) for name, value in inputs.items()))
            if isinstance(inputs, Sequence):
                return cls("positions", tuple(_described(f"input.{i}", value) for i, value in enumerate(inputs)))
            return cls("tensor", (_described("input", inputs),))
        except (TypeError, ValueError, IndexError) as error:
            why = f"{str(error).rstrip('.')}."
            fix = "Give tensors [n, ...] of numbers; inputs by name need names that are Python words."
            raise BadInput("The inputs cannot be kept", why[:1].upper() + why[1:], fix) from None


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether a row of this shape can be seen as a grey or a colour picture."""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= _SMALLEST_PICTURE


def as_array(value: Any) -> np.ndarray:
    """Return a tensor or an array in a type that can be kept; half precision becomes float32, exactly.

    Raises:
        BadInput: It has no numbers, or numbers of another kind.
    """
    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
    name = str(tensor.dtype).removeprefix("torch.")
    if _WIDENED.get(name, name) not in DTYPES or tensor.layout != torch.strided:
        raise BadInput(
            "An input cannot be kept",
            f"It is a tensor of {name}, {str(tensor.layout).removeprefix('torch.')}.",
            f"Give dense tensors of {', '.join(DTYPES)}.",
        )
    tensor = tensor.detach().cpu()
    return (tensor.float() if name in _WIDENED else tensor).numpy()


def _values(inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, Sequence) else [inputs]


def _told(name: str) -> str:
    return f"The input '{name}'" if name else "The input"


def _described(column: str, value: Any) -> TensorInput:
    array = as_array(value)
    return TensorInput(column, tuple(array.shape[1:]), str(array.dtype))
