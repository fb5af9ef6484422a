"""A training that somebody's own code did and a Recorder wrote down: the steps, the optimiser, and where it started.

Only what can be read without running anything of the user's: batches by row ids, learning rates, the optimiser's
settings and the weights before the first step. Whether the steps can be taken again is found by taking them
(``replay_cache.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from influence_core.checkpoints import StateDict
from influence_core.config import digest
from influence_core.errors import BadInput, Unavailable
from influence_core.primitives.replay import Step
from influence_core.primitives.steps import Rule

START, TRAJECTORY, INDEX = "start.safetensors", "trajectory.parquet", "recording.json"
_KINDS = {"SGD": "sgd", "Adam": "adam", "AdamW": "adam"}
_ALIKE = {"sgd": ("momentum", "dampening", "nesterov"), "adam": ("betas", "eps", "amsgrad")}
_AGAIN = "Record again with a Recorder of this version, or use tracin_cp or source, which need checkpoints only."


class Start(NamedTuple):
    """What was there before the first step: weights and buffers by name, and the optimiser's state by parameter."""

    weights: StateDict
    optimizer: Mapping[str, Tensor]


@dataclass(frozen=True)
class RecordedTraining:
    """The recorded steps.

    Attributes:
        folder: Holds ``trajectory.parquet`` and ``start.safetensors``.
        optimizer: Class and parameter groups with their settings, as they were at the start.
        marks: Steps taken at each of the task's checkpoints.
        skipped: Recorded steps that moved nothing, by number from 1.
    """

    folder: Path
    optimizer: Mapping[str, Any]
    marks: tuple[int, ...]
    skipped: tuple[int, ...] = field(default=())

    @property
    def files(self) -> dict[str, Path]:
        """Return the files that belong to it, by name in the folder."""
        named = {name: self.folder / name for name in (INDEX, TRAJECTORY, START)}
        return {name: path for name, path in named.items() if path.is_file()}

    @property
    def kind(self) -> str:
        """Return ``sgd`` or ``adam``, or the class of another optimiser."""
        name = str(self.optimizer.get("class", "an unknown optimiser"))
        return _KINDS.get(name, name) if str(self.optimizer.get("module", "torch.optim")).startswith("torch.") else name

    @property
    def decay(self) -> float:
        """Return the weight decay of most parameters."""
        groups = self._groups()
        return float(max(groups, key=lambda group: group.get("n_params", 0)).get("weight_decay") or 0.0)

    @property
    def momentum(self) -> float:
        """Return the momentum of descent."""
        return float(self._groups()[0].get("momentum") or 0.0)

    @cached_property
    def key(self) -> str:
        """Return what tells these steps from others."""
        files = [_hashed(self.folder / name) for name in (TRAJECTORY, START)]
        return digest([files, dict(self.optimizer), list(self.marks), list(self.skipped)])

    def start(self) -> Start:
        """Return what was there before the first step.

        Raises:
            Unavailable: It was not recorded.
            BadInput: The file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / START
        if not path.is_file():
            raise _refused("it does not hold the weights before the first step", _AGAIN)
        try:
            held = load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput("The recording is damaged", f"{path}: {error}.", "Restore the file from a copy.") from None
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for name, value in held.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        return Start(parts["model"], parts["optimizer"])

    def trained(self) -> frozenset[str] | None:
        """Return the names of the parameters that the optimiser had; None where they are not known."""
        groups = self._groups()
        if not all("parameters" in group for group in groups):
            return None
        return frozenset(str(name) for group in groups for name in group["parameters"])

    def rule(self, sizes: Mapping[str, int], taken: int, like: Tensor) -> Rule:
        """Return how a step moved the weights.

        Args:
            sizes: Name -> number of weights, of the trained parameters in their order.
            taken: Steps that the optimiser had taken before.
            like: Precision and device of the vectors.

        Raises:
            Unavailable: It is an optimiser, or a use of one, whose steps are not known here.
        """
        if self.kind not in ("sgd", "adam"):
            raise _refused(f"{self.kind} took the steps, and only SGD, Adam and AdamW are known", _FEWER)
        groups = self._groups()
        for name in (*_ALIKE[self.kind], "maximize"):
            if len({str(group.get(name)) for group in groups}) > 1:
                raise _refused(f"the optimiser had several values of {name} at once", _FEWER)
        first = groups[0]
        if first.get("amsgrad") or first.get("maximize"):
            word = "amsgrad" if first.get("amsgrad") else "maximize"
            raise _refused(f"the optimiser had {word}, which is not known here", _FEWER)
        largest = max(groups, key=lambda group: group.get("n_params", 0))
        scales = [_ratio(_rate(group), _rate(largest)) for group in groups]
        decays = [float(group.get("weight_decay") or 0.0) for group in groups]
        decoupled = self.optimizer.get("class") == "AdamW" or bool(first.get("decoupled_weight_decay"))
        betas = tuple(float(b) for b in first.get("betas") or (0.9, 0.999))
        return Rule(
            "sgd" if self.kind == "sgd" else "adam", momentum=self.momentum,
            dampening=float(first.get("dampening") or 0.0), nesterov=bool(first.get("nesterov")),
            betas=(betas[0], betas[1]), eps=float(first.get("eps") or 1e-8),
            decay=self._by_weight(decays, sizes, like), decoupled=decoupled,
            scale=self._by_weight(scales, sizes, like), taken=taken,
        )  # fmt: skip

    def steps(self, ids: Sequence[Any]) -> list[Step]:
        """Return the steps up to the last checkpoint that moved the weights, by positions of the training rows.

        Args:
            ids: Of the training rows, in their order.

        Raises:
            Unavailable: A batch is not known, or holds a row that is not in the training data.
        """
        table = self._table()
        last, gone = self.marks[-1], set(self.skipped)
        numbers = [int(step) for step in table["step"].to_pylist()]
        if numbers[:last] != list(range(1, last + 1)):
            raise _refused(f"of its first {last:,} steps, {last - len(numbers[:last]):,} are missing", _AGAIN)
        places = {value: place for place, value in enumerate(ids)}
        found: list[Step] = []
        for number, rate, batch in zip(
            numbers[:last], table["learning_rate"].to_pylist(), table["batch"].to_pylist(), strict=False
        ):
            if number in gone:
                continue
            if not batch:
                fix = "Give the rows' ids at every step: recorder.step(ids)."
                raise _refused(f"the rows of step {number:,} were not recorded", fix)
            index = [places.get(value, -1) for value in batch]
            if -1 in index:
                odd = batch[index.index(-1)]
                fix = "Record the same ids that the training rows of the study have (train_ids=)."
                raise _refused(f"row {odd!r} of step {number:,} is not among the training rows", fix)
            found.append(Step(len(found), torch.tensor(index), float(rate)))
        if not found:
            raise _refused("no step moved the weights", _AGAIN)
        return found

    def places(self) -> list[int]:
        """Return how many of ``steps`` had been taken at each checkpoint."""
        return [mark - sum(1 for step in self.skipped if step <= mark) for mark in self.marks]

    def rates(self) -> list[float]:
        """Return the learning rate of each of ``steps``, without looking at their rows."""
        table, gone = self._table(["step", "learning_rate"]), set(self.skipped)
        pairs = zip(table["step"].to_pylist(), table["learning_rate"].to_pylist(), strict=True)
        return [float(rate) for step, rate in pairs if step <= self.marks[-1] and step not in gone]

    def passes(self, n_train: int) -> float:
        """Return how often the training rows were gone through; 0 where the file cannot be read."""
        try:
            table = self._table(["batch"])
        except (BadInput, Unavailable):
            return 0.0
        return sum(len(chunk.flatten()) for chunk in table["batch"].chunks) / max(1, n_train)

    def _table(self, columns: list[str] | None = None) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / TRAJECTORY
        if not path.is_file():
            raise _refused("it holds no steps", _AGAIN)
        try:
            return pq.read_table(path, columns=columns)
        except (pa.ArrowException, OSError) as error:
            why = f"{path}: {' '.join(str(error).split())}."
            raise BadInput("The recorded steps cannot be read", why, "Restore the file from a copy.") from None

    def _groups(self) -> list[Mapping[str, Any]]:
        groups = self.optimizer.get("groups")
        return list(groups) if isinstance(groups, (list, tuple)) and groups else [{}]

    def _by_weight(self, values: list[float], sizes: Mapping[str, int], like: Tensor) -> float | Tensor:
        if len(set(values)) == 1:
            return values[0]
        owner = {
            str(n): v for group, v in zip(self._groups(), values, strict=True) for n in group.get("parameters", ())
        }
        if set(sizes) - set(owner):
            raise _refused("it does not say which parameters had which settings of the optimiser", _AGAIN)
        return torch.cat([like.new_full((size,), owner[name]) for name, size in sizes.items()])


def recorded_in(folder: Path, marks: Sequence[int | None]) -> RecordedTraining | None:
    """Return the recorded training of a study folder; None if it has none.

    Args:
        folder: Holds ``recording.json`` where there is one.
        marks: Steps taken at each of the study's checkpoints, where they are known.

    Raises:
        BadInput: The file cannot be read.
    """
    path = folder / INDEX
    steps = tuple(mark for mark in marks if mark is not None)
    if not path.is_file() or len(steps) != len(marks) or not steps or steps[-1] == 0:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        optimizer, skipped = dict(content["optimizer"]), tuple(int(step) for step in content.get("skipped", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{path}: {error!r}."
        raise BadInput("The recording cannot be read", why, "Restore the file from a copy, or delete it.") from None
    return RecordedTraining(folder, optimizer, steps, skipped)


_FEWER = "Use tracin_cp or source, which need checkpoints only."


def _refused(why: str, fix: str) -> Unavailable:
    return Unavailable("The recorded training cannot be gone through again", f"In its recording, {why}.", fix)


def _rate(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr") or group.get("lr") or 0.0)


def _ratio(own: float, main: float) -> float:
    if own == main:
        return 1.0
    if main == 0:
        raise _refused("the optimiser had several learning rates at once, one of them 0 at the start", _FEWER)
    return own / main


def _hashed(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
