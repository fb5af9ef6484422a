"""TracIn-WE: TracIn on the word embedding, where two texts meet only in the words they share.

::

    S[t, i] = sum_c eta_c sum_{w in x_i and x_t} <d l_i / d E_w, -d m_t / d E_w>

as Yeh et al. (NeurIPS 2022), equation 6; positive = proponent. The sum goes over distinct shared words, whose gradients
are summed over positions first; ``tracin_we_topk`` keeps the words of the longest gradients of each text. Texts without
a common word have score 0; words that all texts share (a start mark) can be left out with ``skip``. ``parts`` tells how
much each word adds. An embedding whose weights are also the output layer's mixes in the head's gradient and is refused.
The paper's claim that the first layer is better than the last is disputed for large language models (arXiv 2511.04715).

Cost: one pass over the training rows per checkpoint; a query is one sparse product.
"""

from __future__ import annotations

from typing import final

from pydantic import Field
from torch import nn

from influence_core.config import Config
from influence_core.errors import BadInput, Unavailable
from influence_core.estimator import Fitted, Info
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, Stage, moved_batch
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Side, Tokens
from influence_core.primitives.words import by_word, word_parts
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.task import Needs, Task


class WordConfig(Config):
    """Which words are compared."""

    layer: str | None = Field(None, min_length=1, description="Name of the word embedding; empty: the model's first.")
    skip: tuple[int, ...] | None = Field(
        None, description="Token numbers that do not count, such as a start mark; empty: all count."
    )
    top: int | None = Field(
        None, ge=1, le=10_000, description="Words of the longest gradients kept per text; empty: all of them."
    )


@final
@preset(
    "tracin_we_topk", "TracIn, word embedding, top words",
    "TracIn on the ten words of each text that matter most for its loss.", top=10,
)  # fmt: skip
@register
class TracInWE(Bilinear):
    """TracIn restricted to the word embedding."""

    info = Info(
        name="tracin_we", title="TracIn, word embedding", family="gradient",
        summary="TracIn on the word vectors: texts influence each other through the words they share.",
        estimand="sum over checkpoints and shared words of learning rate x gradient dot product",
        reference="Yeh et al., First is Better Than Last for Language Data Influence, NeurIPS 2022",
        needs=Needs.CHECKPOINTS | Needs.LEARNING_RATES | Needs.WORD_EMBEDDING, units="gradient",
    )  # fmt: skip
    Config = WordConfig
    config: WordConfig  # type: ignore[assignment]

    def stages(self, task: Task) -> list[Stage]:
        """Every checkpoint, weighted by its learning rate."""
        return [Stage(c, rate) for c, rate in enumerate(task.learning_rates or ())]

    def layers(self, task: Task) -> tuple[str, ...]:
        """Return the name of the word embedding.

        Raises:
            BadInput: The named layer is no embedding.
        """
        found = [name for name, module in task.module.named_modules() if isinstance(module, nn.Embedding)]
        name = self.config.layer or found[0]
        if name not in found:
            raise BadInput("Not a word embedding", f"'{name}' is none of {', '.join(found)}.", "Name one of these.")
        return (name,)

    def gradients(self, task: Task, run: Run, checkpoint: int) -> TrainGradients:
        """Return the training rows' gradients by word."""
        spec = GradientSpec(checkpoint, self.layers(task))
        key = f"words/{spec}/{self.config.key()}/{run.precision}/{run.device}/{run.artifacts.root}"
        if key not in task.memo:
            task.memo[key] = _WordGradients(task, run, spec, self.config)
        run.artifacts.use(task.memo[key].artifact.key)
        return task.memo[key]

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the training gradients of the embedding at every checkpoint.

        Raises:
            Unavailable: The embedding shares its weights with another layer, or scales or clips its gradients.
        """
        return TracInWEFitted(self, task, run)


@final
class TracInWEFitted(BilinearFitted):
    """Word gradients at every checkpoint."""

    def parts(self, test: Rows, train: Rows, measurement: Measurement | None = None) -> list[dict[int, float]]:
        """Return, per training row, what each shared token adds to its score for one query row."""
        measurement = measurement or Measurement()
        batch = moved_batch(self.task.query(test, measurement, self.run.dtype), self.run)
        places = self.task.positions(train)
        totals: list[dict[int, float]] = [{} for _ in range(len(places))]
        for stage, cache in zip(self.stages, self.caches, strict=True):
            query = query_gradients(cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)[0]
            rows = cache.block(slice(0, self.task.n_train))[0].take(places)
            assert isinstance(query, Tokens) and isinstance(rows, Tokens)
            for total, part in zip(totals, word_parts(query, rows), strict=True):
                for token, value in part.items():
                    total[token] = total.get(token, 0.0) + stage.weight * value
        return totals


@final
class _WordGradients(TrainGradients):
    """Gradients of an embedding, every word once per row."""

    def __init__(self, task: Task, run: Run, spec: GradientSpec, config: WordConfig) -> None:
        self.config = config
        super().__init__(task, run, spec)

    def compressed(self, sides: list[Side]) -> list[Side]:
        """Sum over the positions of a word."""
        side = sides[0]
        if len(sides) != 1 or not isinstance(side, Tokens):
            raise Unavailable(
                "The words' gradients cannot be told apart",
                "The embedding shares its weights with another layer, or is not a plain lookup.",
                "Use tracin_cp, or layer= another embedding.",
            )
        return [by_word(side, self.config.skip or (), self.config.top)]

    def identity(self) -> dict[str, object]:
        """Return which words count."""
        return {"words": {"skip": list(self.config.skip or ()), "top": self.config.top}}
