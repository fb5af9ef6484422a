"""The base of the classics: the last layer as a (generalised) linear model on the features of the explained network.

For a model that is one Linear layer these are the textbook diagnostics of linear, logistic and softmax regression. For
a deep network they speak of its last layer alone, with the layers before it held fixed; the note says how far that
layer is from a minimum, which all of them assume.

Memory: ``(C d)^2`` numbers twice, for C outputs and d features with the constant; ``n C`` numbers are kept.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from pydantic import Field
from torch import Tensor, nn

from influence_core.config import Config, digest
from influence_core.embedding_cache import train_embeddings
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Estimator, Fitted, Sizes
from influence_core.examples import Batch, moved
from influence_core.measurement import Measurement, measured_values
from influence_core.primitives.deletion import Deletions, HeadInverse, deletions, head_inverse
from influence_core.primitives.losses import BuiltinLoss, CustomLoss
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 1
MAX_PARAMETERS = 8_000  # of the layer: its Hessian is written out and factorised
_ROWS = 2048  # whitened at a time


class HeadConfig(Config):
    """How the last layer was fitted."""

    weight_decay: float | None = Field(
        None, ge=0, description="L2 of the fit, weight_decay / 2 * |W|^2 beside the mean loss; empty: the recipe's."
    )


class LinearHead(Estimator):
    """Diagnostics of the last layer; subclasses say which."""

    config: HeadConfig
    max_parameters = MAX_PARAMETERS

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute every row's one-step deletion.

        Raises:
            Unavailable: The layer sees several positions per row, or is too large to be factorised.
        """
        return self.fitted(HeadFit(self, task, run))

    @abstractmethod
    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""

    def expansion_point(self, head: HeadFit) -> Tensor:
        """Return the weights ``[C, d]`` at which the layer is expanded: the explained model's, unless overridden."""
        return head.weights

    def head_identity(self, seed: int) -> dict[str, object]:
        """Return what the deletions depend on besides data and L2."""
        return {}

    def inverted(self, head: HeadFit) -> HeadInverse:
        """Return the inverse of the fit's Hessian."""
        return head_inverse(head.features, head.roots, head.penalty)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A forward pass, the Hessian, and its eigenvalues."""
        layer = last_linear(task)
        p = (layer.in_features + 1) * layer.out_features
        flop = sizes.n_train * layer.out_features * p * (p + 4 * layer.out_features) + 14 * p**3
        return Cost(sizes.pass_seconds / 3 + 2e-11 * flop, 8 * sizes.n_train * (2 * layer.out_features + 4) + 8 * p**2)


class HeadFit:
    """The last layer at the explained model, and every training row's one-step deletion from it."""

    def __init__(self, estimator: LinearHead, task: Task, run: Run) -> None:
        """Load or compute."""
        assert not isinstance(task.loss, CustomLoss)  # the method asks for outputs
        self.estimator, self.task, self.run = estimator, task, run
        self.loss: BuiltinLoss = task.loss
        self.layer = last_linear(task)
        self.embeddings = train_embeddings(task, run, "penultimate")
        self._check(estimator)
        given = estimator.config.weight_decay
        recipe = task.recipe.weight_decay if task.recipe is not None else 0.0
        self.penalty = task.n_train * (recipe if given is None else given)
        model = task.model_at(-1, run.device, torch.float64).get_submodule(task.last_layer or "")
        assert isinstance(model, nn.Linear)
        bias = [] if model.bias is None else [model.bias.detach()[:, None]]
        self.weights = torch.cat([model.weight.detach(), *bias], 1)
        self.weights = estimator.expansion_point(self)
        inputs = {
            "kind": "head deletions", "version": VERSION, "task": task.fingerprint, "embeddings": self.embeddings.key,
            "loss": task.loss.name, "penalty": self.penalty, **estimator.head_identity(run.seed),
        }  # fmt: skip
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)

    def _check(self, estimator: LinearHead) -> None:
        layer, title = self.layer, estimator.named.title
        check_one_position(self.embeddings.width, layer, title)
        size = (layer.in_features + (layer.bias is not None)) * layer.out_features
        if size > estimator.max_parameters:
            raise Unavailable(
                f"{title} cannot run here",
                f"The last layer has {size:,} weights; its Hessian is factorised up to {estimator.max_parameters:,}.",
                "Use influence_sketching, if_ekfac or if_cg.",
            )

    # -- tensors, float64 on the run's device -------------------------------------------------------------------------

    @cached_property
    def features(self) -> Tensor:
        """Return the training rows' features ``[n, d]``, with the constant where the layer has a bias."""
        return self.with_constant(self.embeddings.features.to(self.run.device).double())

    def with_constant(self, features: Tensor) -> Tensor:
        """Return features with the constant 1 that a bias stands for."""
        if self.layer.bias is None:
            return features
        return torch.cat([features, features.new_ones(len(features), 1)], 1)

    @cached_property
    def outputs(self) -> Tensor:
        """Return the training rows' outputs ``[n, C]``."""
        return self.features @ self.weights.T

    @cached_property
    def errors(self) -> Tensor:
        """Return the gradient of each training row's loss in its outputs ``[n, C]``."""
        return self.errors_at(self.outputs)

    def errors_at(self, f: Tensor) -> Tensor:
        """Return the gradient of each training row's loss in its outputs, at other outputs ``[n, C]``."""
        f = f.detach().clone().requires_grad_(True)
        targets = moved(self.task.split("train").targets, f.device, f.dtype)
        return torch.autograd.grad(self.loss.from_outputs(f, targets).sum(), f)[0].detach()

    @property
    def roots(self) -> Tensor:
        """Return ``B`` ``[n, C, C]``, with ``B B'`` the Hessian of each row's loss in its outputs."""
        return self.loss.curvature_root(self.outputs)

    @property
    def inverse(self) -> HeadInverse:
        """Return the inverse of the fit's Hessian."""
        return HeadInverse(self.artifact.tensor("whitening").to(self.run.device), self.layer.out_features)

    @cached_property
    def deletions(self) -> Deletions:
        """Return every training row's one-step deletion."""
        names = ("effects", "leverages", "log_volumes", "lengths", "shifts", "alone")
        return Deletions(*(self.artifact.tensor(name).to(self.run.device) for name in names))

    def _produce(self, writer: Writer) -> None:
        (inverse,) = [self.estimator.inverted(self) for _ in self.run.track(range(1), "Hessian of the last layer", 1)]
        writer.save("whitening", inverse.whitening)
        parts, roots = [], self.roots
        starts = range(0, self.task.n_train, _ROWS)
        for start in self.run.track(starts, "one-step deletions", len(starts)):
            rows = slice(start, start + _ROWS)
            white = inverse.whitened(self.features[rows])
            parts.append(deletions(white @ white.transpose(1, 2), roots[rows], self.errors[rows]))
        for name in ("effects", "leverages", "log_volumes", "lengths", "shifts", "alone"):
            writer.save(name, torch.cat([getattr(part, name) for part in parts]))
        gradient = self.errors.T @ self.features + self.penalty * self.weights
        writer.meta["gradient"] = float(gradient.norm()) / float((self.errors.abs().T @ self.features.abs()).norm())
        writer.meta["rank"] = inverse.rank

    # -- figures of the fit -------------------------------------------------------------------------------------------

    @property
    def n_effective(self) -> float:
        """Return the effective number of parameters, the sum of the leverages; their count where there is no L2."""
        return float(self.deletions.leverages.sum())

    @property
    def residual_scale(self) -> float:
        """Return what turns the loss into a deviance: ``C / (2 s^2)`` of a squared loss, 1 of cross-entropy."""
        c = self.outputs.shape[1]
        if self.loss.name == "mse":
            return c / (2 * self.variance)
        return float(c) if self.loss.name == "bce" else 1.0

    @cached_property
    def variance(self) -> float:
        """Return ``s^2 = SSE / (n C - p)`` of a squared loss; of a classifier 1.

        Raises:
            Unavailable: No degrees of freedom are left.
        """
        if self.loss.name != "mse":
            return 1.0
        free = self.outputs.numel() - self.n_effective
        if free <= 1e-6 * self.outputs.numel():
            raise Unavailable(
                f"{self.estimator.named.title} cannot run here", "The fit has as many parameters as training rows.",
                "Give weight_decay=0.01 or more, or more rows.",
            )  # fmt: skip
        return float(self.squared_errors) / free

    @property
    def squared_errors(self) -> Tensor:
        """Return the sum of squared residuals of a squared loss."""
        return (self.errors * self.outputs.shape[1] / 2).square().sum()

    @property
    def deleted_variance(self) -> Tensor:
        """Return ``s_(i)^2`` ``[n]``, the residual variance of the fit without each row; of a classifier 1."""
        if self.loss.name != "mse":
            return torch.ones_like(self.deletions.leverages)
        c = self.outputs.shape[1]
        residuals, effects = self.errors * c / 2, self.deletions.effects * c / 2
        left = self.squared_errors - (residuals * effects).sum(1)
        return (left / max(self.outputs.numel() - self.n_effective - c, 1e-6)).clamp_min(1e-12 * self.variance)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what is explained, and how far the layer is from the minimum that the formulas assume."""
        rank, gradient = self.artifact.meta["rank"], self.artifact.meta["gradient"]
        alone = int(self.deletions.alone.sum())
        found = [
            f"The last layer is read as a regression with {rank} free parameters and L2 {self.penalty:.3g}; earlier "
            f"layers count as fixed. Its gradient is {gradient:.1e} of the sum of the rows' (0 at a minimum).",
        ]
        if gradient > 0.05:
            found.append("It is far from a minimum, which the formula assumes: read the order, not the amounts.")
        if alone:
            found.append(f"{alone} rows determine some direction alone; it is left as it is when they go.")
        return tuple(found)


class HeadFitted(Fitted):
    """A number per training row from its deletion; subclasses say which."""

    def __init__(self, head: HeadFit) -> None:
        """Keep the fit of the last layer."""
        super().__init__(head.estimator, head.task, head.run)
        self.head = head

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes of the fit."""
        return self.head.notes

    @property
    def share(self) -> float:
        """Return the last layer's share of the parameters."""
        return self.head.weights.numel() / max(1, self.task.n_params)

    def queried(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a query's features ``[m, d]`` and outputs ``[m, C]``, float64."""
        features = self.head.with_constant(self.head.embeddings.query(batch).to(self.run.device).double())
        return features, features @ self.head.weights.T

    def slopes(self, f: Tensor, batch: Batch, measurement: Measurement) -> Tensor:
        """Return the gradient of the measurement in the outputs ``[m, C]``."""
        f = f.detach().requires_grad_(True)
        return torch.autograd.grad(self.measured(f, batch, measurement).sum(), f)[0]

    def first_order(self, batch: Batch, measurement: Measurement) -> Tensor:
        """Return ``-m'(f_t)' x_t' H^-1 (e_i (x) x_i)`` ``[m, n_train]``, a leave-one-out drop to first order."""
        features, f = self.queried(batch)
        pulled = self.head.inverse.responses(features, -self.slopes(f, batch, measurement))
        c, d = self.head.weights.shape
        mapped = (pulled.reshape(-1, d) @ self.head.features.T).reshape(-1, c, self.task.n_train)
        return torch.einsum("mcn,nc->mn", mapped, self.head.errors)

    def measured(self, f: Tensor, batch: Batch, measurement: Measurement) -> Tensor:
        """Return the measurement ``[m]`` at outputs ``[m, C]``."""
        targets = moved(batch.targets, f.device, f.dtype)
        return measured_values(f, targets, self.task.loss, measurement)


def last_linear(task: Task) -> nn.Linear:
    """Return the last layer, for its shape."""
    layer = task.module.get_submodule(task.last_layer or "")
    assert isinstance(layer, nn.Linear)
    return layer


def check_one_position(width: int, layer: nn.Linear, title: str) -> None:
    """Raise ``Unavailable`` unless the last layer sees one position per row, of as many numbers as it takes."""
    if width != layer.in_features:
        raise Unavailable(
            f"{title} cannot run here",
            f"The last layer sees several positions per row ({width} numbers for {layer.in_features} inputs).",
            "Pool the positions before the last layer, or use a gradient method.",
        )
