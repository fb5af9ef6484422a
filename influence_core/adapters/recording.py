"""What a Recorder leaves behind: the format of the folder, how it is written safely, and how it is read.

``recording.json`` names the checkpoints, the optimiser and notes; ``checkpoints/`` and ``optimizer/`` hold safetensors;
``start.safetensors`` holds the weights before the first step and the optimiser's state then, named ``model/...`` and
``optimizer/...``; ``trajectory.parquet`` holds one row per step (``step`` int64, ``learning_rate`` float64, ``batch``
list of row ids).
While a recording runs, the trajectory is ``trajectory/part-*.parquet``; they are merged when it is closed or read.
Every file is written beside its place and renamed, and a checkpoint is named in ``recording.json`` only once it stands,
so that a process killed at any moment leaves a folder that can be read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.errors import BadInput
from influence_core.recorded_training import INDEX, TRAJECTORY, RecordedTraining
from influence_core.store import disk_errors

FORMAT = 1
PARTS = "trajectory"


@dataclass(frozen=True)
class Entry:
    """One recorded checkpoint.

    Attributes:
        file: Its path below the folder.
        step: Optimiser steps taken so far.
        epoch: Passes over the data so far, where the length of one is known.
        learning_rate: Step size that this step used.
    """

    file: str
    step: int
    epoch: float | None
    learning_rate: float


@dataclass(frozen=True)
class Recording:
    """A recording as it was read.

    Attributes:
        folder: Where it stands.
        entries: Its checkpoints, in the order of training; at least one.
        trajectory_path: The steps as a Parquet file, or None if no step was recorded.
        optimizer: Class and hyper-parameters of the optimiser.
        notes: What a reader must know, in sentences.
        complete: The training loop came to its end (``close`` was called).
        skipped: Steps that moved no weight, by number.
    """

    folder: Path
    entries: tuple[Entry, ...]
    trajectory_path: Path | None
    optimizer: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    complete: bool = True
    skipped: tuple[int, ...] = ()

    @property
    def training(self) -> RecordedTraining | None:
        """Return the steps, for ``Task(..., recorded=)``; None where none were recorded."""
        if self.trajectory_path is None or self.entries[-1].step == 0:
            return None
        marks = tuple(entry.step for entry in self.entries)
        return RecordedTraining(self.folder, self.optimizer, marks, self.skipped)

    @property
    def checkpoints(self) -> list[Path]:
        """Return the checkpoint files, in the order of training."""
        return [self.folder / entry.file for entry in self.entries]

    @property
    def learning_rates(self) -> list[float]:
        """Return one learning rate per checkpoint."""
        return [entry.learning_rate for entry in self.entries]


@dataclass
class Index:
    """The content of ``recording.json`` while it is written."""

    optimizer: Mapping[str, Any]
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False
    skipped: list[int] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the file, all of it or nothing."""
        content = {"format": FORMAT, **asdict(self)}
        text = json.dumps(content, indent=1)
        written_whole(folder / INDEX, lambda path: path.write_text(text, encoding="utf-8"))


