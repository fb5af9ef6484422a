"""Leave-one-out of kernel ridge regression, in closed form: on the network's tangent kernel or on its features.

::

    A = (K + lam I)^-1,    a = A Y,    f(x) = k(x)' a
    kernel_loo:  f - f_(-i) = k_t' A_{:,i} a_i / A_ii          ntk_if:  f - f_(-i) ~ lam k_t' A_{:,i} a_i

and ``S[t, i] = m(f) - m(f_(-i))`` with the measurement at the changed outputs, positive = proponent. ``kernel_loo`` is
exact for the kernel machine; ``ntk_if`` is its influence function, smaller by ``1 - h_i = lam A_ii`` (Zhang & Zhang,
AAAI 2022: the error of influence functions on wide networks falls with the regularisation). K is the tangent kernel of
the explained model, of the sum of its outputs (one kernel for all classes), or the inner products of features or
inputs, with a constant 1. Y are the labels, one of C as 1 and the others 0, or the numbers. The kernel machine is
explained, not the network: the notes say how often the two predict the same. lam is a share of the kernel's mean
diagonal; without any every row is fitted and has leverage 1.

Cost: ``n^2`` products of gradients and ``n^3``, once; memory ``2 n^2`` numbers. A query is ``n^2``.
"""

from __future__ import annotations

from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from influence_core.config import Config, digest
from influence_core.embedding_cache import train_embeddings
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.examples import Batch, moved
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients
from influence_core.measurement import Measurement, Rows, measured_values
from influence_core.primitives.losses import predicted_classes
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
MAX_ROWS = 6_000  # 290 MB of kernel in float64


class KernelConfig(Config):
    """Which kernel, and how much ridge."""

    kernel: Literal["penultimate", "input", "tangent"] = Field(
        "penultimate", description="What rows are compared by: last features, raw inputs, or the network's tangents."
    )
    ridge: float = Field(0.01, gt=0, le=1e6, description="Ridge as a share of the kernel's mean diagonal.")
    exact: bool = Field(True, description="Leave-one-out itself, or its first order, which is the influence function.")


