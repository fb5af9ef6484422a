"""RDIA: harmful training rows get another label instead of being thrown away.

Harm is what a row does to the mean loss of the reference rows V: ``phi_i = -S_i = -(1/n) g_V' (C + damping I)^-1 g_i``,
minus the house's score (positive = proponent), which is also the paper's sign; leaving row i out lowers that loss by
``phi_i``, to first order. Rows with ``phi_i > alpha`` are relabelled. The loss of "not class m" is ``-log(1 - p_m)``,
and ``grad(-log(1 - p)) = -(p / (1 - p)) grad(-log p)``: relabelling lowers the loss of V by ``phi_i / (1 - p_m)``,
``1 / (1 - p_m)`` times as far as dropping.

As soft target that loss is ``R_k = log(1 - p_m) / ((K - 1) log p_k)`` for ``k != m`` and ``R_m = 0``: the cross-entropy
at R is ``-log(1 - p_m)``. For two classes R is the other label. For more, R has the loss but, held fixed, not the
gradient of ``-log(1 - p_m)``; ``expected_relabel`` is for the loss itself.

Departures from the paper. Alpha has no scale, so it is a quantile of the positive harms (the paper's code tunes numbers
such as 2e-4 per noise level). A person is shown, and a patch holds, the most probable other class, not R. By default
only rows whose label the model itself contradicts are relabelled: without that half of the positive harms is a quarter
of even a clean data set. Harm is by the Gauss-Newton curvature, by conjugate gradients where the model is large.
The variant without reference rows (RDIA-LS) is a way of training, not a proposal, and is not built here.

Assumes that V is clean, that V is like the rows that count, and a model near its minimum that has not memorised the
wrong labels.

Reference: Kong, Shen & Huang, Resolving Training Biases via Influence-based Data Relabeling, ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from influence_core import registry
from influence_core.changes import Change
from influence_core.config import Config
from influence_core.estimators.curvature.influence import InfluenceFitted
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.workflows.predicted_gain import influence_method
from influence_core.workflows.proposals import (
    JUDGE,
    check_single_label,
    class_logits,
    class_name,
    curvature_note,
    given_classes,
    label_in_words,
    resolved,
    row_id,
    steering_rows,
)

NAME = "rdia"
_SURE = 1e-6  # 1 - p is taken to be no less: beyond that first order says nothing


class RdiaConfig(Config):
    """Which rows are harmful enough, and what becomes of them."""

    quantile: float = Field(
        0.5, ge=0, lt=1, description="Alpha, as a quantile of the positive harms: 0.5 takes the more harmful half."
    )
    action: Literal["relabel", "drop"] = Field("relabel", description="What becomes of harmful rows.")
    contradicted: bool = Field(
        True, description="Only rows whose label is not the one that the model predicts. Off: the paper's rule."
    )
    method: str = Field("", description="The method that harm is measured by; empty: influence, by the model's size.")


@dataclass(frozen=True)
class Relabelling:
    """Harmful rows with the labels they should have.

    Attributes:
        harm: ``phi`` of every training row ``[n]``, in loss of the reference rows.
        alpha: The cut.
        positions: Rows above it ``[k]``, the most harmful first.
        targets: Soft targets R of these rows ``[k, C]``, for training; no label for a person.
        alternatives: The most probable class besides the given one ``[k]``.
        chances: The model's probability of the given label ``[k]``.
        expected_drop: By how much the mean loss of the reference rows should fall if the row is left out ``[k]``.
        expected_relabel: The same if it is trained to be "not this class" ``[k]``.
        changes: One per row in ``positions``.
        notes: What the reader should know.
    """

    harm: Tensor
    alpha: float
    positions: Tensor
    targets: Tensor
    alternatives: Tensor
    chances: Tensor
    expected_drop: Tensor
    expected_relabel: Tensor
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def harm_cut(harm: Tensor, quantile: float) -> float:
    """Return alpha: a quantile of the positive harms, infinite where there are none."""
    positive = harm[harm > 0]
    return float(torch.quantile(positive.double(), quantile)) if len(positive) else float("inf")


def soft_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Return R ``[n, C]``, at which the cross-entropy is ``-log(1 - p_m)``.

    Args:
        logits: ``[n, C]``.
        labels: The given classes m ``[n]``.
    """
    n_classes, given = logits.shape[1], labels.unsqueeze(1)
    log_p = logits.log_softmax(1)
    others = logits.scatter(1, given, -torch.inf).logsumexp(1, keepdim=True)
    log_rest = others - logits.logsumexp(1, keepdim=True)
    # p_k <= 1 - p_m, so the ratio is within 0 and 1; where p_k rounds to 1 it is 0 / 0 and its limit 1.
    ratio = torch.where(log_p < 0, log_rest / log_p.clamp_max(-torch.finfo(log_p.dtype).tiny), 1.0)
    return (ratio.clamp(0, 1) / (n_classes - 1)).scatter(1, given, 0.0)


