"""Which change of a training input would change an answer: the influence function's gradient in the input.

::

    d m_t / d x_i = (1/n) g_t' H^-1  d/dx_i grad_theta l(x_i, y_i),        g_t = -grad m_t

to first order at the optimum, where the weights follow the input (Koh & Liang, ICML 2017, equation 5, times -1). It
says which pixels or numbers of a training row matter for an answer, and is how adversarial training inputs are found.
Rows of text tokens have no such gradient.

Cost: the solve of the query, and one second derivative per row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from influence_core.errors import BadInput, Unavailable
from influence_core.estimator import Fitted
from influence_core.estimators.inverse_curvature import InfluenceFitted
from influence_core.examples import Batch, moved
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.gradients import named_parameters


def input_influence(fitted: Fitted, test: Rows, train: Rows, measurement: Measurement | None = None) -> Tensor:
    """Return how the measurement of a query changes with the inputs of training rows, ``[k, *input shape]``.

    Args:
        fitted: ``if_exact``, ``if_ggn``, ``if_cg`` or ``if_lissa``.
        test: One query row, or several as one query (``reduce="mean"``).
        train: The training rows.
        measurement: What is explained; default minus the loss.

    Raises:
        BadInput: Another method, or several query rows.
        Unavailable: The model takes something else than one tensor of real numbers.
    """
    if not isinstance(fitted, InfluenceFitted):
        raise BadInput(
            "Inputs have no influence here", f"{fitted.info.title} solves no system.", "Use if_exact or if_cg."
        )
    if len(test.ids) != 1 and test.reduce is None:
        raise BadInput("There are several queries", f"{len(test.ids)} rows are given.", "Give one, or reduce='mean'.")
    task, run, cache, dtype = fitted.task, fitted.run, fitted.cache, fitted.curvature.dtype
    measurement = measurement or Measurement()
    batch = Batch(*moved(task.query(test, measurement, run.dtype), run.device, run.dtype))
    query = [side.mean() for side in query_gradients(cache, batch, measurement.scalar(task.loss), run.batch_size)]
    solved = fitted.solved(torch.cat([side.dense() for side in query], 1).to(dtype))[0] / task.n_train
    rows = task.split("train").batch(task.positions(train), run.device, dtype)
    inputs: Any = rows.inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise Unavailable(
            "The inputs have no gradient", "The model does not take one tensor of real numbers.",
            "Use tracin_we, which speaks of the words that two texts share.",
        )  # fmt: skip
    model = fitted.curvature.model
    directions = named_parameters(model, cache.plan, solved)
    own = dict(model.named_parameters())
    x = inputs.detach().clone().requires_grad_(True)
    losses = task.loss(model, Batch(x, rows.targets))
    slopes = torch.autograd.grad(
        losses.sum(), [own[name] for name in directions], create_graph=True, allow_unused=True
    )  # fmt: skip
    # Rows are independent: the sum's derivative in a row's input is that of the row's own term.
    total = sum((s * directions[name]).sum() for name, s in zip(directions, slopes, strict=True) if s is not None)
    if not isinstance(total, Tensor):
        return torch.zeros_like(x)
    return torch.autograd.grad(total, x)[0].to(run.dtype)