@final
@preset(
    "ntk_if", "Influence on the tangent kernel",
    "Treats the network as a kernel machine on its tangents and asks how that would change without each row.",
    kernel="tangent", exact=False,
)  # fmt: skip
@register
class KernelLoo(Estimator):
    """Leave-one-out of a kernel machine."""

    info = Info(
        name="kernel_loo", title="Leave-one-out on features", family="classical",
        summary="Fits a kernel machine on what the network sees and leaves each row out of it by a closed formula.",
        estimand="measurement of a kernel ridge regression minus that without row i",
        reference="Zhang & Zhang, Rethinking Influence Functions of Neural Networks in the Over-Parameterized Regime, "
        "AAAI 2022",
        needs=Needs.MODEL | Needs.OUTPUTS | Needs.LAST_LAYER, units="rank", functions=False,
    )  # fmt: skip
    Config = KernelConfig
    config: KernelConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the kernel and its inverse.

        Raises:
            Unavailable: More training rows than can be held.
        """
        self.check(task)
        return KernelFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse more training rows than can be held."""
        if task.n_train > MAX_ROWS:
            raise Unavailable(
                f"{self.named.title} cannot run here",
                f"There are {task.n_train:,} training rows; the kernel of up to {MAX_ROWS:,} is held.",
                "Use dfbeta or infinitesimal_jackknife, or kernel='penultimate' on fewer rows.",
            )

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The kernel and its inverse."""
        n = sizes.n_train
        width = sizes.n_params if self.config.kernel == "tangent" else min(sizes.n_params, 4096)
        return Cost(sizes.pass_seconds + 2e-11 * (2.0 * n**2 * width + 4.0 * n**3), 16.0 * n**2)


@final
class KernelFitted(Fitted):
    """The kernel machine."""

    estimator: KernelLoo

    def __init__(self, estimator: KernelLoo, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        config = estimator.config
        if config.kernel == "tangent":
            self.cache = TrainGradients(task, run, GradientSpec(task.n_checkpoints - 1, of="outputs"))
            parent = self.cache.artifact.key
        else:
            self.embeddings = train_embeddings(task, run, config.kernel)
            parent = self.embeddings.key
        inputs: dict[str, Any] = {
            "kind": "kernel machine", "version": VERSION, "of": parent, "kernel": config.kernel, "ridge": config.ridge,
            "task": task.fingerprint,
        }  # fmt: skip
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)
        self.inverse, self.weights = (self.artifact.tensor(name).to(run.device) for name in ("inverse", "weights"))

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what is explained, and how near it is to the model."""
        same = self.artifact.meta["agreement"]
        if same is None:
            return (f"A kernel machine is explained; its ridge is {self.artifact.meta['ridge']:.3g}.",)
        return (f"A kernel machine is explained; it predicts the model's class on {same:.1%} of the training rows.",)

    def _kernel(self, batch: Batch) -> Tensor:
        """Return ``k(x)`` of any rows ``[m, n_train]``, float64."""
        batch = Batch(*moved(batch, self.run.device, self.run.dtype))
        if self.estimator.config.kernel == "tangent":
            scalar = self.cache.scalar
            return self.cache.products(query_gradients(self.cache, batch, scalar, self.run.batch_size)).double()
        features = self.embeddings.features.to(self.run.device).double()
        return self.embeddings.query(batch).double() @ features.T + 1

    def _produce(self, writer: Writer) -> None:
        task, n = self.task, self.task.n_train
        starts, parts = range(0, n, 512), []
        for start in self.run.track(starts, "kernel of the training rows", len(starts)):
            rows = slice(start, min(start + 512, n))
            parts.append(self._kernel(task.split("train").batch(rows, self.run.device, self.run.dtype)))
        kernel = torch.cat(parts)
        kernel = (kernel + kernel.T) / 2
        ridge = self.estimator.config.ridge * float(kernel.diagonal().mean())
        damped = kernel + ridge * torch.eye(n, dtype=torch.float64, device=kernel.device)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        weights = inverse @ self._targets().to(kernel.device)
        writer.save("inverse", inverse)
        writer.save("weights", weights)
        writer.meta["ridge"] = ridge
        writer.meta["agreement"] = self._agreement(kernel @ weights)

    def _targets(self) -> Tensor:
        """Return ``Y`` ``[n, C]``."""
        targets = self.task.split("train").targets
        if self.task.loss.name == "cross_entropy":
            return F.one_hot(targets, self.task.n_classes or 2).double()
        flat = targets.reshape(len(targets), -1).double()
        return 2 * flat - 1 if self.task.loss.name == "bce" else flat

    def _agreement(self, f: Tensor) -> float | None:
        if not self.task.loss.classifies:
            return None
        places = torch.arange(self.task.n_train)
        return float((predicted_classes(f).cpu() == self.task.predicted("train", places)).double().mean())

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        kernel = self._kernel(batch)
        f = kernel @ self.weights
        moved_by = kernel @ self.inverse  # [m, n]
        diagonal = self.inverse.diagonal()
        scale = 1 / diagonal if self.estimator.config.exact else torch.full_like(diagonal, self.artifact.meta["ridge"])
        changed = f.unsqueeze(1) - (moved_by * scale).unsqueeze(2) * self.weights.unsqueeze(0)
        m, n, c = changed.shape
        targets = moved(batch.targets, f.device, f.dtype)
        now = measured_values(f, targets, self.task.loss, measurement)
        after = measured_values(changed.reshape(m * n, c), targets.repeat_interleave(n, 0), self.task.loss, measurement)
        return (now.unsqueeze(1) - after.reshape(m, n)).to(self.run.dtype)
