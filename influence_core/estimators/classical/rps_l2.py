"""Representer points: each training row's share of a logit of the last layer, refit with L2.

The last layer alone, on the features f of the explained model (a constant 1 appended where the layer has a bias),
minimises ``(1/n) sum_i l(W f_i, y_i) + lam |W|^2``. Where the gradient vanishes, W is a sum over the training rows,
so that

    logit_c(x_t) = sum_i S[t, i],    S[t, i] = a_{i,c} <f_i, f_t>,    a_i = -(1 / (2 lam n)) dl_i / dlogits_i

as Yeh et al. (NeurIPS 2018), theorem 3.1; positive = proponent (excites class c), as in the paper. c is the
measurement's target label; for a single logit the class 0 has minus the logit. Note ``lam |W|^2`` without 1/2, bias
included, as in the official code, and its default of distilling: the targets are the model's own probabilities, so
that the refit answers as the model does; ``targets="true"`` takes the labels instead. Departure: solved by Newton's
method in float64, as the identity holds at the minimum only. The scores explain the refit layer; earlier layers count
as fixed. They add up to the logit, but are no leave-one-out effects. The self-influence is the row's share
``a_{i,y_i} |f_i|^2`` of its own label's logit.

Cost: one forward pass, then about 10 to 20 Newton steps of ``n_train d (d + 50 n_classes)``; a query is ``n_train
d``.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from influence_core.config import Config, digest
from influence_core.embedding_cache import TrainEmbeddings, class_labels, train_embeddings
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.estimators.linear_head import check_one_position, last_linear
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.linear_fit import fitted_linear, loss_gradients, mean_outputs
from influence_core.primitives.losses import predicted_classes
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1


class RepresenterConfig(Config):
    """How the last layer is refit."""

    lam: float = Field(
        0.003, gt=0, le=1e6, description="Weight of |W|^2 in the refit; smaller follows the targets closer."
    )
    targets: Literal["predicted", "true"] = Field(
        "predicted", description="What the refit learns: the model's own probabilities, or the given labels."
    )


@final
@register
class Representer(Estimator):
    """Representer points of an L2-refit last layer."""

    info = Info(
        name="rps_l2", title="Representer points", family="classical",
        summary="Splits the last layer's evidence for a class into one share per training row.",
        estimand="share of the target class's logit in a last layer refit with L2",
        reference="Yeh et al., Representer Point Selection for Explaining Deep Neural Networks, NeurIPS 2018",
        needs=Needs.LAST_LAYER | Needs.LABELS, units="rank", measurements=("logit",), functions=False,
    )  # fmt: skip
    Config = RepresenterConfig
    config: RepresenterConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Refit the last layer."""
        return RepresenterFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A forward pass and the Newton steps, at some 1e10 operations a second."""
        layer = last_linear(task)
        d, c = layer.in_features + 1, layer.out_features
        return Cost(sizes.pass_seconds / 3 + 4e-9 * sizes.n_train * d * (d + 50 * c), 4 * sizes.n_train * (d + 2 * c))


class RepresenterFitted(Fitted):
    """The shares' weights ``a`` ``[n_train, n_outputs]``, and how well the refit went."""

    estimator: Representer

    def __init__(self, estimator: Representer, task: Task, run: Run) -> None:
        """Load or compute the refit."""
        super().__init__(estimator, task, run)
        self.embeddings = train_embeddings(task, run, "penultimate")
        self.layer = last_linear(task)
        check_one_position(self.embeddings.width, self.layer, self.info.title)
        inputs = {
            "kind": "representer", "version": VERSION, "task": task.fingerprint, "embeddings": self.embeddings.key,
            "config": estimator.config.to_json(), "loss": task.loss.name,
        }  # fmt: skip
        produce = _Refit(estimator.config, task, run, self.embeddings)
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
        self.weights = self.artifact.tensor("weights")
        self.alpha = self.artifact.tensor("alpha").to(run.device)

    @property
    def stationarity(self) -> float:
        """Return the length of the objective's gradient at the refit; 0 at the exact minimum."""
        return float(self.artifact.meta["gradient"])

    @property
    def agreement(self) -> float:
        """Return the share of the training rows on which the refit predicts the same class as the model."""
        return float(self.artifact.meta["agreement"])

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how far the refit can be trusted, and what it leaves out."""
        return (
            f"The last layer was refit to a gradient of {self.stationarity:.1e} and predicts the model's class on "
            f"{self.agreement:.1%} of the training rows.",
            "Only the last layer is explained; earlier layers count as fixed.",
        )

    @property
    def share(self) -> float:
        """Return the last layer's share of the parameters."""
        return sum(p.numel() for p in self.layer.parameters()) / max(1, self.task.n_params)

    @property
    def global_importance(self) -> Tensor:
        """Return the paper's importance of each training row for all queries: ``|a_{i,y_i}|`` ``[n_train]``."""
        return self._own_alpha().abs()

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        queries = self.embeddings.query(batch)
        column, sign = self._columns(class_labels(batch.targets).to(queries.device))
        shares = self.alpha[:, column].T.to(queries.dtype) * sign.to(queries.dtype).unsqueeze(1)
        return shares * self._kernel(queries)

    def _self_influence(self) -> Tensor:
        squared = self.embeddings.features.to(self.run.device).double().square().sum(1)
        return (self._own_alpha() * (squared + self._constant)).to(self.run.dtype)

    @property
    def _constant(self) -> float:
        """Return what the bias adds to each inner product."""
        return 1.0 if self.layer.bias is not None else 0.0

    def _kernel(self, queries: Tensor) -> Tensor:
        return queries @ self.embeddings.features.to(queries.device).T + self._constant

    def _own_alpha(self) -> Tensor:
        column, sign = self._columns(class_labels(self.task.split("train").targets).to(self.alpha.device))
        return self.alpha.gather(1, column.unsqueeze(1)).squeeze(1) * sign

    def _columns(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and its sign ``[m]`` that stand for each label's logit."""
        if self.task.loss.name == "bce":
            return torch.zeros_like(labels), 2 * labels.double() - 1
        return labels, torch.ones_like(labels, dtype=torch.float64)


class _Refit:
    """Fills the artifact: weights ``[C, d]``, alpha ``[n, C]``, and two figures of quality."""

    def __init__(self, config: RepresenterConfig, task: Task, run: Run, embeddings: TrainEmbeddings) -> None:
        self.config, self.task, self.run, self.embeddings = config, task, run, embeddings

    def __call__(self, writer: Writer) -> None:
        task, loss, lam = self.task, self.task.loss, self.config.lam
        layer = task.model_at(-1, self.run.device, torch.float64).get_submodule(task.last_layer or "")
        assert isinstance(layer, nn.Linear)
        f = self.embeddings.features.to(self.run.device).double()
        weight = layer.weight.detach()
        if layer.bias is not None:
            f, weight = torch.cat([f, f.new_ones(len(f), 1)], 1), torch.cat([weight, layer.bias.detach()[:, None]], 1)
        answers = f @ weight.T
        targets = mean_outputs(answers, loss) if self.config.targets == "predicted" else self._labels(answers)
        fitted = fitted_linear(f, targets, loss, lam, self.run.track)
        refit = f @ fitted.weights.T
        writer.save("weights", fitted.weights)
        writer.save("alpha", loss_gradients(refit, targets, loss) / (-2 * lam * len(f)))
        writer.meta["gradient"] = fitted.gradient
        writer.meta["agreement"] = float((predicted_classes(refit) == predicted_classes(answers)).double().mean())

    def _labels(self, answers: Tensor) -> Tensor:
        given = self.task.split("train").targets.to(answers.device)
        if self.task.loss.name == "bce":
            return given.reshape(answers.shape).double()
        return nn.functional.one_hot(given, answers.shape[1]).double()