def written_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, flush it to the disk and rename it.

    Raises:
        StoreProblem: The disk is full or refuses.
    """
    # The suffix stays the last: writers look at it.
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)


def load_recording(folder: str | Path) -> Recording:
    """Read what a Recorder left behind, also after a crash or while it still runs.

    Args:
        folder: The folder given to the Recorder.

    Returns:
        Its checkpoints, learning rates, steps, optimiser and notes. The parts of an unfinished trajectory are merged
        into ``trajectory.parquet`` on the way.

    Raises:
        BadInput: There is none, it is damaged or newer than this version, or a checkpoint is gone or was never written.
        StoreProblem: The merged trajectory cannot be written.
    """
    folder = Path(folder)
    content = _index(folder)
    try:
        entries = tuple(_entry(folder, item) for item in content["entries"])
        notes = tuple(str(note) for note in content.get("notes", ()))
        optimizer, complete = dict(content.get("optimizer", {})), content.get("complete") is True
        skipped = tuple(int(step) for step in content.get("skipped", ()))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput("The recording is incomplete", f"{folder / INDEX}: {error!r}.", _FIX) from None
    if not entries:
        raise BadInput(
            "The recording has no checkpoint",
            f"{folder / INDEX} names none: training ended before the first was due.",
            "Train on, or record more often: Recorder(..., every=...) or at=[...].",
        )
    steps = [entry.step for entry in entries]
    if sorted(set(steps)) != steps:
        raise BadInput("The recording is damaged", f"{folder / INDEX}: its steps {steps} are not in order.", _FIX)
    if not complete:
        note = f"Training had not come to its end: the last checkpoint is of step {steps[-1]}."
        notes = (*notes, note)
    return Recording(folder, entries, _trajectory(folder, complete), optimizer, notes, complete, skipped)


_FIX = f"Restore {INDEX} from a copy, or record again."


def _index(folder: Path) -> dict[str, Any]:
    file = folder / INDEX
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        why = f"{file} does not exist."
        raise BadInput("There is no recording here", why, "Give the folder that the Recorder was given.") from None
    except (ValueError, RecursionError, OSError) as error:
        raise BadInput("The recording cannot be read", f"{file}: {error}.", _FIX) from None
    if not isinstance(content, dict):
        raise BadInput("The recording cannot be read", f"{file} holds no JSON object.", _FIX)
    version = content.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BadInput("The recording cannot be read", f"{file} has format {version!r}.", _FIX)
    if version > FORMAT:
        raise BadInput(
            "The recording is from a newer version",
            f"{file} has format {version}; this version reads up to {FORMAT}.",
            "Update the program, then open the recording again.",
        )
    return content


def _entry(folder: Path, item: Mapping[str, Any]) -> Entry:
    file, epoch = str(item["file"]), item.get("epoch")
    rate = float(item["learning_rate"])
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"the learning rate of {file} is {rate}")
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()) or path.suffix != ".safetensors":
        raise ValueError(f"'{file}' is no .safetensors file in this folder")
    if not path.is_file():
        raise BadInput(
            "A recorded checkpoint is gone",
            f"{path} does not exist.",
            f"Put the file back, or take its entry out of {INDEX}.",
        )
    return Entry(file, int(item["step"]), None if epoch is None else float(epoch), rate)


# -- the trajectory ---------------------------------------------------------------------------------------------------


def steps_table(steps: Sequence[int], rates: Sequence[float], batches: Sequence[Any], ids: pa.DataType) -> pa.Table:
    """Return steps as a table.

    Args:
        steps: Their numbers, from 1.
        rates: Learning rates ``[n]``.
        batches: Row ids of each step; None where they are not known.
        ids: int64 or string.
    """
    return pa.table(
        {
            "step": pa.array(steps, pa.int64()),
            "learning_rate": pa.array(rates, pa.float64()),
            "batch": pa.array(batches, pa.list_(ids)),
        }
    )


def merged_trajectory(folder: Path) -> Path | None:
    """Merge the parts into ``trajectory.parquet``, one in memory at a time; None if there are none.

    Raises:
        BadInput: A part cannot be read.
        StoreProblem: The disk is full or refuses.
    """
    parts = sorted((folder / PARTS).glob("part-*.parquet"))
    if not parts:
        return None
    try:
        schemas = [pq.read_schema(part) for part in parts]
        # Parts from before the first known ids are typed as if these were whole numbers.
        schema = next((s for s in schemas if s.field("batch").type.value_type == pa.string()), schemas[0])

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, schema) as writer:
                for part in parts:
                    writer.write_table(pq.read_table(part).cast(schema))

        written_whole(folder / TRAJECTORY, write)
    except (pa.ArrowException, KeyError) as error:
        why = f"{folder / PARTS}: {' '.join(str(error).split())}."
        raise BadInput("The recorded steps cannot be read", why, "Restore the folder from a copy.") from None
    return folder / TRAJECTORY


def _trajectory(folder: Path, complete: bool) -> Path | None:
    """Return the whole trajectory; what stands in its place is one only once the recording is complete."""
    if not complete:
        return merged_trajectory(folder)
    path = folder / TRAJECTORY
    if not path.exists():
        return None
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        why = f"{path}: {' '.join(str(error).split())}."
        raise BadInput("The recorded steps cannot be read", why, "Restore the file from a copy.") from None
    if names != ["step", "learning_rate", "batch"]:
        why = f"{path} has the columns {', '.join(names[:8])}."
        raise BadInput("The recorded steps cannot be read", why, "Restore the file from a copy.")
    return path
