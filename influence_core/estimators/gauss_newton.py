"""The Gauss-Newton curvature as a spectrum: the whole matrix of a small model, EK-FAC of a larger one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from influence_core.curvature_cache import MAX_EIGEN, Curvature
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Sizes
from influence_core.gradient_cache import TrainGradients
from influence_core.kronecker_cache import ErrorKind, LayerCurvature
from influence_core.primitives.spectrum import FullBlock, Spectrum, WholeSpectrum
from influence_core.run import Run
from influence_core.task import Over

Choice = Literal["auto", "exact", "ekfac"]
HELP = "exact: the whole matrix, small models. ekfac: layer by layer. auto: by the size."
_FLOP = 1.5e-11  # seconds per floating-point operation of a float64 matrix product


class GaussNewton(NamedTuple):
    """A spectrum, whether it is the whole matrix's, and one sentence about it."""

    spectrum: Spectrum
    whole: bool
    note: str


def gauss_newton(cache: TrainGradients, run: Run, choice: Choice, over: Over | None = None) -> GaussNewton:
    """Return the curvature of the mean training loss, from the store or computed now.

    Args:
        cache: Tells the attributed parameters, and the checkpoint.
        run: How what is missing is computed.
        choice: ``exact`` writes it out, ``ekfac`` keeps factors; ``auto`` goes by the number of parameters.
        over: Checkpoints with weights, of which the mean is taken; None: the cache's own.

    Raises:
        Unavailable: ``exact`` with too many parameters.
    """
    size = cache.plan.n_attributed
    if choice == "ekfac" or (choice == "auto" and size > MAX_EIGEN):
        layers = LayerCurvature(cache, run, ErrorKind(), over)
        return GaussNewton(layers.ekfac(), False, layers.note)
    if size > MAX_EIGEN:
        raise Unavailable(
            "The curvature is too large to be factorised whole", f"{size:,} parameters; the limit is {MAX_EIGEN:,}.",
            "Use curvature='ekfac', or config layers=('last',).",
        )  # fmt: skip
    artifact = Curvature(cache.task, run, cache.plan, "ggn", over).factorised()
    block = FullBlock(artifact.tensor("values").to(run.device), artifact.tensor("vectors").to(run.device))
    sizes = [cache.plan.sizes[name] for name in cache.plan.layers]
    return GaussNewton(WholeSpectrum(block, sizes), True, "Curvature: the whole Gauss-Newton matrix.")


def added_cost(sizes: Sizes, choice: Choice, checkpoints: int = 1, parts: int = 1) -> Cost:
    """Return the cost of curvatures over some checkpoints, factorised in so many parts."""
    p, outputs = sizes.n_params, max(1, sizes.n_classes)
    if choice == "ekfac" or p > MAX_EIGEN:
        return Cost(checkpoints * (1 + 1.4 * outputs) * sizes.pass_seconds + parts * 2e-10 * p**1.5, parts * 32 * p)
    written = 1.5 * outputs * sizes.pass_seconds + 2 * _FLOP * sizes.n_train * outputs * p**2
    return Cost(checkpoints * written + parts * 14 * _FLOP * p**3, parts * 8 * p**2)
