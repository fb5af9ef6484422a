"""Which mistakes a train row feeds: the wrong test predictions that training on it pushed away from their labels."""

from __future__ import annotations

import torch
from torch import Tensor

from influence_core import registry
from influence_core.embedding_cache import class_labels
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.suspects.predictions import class_chances

N_FED = 3
MOST_MISTAKES = 512
_METHOD = "tracin_fast"
_STEP = 32  # test rows at a time: [32, n_train] scores


def mistakes(task: Task) -> Tensor:
    """Return the positions of the test rows that are predicted wrongly, or of the largest errors; at most 512."""
    targets, f = task.split("test").targets, task.outputs_of("test")
    if task.loss.classifies:
        return (class_chances(task, f).argmax(1) != class_labels(targets)).nonzero().squeeze(1)[:MOST_MISTAKES]
    errors = task.loss.from_outputs(f, targets)  # type: ignore[union-attr]
    return errors.argsort(descending=True, stable=True)[: min(MOST_MISTAKES, -(-len(errors) // 10))]


def fed_mistakes(task: Task, run: Run) -> Tensor:
    """Return the positions in test ``[n_train, 3]`` of the mistakes that each row feeds most, -1 where there is none.

    A row feeds a mistake if its last-layer TracIn score on it is negative: training on the row made the loss on the
    test row grow. Nobody feeds anything where that method cannot run.
    """
    nothing = torch.full((task.n_train, N_FED), -1)
    reason = registry.missing(registry.found(_METHOD, task).info, task)
    wrong = torch.empty(0, dtype=torch.long) if reason else mistakes(task)
    if not len(wrong):
        return nothing
    fitted = fit(task, registry.made(_METHOD, None, task), run)
    measurement, ids = default_measurement(fitted.estimator), task.ids("test")
    best, where = torch.zeros(task.n_train, N_FED), nothing
    for part in run.track(wrong.split(_STEP), "mistakes that rows feed", -(-len(wrong) // _STEP)):
        rows = Rows("test", tuple(ids[part.numpy()].tolist()))
        scores = fitted.scores(rows, measurement).float().cpu().T  # [n_train, part]
        both = torch.cat([best, scores], 1)
        places = torch.cat([where, part.expand(task.n_train, -1)], 1)
        order = both.argsort(dim=1, stable=True)[:, :N_FED]
        best, where = both.gather(1, order), places.gather(1, order)
    return torch.where(best < 0, where, -1)
