"""The recorded steps of a study's training, with its state kept at every so many steps.

The states at about the square root of the number of steps are an artifact; those between are computed again from the
one before when they are needed, so that memory and disk hold ``2 sqrt(T)`` states rather than T. A state is P numbers,
twice that with momentum and three times with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.examples import Batch, moved
from influence_core.primitives.losses import Scalar
from influence_core.primitives.replay import Replay, State, Step, recorded_steps
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import new_model
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 1
_FAR = 1e-3  # relative distance of the replayed weights from the model's beyond which they are another model


class Recorded:
    """The training of a task, gone through again."""

    def __init__(self, task: Task, run: Run) -> None:
        """Load the states, training once if they are not kept.

        Raises:
            Unavailable: The recipe has no steps, or there is no model factory.
        """
        if task.recipe is None or task.factory is None or task.recipe.optimizer == "lbfgs":
            raise Unavailable(
                "There are no training steps to follow", "The task has no recipe of gradient steps.",
                "Give recipe=Recipe(optimizer='sgd' or 'adam', ...) and the model as a function.",
            )  # fmt: skip
        self.task, self.run, self.recipe = task, run, task.recipe
        self.steps = list(recorded_steps(task.recipe, task.n_train))
        self.segment = max(1, round(math.sqrt(len(self.steps))))
        model = new_model(task.factory, task.recipe, run.device)
        self.replay = Replay(model, task.split("train"), task.loss, task.recipe)
        inputs = {
            "kind": "replayed training", "version": VERSION, "task": task.fingerprint,
            "recipe": task.recipe.to_json(), "segment": self.segment,
        }  # fmt: skip
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)

    @property
    def n_params(self) -> int:
        """Return P, the number of trained parameters."""
        return sum(self.replay.sizes)

    @property
    def distance(self) -> float:
        """Return how far the replayed weights end from the explained model's, relative to those."""
        return float(self.artifact.meta["distance"])

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which training is explained."""
        found = f"Follows {len(self.steps)} recorded training steps."
        if self.distance > _FAR:
            found += (
                f" Going through the recipe again ends {self.distance:.1%} away from the model's weights (other "
                "hardware, or another recipe): the replayed model is explained."
            )
        return (found,)

    def final(self) -> State:
        """Return the state after the last step."""
        return self._kept(len(self.artifact.meta["random"]) - 1)

    def forward(self, stage: str, first: int = 0) -> Iterator[tuple[State, State, Tensor, Step]]:
        """Yield every step with the states around it and the gradient it took, first to last.

        Args:
            stage: Name of the work, for the progress.
            first: Number of the step to begin with, a multiple of the segment.
        """
        state = self._kept(first // self.segment)
        for step in self.run.track(self.steps[first:], stage, len(self.steps) - first):
            after, gradient = self.replay.forward(state, step)
            yield state, after, gradient, step
            state = after

    def backward(self, stage: str, first: int = 0) -> Iterator[tuple[State, State, Tensor, Step]]:
        """Yield the steps from the last to number ``first``, each with the states around it and its gradient."""
        starts = [s for s in range(0, len(self.steps), self.segment) if s + self.segment > first][::-1]
        total = sum(min(s + self.segment, len(self.steps)) - max(s, first) for s in starts)
        yield from self.run.track(self._reversed(starts, first), stage, total)

    def _reversed(self, starts: list[int], first: int) -> Iterator[tuple[State, State, Tensor, Step]]:
        for start in starts:
            state, held = self._kept(start // self.segment), []
            for step in self.steps[start : start + self.segment]:
                after, gradient = self.replay.forward(state, step)
                held.append((state, after, gradient, step))
                state = after
            while held:
                if held[-1][3].number < first:
                    break
                yield held.pop()

    def final_gradients(self, scalar: Scalar, batch: Batch) -> Tensor:
        """Return the gradient of a scalar of each row in the final weights ``[m, P]``."""
        return self.replay.measured_gradients(self.final(), scalar, self.as_trained(batch))

    def as_trained(self, batch: Batch) -> Batch:
        """Return a batch on the device and in the precision of the training."""
        return Batch(*moved(batch, self.run.device, self.replay.parameters[0].dtype))

    # -- kept states --------------------------------------------------------------------------------------------------

    def _kept(self, place: int) -> State:
        meta, device = self.artifact.meta, self.run.device
        weights, first, second = (
            self.artifact.tensor(name)[place].clone().to(device) for name in ("weights", "first", "second")
        )
        buffers = {
            name: self.artifact.tensor(f"buffer{i}")[place].clone().to(device)
            for i, name in enumerate(meta["buffers"])
        }  # fmt: skip
        return State(weights, first, second, self.artifact.tensor("random")[place].clone(), buffers)

    def _produce(self, writer: Writer) -> None:
        replay, run = self.replay, self.run
        state = replay.start()
        kept = -(-len(self.steps) // self.segment) + 1
        self._create(writer, state, kept)
        with one_core():
            for step in run.track(self.steps, "going through the training", len(self.steps)):
                if step.number % self.segment == 0:
                    _write(writer, step.number // self.segment, state)
                state, _ = replay.forward(state, step)
        _write(writer, kept - 1, state)
        writer.meta["buffers"] = list(state.buffers)
        writer.meta["random"] = list(range(kept))
        writer.meta["distance"] = self._away(state)

    def _create(self, writer: Writer, state: State, kept: int) -> None:
        dtype: Any = np.float64 if state.weights.dtype == torch.float64 else np.float32
        for name in ("weights", "first", "second"):
            writer.create(name, (kept, len(state.weights)), dtype)
        writer.create("random", (kept, len(state.random)), np.uint8)
        for i, value in enumerate(state.buffers.values()):
            kind = torch.empty(0, dtype=value.dtype).numpy().dtype
            writer.create(f"buffer{i}", (kept, *value.shape), kind)

    def _away(self, state: State) -> float:
        if self.task.n_checkpoints == 0:
            return 0.0
        known = self.task.state()
        names = [name for name, p in self.replay.model.named_parameters() if p.requires_grad]
        flat = torch.cat([known[name].reshape(-1).double() for name in names])
        ended = state.weights.detach().cpu().double()
        return float((ended - flat).norm() / flat.norm().clamp_min(1e-30))


def _write(writer: Writer, place: int, state: State) -> None:
    for name in ("weights", "first", "second", "random"):
        writer.write(name, place, getattr(state, name).detach().cpu()[None])
    for i, value in enumerate(state.buffers.values()):
        writer.write(f"buffer{i}", place, value.detach().cpu()[None])
