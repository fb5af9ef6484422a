"""KNN-Shapley: the exact Shapley value of each training row to a nearest-neighbour classifier.

For a query with target label y, on the embeddings of the explained model (squared Euclidean distance)::

    knn_shapley       v(S) = (1/K)           sum over the min(K, |S|) nearest rows of S of 1[y_j = y], v(empty) = 0
    knn_shapley_soft  v(S) = (1/min(K, |S|)) sum over the same,                                   v(empty) = 1/n_classes

``S[t, i]`` is row i's Shapley value of v, positive = proponent, as in the papers; a query's scores sum to ``v(all) -
v(empty)``. Jia et al. (PVLDB 2019), theorem 1, and Wang & Jia (2023), theorem 2. Departures: right for n_train <= K,
where the papers' last term or released code is not; equally near rows get the mean over all orders of theirs, so that
values do not depend on the order of the data. Several queries are separate rows, a set is their mean. The score
values rows for neighbours in that embedding, which the model itself need not follow; the scale of the features
decides the neighbours.

Cost: one forward pass over the training rows; a query is ``n_train * d`` for distances and ``n_train log n_train``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.embedding_cache import EmbeddingConfig, class_labels, train_embeddings
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.neighbors import neighbor_chunks
from influence_core.primitives.semivalues import knn_shapley, soft_knn_shapley
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class KnnShapleyConfig(EmbeddingConfig):
    """Which neighbours vote."""

    k_neighbors: int = Field(5, ge=1, description="How many nearest training rows vote.")


class KnnShapleySoftConfig(KnnShapleyConfig):
    """Which neighbours vote, by the mean of those present."""


class NeighborShapley(Estimator):
    """Neighbours on cached embeddings; subclasses say which utility is shared out."""

    config: KnnShapleyConfig

    @abstractmethod
    def values(self, matches: Tensor, tied: Tensor, n_classes: int) -> Tensor:
        """Return the Shapley values ``[m, n]`` from label agreement ``[m, n]``, nearest first."""

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the embeddings of the training rows."""
        return NeighborShapleyFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """One forward pass; the disk holds some hundred numbers per row."""
        forward = 0.0 if self.config.embedding == "input" else sizes.pass_seconds / 3
        return Cost(forward, sizes.n_train * 4.0 * min(512.0, max(16.0, sizes.n_params**0.5)))


class NeighborShapleyFitted(Fitted):
    """Embeddings and labels of the training rows."""

    estimator: NeighborShapley

    def __init__(self, estimator: NeighborShapley, task: Task, run: Run) -> None:
        """Load or compute the embeddings."""
        super().__init__(estimator, task, run)
        self.embeddings = train_embeddings(task, run, estimator.config.embedding)
        self.labels = class_labels(task.split("train").targets).to(run.device)
        self.n_classes = _class_count(task, self.labels)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say where rows are compared."""
        return (self.embeddings.note,)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        known = self.embeddings
        queries, targets = known.query(batch), class_labels(batch.targets).to(self.run.device)
        scores = torch.empty(len(targets), self.task.n_train, dtype=self.run.dtype, device=self.run.device)
        for part, (order, _, tied) in neighbor_chunks(queries, known.features, known.twins, known.center):
            matches = self.labels[order] == targets[part].unsqueeze(1)
            values = self.estimator.values(matches, tied, self.n_classes)
            scores[part] = values.new_empty(values.shape).scatter_(1, order, values).to(scores.dtype)
        return scores


def _class_count(task: Task, labels: Tensor) -> int:
    """Return the number of classes, also for a task that has no trained model to ask."""
    if task.loss.name == "bce" or task.n_checkpoints:
        return task.n_classes or 1
    return len(task.class_names) if task.class_names else int(labels.max()) + 1


@final
@register
class KnnShapley(NeighborShapley):
    """Shapley value of the share of K votes."""

    info = Info(
        name="knn_shapley", title="KNN-Shapley", family="neighbor",
        summary="Shares out, fairly, how well the nearest training rows vote for this answer.",
        estimand="Shapley value of (1/K) x votes for the target label among the K nearest rows",
        reference="Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, PVLDB 2019",
        needs=Needs.LABELS, units="value", measurements=(), functions=False,
        utility="the share of the K nearest training rows that have the target label",
    )  # fmt: skip
    Config = KnnShapleyConfig

    def values(self, matches: Tensor, tied: Tensor, n_classes: int) -> Tensor:
        """Divide the votes by K, however few rows there are."""
        return knn_shapley(matches, self.config.k_neighbors, tied)


@final
@register
class KnnShapleySoft(NeighborShapley):
    """Shapley value of the mean of the votes cast."""

    info = Info(
        name="knn_shapley_soft", title="KNN-Shapley, soft labels", family="neighbor",
        summary="As KNN-Shapley, with few voters not held against the answer: the probability the neighbours give it.",
        estimand="Shapley value of the mean vote for the target label among the K nearest rows",
        reference="Wang & Jia, A Note on Efficient Data Valuation for Nearest Neighbor Algorithms, 2023",
        needs=Needs.LABELS, units="value", measurements=(), functions=False,
        utility="the probability that the K nearest training rows give the target label",
    )  # fmt: skip
    Config = KnnShapleySoftConfig

    def values(self, matches: Tensor, tied: Tensor, n_classes: int) -> Tensor:
        """Divide the votes by the number of voters."""
        return soft_knn_shapley(matches, self.config.k_neighbors, n_classes, tied)
