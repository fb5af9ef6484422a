"""Influence functions with a Kronecker-factored curvature: K-FAC, and EK-FAC with corrected eigenvalues.

::

    S[t, i] = (1/n) sum over layers  g_t' (C_l + (damping + weight_decay) I)^-1 g_i

K-FAC takes ``C_l = G (x) A`` with ``A = mean a a'`` of a layer's inputs (a 1 for the bias) and ``G = mean e e'`` of its
output errors. EK-FAC keeps the eigenvectors of both and replaces the products of their eigenvalues by the curvature
that is really met along each pair: ``L_jk = mean (q_j' grad q_k)^2`` of whole rows, positions summed. Grosse et al.
(2023), equation 20, times -1/n: positive = proponent, in units of the measurement. With one position, a linear model
and squared error both are the exact Gauss-Newton matrix.

``labels`` says whose errors: ``exact`` uses a root of the loss's Hessian, a backward pass per output, and no
randomness; ``sampled`` draws labels from the model, as the papers do, from ``Run.seed``, and anew for EK-FAC's
eigenvalues; ``true`` takes the true labels, which makes it the empirical Fisher matrix, another method, and the only
one for a custom loss. ``exact`` is the default because no seed changes the answer. Which of the two predicts retraining
better differs: exact labels by .01 to .04 of LDS on digits, sampled ones by up to .08 on iris, neither on friedman
(``benchmarks/damping.py``); one drawn label per row is several times cheaper where there are many outputs.

One damping for all layers, in the units of the curvature and never added to what is kept: it stands for weight decay
and for training that stopped (``damping.py``), which know no layers. Self-influence is rotate and square:
``sum_jk e_j^2 a_k^2 / (L_jk + damping)``, one product for all rows, for layers with one position.

Own code rather than curvlinops (the reference in the tests): it has to share the kept factors of the training gradients
with TracIn, so that switching methods costs no pass; curvlinops knows only whole-model products, no progress and no
third-party layers beside Linear and Conv2d. Other parameters have their exact block or diagonal (``kronecker_cache``).

Cost: one pass for the factors and one for EK-FAC's eigenvalues, each with as many backward passes as columns (outputs,
or samples), ``o^3 + d^3`` operations per layer. A query is a product with the kept factors.
Memory: ``8 (o^2 + d^2)`` bytes per layer besides a batch.

References: Grosse et al., Studying Large Language Model Generalization with Influence Functions, 2023; George et al.,
Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis, NeurIPS 2018; Martens & Grosse, Optimizing
Neural Networks with Kronecker-factored Approximate Curvature, ICML 2015.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

from pydantic import Field

from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.spectral import Curved, Spectral, SpectralConfig
from influence_core.gradient_cache import TrainGradients
from influence_core.kronecker_cache import ErrorKind, LayerCurvature, check_kind
from influence_core.primitives.kronecker import Labels, is_factored
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.task import Needs, Task

_FLOP = 1.5e-11  # seconds per floating-point operation of a float64 matrix product


class KroneckerConfig(SpectralConfig):
    """Which factors, and how much is added."""

    version: ClassVar[int] = 2

    corrected: bool = Field(True, description="Measure the curvature along the factors' eigenvectors (EK-FAC).")
    labels: Labels = Field(
        "exact",
        description="exact: all classes, weighted. sampled: labels drawn from the model, faster with many classes. "
        "true: the true labels, for a custom loss.",
    )
    samples: int = Field(1, ge=1, le=1000, description="Labels drawn per row, where they are sampled.")


@final
@preset(
    "if_kfac",
    "Influence functions (K-FAC)",
    "Influence functions for any size of model, with the curvature of each layer as a product of two small matrices.",
    corrected=False,
)
@register
class InfluenceKronecker(Spectral):
    """EK-FAC; the preset ``if_kfac`` leaves the eigenvalues uncorrected."""

    info = Info(
        name="if_ekfac", title="Influence functions (EK-FAC)", family="curvature",
        summary="Influence functions for any size of model: fitted in a few passes, and then instant for every answer.",
        estimand="first-order change of the measurement when row i is left out",
        reference="Grosse et al., Studying Large Language Model Generalization with Influence Functions, 2023",
        needs=Needs.MODEL, units="measurement", stochastic=True, approximate=True,
    )  # fmt: skip
    Config = KroneckerConfig
    config: KroneckerConfig

    def fit(self, task: Task, run: Run) -> Any:
        """Compute the training gradients and the factors.

        Raises:
            Unavailable: A custom loss with labels other than ``true``.
        """
        check_kind(task.loss, self.kind)  # before the gradients are computed
        return super().fit(task, run)

    @property
    def kind(self) -> ErrorKind:
        """Return which errors the factors are made of."""
        return ErrorKind(self.config.labels, self.config.samples if self.config.labels == "sampled" else 1)

    def curvature(self, cache: TrainGradients, run: Run) -> Curved:
        """The factors, with or without corrected eigenvalues."""
        layers = LayerCurvature(cache, run, self.kind)
        return Curved(layers.ekfac() if self.config.corrected else layers.kfac(), (layers.note,))

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients, one or two passes with a backward pass per column, and the eigenvectors."""
        base = super().cost(task, sizes)
        columns = {"exact": sizes.n_classes, "sampled": self.config.samples, "true": 1}[self.config.labels]
        passes = (2 if self.config.corrected else 1) * (0.5 + 0.7 * max(1, columns))
        modules: list[Any] = [module for module in task.module.modules() if is_factored(module)]
        sides = [(len(m.weight), m.weight[0].numel() + (m.bias is not None)) for m in modules]
        basis = sum(o**3 + d**3 for o, d in sides) * 14 * _FLOP
        return Cost(
            base.seconds + passes * sizes.pass_seconds + basis,
            base.bytes + 8 * sum(o * o + d * d + o * d for o, d in sides),
        )
