"""The list of suspects: detectors side by side, and one order from two that see different things.

The combined suspicion is ``margin over training + w * lead of the neighbours' votes``: what the model thought before it
memorised the label, and what rows think that no label has shaped. ``w = min(1, (e_m + .005) / (e_v + .005))^2`` with
the errors of model and votes on the test split: where neighbours know little (sparse texts, say) they say little.
Measured on digits, MNIST and sms-spam with uniform, class-pair and feature-dependent noise: see docs/suspects.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.embedding_cache import class_labels
from influence_core.errors import BadInput, Unavailable
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Task
from influence_core.workflows.suspects.detectors import Detector, available, detectors
from influence_core.workflows.suspects.feeding import fed_mistakes
from influence_core.workflows.suspects.held_out import (
    SOURCES,
    checked_probabilities,
    held_out,
    probabilities_key,
    source_of,
)  # fmt: skip
from influence_core.workflows.suspects.posterior import Beliefs, beliefs
from influence_core.workflows.suspects.predictions import (
    Search,
    checkpoint_outputs,
    class_chances,
    given_labels,
    neighbour_votes,
)  # fmt: skip

VERSION = 2
COMBINED = "combined"
PARTS = ("training_margin", "neighbour_votes")
_DEFAULTS = (COMBINED, "out_of_fold", "training_margin", "out_of_fold_error", "neighbour_votes", "loss")
_EVEN = 0.005  # error rates closer than this are alike


@dataclass(frozen=True)
class Suspects:
    """Every train row's suspicion by every detector that ran.

    Attributes:
        ids: Row ids ``[n]``.
        columns: Detector name -> suspicion ``[n]``, higher is more; ``combined`` among them where it can be had.
        default: The column that the list is ordered by.
        beliefs: What the labels should be; None for a regression.
        flags: Detector name -> whether it says "mislabelled" by itself ``[n]``; of those that can.
        neighbours: Positions of the nearest train rows ``[n, k]`` in input space; None where they did not vote.
        said: What the model predicted at every checkpoint ``[checkpoints, n]``, as class; None in a regression.
        said_held_out: What models predict that did not see the row ``[n]``; None without any.
        feeds: Positions of the wrong test rows that the row pulled furthest from their labels ``[n, 3]``, -1 for none.
        held_out: Where held-out predictions come from, a key of ``SOURCES``; empty without any.
        notes: What the reader should know.
    """

    ids: np.ndarray
    columns: dict[str, np.ndarray]
    default: str
    beliefs: Beliefs | None
    flags: dict[str, np.ndarray]
    neighbours: np.ndarray | None
    said: np.ndarray | None
    said_held_out: np.ndarray | None
    feeds: np.ndarray
    held_out: str
    notes: tuple[str, ...]

    @property
    def flagged(self) -> np.ndarray:
        """Return how many detectors say "mislabelled" by themselves ``[n]``."""
        return np.sum(list(self.flags.values()), 0) if self.flags else np.zeros(len(self.ids), np.int64)

    @property
    def estimated(self) -> int | None:
        """Return about how many labels are wrong: those more probably wrong than right. None for a regression."""
        return None if self.beliefs is None else int((self.beliefs.wrong > 0.5).sum())

    def order(self, column: str | None = None) -> np.ndarray:
        """Return positions ``[n]``, the most suspicious first.

        Raises:
            BadInput: No such column.
        """
        name = column or self.default
        if name not in self.columns:
            raise BadInput("Unknown detector", f"'{name}' did not run.", f"Use one of: {', '.join(self.columns)}.")
        return np.argsort(-np.nan_to_num(self.columns[name], nan=-np.inf), kind="stable")

    def precision(self, budget: int, column: str | None = None) -> float | None:
        """Return the share of wrong labels to be expected among the first rows of an order; None for a regression."""
        top = self.order(column)[:budget]
        return None if self.beliefs is None or not len(top) else float(self.beliefs.wrong[top].mean())


def chosen_detectors(search: Search, names: Sequence[str] | None = None, *, retrain: bool = False) -> list[Detector]:
    """Return the detectors to run: those named, or all that can run here, with those that train only if asked.

    Raises:
        BadInput: An unknown name.
        Unavailable: A named one cannot run, or none can.
    """
    if names is None:
        found = [detector for detector in available(search) if retrain or not detector.trains(search)]
        if not found:
            raise Unavailable("No label can be checked here", "No detector can run on this study.",
                              "Give checkpoints, or a recipe.")  # fmt: skip
        return found
    known = detectors()
    for name in names:
        if name not in known:
            raise BadInput("Unknown detector", f"'{name}' is none.", f"Use one of: {', '.join(known)}.")
        if reason := known[name].missing(search):
            raise Unavailable(f"{known[name].title} cannot run here", f"It {reason}.", "Leave it out.")
    if not names:
        raise BadInput("No detector was named", "The list is empty.", f"Use some of: {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


def suspects_key(search: Search, chosen: Sequence[Detector]) -> str:
    """Return the key of a list of suspects."""
    return digest(_inputs(search, sorted(detector.name for detector in chosen)))


def _inputs(search: Search, names: list[str]) -> dict[str, Any]:
    return {
        "kind": "suspects", "version": VERSION, "task": search.task.fingerprint, "precision": search.run.precision,
        "detectors": names, "pred_probs": probabilities_key(search),
    }  # fmt: skip


def suspects(
    task: Task, run: Run, names: Sequence[str] | None = None, *, retrain: bool = False, pred_probs: Any = None
) -> Suspects:
    """Return the suspicion of every train row, from the store or computed now; interrupted, it goes on where it was.

    Args:
        task: A classification, or a regression with fewer detectors and no suggestions.
        run: Device, precision, store, progress.
        names: Detectors to run; default: all that can, without those that train models.
        retrain: Also those that train models (five).
        pred_probs: Probabilities ``[n_train, C]`` by models that did not see the row, where the user has them.

    Raises:
        InfluenceError: No detector can run, or the named one cannot, or ``pred_probs`` do not fit.
    """
    given = None if pred_probs is None else checked_probabilities(task, pred_probs)
    search = Search(task, run, given)
    return obtained_suspects(search, chosen_detectors(search, names, retrain=retrain))


def obtained_suspects(search: Search, chosen: Sequence[Detector]) -> Suspects:
    """Return the list of some detectors, from the store or computed now."""
    names = [detector.name for detector in chosen]
    inputs = _inputs(search, sorted(names))
    run = search.run
    found = run.artifacts.obtain(digest(inputs), inputs, lambda w: _produce(w, search, chosen), run.waiting)
    return read_suspects(search.task, found)


def _produce(writer: Writer, search: Search, chosen: Sequence[Detector]) -> None:
    columns: dict[str, np.ndarray] = {}
    for detector in search.run.track(chosen, "looking for label errors", len(chosen)):
        columns[detector.name] = _suspicion(detector, search)
    flags = {d.name: columns[d.name] > d.flags for d in chosen if d.flags is not None}
    notes: list[str] = []
    if all(part in columns for part in PARTS):
        weight, note = _vote_weight(search)
        columns = {COMBINED: columns[PARTS[0]] + weight * columns[PARTS[1]], **columns}
        notes.append(note)
    trained = any(detector.retrains for detector in chosen)
    source = source_of(search) if trained and search.task.loss.classifies else "recipe" if trained else ""
    notes += [f"Out-of-fold numbers are from {SOURCES[source]}."] if source else []
    for name, values in columns.items():
        writer.save(f"by.{name}", values)
    for name, said in flags.items():
        writer.save(f"flags.{name}", said)
    for part, values in (_beliefs(search, chosen) or {}).items():
        writer.save(f"beliefs.{part}", values)
    if "neighbour_votes" in columns:
        writer.save("neighbours", neighbour_votes(search.task, search.run).neighbours)
    if search.task.loss.classifies and search.task.n_checkpoints:
        f = checkpoint_outputs(search.task, search.run)
        writer.save("said", torch.stack([class_chances(search.task, part).argmax(1) for part in f]))
    if columns.keys() & {"out_of_fold", "confident_learning"}:
        writer.save("held_out", held_out(search).shares.argmax(1))
    writer.save("feeds", fed_mistakes(search.task, search.run))
    default = next(name for name in (*_DEFAULTS, *columns) if name in columns)
    writer.meta.update(default=default, columns=list(columns), notes=notes, held_out=source)


def _suspicion(detector: Detector, search: Search) -> np.ndarray:
    """Return one detector's column, kept on its own: lists of other detectors share it, an interrupted one resumes."""
    inputs = {**_inputs(search, [detector.name]), "kind": "suspicion"}
    if not detector.retrains:
        inputs["pred_probs"] = ""
    run = search.run

    def produce(writer: Writer) -> None:
        writer.save("suspicion", detector.suspicion(search).double().cpu())

    return run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).array("suspicion")


