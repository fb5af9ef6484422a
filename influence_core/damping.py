"""The automatic damping: how much is added to a curvature when nobody says how much.

Damping decides the quality of an influence function more than the method's name, and the right amount can be known
without retraining, from two sides that see different things; the geometric mean of both is taken.

- **Training time.** Gradient descent at rate eta for T steps has gone ``1 - exp(-eta T s)`` of the way along an
  eigenvector of curvature s, about what a ridge of ``1 / (eta T)`` leaves of it: stopping is a damping. A run of SGD
  with momentum b has ``eta T = sum of rates / (1 - b)``, and ``damping = 1.5 / (eta T)``. A model that was minimised
  (L-BFGS) has only its weight decay, and nothing else is asked.
- **Scale of the curvature**: ``damping = 0.4 mean |g|^2 / (P mean loss)`` over the training rows. For squared error
  this is .8 of the mean eigenvalue of the Gauss-Newton matrix; for any loss it is free once the gradients are kept,
  does not change when rows are repeated or with the method that asks, and is multiplied when the loss is, as a
  curvature.
  It stands alone where the training is unknown or its steps are not the learning rate's (Adam).

The 1.5 and the .4 were found on the design studies of ``benchmarks/damping.py``, the first of which led to the mean:
time alone missed the best damping's LDS by up to .07 on noisy regressions, where scale was right.

A curvature that is put together from factors smears its spectrum: its small eigenvalues are too large and do part of
the damping's work, so that it gets .1 of the number: of .05, .1, .2 and further doublings the best mean LDS over the
same studies, EK-FAC and K-FAC together.

The weight decay of the recipe comes on top. A Hessian's damping is raised until no direction is negative. The number is
rounded to three digits: what is shown is what is used, and the order of rows cannot change it.

Neither side needs test rows or a spectrum. Not compared with the indicator of Wang et al. (arXiv 2505.24261). Training
time as damping is the view of Bae et al. (2024), SOURCE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import NumericalProblem
from influence_core.gradient_cache import TrainGradients
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

TIME_FACTOR = 1.5
SCALE_FACTOR = 0.4
WHOLE, FACTORED = 1.0, 0.1  # shares of the rules' numbers
_BARELY = 1e-3  # of the scale rule: keeps a minimised model without weight decay away from a singular matrix
HELP = "Added to the curvature on top of weight decay: more is steadier, less is sharper. Empty: chosen for this model."


@dataclass(frozen=True)
class Damping:
    """What is added to the curvature.

    Attributes:
        own: By choice or by rule.
        decay: The recipe's weight decay.
        rule: Where ``own`` comes from, in words; empty: it was given.
    """

    own: float
    decay: float
    rule: str = ""

    @property
    def total(self) -> float:
        """Return the effective damping."""
        return self.own + self.decay

    @property
    def note(self) -> str:
        """Return one sentence for the reader of the scores."""
        chosen = f", chosen automatically from {self.rule}" if self.rule else ""
        return f"Effective damping {self.total:g}: damping {self.own:g} plus weight decay {self.decay:g}{chosen}."


def chosen(
    given: float | None, cache: TrainGradients, run: Run, lowest: float | None = None, share: float = WHOLE
) -> Damping:
    """Return the damping of a method.

    Args:
        given: The option; None: automatic.
        cache: Training gradients of the attributed parameters at the explained model.
        run: How what is missing is computed.
        lowest: Smallest eigenvalue of the curvature, where it may be negative.
        share: Of the rules' numbers, for a curvature of another kind than the whole one.
    """
    task = cache.task
    decay = task.recipe.weight_decay if task.recipe is not None else 0.0
    if given is not None:
        return Damping(given, decay)
    own, rule = _by_rule(cache, run, decay)
    own *= share
    needed = 0.0 if lowest is None else lifted(lowest, decay)
    if needed > own:
        own, rule = needed, "the curvature's most negative direction"
    return Damping(rounded(own), decay, rule)


def _by_rule(cache: TrainGradients, run: Run, decay: float) -> tuple[float, str]:
    recipe = cache.task.recipe
    time = training_time(recipe, cache.task.n_train) if recipe is not None else None
    if time == math.inf and decay > 0:
        return 0.0, "training to the minimum, which needs none"
    scale = curvature_scale(cache.squared_norms().sum(0), mean_loss(cache, run), cache.plan.n_attributed)
    if time == math.inf:
        return _BARELY * scale, "training to the minimum, which needs hardly any"
    if time is None:
        return scale, "the size of the training gradients and losses"
    both = math.sqrt(TIME_FACTOR / time * scale)
    return both, f"the length of training (rate times steps {time:.3g}) and the size of gradients and losses"


def training_time(recipe: Recipe, n_train: int) -> float | None:
    """Return the sum of learning rates over the steps, momentum included; infinite for a minimiser; None: unknown.

    Adam divides its steps by a running gradient size that a recipe does not know.
    """
    if recipe.optimizer == "lbfgs":
        return math.inf
    if recipe.optimizer != "sgd":
        return None
    steps = recipe.epochs * math.ceil(n_train / recipe.batch_size)
    shares = {"constant": 1.0, "cosine": (steps + 1) / (2 * steps), "linear": (steps + 1) / (2 * steps)}
    return recipe.learning_rate * shares[recipe.schedule] * steps / (1 - recipe.momentum)


def curvature_scale(squared_norms: Tensor, loss: float, n_params: int) -> float:
    """Return ``0.4 mean |g|^2 / (P |mean loss|)``; a smooth loss has ``|g|^2 <= 2 L loss`` for its curvature L.

    Args:
        squared_norms: ``|g_i|^2`` of the training rows, ``[n]``.
        loss: Their mean loss.
        n_params: P, the parameters that the gradients cover.
    """
    mean = float(squared_norms.double().mean())
    if mean == 0:  # every row is fitted perfectly: there is no influence to be damped
        return 1.0
    return SCALE_FACTOR * mean / (max(1, n_params) * max(abs(loss), 1e-12))


def mean_loss(cache: TrainGradients, run: Run) -> float:
    """Return the mean training loss at the explained model, from the store or by a forward pass."""
    task = cache.task
    inputs = {
        "kind": "training loss", "version": 1, "task": task.fingerprint,
        "checkpoint": task.checkpoint_hash(cache.spec.checkpoint), "precision": run.precision,
    }  # fmt: skip
    artifact = run.artifacts.obtain(digest(inputs), inputs, lambda w: _produce(w, cache, task, run), run.waiting)
    return float(artifact.tensor("loss"))


def _produce(writer: Writer, cache: TrainGradients, task: Task, run: Run) -> None:
    total, steps = 0.0, -(-task.n_train // run.batch_size)
    batches = task.split("train").batches(run.batch_size, run.device, run.dtype)
    for _, batch in run.track(batches, "training loss", steps):
        with torch.no_grad():
            total += float(task.loss(cache.model, batch).double().sum())
    writer.save("loss", torch.tensor([total / task.n_train], dtype=torch.float64))


def check_lifted(lowest: float, highest: float, damping: Damping) -> None:
    """Raise ``NumericalProblem`` unless the smallest eigenvalue with the damping is safely above zero."""
    if lowest + damping.total <= 1e-12 * max(abs(highest), damping.total):
        enough = max(1e-6 * abs(highest), lifted(lowest, damping.decay), 1e-12)
        raise NumericalProblem(
            "The curvature is singular",
            f"Its smallest eigenvalue is {lowest:.3g}; {damping.note[0].lower()}{damping.note[1:-1]} does not lift it.",
            f"Use damping {enough:.2g} or more, or leave the field empty.",
        )


def lifted(lowest: float, decay: float) -> float:
    """Return a damping that makes the most negative direction as positive as it was negative; 0 if none is."""
    return max(0.0, -2 * lowest - decay) if lowest < 0 else 0.0


def rounded(value: float) -> float:
    """Return a number to three digits: what is shown is what is used."""
    return float(f"{value:.3g}")
