"""Embedding similarity: the cosine of what two rows look like inside the model. The baseline beside every explanation.

::

    S[t, i] = <f_i, f_t> / (|f_i| |f_t|)          signed: times +1 where y_i is the query's target label, else -1

with f the embedding that the option names; positive = proponent (alike, and of the same label where signed). Nothing
is said about what the row did in training. A row of zeros is like nothing: 0. Unsigned scores do not depend on any
label. The default is the cosine of the last hidden layer of Hanawa et al., Evaluation of Similarity-based
Explanations, ICLR 2021.

Cost: one forward pass over the training rows; a query is one product with the embeddings.
"""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.embedding_cache import EmbeddingConfig, class_labels, train_embeddings
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.neighbors import cosines
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class EmbeddingSimilarityConfig(EmbeddingConfig):
    """Where rows are compared, and whether labels count."""

    signed: bool = Field(False, description="Turn the sign where the training label is not the query's target label.")


@final
@register
class EmbeddingSimilarity(Estimator):
    """Cosine of embeddings."""

    info = Info(
        name="embedding_similarity", title="Embedding similarity", family="baseline",
        summary="The training rows that look most like this one to the model, whatever they did in training.",
        estimand="cosine of the features of a layer",
        reference="Hanawa et al., Evaluation of Similarity-based Explanations, ICLR 2021",
        needs=Needs.NONE, units="rank", additive=False, self_influence=False, measurements=(), functions=False,
        utility="how alike two rows are inside the model",
    )  # fmt: skip
    Config = EmbeddingSimilarityConfig
    config: EmbeddingSimilarityConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the embeddings of the training rows."""
        return EmbeddingSimilarityFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """One forward pass; the disk holds some hundred numbers per row."""
        forward = 0.0 if self.config.embedding == "input" else sizes.pass_seconds / 3
        return Cost(forward, sizes.n_train * 4.0 * min(512.0, max(16.0, sizes.n_params**0.5)))


class EmbeddingSimilarityFitted(Fitted):
    """Embeddings of the training rows."""

    estimator: EmbeddingSimilarity

    def __init__(self, estimator: EmbeddingSimilarity, task: Task, run: Run) -> None:
        """Load or compute the embeddings.

        Raises:
            Unavailable: Signs were asked for where there are no labels.
        """
        super().__init__(estimator, task, run)
        if estimator.config.signed and not task.loss.classifies:
            raise Unavailable(
                "Similarity cannot be signed here", f"The loss '{task.loss.name}' has no classes.", "Use signed=False."
            )
        self.embeddings = train_embeddings(task, run, estimator.config.embedding)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say where rows are compared."""
        return (self.embeddings.note,)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        scores = cosines(self.embeddings.query(batch), self.embeddings.features)
        if not self.estimator.config.signed:
            return scores
        labels = class_labels(self.task.split("train").targets).to(scores.device)
        targets = class_labels(batch.targets).to(scores.device)
        return torch.where(labels == targets.unsqueeze(1), scores, -scores)
