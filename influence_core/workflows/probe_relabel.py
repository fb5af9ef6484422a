"""A handful of cases that the model wrongly passes lead to the training rows that taught it so.

For every probe q with its right label c, all training rows are scored, ``S[q, i]`` (positive = proponent of c at q),
and ranked, the most negative first: the row that pulled q furthest from its right label has rank 1, ties share their
mean rank. A row's place is its mean rank over the probes; scores are not averaged, because one loud probe would outvote
the rest. Among the rows that carry a label that the model wrongly gives to probes, the first N are proposed for c.

Departures from the paper. It sums plain gradient products over three epochs; the default here is the product at the
explained model, and any method can be named. The paper's notebook sorts descending on the product with the probes'
wrong label; here the probe has its right label and ranks ascend, which is the same for two classes. All probes have one
right label: run it once for each.

Assumes probes that are neither in train nor in test (those that are are left out) and that share their kind with what
is sought. The model's own probability of c is kept beside the ranks: it can find as much, and costs nothing. Exact
influence with next to no damping finds less than plain gradients.

Reference: Han & Tsvetkov, Fortifying Toxic Speech Detectors Against Veiled Toxicity, EMNLP 2020.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from influence_core import registry
from influence_core.changes import Change
from influence_core.config import Config
from influence_core.embedding_cache import class_labels
from influence_core.errors import BadInput
from influence_core.estimators.curvature.influence import InfluenceFitted
from influence_core.examples import Batch, content_hash, taken
from influence_core.fitting import fit
from influence_core.measurement import TYPED, Measurement, Rows
from influence_core.primitives.losses import BinaryCrossEntropy
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.workflows.proposals import (
    JUDGE,
    check_single_label,
    class_logits,
    class_name,
    given_classes,
    label_in_words,
    resolved,
    row_id,
)

NAME = "probes"
_FEW = 20  # probes below which ranks are noisy
_LITTLE = 1e-3  # damping
_ROWS = 1024


class ProbesConfig(Config):
    """How rows are scored, and how many are proposed."""

    method: str = Field("grad_dot", description="The method that scores rows; grad_dot, tracin_cp, if_ggn, ...")
    count: int = Field(100, ge=1, description="N: how many rows are proposed, those of the best mean ranks.")
    probes: int = Field(100, ge=1, le=1000, description="So many probes at most are used, the first ones.")


@dataclass(frozen=True)
class Traced:
    """Training rows by how far they pulled the probes from their right label.

    Attributes:
        ranks: Mean rank of every training row ``[n]``, 1 = pulled furthest; over all rows, whatever their label.
        positions: Candidates, rows that carry a wrong label, by mean rank ``[k]``.
        confidence: The model's probability of the right label for every training row ``[n]``: the cheap rival.
        right: The right label's class.
        wrong: The classes that the model wrongly gives to probes.
        probes: Ids of the probes that were used.
        changes: The first N candidates, relabelled.
        notes: What the reader should know.
    """

    ranks: Tensor
    positions: Tensor
    confidence: Tensor
    right: int
    wrong: tuple[int, ...]
    probes: tuple[str, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def mean_ranks(scores: Tensor) -> Tensor:
    """Return the mean over rows of the ranks within each row ``[n]``, float64.

    Args:
        scores: ``[q, n]``; the lowest of a row has rank 1, equal ones share their mean rank.
    """
    total = torch.zeros(scores.shape[1], dtype=torch.float64, device=scores.device)
    for row in scores:
        _, place, counts = row.unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0).double()
        total += (last - (counts.double() - 1) / 2)[place]
    return total / len(scores)


def probe_relabel(
    given: Task | Study, probes: Rows, label: int | str, run: Run | None = None, config: ProbesConfig | None = None
) -> Traced:
    """Return the training rows that taught the model to pass the probes, the worst first, relabelled.

    Args:
        given: A classification with the probes as its typed rows: ``task.with_typed`` or ``typed_rows.with_typed``.
        probes: The probes, of the split ``typed``.
        label: The right label of them all: a class's index or name.
        run: Device, precision, store, progress.
        config: Method and number of rows.

    Raises:
        BadInput: The probes are rows of a split, the label is no class, or the model passes none of them wrongly.
        InfluenceError: The method cannot run, or the task has no classes.
    """
    config = config or ProbesConfig.checked({})
    task, run = resolved(given, run)
    check_single_label(task)
    right = _class_index(task, label)
    rows, notes = _fresh(task, probes, config.probes)
    said = _predicted(task, rows)
    wrong = tuple(c for c, _ in Counter(said).most_common() if c != right)
    if not wrong:
        why = f"The model gives '{class_name(task, right)}' to all {len(said)} probes, which is right."
        raise BadInput("The model passes no probe wrongly", why, "Give cases that it gets wrong.")
    ranks, about = _ranks(task, run, config, rows, right)
    order = ranks.argsort(stable=True)
    positions = order[torch.isin(given_classes(task)[order], torch.tensor(wrong))]
    confidence = class_logits(task, "train").softmax(1)[:, right]
    changes = tuple(_change(task, int(i), float(ranks[i]), right) for i in positions[: config.count])
    notes += (*_notes(said, right), *about, _rival(positions, confidence, len(changes)), JUDGE)
    return Traced(ranks, positions, confidence, right, wrong, tuple(map(str, rows.ids)), changes, notes)


def _ranks(task: Task, run: Run, config: ProbesConfig, rows: Rows, right: int) -> tuple[Tensor, tuple[str, ...]]:
    """Return the mean ranks ``[n]``, and what the method says of itself."""
    fitted = fit(task, registry.made(config.method, None, task), run)
    ranks = mean_ranks(fitted.scores(rows, Measurement("loss", right)).double().cpu())
    damping = fitted.damping if isinstance(fitted, InfluenceFitted) else _LITTLE
    if damping >= _LITTLE:
        return ranks, fitted.notes
    return ranks, (*fitted.notes, f"With damping {damping:g} influence finds less than plain gradients: use grad_dot.")


def _class_index(task: Task, label: int | str) -> int:
    names = [class_name(task, c) for c in range(task.n_classes or 0)]
    index = names.index(label) if isinstance(label, str) and label in names else label
    if isinstance(index, str) or not 0 <= index < len(names):
        some = ", ".join(names[:12])
        raise BadInput("The right label is no class", f"It is {label!r}; the classes are {some}.", "Give one of these.")
    return index


def _fresh(task: Task, probes: Rows, most: int) -> tuple[Rows, tuple[str, ...]]:
    """Return the first probes that are neither a training nor a test row, and a note on those that are."""
    if probes.split != TYPED or not probes.ids:
        why = "There are none." if not probes.ids else f"They are rows of {probes.split}."
        raise BadInput("These are no probes", why, "Give cases that are in no split, with their right label.")
    hashes = _row_hashes(task.split(TYPED).batch(task.positions(probes)))
    known: set[str] = set()
    for split in ("train", "test"):
        for _, part in task.split(split).batches(_ROWS, "cpu", torch.float32):
            known.update(_row_hashes(part))
    fresh = [name for name, code in zip(probes.ids, hashes, strict=True) if code not in known]
    if not fresh:
        why = "All of them are rows of train or test."
        raise BadInput("These are no probes", why, "Give cases that the model has not seen and is not tested on.")
    gone = len(probes.ids) - len(fresh)
    notes = (f"{gone} of the probes given are rows of train or test, and were left out.",) if gone else ()
    return Rows(TYPED, tuple(fresh[:most])), notes


def _row_hashes(batch: Batch) -> list[str]:
    return [content_hash(taken(batch.inputs, slice(i, i + 1))) for i in range(len(batch.targets))]


def _predicted(task: Task, rows: Rows) -> list[int]:
    f = task.outputs_of(TYPED, task.positions(rows))
    classes = class_labels(f > 0) if isinstance(task.loss, BinaryCrossEntropy) else f.argmax(1)
    return classes.tolist()


def _change(task: Task, position: int, rank: float, new: int) -> Change:
    said = f"mean rank {rank:.1f} of {task.n_train} among the rows that pulled the probes from their label"
    names = label_in_words(task, position), class_name(task, new)
    return Change("train", row_id(task, position), "relabel", *names, None, NAME, 0.0, said)


def _notes(said: list[int], right: int) -> tuple[str, ...]:
    notes = [f"{len(said)} probes, {said.count(right)} of which the model gets right already."]
    if len(said) < _FEW:
        notes.append(f"Fewer than {_FEW} probes make noisy ranks.")
    return tuple(notes)


def _rival(positions: Tensor, confidence: Tensor, count: int) -> str:
    by_confidence = positions[confidence[positions].argsort(descending=True, stable=True)][:count]
    both = int(torch.isin(positions[:count], by_confidence).sum())
    return (
        f"{both} of the {count} proposed rows are also among the {count} to which the model gives the right label the "
        "highest probability, which needs no probes."
    )
