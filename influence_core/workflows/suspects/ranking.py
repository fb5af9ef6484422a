"""The list of suspects: detectors side by side, and one order from two that see different things.

The combined suspicion is ``margin over training + w * lead of the neighbours' votes``: what the model thought before it
memorised the label, and what rows think that no label has shaped. ``w = min(1, (e_m + .005) / (e_v + .005))^2`` with
the errors of model and votes on the test split: where neighbours know little (sparse texts, say) they say little.
Measured on digits, MNIST and sms-spam with uniform, class-pair and feature-dependent noise: see docs/suspects.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.embedding_cache import class_labels
from influence_core.errors import BadInput, Unavailable
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Task
from influence_core.workflows.suspects.detectors import Detector, available, detectors, given_labels
from influence_core.workflows.suspects.predictions import (
    checkpoint_outputs,
    class_chances,
    neighbour_votes,
    out_of_fold,
)  # fmt: skip

VERSION = 1
COMBINED = "combined"
_PARTS = ("training_margin", "neighbour_votes")
_EVEN = 0.005  # error rates closer than this are alike


class Suggestion(NamedTuple):
    """The most probable other class of every row ``[n]``, and the probability that it is right ``[n]``, calibrated."""

    labels: np.ndarray
    chances: np.ndarray


@dataclass(frozen=True)
class Suspects:
    """Every train row's suspicion by every detector that ran.

    Attributes:
        ids: Row ids ``[n]``.
        columns: Detector name -> suspicion ``[n]``, higher is more; ``combined`` among them where it can be had.
        default: The column that the list is ordered by.
        suggestion: What the label should be; None for a regression.
        flagged: How many detectors say "mislabelled" by themselves ``[n]``, and of how many.
        n_flagging: See there.
        notes: What the reader should know.
    """

    ids: np.ndarray
    columns: dict[str, np.ndarray]
    default: str
    suggestion: Suggestion | None
    flagged: np.ndarray
    n_flagging: int
    notes: tuple[str, ...]

    def order(self, column: str | None = None) -> np.ndarray:
        """Return positions ``[n]``, the most suspicious first.

        Raises:
            BadInput: No such column.
        """
        name = column or self.default
        if name not in self.columns:
            raise BadInput("Unknown detector", f"'{name}' did not run.", f"Use one of: {', '.join(self.columns)}.")
        return np.argsort(-np.nan_to_num(self.columns[name], nan=-np.inf), kind="stable")


def suspects_key(task: Task, run: Run, names: Sequence[str]) -> str:
    """Return the key of a list of suspects."""
    return digest(_inputs(task, run, names))


def _inputs(task: Task, run: Run, names: Sequence[str]) -> dict[str, object]:
    return {
        "kind": "suspects", "version": VERSION, "task": task.fingerprint, "precision": run.precision,
        "detectors": sorted(names),
    }  # fmt: skip


def chosen_detectors(task: Task, names: Sequence[str] | None = None, *, retrain: bool = False) -> list[Detector]:
    """Return the detectors to run: those named, or all that can run here, with those that retrain only if asked.

    Raises:
        BadInput: An unknown name.
        Unavailable: A named one cannot run, or none can.
    """
    if names is None:
        found = [detector for detector in available(task) if retrain or not detector.retrains]
        if not found:
            raise Unavailable("No label can be checked here", "No detector can run on this study.",
                              "Give checkpoints, or a recipe.")  # fmt: skip
        return found
    known = detectors()
    for name in names:
        if name not in known:
            raise BadInput("Unknown detector", f"'{name}' is none.", f"Use one of: {', '.join(known)}.")
        if reason := known[name].missing(task):
            raise Unavailable(f"{known[name].title} cannot run here", f"It {reason}.", "Leave it out.")
    return [known[name] for name in dict.fromkeys(names)]


def suspects(task: Task, run: Run, names: Sequence[str] | None = None, *, retrain: bool = False) -> Suspects:
    """Return the suspicion of every train row, from the store or computed now.

    Args:
        task: A classification, or a regression with fewer detectors and no suggestions.
        run: Device, precision, store, progress.
        names: Detectors to run; default: all that can, without those that retrain.
        retrain: Also those that retrain (five models).

    Raises:
        InfluenceError: No detector can run, or the named one cannot.
    """
    chosen = chosen_detectors(task, names, retrain=retrain)
    inputs = _inputs(task, run, [detector.name for detector in chosen])

    def produce(writer: Writer) -> None:
        for detector in run.track(chosen, "looking for label errors", len(chosen)):
            values = detector.suspicion(task, run).double().cpu()
            writer.save(f"by.{detector.name}", values)

    found = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
    return _assembled(task, run, chosen, found)


def _assembled(task: Task, run: Run, chosen: list[Detector], found: Artifact) -> Suspects:
    columns = {detector.name: found.tensor(f"by.{detector.name}").numpy() for detector in chosen}
    notes: list[str] = []
    if all(part in columns for part in _PARTS):
        weight, note = _vote_weight(task, run)
        columns = {COMBINED: columns[_PARTS[0]] + weight * columns[_PARTS[1]], **columns}
        notes.append(note)
    default = next(name for name in (COMBINED, "out_of_fold", "training_margin", "out_of_fold_error", *columns)
                   if name in columns)  # fmt: skip
    flagging = [detector for detector in chosen if detector.flags is not None]
    flags = [columns[detector.name] > (detector.flags or 0.0) for detector in flagging]
    inside = [detector.title for detector in chosen if detector.in_sample]
    if inside and not any(detector.retrains for detector in chosen):
        notes.append(f"In-sample, from a model that saw these labels: {', '.join(inside)}.")
    flagged = np.sum(flags, 0) if flags else np.zeros(task.n_train, np.int64)
    return Suspects(
        task.ids("train"), columns, default, _suggestion(task, run, chosen), flagged, len(flagging), tuple(notes)
    )


def _vote_weight(task: Task, run: Run) -> tuple[float, str]:
    """Return w, and a sentence on how it came about."""
    truth = class_labels(task.split("test").targets)
    votes = neighbour_votes(task, run, task.n_classes or 1).test.argmax(1)
    model = class_chances(task, task.outputs_of("test")).argmax(1)
    wrong_model, wrong_votes = (float((said != truth).float().mean()) for said in (model, votes))
    weight = min(1.0, (wrong_model + _EVEN) / (wrong_votes + _EVEN)) ** 2
    note = (
        f"Combined: margin over training plus {weight:.2f} x the neighbours' lead. On the test rows the model is wrong "
        f"on {wrong_model:.1%}, the neighbours on {wrong_votes:.1%}."
    )
    return weight, note


def _suggestion(task: Task, run: Run, chosen: list[Detector]) -> Suggestion | None:
    """Return the best other class by what did not see the label; its chance is calibrated on the test rows."""
    if not task.loss.classifies or task.n_checkpoints == 0:
        return None
    names, labels = {detector.name for detector in chosen}, given_labels(task)
    test = [class_chances(task, task.outputs_of("test")).double()]
    if "out_of_fold" in names:
        train = [class_chances(task, out_of_fold(task, run)).double()]
    else:
        train = [torch.stack([class_chances(task, f) for f in checkpoint_outputs(task, run)]).mean(0).double()]
    if "neighbour_votes" in names:
        votes = neighbour_votes(task, run, train[0].shape[1])
        train.append(votes.train.double())
        test.append(votes.test.double())
    truth = class_labels(task.split("test").targets)
    power = _calibrated_power(torch.stack(test).mean(0), truth)
    chances = _raised(torch.stack(train).mean(0), power)
    best = chances.scatter(1, labels.unsqueeze(1), -1.0).max(1)
    return Suggestion(best.indices.numpy(), best.values.numpy())


def _raised(shares: Tensor, power: float) -> Tensor:
    logs = shares.clamp_min(1e-6).log() * power
    return logs.softmax(1)


def _calibrated_power(shares: Tensor, truth: Tensor) -> float:
    """Return the power of the probabilities that fits the test labels best (temperature scaling)."""
    powers = np.geomspace(0.2, 5.0, 41)
    losses = [-float(_raised(shares, p).gather(1, truth.unsqueeze(1)).log().mean()) for p in powers]
    return float(powers[int(np.argmin(losses))])


__all__ = ["COMBINED", "Suggestion", "Suspects", "chosen_detectors", "suspects", "suspects_key"]