def read_suspects(task: Task, found: Artifact) -> Suspects:
    """Return a list as it is kept."""
    names, meta = set(found.names()), found.meta

    def array(name: str) -> np.ndarray | None:
        return found.array(name) if name in names else None

    part = {name.partition(".")[2]: found.array(name) for name in names if name.startswith("beliefs.")}
    return Suspects(
        task.ids("train"), {name: found.array(f"by.{name}") for name in meta["columns"]}, meta["default"],
        Beliefs(**part) if part else None,
        {name: found.array(f"flags.{name}") for name in meta["columns"] if f"flags.{name}" in names},
        array("neighbours"), array("said"), array("held_out"), found.array("feeds"), meta["held_out"],
        tuple(meta["notes"]),
    )  # fmt: skip


def _vote_weight(search: Search) -> tuple[float, str]:
    """Return w, and a sentence on how it came about."""
    task = search.task
    truth = class_labels(task.split("test").targets)
    votes = neighbour_votes(task, search.run).test.argmax(1)
    model = class_chances(task, task.outputs_of("test")).argmax(1)
    wrong_model, wrong_votes = (float((said != truth).float().mean()) for said in (model, votes))
    weight = min(1.0, (wrong_model + _EVEN) / (wrong_votes + _EVEN)) ** 2
    note = (
        f"Combined: margin over training plus {weight:.2f} x the neighbours' lead. On the test rows the model is wrong "
        f"on {wrong_model:.1%}, the neighbours on {wrong_votes:.1%}."
    )
    return weight, note