def relabel_rdia(
    given: Task | Study, run: Run | None = None, config: RdiaConfig | None = None, *, reference: Rows | None = None
) -> Relabelling:
    """Return the training rows that harm the reference rows, and the labels that they should have instead.

    Args:
        given: A classification, as a task or a study.
        run: Device, precision, store, progress.
        config: The cut and the action.
        reference: V: rows of the test split, whose labels must be right; default all of it. Never the locked split.

    Raises:
        BadInput: The reference rows may not steer.
        InfluenceError: The method cannot run, or the task has no classes.
    """
    config = config or RdiaConfig.checked({})
    task, run = resolved(given, run)
    check_single_label(task)
    rows = steering_rows(task, reference)
    harm, about = _harm(task, run, config, rows)
    alpha = harm_cut(harm, config.quantile)
    logits, labels = class_logits(task, "train"), given_classes(task)
    harmful = harm > alpha
    if config.contradicted:
        harmful &= logits.argmax(1) != labels
    order = harm.argsort(descending=True, stable=True)
    positions = order[harmful[order]]
    f, m = logits[positions], labels[positions]
    chances = f.softmax(1).gather(1, m.unsqueeze(1)).squeeze(1)
    alternatives = f.scatter(1, m.unsqueeze(1), -torch.inf).argmax(1) if len(m) else m
    drop = harm[positions]
    relabel = drop / (1 - chances).clamp_min(_SURE)
    notes = (*_notes(harm, rows), *about)
    found = Relabelling(harm, alpha, positions, soft_targets(f, m), alternatives, chances, drop, relabel, (), notes)
    return replace(found, changes=tuple(_change(task, config, found, k) for k in range(len(positions))))


def _harm(task: Task, run: Run, config: RdiaConfig, rows: Rows) -> tuple[Tensor, tuple[str, ...]]:
    """Return ``phi`` ``[n]``, minus the house's score, and what the method says of itself."""
    name, options = (config.method, {}) if config.method else influence_method(task)
    fitted = fit(task, registry.made(name, options, task), run)
    scores = fitted.scores(rows, Measurement())[0]  # what leaving the row out costs V: positive = proponent
    damping = fitted.damping if isinstance(fitted, InfluenceFitted) else None
    return -scores.double().cpu(), (*fitted.notes, *curvature_note(task, damping))


def _change(task: Task, config: RdiaConfig, found: Relabelling, k: int) -> Change:
    position, old = int(found.positions[k]), label_in_words(task, int(found.positions[k]))
    drops = config.action == "drop"
    gain = float((found.expected_drop if drops else found.expected_relabel)[k])
    said = f"model gives '{old}' {float(found.chances[k]):.1%}; loss expected to fall by {gain:.3g}"
    new = None if drops else class_name(task, int(found.alternatives[k]))
    return Change("train", row_id(task, position), config.action, old, new, None, NAME, 0.0, said)


def _notes(harm: Tensor, rows: Rows) -> tuple[str, ...]:
    positive = int((harm > 0).sum())
    return (
        f"{positive:,} of {len(harm):,} rows harm the {len(rows.ids):,} {rows.split} rows that steer; their labels are "
        "taken to be right.",
        JUDGE,
    )
