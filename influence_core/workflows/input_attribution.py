"""Which parts of the input a prediction rests on: integrated gradients, from Captum.

The path runs from a neutral input (black for images, the train mean for tables) to the row. Contributions add up to the
difference of the target's logit between the two (completeness), up to the error of the path sum, which is returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from influence_core.errors import Unavailable
from influence_core.primitives.losses import outputs
from influence_core.task import Task

STEPS = 64


@dataclass(frozen=True)
class InputContributions:
    """Signed contributions in the shape of the input, and by how much their sum misses the logit's difference."""

    values: Tensor
    gap: float


def integrated_gradients(task: Task, inputs: Any, target: int, neutral: Any) -> InputContributions:
    """Return the contribution of every input number to the logit of a class.

    Args:
        task: Any classification task with one tensor as input.
        inputs: One row ``[1, ...]``.
        target: Class index.
        neutral: The number that means "nothing there" in encoded inputs, or an array that broadcasts to a row.

    Raises:
        Unavailable: The model takes something else than one tensor of real numbers.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise Unavailable(
            "The input cannot be attributed",
            "The model does not take one tensor of real numbers.",
            "Nothing needs to be done: the ranked rows do not depend on it.",
        )
    from captum.attr import IntegratedGradients

    model = task.model_at(-1)

    def logit(x: Tensor) -> Tensor:
        f = outputs(model, x)
        f = f.reshape(len(f), -1)  # a single output may come without a column of its own
        return f[:, 0] * (2 * target - 1) if task.loss.name == "bce" else f[:, target]

    values, gap = IntegratedGradients(logit).attribute(
        inputs,
        torch.zeros_like(inputs) + torch.as_tensor(neutral).to(inputs),
        n_steps=STEPS,
        return_convergence_delta=True,
    )
    return InputContributions(values[0].detach(), abs(float(gap[0])))