def _beliefs(search: Search, chosen: Sequence[Detector]) -> dict[str, np.ndarray] | None:
    """Return what the labels should be: the mean of what the model said while it learned, held-out models and votes."""
    task, names = search.task, {detector.name for detector in chosen}
    if not task.loss.classifies or task.n_checkpoints == 0:
        return None
    test: list[Tensor] = [class_chances(task, task.outputs_of("test")).double()]
    during = torch.stack([class_chances(task, f) for f in checkpoint_outputs(task, search.run)]).mean(0)
    train, weights = [during.double()], [1.0]
    if names & {"out_of_fold", "confident_learning"}:
        train[0] = (train[0] + held_out(search).shares.double()) / 2
    if "neighbour_votes" in names:
        votes = neighbour_votes(task, search.run)
        train.append(votes.train.double())
        test.append(votes.test.double())
        weights.append(_vote_weight(search)[0])
    shares, known = _mean(train, weights), _mean(test, weights)
    return beliefs(shares, given_labels(task), known, class_labels(task.split("test").targets))._asdict()


def _mean(parts: list[Tensor], weights: list[float]) -> Tensor:
    share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    return torch.einsum("p,pnc->nc", share, torch.stack(parts))


__all__ = [
    "COMBINED", "PARTS", "Suspects", "chosen_detectors", "obtained_suspects", "read_suspects", "suspects",
    "suspects_key",
]  # fmt: skip
