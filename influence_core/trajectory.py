"""Training a model by a recipe and keeping the checkpoints that a study records."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from influence_core.examples import Examples
from influence_core.primitives.losses import Loss
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import Epoch, new_model, training
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.store import disk_errors

_KEEP_SECONDS = 2.0


def trained_checkpoints(
    factory: Callable[[], nn.Module], recipe: Recipe, rows: Examples, loss: Loss, run: Run, title: str,
    weights: torch.Tensor | None = None, kept: KeptTraining | None = None,
) -> tuple[dict[str, dict[str, torch.Tensor]], list[dict[str, Any]], list[float]]:  # fmt: skip
    """Train, and return the recorded weights by file name, their entries for ``study.toml``, and the losses.

    Args:
        factory: Makes the untrained model.
        recipe: How, and after which epochs weights are recorded; none named: after the last.
        rows: Training rows.
        loss: Losses by row.
        run: Progress and cancel.
        title: What is trained, for the progress.
        weights: Weight of each row's loss ``[n]``; None: 1.
        kept: Where the training is kept from time to time, and goes on from; the numbers are the same.

    Returns:
        Weights, entries, and the mean training loss over every epoch (while its weights still moved), the first first.

    Raises:
        NumericalProblem: The loss became NaN or infinite.
        Cancelled: The user asked to stop.
    """
    model = new_model(factory, recipe)
    last = 1 if recipe.optimizer == "lbfgs" else recipe.epochs
    recorded = recipe.checkpoints or (last,)
    start = kept.found(_mark(model, recipe)) if kept is not None else None
    past = _past(start)
    states = {_file(n): _under(start or {}, f"recorded.{n}.") for n in recorded if n <= len(past)}

    def words(epoch: Epoch) -> str:
        return f"epoch {epoch.number} of {last}, loss {epoch.loss:.3g}"

    with one_core():
        new = training(model, rows, loss, recipe, weights, start)
        for epoch in run.track(chain(tuple(past), new), f"training {title}", last, words):
            if epoch.number <= len(past) and epoch.state is None:
                continue
            past.append(epoch)
            if epoch.number in recorded:
                held = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
                states[_file(epoch.number)] = held
            if kept is not None and epoch.state is not None and epoch.number < last:
                kept.keep(epoch, past, states, _mark(model, recipe))
    entries = [
        {"file": _file(epoch.number), "epoch": epoch.number, "learning_rate": epoch.learning_rate, "loss": epoch.loss}
        for epoch in past
        if epoch.number in recorded
    ]
    return states, entries, [epoch.loss for epoch in past]


def _file(number: int) -> str:
    return f"checkpoints/epoch-{number:03d}.safetensors"


def _under(state: Mapping[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def _mark(model: nn.Module, recipe: Recipe) -> torch.Tensor:
    """Return what tells this training of the same rows from others, 16 bytes."""
    shapes = [[name, list(value.shape)] for name, value in model.state_dict().items()]
    text = json.dumps([shapes, recipe.to_json()], sort_keys=True)
    return torch.frombuffer(bytearray(hashlib.blake2b(text.encode(), digest_size=16).digest()), dtype=torch.uint8)


def _past(state: Mapping[str, torch.Tensor] | None) -> list[Epoch]:
    if state is None:
        return []
    pairs = zip(state["rates"].tolist(), state["losses"].tolist(), strict=True)
    return [Epoch(number, rate, loss) for number, (rate, loss) in enumerate(pairs, 1)]


class KeptTraining:
    """A file that a training is kept in after an epoch, every few seconds: all that the rest of it depends on.

    Args:
        path: The file.
        seconds: Between two times.
    """

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        """Begin to count the time."""
        self._path, self._seconds, self._last = path, _KEEP_SECONDS if seconds is None else seconds, time.monotonic()

    def found(self, mark: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """Return what an earlier training of this mark left; None if there is nothing, or nothing whole."""
        try:
            held = load(self._path.read_bytes())
        except (OSError, SafetensorError):
            return None
        return held if "mark" in held and torch.equal(held["mark"], mark) else None

    def keep(
        self, epoch: Epoch, past: Sequence[Epoch], states: Mapping[str, Mapping[str, torch.Tensor]], mark: torch.Tensor
    ) -> None:
        """Keep the training as it is after an epoch, if the last time was long enough ago.

        Args:
            epoch: The last one.
            past: All until now.
            states: The weights recorded so far, by file name.
            mark: What tells this training from others.
        """
        if epoch.state is None or time.monotonic() - self._last < self._seconds:
            return
        held = {name: value.detach().cpu().contiguous() for name, value in epoch.state().items()}
        held["mark"] = mark
        held["rates"] = torch.tensor([one.learning_rate for one in past], dtype=torch.float64)
        held["losses"] = torch.tensor([one.loss for one in past], dtype=torch.float64)
        for one in past:
            named = states.get(_file(one.number), {})
            held |= {f"recorded.{one.number}.{name}": value.contiguous() for name, value in named.items()}
        part = self._path.with_suffix(".part")
        with disk_errors(part), open(part, "wb") as out:
            out.write(save(held))
            out.flush()
            os.fsync(out.fileno())
        part.replace(self._path)
        self._last = time.monotonic()
