"""Which rows a training library's batches held, overheard from its data loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import BatchSampler

from influence_core.errors import BadInput


class BatchOrder:
    """Listens to the sampler of a data loader; batches are taken in the order in which they were drawn.

    A loader that works ahead (worker processes, prefetching) has drawn more batches than were trained on, in the same
    order: what is left over at the end of an epoch is dropped when the next one starts.

    Args:
        loader: A ``torch.utils.data.DataLoader``, or what a library made of it.
        ids: Row ids by position in the data set; None: the positions themselves.
    """

    def __init__(self, loader: Any, ids: Sequence[Any] | None = None) -> None:
        """Put a listener in the place of the sampler, if there is one of the usual form."""
        self._drawn: deque[list[Any]] = deque()
        self._ids, self._batches = ids, getattr(loader, "batch_sampler", None)
        self.heard = type(self._batches) is BatchSampler
        if self.heard:
            self._check_length(self._batches.sampler)  # type: ignore[union-attr]
            self._batches.sampler = _Listener(self._batches.sampler, self)  # type: ignore[union-attr]

    def _check_length(self, sampler: Any) -> None:
        rows = getattr(sampler, "data_source", None)
        if self._ids is not None and rows is not None and len(rows) != len(self._ids):
            why = f"There are {len(self._ids)} ids for {len(rows)} rows."
            raise BadInput("The row ids do not match the training data", why, "Give one id per row, in their order.")

    def next(self) -> list[Any] | None:
        """Return the row ids of the next batch, or None if they are not known."""
        return self._drawn.popleft() if self._drawn else None

    def close(self) -> None:
        """Put the loader's own sampler back."""
        if self.heard and isinstance(self._batches.sampler, _Listener):  # type: ignore[union-attr]
            self._batches.sampler = self._batches.sampler.inner  # type: ignore[union-attr]

    def listened(self, inner: Any) -> Iterator[Any]:
        """Yield a sampler's positions for an epoch, and keep them batch by batch."""
        self._drawn.clear()
        size, whole_only = self._batches.batch_size, self._batches.drop_last  # type: ignore[union-attr]
        batch: list[Any] = []
        for position in inner:
            batch.append(position if self._ids is None else self._ids[position])
            if len(batch) == size:
                self._drawn.append(batch)
                batch = []
            yield position
        if batch and not whole_only:
            self._drawn.append(batch)


class _Listener:
    """A sampler that tells what it yields; in all else the one inside."""

    def __init__(self, inner: Any, order: BatchOrder) -> None:
        self.inner, self._order = inner, order

    def __iter__(self) -> Iterator[Any]:
        return self._order.listened(self.inner)

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "_order"):  # not there yet, while it is copied
            raise AttributeError(name)
        return getattr(self.inner, name)
