"""Rows of data: tensors, arrays on disk, or any torch Dataset, read a batch at a time."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from influence_core.errors import BadInput

_READ_TWICE = 8  # rows of a data set, spread over all of it


class Batch(NamedTuple):
    """Some rows: what the model is called with, and what it should say.

    Inputs are a tensor, a mapping of tensors (called as keywords) or a tuple of tensors (called as positions).
    """

    inputs: Any
    targets: Tensor


def moved(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return nested tensors on a device, floating ones in a precision; integers keep theirs."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, Mapping):
        return {name: moved(item, device, dtype) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(moved(item, device, dtype) for item in value)
    return value


def taken(value: Any, index: Any) -> Any:
    """Return some rows of nested tensors: a batch, a mapping, a tuple or one tensor."""
    if isinstance(value, Batch):
        return Batch(taken(value.inputs, index), value.targets[index])
    if isinstance(value, Mapping):
        return {name: taken(item, index) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(taken(item, index) for item in value)
    if _are_positions(index) and isinstance(value, Tensor) and value.device.type == "cpu" and value.dim():
        return value.index_select(0, index)  # three times as fast as indexing, and the same
    return value[index]


def _are_positions(index: Any) -> bool:
    """Return whether this is a list of positions on the CPU, none of them counted from the end."""
    listed = isinstance(index, Tensor) and index.dtype == torch.int64 and index.dim() == 1
    return listed and index.device.type == "cpu" and (not len(index) or int(index.min()) >= 0)


def _lengths(value: Any) -> set[int]:
    if isinstance(value, Mapping):
        return set().union(*(_lengths(item) for item in value.values()))
    if isinstance(value, (tuple, list)):
        return set().union(*(_lengths(item) for item in value))
    return {len(value)}


class Examples:
    """One split of the data.

    Args:
        source: ``(inputs, targets)`` of tensors or NumPy arrays (also memory-mapped), inputs possibly a mapping or a
            tuple of them; or a ``Dataset`` whose items are ``(input, target)``, the same whenever they are read.
        name: The split's name, for messages.
    """

    def __init__(self, source: Any, name: str = "train") -> None:
        """Check the shape of the source; of a data set a few rows are read, nothing is copied.

        Raises:
            BadInput: It is nothing that rows can be read from by place, or its rows change from pass to pass.
        """
        self.name = name
        self._dataset: Dataset | None = None
        if isinstance(source, tuple) and len(source) == 2:
            self._inputs, targets = _as_tensors(source[0], name), source[1]
            if isinstance(targets, (np.ndarray, list, tuple)):
                targets = _as_tensors(targets, name)
            if not isinstance(targets, Tensor):
                raise BadInput(
                    f"The {name} targets cannot be used",
                    f"They are a {type(source[1]).__name__}.",
                    "Give one tensor of targets.",
                )
            lengths = _lengths(self._inputs) | {len(targets)}
            if len(lengths) > 1:
                raise BadInput(
                    f"The {name} rows do not match",
                    f"Inputs and targets have lengths {sorted(lengths)}.",
                    "Give one target for each input row.",
                )
            self._targets: Tensor | None = targets
            self._length = len(targets)
        elif isinstance(source, Sequence) or (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
            self._dataset, self._targets, self._length = source, None, len(source)  # type: ignore[assignment]
        elif isinstance(source, DataLoader):
            raise BadInput(
                f"The {name} data cannot be read",
                "A DataLoader was given, which may shuffle the rows and drop some: scores could not be told whose they "
                "are.",
                "Give its Dataset: loader.dataset.",
            )
        else:
            raise BadInput(
                f"The {name} data cannot be read",
                f"It is a {type(source).__name__}.",
                "Give (inputs, targets) tensors or a torch Dataset with a length.",
            )
        if self._length == 0:
            raise BadInput(f"The {name} data is empty", "It has no rows.", "Give at least one row.")
        if self._dataset is not None:
            self._check_that_rows_stay()

    def _check_that_rows_stay(self) -> None:
        """Read a few rows of a data set in two passes: a method passes over it many times and counts rows by place."""
        places = sorted({round(place) for place in np.linspace(0, self._length - 1, _READ_TWICE)})
        first, second = ([content_hash(*self.raw(torch.tensor([place]))) for place in places] for _ in range(2))
        changed = [place for place, one, other in zip(places, first, second, strict=True) if one != other]
        if changed:
            raise BadInput(
                f"The {self.name} rows do not stay the same",
                f"Row {changed[0]} was another one when it was read again: the data set shuffles its rows, or changes "
                "them by a random augmentation.",
                "Give it without shuffling and without random transforms, or give (inputs, targets) tensors.",
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def batch(
        self, index: slice | Tensor, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Batch:
        """Return rows, by slice or positions ``[n]``, on a device and in a precision."""
        rows = self.raw(index)
        device = torch.device(device)
        return Batch(moved(rows.inputs, device, dtype), moved(rows.targets, device, dtype))

    def raw(self, index: slice | Tensor) -> Batch:
        """Return rows as they were given."""
        if self._dataset is None:
            assert self._targets is not None
            return Batch(taken(self._inputs, index), self._targets[index])
        positions = range(*index.indices(self._length)) if isinstance(index, slice) else index.tolist()
        items = [self._dataset[i] for i in positions]
        if items and not (isinstance(items[0], (tuple, list)) and len(items[0]) == 2):
            raise BadInput(
                f"The {self.name} data cannot be read",
                "Its items are not (input, target) pairs.",
                "Return two things from the Dataset's __getitem__.",
            )
        return Batch(*default_collate([tuple(item) for item in items]))

    def batches(self, size: int, device: torch.device | str, dtype: torch.dtype) -> Iterator[tuple[int, Batch]]:
        """Yield ``(first row, batch)`` over all rows in order."""
        for start in range(0, self._length, size):
            yield start, self.batch(slice(start, min(start + size, self._length)), device, dtype)

    @property
    def targets(self) -> Tensor:
        """Return all targets ``[n, ...]``."""
        if self._targets is None:
            parts = [self.batch(slice(i, min(i + 1024, self._length))).targets for i in range(0, self._length, 1024)]
            self._targets = torch.cat(parts)
        return self._targets

    def content_hash(self) -> str:
        """Return a hash of all rows."""
        state = hashlib.blake2b(digest_size=16)
        self.hash_into(state)
        return state.hexdigest()

    def hash_into(self, state: Any) -> None:
        """Feed every row, in full, to a ``hashlib`` state."""
        for start in range(0, self._length, 4096):
            batch = self.raw(slice(start, min(start + 4096, self._length)))
            hash_tensors(batch.inputs, state)
            hash_tensors(batch.targets, state)


def _as_tensors(value: Any, split: str) -> Any:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        with warnings.catch_warnings():
            # Data mapped read-only from the disk: nothing here ever writes to it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {name: _as_tensors(item, split) for name, item in value.items()}
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], (Tensor, np.ndarray, Mapping, tuple, list)):
        return tuple(_as_tensors(item, split) for item in value)
    if isinstance(value, (tuple, list)):
        try:
            return torch.tensor(value)
        except (TypeError, ValueError):
            pass  # named below, with everything else that is not made of numbers
    raise BadInput(
        f"The {split} data cannot be read",
        f"A {type(value).__name__} is not a tensor or an array of numbers.",
        "Turn texts and tables into tensors first.",
    )


def hash_tensors(value: Any, state: Any) -> None:
    """Feed nested tensors, with names, shapes and types, to a ``hashlib`` state."""
    if isinstance(value, Mapping):
        for name in value:
            state.update(str(name).encode())
            hash_tensors(value[name], state)
    elif isinstance(value, (tuple, list)):
        for item in value:
            hash_tensors(item, state)
    else:
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        state.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.reshape(-1)
        if flat.numel() and flat.stride(0) != 1:  # a single number cut from a larger tensor keeps its stride
            flat = flat.clone(memory_format=torch.contiguous_format)
        state.update(flat.view(torch.uint8).numpy().data)


def content_hash(*values: Any) -> str:
    """Return the hash of nested tensors and texts, 32 digits."""
    state = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, str):
            state.update(value.encode() + b"\0")
        else:
            hash_tensors(value, state)
    return state.hexdigest()


def checked_ids(ids: Iterable[Any] | None, n_rows: int, name: str) -> np.ndarray:
    """Return the ids of the rows of a split ``[n]``, 0..n-1 where none are given.

    Raises:
        BadInput: Another number of them, or one twice.
    """
    values = np.arange(n_rows) if ids is None else np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
    if len(values) != n_rows:
        raise BadInput(
            f"The {name} row ids do not match",
            f"There are {len(values)} ids for {n_rows} rows.",
            "Give one id per row.",
        )
    if len(np.unique(values)) != n_rows:
        raise BadInput(f"The {name} row ids are not unique", "An id occurs twice.", "Give every row its own id.")
    return values
