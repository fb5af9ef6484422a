"""The recorded steps of a study's training, with its state kept at every so many steps.

The states at about the square root of the number of steps are an artifact; those between are computed again from the
one before when they are needed, so that memory and disk hold ``2 sqrt(T)`` states rather than T. A state is P numbers,
twice that with momentum and three times with Adam. What a killed process had kept is where the next one goes on.

A training that was recorded by somebody's own code is taken again from its recorded start and compared with every
recorded checkpoint on the way: where it goes astray, nothing is explained by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import BadInput, Unavailable
from influence_core.examples import Batch, moved
from influence_core.primitives.losses import Scalar
from influence_core.primitives.replay import Replay, State, Step, recorded_steps
from influence_core.primitives.steps import Rule
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import new_model
from influence_core.recorded_training import RecordedTraining
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 2
_FAR = 1e-3  # relative distance of the replayed weights from the model's beyond which they are another model
LIMIT = 0.05  # of the way that a recorded training went: beyond, what was replayed is not what happened


class Recorded:
    """The training of a task, gone through again: the recorded one, or where there is none, that of the recipe."""

    def __init__(self, task: Task, run: Run) -> None:
        """Load the states, training once if they are not kept.

        Raises:
            Unavailable: The recipe has no steps, or there is no model factory; or a recorded training cannot be gone
                through again, or does not lead to the recorded weights.
        """
        self.task, self.run = task, run
        recipe, recorded = task.recipe, task.recorded
        if recorded is None and (recipe is None or task.factory is None or recipe.optimizer == "lbfgs"):
            raise Unavailable(
                "There are no training steps to follow", "The task has no recipe of gradient steps.",
                "Give recipe=Recipe(optimizer='sgd' or 'adam', ...) and the model as a function.",
            )  # fmt: skip
        if recorded is not None:
            self.replay, self.before = _from_recording(task, recorded, run)
            self.steps, self.marks = recorded.steps(task.ids("train").tolist()), recorded.places()
            origin: dict[str, Any] = {"recording": recorded.key}
        else:
            assert recipe is not None and task.factory is not None
            self.steps, self.marks = list(recorded_steps(recipe, task.n_train)), []
            model = new_model(task.factory, recipe, run.device)
            self.replay = Replay(model, task.split("train"), task.loss, Rule.of(recipe), recipe.seed)
            self.before, origin = self.replay.start(), {"recipe": recipe.to_json()}
        self.segment = max(1, round(math.sqrt(len(self.steps))))
        inputs = {
            "kind": "replayed training", "version": VERSION, "task": task.fingerprint, "segment": self.segment, **origin
        }  # fmt: skip
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)
        self._check()

    @property
    def n_params(self) -> int:
        """Return P, the number of trained parameters."""
        return sum(self.replay.sizes)

    @property
    def steps_per_epoch(self) -> float:
        """Return how many steps go through as many rows as there are."""
        rows = sum(len(step.index) for step in self.steps)
        return len(self.steps) * self.task.n_train / max(1, rows)

    @property
    def distance(self) -> float:
        """Return how far the replayed weights end from the explained model's.

        Relative to these; of a recorded training, to the way from its start.
        """
        return float(self.artifact.meta["distance"])

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which training is explained."""
        found = f"Follows {len(self.steps)} recorded training steps."
        if self.task.recorded is not None:
            found += f" Gone through again, they end {self.distance:.2g} of their way from the recorded weights."
        elif self.distance > _FAR:
            found += (
                f" Going through the recipe again ends {self.distance:.1%} away from the model's weights (other "
                "hardware, or another recipe): the replayed model is explained."
            )
        return (found,)

    def final(self) -> State:
        """Return the state after the last step."""
        return self._kept(self._places - 1)

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

    def backward(
        self, stage: str, first: int = 0, below: int | None = None
    ) -> Iterator[tuple[State, State, Tensor, Step]]:
        """Yield the steps from the last to number ``first``, each with the states around it and its gradient.

        Args:
            stage: Name of the work, for the progress.
            first: Number of the step to end with.
            below: Number of the step to begin below, a multiple of the segment; None: with the last.
        """
        below = len(self.steps) if below is None else below
        starts = [s for s in range(0, below, self.segment) if s + self.segment > first][::-1]
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

    @property
    def _places(self) -> int:
        """Return how many states are kept: before every segment, and after the last."""
        return -(-len(self.steps) // self.segment) + 1

    def _kept(self, place: int) -> State:
        return self._state(lambda name: self.artifact.tensor(name)[place])

    def _state(self, read: Callable[[str], Tensor]) -> State:
        """Return the state of these arrays."""
        device = self.run.device
        weights, first, second = (read(name).clone().to(device) for name in ("weights", "first", "second"))
        buffers = {name: read(f"buffer{i}").clone().to(device) for i, name in enumerate(self.before.buffers)}
        return State(weights, first, second, read("random").clone(), buffers)

    def _produce(self, writer: Writer) -> None:
        """Take the steps, keeping the state before each segment; what is kept already is not computed again."""
        segments = self._places - 1
        self._create(writer)
        done = next((s for s in range(segments, -1, -1) if writer.is_done(f"state {s}")), -1)
        if done < 0:
            state, done = self.before, 0
            _write(writer, 0, state)
            writer.mark_done("state 0")
        else:
            state = self._state(lambda name: writer.read_row(name, done))
        first = done * self.segment
        aways = [float(writer.read_row("away", c)) for c in range(len(self.marks))]
        far = self._far([away if mark <= first else 0.0 for away, mark in zip(aways, self.marks, strict=True)])
        with one_core():
            total = len(self.steps) - first
            for step in self.run.track([] if far else self.steps[first:], "going through the training", total):
                state, _ = self.replay.forward(state, step)
                taken = step.number + 1
                for c in [c for c, mark in enumerate(self.marks) if mark == taken]:
                    aways[c] = self._away(state, c)
                    writer.write("away", c, np.asarray([[aways[c]]]))
                far = self._far(aways)
                if far:  # the rest would be as wrong
                    break
                if taken % self.segment == 0 or taken == len(self.steps):
                    place = -(-taken // self.segment)
                    _write(writer, place, state)
                    writer.mark_done(f"state {place}")
        writer.meta["far"] = far
        writer.meta["distance"] = aways[-1] if aways else self._away(state, -1)

    def _create(self, writer: Writer) -> None:
        state, kept = self.before, self._places
        dtype: Any = np.float64 if state.weights.dtype == torch.float64 else np.float32
        for name in ("weights", "first", "second"):
            writer.create(name, (kept, len(state.weights)), dtype)
        writer.create("random", (kept, len(state.random)), np.uint8)
        for i, value in enumerate(state.buffers.values()):
            kind = torch.empty(0, dtype=value.dtype).numpy().dtype
            writer.create(f"buffer{i}", (kept, *value.shape), kind)
        if self.marks:
            writer.create("away", (len(self.marks), 1), np.float64)
            if not writer.is_done("state 0"):
                writer.write("away", 0, np.zeros((len(self.marks), 1)))

    # -- is it what happened? -----------------------------------------------------------------------------------------

    def _away(self, state: State, checkpoint: int) -> float:
        """Return the distance from a checkpoint, relative to its weights or to the way that was recorded."""
        if self.task.n_checkpoints == 0:
            return 0.0
        known = self.task.state(checkpoint)
        names = [name for name, p in self.replay.model.named_parameters() if p.requires_grad]
        flat = torch.cat([known[name].reshape(-1).double() for name in names])
        ended, whole = state.weights.detach().cpu().double(), flat
        if self.task.recorded is not None:
            whole = flat - self.before.weights.detach().cpu().double()
        away = float((ended - flat).norm() / whole.norm().clamp_min(1e-30))
        return away if math.isfinite(away) else math.inf

    def _far(self, aways: list[float]) -> list[float]:
        """Return steps and distance of the first checkpoint that the replay has missed; nothing if there is none."""
        missed = [(mark, min(away, 1e9)) for mark, away in zip(self.marks, aways, strict=True) if away > LIMIT]
        return list(missed[0]) if missed else []

    def _check(self) -> None:
        far = self.artifact.meta["far"]
        if not far:
            return
        steps, away = int(far[0]), float(far[1])
        raise Unavailable(
            "The recorded training cannot be gone through again",
            f"Taken again, its first {steps:,} steps end {away:.0%} of their way from the recorded weights (at most "
            f"{LIMIT:.0%} are allowed){_suspicion(self.replay.model)}.",
            "Record a training without what differs: dropout, random augmentations, gradient clipping, label "
            "smoothing, mixed precision, or a loss that is not the mean over the batch. Or use tracin_cp or source, "
            "which need checkpoints only.",
        )


def _from_recording(task: Task, recorded: RecordedTraining, run: Run) -> tuple[Replay, State]:
    """Return the replay of a recorded training, and the state before its first step."""
    start, named = recorded.start(), recorded.trained()
    floating = [value.dtype for value in start.weights.values() if value.is_floating_point()]
    dtype = torch.float64 if torch.float64 in floating else torch.float32
    model = task.model_at(-1, run.device, dtype)
    try:
        model.load_state_dict(dict(start.weights))
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise BadInput(
            "The recorded start does not fit the model", f"{why}.", "Give the recording of this model."
        ) from None
    model.requires_grad_(True)
    if named is not None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in named)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        why = "The optimiser had none of the model's parameters."
        raise Unavailable("The recorded training cannot be gone through again", why, "Record this model's training.")
    like = next(iter(trained.values())).detach()
    sizes = {name: p.numel() for name, p in trained.items()}
    held = start.optimizer
    taken = max((int(value) for name, value in held.items() if name.endswith(":step")), default=0)
    first, second = ("momentum_buffer", "") if recorded.kind == "sgd" else ("exp_avg", "exp_avg_sq")
    if recorded.kind == "sgd":  # it counts no steps; a direction that is there is not the first
        taken = int(any(name.endswith(f":{first}") for name in held))
    replay = Replay(model, task.split("train"), task.loss, recorded.rule(sizes, taken, like))

    def flat(kind: str) -> Tensor:
        parts = [held.get(f"{name}:{kind}", torch.zeros(size)).reshape(-1).to(like) for name, size in sizes.items()]
        return torch.cat(parts)

    return replay, replace(replay.start(), first=flat(first), second=flat(second))


def _suspicion(model: torch.nn.Module) -> str:
    """Return what in the model alone explains a replay that goes astray, for the middle of a sentence."""
    chance = [m for m in model.modules() if "dropout" in type(m).__name__.lower() and getattr(m, "p", 0)]
    return ": the model has dropout, whose random numbers are not recorded" if chance else ""


def _write(writer: Writer, place: int, state: State) -> None:
    for name in ("weights", "first", "second", "random"):
        writer.write(name, place, getattr(state, name).detach().cpu()[None])
    for i, value in enumerate(state.buffers.values()):
        writer.write(f"buffer{i}", place, value.detach().cpu()[None])
