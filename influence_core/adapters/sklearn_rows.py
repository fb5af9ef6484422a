"""The rows of a scikit-learn user: what the last step of a pipeline reads of them, and what people see."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.errors import BadInput

DENSE_BYTES = 1 << 30  # of sparse rows of one split made dense, in float32
_SHOWN_COLUMNS = 200  # of an array; a data frame's columns have names and are all kept
_AT_ONCE = 4096


def n_rows(rows: Any) -> int:
    """Return the number of rows of a data frame, an array, a sparse matrix or a list."""
    return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)


def rows_at(rows: Any, positions: Sequence[int] | np.ndarray) -> Any:
    """Return some rows, in the form they came in."""
    index = np.asarray(positions, dtype=np.int64)
    if hasattr(rows, "iloc"):
        return rows.iloc[index]
    return [rows[i] for i in index.tolist()] if isinstance(rows, (list, tuple)) else rows[index]


def split_model(model: Any) -> tuple[list[Any], Any]:
    """Return the transforming parts of a pipeline, in order, and the model at its end; also of nested pipelines."""
    from sklearn.pipeline import Pipeline

    before: list[Any] = []
    while isinstance(model, Pipeline):
        if len(model.steps) > 1:
            before.append(model[:-1])
        model = model.steps[-1][1]
        if model is None or isinstance(model, str):
            why = f"Its last step is '{model}'."
            raise BadInput("The pipeline has no model", why, "Give a pipeline that ends in a model.")
    return before, model


def model_inputs(before: Sequence[Any], rows: Any, split: str, width: int) -> np.ndarray:
    """Return what the model itself reads ``[n, width]``, float32 and dense.

    Args:
        before: Transforming parts, fitted; each is applied in turn.
        rows: The user's rows.
        split: Their split, for messages.
        width: Numbers that the model takes.

    Raises:
        BadInput: The transformers refuse the rows, there are too many sparse ones, or a value is not finite.
    """
    what = f"The model cannot read the {split} rows"
    for part in before:
        try:
            rows = part.transform(rows)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            why = f"{' '.join(str(error).split())[:300].rstrip('.')}."
            raise BadInput(what, why, "Give rows as the pipeline was fitted on: the same columns and types.") from None
    values = _dense(rows, split, width, what)
    broken = np.flatnonzero(~np.isfinite(values).all(1))
    if len(broken):
        why = f"Row {broken[0] + 1:,} has a missing or infinite value, or one that float32 cannot hold."
        raise BadInput(what, why, "Add an imputer or a scaler to the pipeline, or leave the row out.")
    return values


def _dense(rows: Any, split: str, width: int, what: str) -> np.ndarray:
    sparse = hasattr(rows, "tocsr")
    if not sparse:
        try:
            rows = np.asarray(rows, dtype=np.float64)
        except (ValueError, TypeError) as error:
            why = f"They are not numbers: {' '.join(str(error).split())[:200].rstrip('.')}."
            raise BadInput(what, why, "Give the whole pipeline that turns them into numbers.") from None
    shape = rows.shape
    if len(shape) != 2 or shape[1] != width:
        why = f"They have the shape {list(shape)}, and the model takes {width} numbers a row."
        raise BadInput(what, why, "Give the rows that it was fitted for.")
    if sparse and shape[0] * shape[1] * 4 > DENSE_BYTES:
        why = f"{shape[0]:,} rows of {shape[1]:,} numbers are {shape[0] * shape[1] * 4 / 1e9:.1f} GB when dense."
        fix = f"Use fewer features (max_features, min_df, or TruncatedSVD) or rows: {DENSE_BYTES / 1e9:.1f} GB fit."
        raise BadInput(f"The {split} rows are too large", why, fix)
    values = np.empty(shape, np.float32)
    rows = rows.tocsr() if sparse else rows
    with np.errstate(over="ignore"):  # named by the caller, with the row
        for start in range(0, shape[0], _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            values[start : start + _AT_ONCE] = part.toarray() if sparse else part
    return values


def shown_rows(rows: Any, names: Sequence[str] | None) -> pa.Table | None:
    """Return what people see of each row: the columns of a data frame or an array, or a ``text``; None of others."""
    if hasattr(rows, "columns"):
        columns = {str(name): rows.iloc[:, i] for i, name in enumerate(rows.columns)}
        return pa.table({_free(name, columns): _column(values) for name, values in columns.items()})
    if hasattr(rows, "tocsr"):
        return None
    values = np.asarray(rows, dtype=object) if isinstance(rows, (list, tuple)) else np.asarray(rows)
    if values.ndim == 1 and all(isinstance(value, str) for value in values.tolist()):
        return pa.table({"text": pa.array(values.tolist(), pa.string())})
    if values.ndim != 2 or values.shape[1] > _SHOWN_COLUMNS:
        return None
    heads = list(names) if names is not None and len(names) == values.shape[1] else []
    heads = [str(name) for name in heads] or [f"x{i}" for i in range(values.shape[1])]
    if len(set(heads)) < len(heads):
        heads = [f"x{i}" for i in range(values.shape[1])]
    return pa.table({_free(name, heads): _column(values[:, i]) for i, name in enumerate(heads)})


def _free(name: str, taken: Any) -> str:
    """Return the name that a column has in the study, where some are taken."""
    found = name
    if name in ("id", "label") or name == "input" or name.startswith("input."):
        found = f"original {name}"
        while found in taken:
            found += "_"
    return found


def _column(values: Any) -> pa.Array:
    try:
        array = pa.array(values, from_pandas=True)
        column = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        nested = pa.types.is_nested(column.type) or pa.types.is_binary(column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        nested, column = True, None
    if column is not None and pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
        nested = pa.types.is_nested(column.type)
    if column is None or nested:  # several kinds of values: as they are written
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return column


def fitted_model(model: Any, rows: Any, targets: Any, *, from_file: bool) -> tuple[Any, list[str]]:
    """Return a copy of an estimator, fitted on rows with every open random state set to 0, and what it warned of.

    Raises:
        BadInput: scikit-learn refuses the rows.
    """
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    fresh: Any = clone(model)
    settings = fresh.get_params()
    fixed: dict[str, Any] = {
        name: 0 for name, value in settings.items() if value is None and name.rpartition("__")[2] == "random_state"
    }
    if from_file:  # a cache folder is a folder of pickles, and its place was chosen by the file
        fixed |= {name: None for name, value in settings.items() if value and name.rpartition("__")[2] == "memory"}
    fresh.set_params(**fixed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            fresh.fit(rows, targets)
        except (ValueError, TypeError, KeyError) as error:
            why = f"{' '.join(str(error).split())[:300].rstrip('.')}."
            raise BadInput("The model cannot be fitted", why, "Correct the rows or the model's settings.") from None
    stopped = any(issubclass(one.category, ConvergenceWarning) for one in caught)
    return fresh, ["The fitting stopped before it converged; raise max_iter."] if stopped else []
