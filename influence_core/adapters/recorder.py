"""Recording one's own training loop in two lines: checkpoints, learning rates, batch order, optimiser state."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from influence_core.adapters import recording
from influence_core.adapters.recording import Entry, Index, written_whole
from influence_core.adapters.snapshots import (
    optimizer_description,
    optimizer_tensors,
    plain_model,
    save_weights,
    stored_tensor,
)
from influence_core.adapters.spacing import Spacing
from influence_core.errors import BadInput
from influence_core.recorded_training import START
from influence_core.store import disk_errors

_STEPS_AT_ONCE, _IDS_AT_ONCE, _SECONDS_AT_ONCE = 2000, 1_000_000, 60.0


class Recorder:
    """Records a training loop for a study: one line before the loop, one in it.

    ::

        recorder = Recorder("recording", model, optimizer)
        for epoch in range(epochs):
            for ids, inputs, targets in loader:
                ...
                optimizer.step()
                recorder.step(ids)      # directly after optimizer.step()
        recorder.close()                # or: with Recorder(...) as recorder

    Without ``every`` and ``at``, checkpoints are spread over the whole run, whatever its length: one is kept per
    interval, which starts at one step (a quarter of an epoch with ``epochs_length``) and doubles whenever more than
    ``keep`` are there; every second one is then deleted. So between 6 and 12 remain, and the last step's.

    The learning rate is the one that the step used, wherever the scheduler's step stands. Under gradient accumulation
    call ``step`` once per optimiser step, with the ids of all its micro-batches (a list of them will do). A step that a
    gradient scaler skipped is recorded with learning rate 0. Weights are recorded as they are: in half precision where
    they are, and those that share memory once under each of their names. Of a distributed run, the first process
    records; its trajectory holds its own rows.

    Args:
        folder: Where the recording goes; must hold none yet.
        model: As the optimiser trains it. ``DataParallel``, ``DistributedDataParallel`` and compiled models are
            recorded as what they wrap.
        optimizer: Of ``torch.optim``, or one that wraps such in ``.optimizer``.
        every: Steps between checkpoints.
        at: The steps of checkpoints; 0 is the state before training.
        epochs_length: Steps in an epoch: checkpoints are then named with their epoch.
        start: Also keep the weights (and what state the optimiser has) before the first step: methods that follow every
            step take them again from there.
        optimizer_state: Also keep the optimiser's state (momentum, squared gradients) with every checkpoint.
        keep: Checkpoints kept at most, at least 2. More: every second one is deleted, so that they stay spread over the
            run. Default: 12 without ``every``, all of them with it; it cannot be used with ``at``.

    Raises:
        BadInput: An argument cannot be used, or a recording stands there.
        StoreProblem: The disk is full or refuses.
    """

    def __init__(
        self, folder: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, every: int | None = None,
        at: Iterable[int] | None = None, epochs_length: int | None = None, optimizer_state: bool = False,
        keep: int | None = None, start: bool = True,
    ) -> None:  # fmt: skip
        """Check the arguments and start the folder."""
        self.folder, self._model, self._optimizer = Path(folder), plain_model(model), _plain_optimizer(optimizer)
        self._spacing = Spacing.checked(every, at, epochs_length, keep)
        self._epochs_length, self._with_state = epochs_length, bool(optimizer_state)
        self._records = not _is_follower()
        self._steps = self._saved_at = 0
        self._rate, self._moves = self._current_rate(), 0
        self._ids: type | None = None
        self._parts, self._pending, self._held, self._flushed = 0, [], 0, time.monotonic()
        self._index = Index(optimizer_description(self._optimizer, self._model))
        self._closed = False
        if not self._records:
            return
        if (self.folder / recording.INDEX).exists() or (self.folder.exists() and not self.folder.is_dir()):
            why = f"{self.folder} holds a recording already." if self.folder.is_dir() else f"{self.folder} is a file."
            raise BadInput("The folder is taken", why, "Choose another folder, or delete this one first.")
        self._note_rates()
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if start:
            self._save_start()
        self._index.save(self.folder)
        self._hook = self._optimizer.register_step_pre_hook(self._before_step)
        if self._spacing.is_due(0):
            self.checkpoint()

    def __enter__(self) -> Recorder:
        """Return the recorder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the recording, also after an error: what was trained so far is kept."""
        self.close()

    @property
    def steps(self) -> int:
        """Return how many steps were recorded."""
        return self._steps

    def step(self, ids: Any = None) -> None:
        """Record one optimiser step; call it directly after ``optimizer.step()``.

        Args:
            ids: Row ids of the step's batch, in its order: whole numbers or texts, as a tensor, an array or a list, of
                any length; micro-batches as a list of these. None: not known.

        Raises:
            BadInput: Ids of another kind, or the recording is closed.
            StoreProblem: The disk is full or refuses.
        """
        if self._closed:
            raise BadInput("The recording is closed", "step() came after close().", "Close it after the loop.")
        if not self._records:
            return
        batch = None if ids is None else self._checked_ids(ids)
        self._steps += 1
        if self._moves == 0:
            self._index.skipped.append(self._steps)
        self._pending.append((self._steps, self._rate if self._moves else 0.0, batch))
        self._held += len(batch or ())
        self._moves = 0
        if self._spacing.is_due(self._steps):
            self.checkpoint()
        elif (
            len(self._pending) >= _STEPS_AT_ONCE
            or self._held >= _IDS_AT_ONCE
            or time.monotonic() - self._flushed > _SECONDS_AT_ONCE
        ):
            self._flush()

    def checkpoint(self) -> None:
        """Record the weights as they are now, as those of the last step; nothing if that is recorded already.

        Raises:
            BadInput: The weights cannot be stored: one is no dense tensor.
            StoreProblem: The disk is full or refuses.
        """
        entries = self._index.entries
        if not self._records or (entries and entries[-1].step == self._steps):
            return
        self._flush()
        name = f"step-{self._steps:06d}.safetensors"
        save_weights(self.folder / "checkpoints" / name, self._model.state_dict())
        if self._with_state:
            state, left_out = optimizer_tensors(self._model, self._optimizer)
            save_weights(self.folder / "optimizer" / name, state)
            if left_out:
                self.note(f"Of the optimiser's state, {', '.join(left_out)} is no tensor or number and was left out.")
        epoch = self._steps / self._epochs_length if self._epochs_length else None
        entries.append(Entry(f"checkpoints/{name}", self._steps, epoch, self._rate))
        dropped = self._spacing.thinned(entries)
        self._save_index()
        with disk_errors(self.folder):
            for entry in dropped:  # after the index: it never names a file that is gone
                for kind in ("checkpoints", "optimizer"):
                    (self.folder / kind / Path(entry.file).name).unlink(missing_ok=True)

    def close(self, *, last: bool = True) -> None:
        """Record the last step's weights and merge the trajectory; further calls do nothing.

        Args:
            last: Whether the model still holds the weights of the last step; False where others were loaded since.

        Raises:
            StoreProblem: The disk is full or refuses.
        """
        import shutil

        if self._closed:
            return
        self._closed = True
        if not self._records:
            return
        self._hook.remove()
        if last and (self._steps or not self._index.entries):
            self.checkpoint()
        self._flush()
        recording.merged_trajectory(self.folder)
        self._index.complete = True
        self._save_index()
        shutil.rmtree(self.folder / recording.PARTS, ignore_errors=True)  # a reader now looks at the merged file alone

    def note(self, text: str) -> None:
        """Add a sentence for the readers of the recording, once."""
        if text not in self._index.notes:
            self._index.notes.append(text)

    def _save_start(self) -> None:
        state, _ = optimizer_tensors(self._model, self._optimizer)
        weights = {name: stored_tensor(name, value) for name, value in self._model.state_dict().items()}
        held = {f"model/{name}": value for name, value in weights.items()}
        held |= {f"optimizer/{name}": value for name, value in state.items()}
        save_weights(self.folder / START, held)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _before_step(self, *_: Any) -> None:
        """Note the learning rate that the optimiser is about to use."""
        if self._moves == 0:
            self._rate = self._current_rate()
            self._note_rates()
        else:
            self.note("Several optimiser steps were taken per recorded step; its learning rate is the first one's.")
        self._moves += 1

    def _current_rate(self) -> float:
        groups = self._optimizer.param_groups
        largest = max(groups, key=lambda group: sum(parameter.numel() for parameter in group["params"]))
        return float(largest["lr"])

    def _note_rates(self) -> None:
        if len({float(group["lr"]) for group in self._optimizer.param_groups}) > 1:
            self.note(
                "The optimiser had several learning rates at once; the recorded one is that of the group with the most "
                "parameters, and methods weigh all parameters by it."
            )

    def _save_index(self) -> None:
        notes = list(self._index.notes)
        if self._index.skipped:
            skipped = len(self._index.skipped)
            count = "1 recorded step" if skipped == 1 else f"{skipped} recorded steps"
            self._index.notes.append(
                f"{count} came without an optimiser step and moved no weight (learning rate 0): a gradient scaler "
                "skipped it, or step() was called for each micro-batch."
            )
        self._index.save(self.folder)
        self._index.notes = notes

    def _checked_ids(self, ids: Any) -> list[Any]:
        values = list(_flattened(ids))
        kinds = {type(value) for value in values}
        if self._ids is None and kinds in ({int}, {str}):
            self._ids = kinds.pop()
        elif kinds - {self._ids}:
            kept = "whole numbers or texts" if self._ids is None else f"{self._ids.__name__} as in the steps before"
            odd = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise BadInput("The ids of a step cannot be used", f"They are {odd}, not {kept}.", "Give the rows' ids.")
        return values

    def _flush(self) -> None:
        """Append what is pending to the trajectory as a part of its own."""
        if not self._pending:
            return
        kind = pa.string() if self._ids is str else pa.int64()
        steps, rates, batches = zip(*self._pending, strict=True)
        try:
            table = recording.steps_table(steps, rates, batches, kind)
        except (pa.ArrowException, OverflowError) as error:
            raise BadInput("The ids of a step cannot be used", f"{error}.", "Give ids of up to 64 bits.") from None
        path = self.folder / recording.PARTS / f"part-{self._parts:08d}.parquet"
        written_whole(path, lambda part: pq.write_table(table, part))
        self._parts, self._pending, self._held, self._flushed = self._parts + 1, [], 0, time.monotonic()


def _flattened(ids: Any) -> Iterable[Any]:
    """Yield ids out of tensors, arrays and lists, nested as they may be."""
    if isinstance(ids, (Tensor, np.ndarray)):
        ids = ids.tolist()
    if isinstance(ids, (str, bytes)) or not isinstance(ids, (Sequence, range)):
        yield ids.item() if isinstance(ids, np.generic) else ids
        return
    for item in ids:
        yield from _flattened(item)


def _plain_optimizer(optimizer: Any) -> Any:
    inner = optimizer
    # A wrapper may be a subclass that was never initialised as an optimizer itself.
    while not (isinstance(inner, torch.optim.Optimizer) and hasattr(inner, "_optimizer_step_pre_hooks")):
        if getattr(inner, "optimizer", None) is None:
            why = f"It is a {type(optimizer).__name__}."
            raise BadInput("The optimizer cannot be recorded", why, "Give one of torch.optim.")
        inner = getattr(inner, "optimizer")  # noqa: B009  (no Optimizer declares it)
    return inner


def _is_follower() -> bool:
    """Return whether this is one of several processes of a distributed run, and not the first."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and torch.distributed.get_rank() != 0
