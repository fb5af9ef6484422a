"""How a computation runs: device, precision, batch size, store, progress and cancellation. Never what it computes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from influence_core.errors import BadInput, Cancelled
from influence_core.store import Store

T = TypeVar("T")
BESIDES = " · "  # between a stage and what its last batch says
_PRECISIONS = {torch.float32: "float32", torch.float64: "float64"}


def _ignore_progress(stage: str, done: float, total: float) -> None:
    """Drop a progress report: the null object, so that no loop tests for None."""


def _never() -> bool:
    return False


def stage_name(said: str) -> str:
    """Return the stage of a report, without what its last batch says."""
    return said.partition(BESIDES)[0]


@dataclass(frozen=True)
class Run:
    """One way of running a computation.

    Args:
        device: ``"cpu"``, ``"cuda"``, ...; ``"auto"`` takes a GPU where there is one.
        dtype: ``torch.float32`` or ``torch.float64``: precision of models, features and scores.
        batch_size: Rows per forward and backward pass. Scores do not depend on it. With 128, what a batch of a small
            network allocates stays with the process; with 256 the C library gave it back after every batch.
        seed: Seed of everything random (projections, chosen rows). Part of the key of what depends on it.
        store: Where artifacts are kept; ``None``: a temporary folder that lives as long as this process.
        progress: Called as ``progress(stage, done, total)``.
        cancel: Asked once per batch; ``True`` stops the computation with ``Cancelled``.
    """

    device: Any = "auto"
    dtype: torch.dtype = torch.float32
    batch_size: int = 128
    seed: int = 0
    store: Store | None = None
    progress: Callable[[str, float, float], None] = field(default=_ignore_progress, repr=False)
    cancel: Callable[[], bool] = field(default=_never, repr=False)

    def __post_init__(self) -> None:
        """Check the settings and resolve ``auto``."""
        if self.dtype not in _PRECISIONS:
            raise BadInput("Unknown precision", f"dtype is {self.dtype}.", "Use torch.float32 or torch.float64.")
        if self.batch_size < 1:
            raise BadInput("No batch can be made", f"batch_size is {self.batch_size}.", "Use 1 or more.")
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        try:
            device = torch.device(device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0]
            raise BadInput("This device cannot be used", f"{self.device!r}: {why}.", "Use 'cpu' or 'auto'.") from None
        object.__setattr__(self, "device", device)

    @property
    def precision(self) -> str:
        """Return the name of the precision, as keys and file names carry it."""
        return _PRECISIONS[self.dtype]

    @property
    def artifacts(self) -> Store:
        """Return the store, or the process's temporary one."""
        return self.store if self.store is not None else _temporary_store()

    def with_store(self, store: Store) -> Run:
        """Return the same settings on another store, unless one was chosen already."""
        return self if self.store is not None else replace(self, store=store)

    def check_cancelled(self) -> None:
        """Raise ``Cancelled`` if the user asked to stop."""
        if self.cancel():
            raise Cancelled

    def track(
        self, batches: Iterable[T], stage: str, total: float, words: Callable[[T], str] | None = None
    ) -> Iterator[T]:
        """Pass batches through, reporting progress: the only progress call and the only cancel point.

        Args:
            batches: Whatever the loop runs over.
            stage: What is being done, in the user's words.
            total: How many there will be.
            words: What a finished batch says besides, such as its loss; it stands behind the stage and "·".

        Raises:
            Cancelled: Before a batch, if the user asked to stop.
        """
        done = 0
        self.progress(stage, 0, total)
        for batch in batches:
            self.check_cancelled()
            yield batch
            done += 1
            self.progress(stage if words is None else f"{stage}{BESIDES}{words(batch)}", done, total)

    def waiting(self, seconds: float = 0.05) -> None:
        """Sleep a moment while another process computes the same artifact, staying open to cancellation."""
        self.check_cancelled()
        time.sleep(seconds)


_TEMPORARY: list[tuple[tempfile.TemporaryDirectory[str], Store]] = []


def _temporary_store() -> Store:
    if not _TEMPORARY:
        folder = tempfile.TemporaryDirectory(prefix="influence-")
        _TEMPORARY.append((folder, Store(Path(folder.name))))
    return _TEMPORARY[0][1]
