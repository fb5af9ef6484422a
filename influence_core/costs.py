"""What a fit will cost on this machine, said before it starts."""

from __future__ import annotations

import time

import torch

from influence_core.estimator import Cost, Estimator, Sizes
from influence_core.run import Run
from influence_core.task import Needs, Task

QUERIES = 100  # rows that are asked about, where one number is to say what a method costs
ABSURD_SECONDS = 3600.0  # of one method on one study: said before it starts, and asked about once more
_PROBE_ROWS = 64
_PROBE_SECONDS, _PROBES = 0.2, 20


def sizes(task: Task, run: Run) -> Sizes:
    """Return the sizes that costs depend on, timing one small forward and backward pass on this machine."""
    key = f"pass seconds/{run.device}/{run.precision}"
    if key not in task.memo:
        task.memo[key] = _pass_seconds(task, run) if Needs.MODEL in task.provides else 0.0
    # Without weights the model cannot say how many outputs it has.
    n_classes = task.n_classes if Needs.MODEL in task.provides else len(task.class_names or ())
    return Sizes(task.n_train, task.n_test, task.n_params, task.n_checkpoints, n_classes or 1, task.memo[key])


def _pass_seconds(task: Task, run: Run) -> float:
    """Return seconds of one pass over the training rows, scaled up from the fastest of some small batches.

    Other programs can only slow a batch down, a hundred times over where they hold the second core: the fastest of
    many is what the machine can do.
    """
    model = task.model_at(-1, run.device, run.dtype)
    rows = min(_PROBE_ROWS, task.n_train)
    batch = task.split("train").batch(slice(0, rows), run.device, run.dtype)
    times: list[float] = []
    while len(times) < 3 or (len(times) < _PROBES and sum(times) < _PROBE_SECONDS):
        started = time.perf_counter()
        task.loss(model, batch).sum().backward()
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times) * task.n_train / rows


def cost(task: Task, estimator: Estimator, run: Run) -> Cost:
    """Return the estimate for fitting a method and for its answers."""
    return estimator.cost(task, sizes(task, run))


def absurdity(seconds: float) -> str:
    """Return a sentence about a cost that nobody would pay unasked; empty for any other."""
    if seconds < ABSURD_SECONDS:
        return ""
    return f"This is very dear here: {seconds_in_words(seconds)}, by the estimate."


def seconds_in_words(seconds: float) -> str:
    """Return a duration as a person would say it."""
    if seconds < 2:
        return "about a second"
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"


def cost_in_words(cost: Cost) -> str:
    """Return time and disk of fitting, and the time of an answer where it is not instant, in one clause."""
    megabytes = cost.bytes / 1e6
    disk = f", {megabytes:,.0f} MB of disk" if megabytes >= 1 else ""
    asking = cost.answering()
    answers = f", then {seconds_in_words(asking)} for every new prediction" if asking else ""
    return seconds_in_words(cost.seconds) + disk + answers
