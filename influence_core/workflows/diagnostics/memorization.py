"""How much a network memorises: critical samples, and how unevenly its loss hangs on the inputs.

- ``critical_sample_ratio``: the share of rows with an input of another predicted class within an L-infinity distance.
  The search (Langevin steps along the sign of the gradient, from Arpit et al.) finds a lower bound; for a binary linear
  model it is exact: critical if and only if ``|w.x + b| <= r |w|_1``.
- ``loss_sensitivity``: ``mean_c |d l_i(theta_c) / d x_i|_1`` over the recorded checkpoints, and its Gini coefficient
  over the rows: networks trained on noise hang on few of them.

No influence, and no sign: dataset-level diagnostics of Arpit et al., A Closer Look at Memorization in Deep Networks,
ICML 2017. Both depend on how the inputs are scaled; the radius is in units of the encoded input.

Cost: ``steps`` forward and backward passes over the rows, or one per checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config
from influence_core.errors import BadInput, Unavailable
from influence_core.examples import Batch
from influence_core.primitives.losses import outputs, predicted_classes
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.diagnostics.catalogue import Answer, Findings, diagnostic

_REFERENCE = "Arpit et al., A Closer Look at Memorization in Deep Networks, ICML 2017"


@dataclass(frozen=True)
class CriticalSamples:
    """Which rows have another prediction nearby.

    Attributes:
        ids: Ids of the rows looked at ``[n]``.
        critical: Whether another class was found ``[n]``; a lower bound.
        radius: The L-infinity distance.
    """

    ids: list[Any]
    critical: Tensor
    radius: float

    @property
    def ratio(self) -> float:
        """Return the critical sample ratio."""
        return float(self.critical.double().mean())


@dataclass(frozen=True)
class LossSensitivity:
    """How strongly each row's loss hangs on its input.

    Attributes:
        values: ``[n_train]``, loss per unit of input.
        by_checkpoint: ``[n_checkpoints, n_train]``.
    """

    values: Tensor
    by_checkpoint: Tensor

    @property
    def gini(self) -> float:
        """Return the Gini coefficient over rows: 0 = all alike, near 1 = a few rows carry everything."""
        return gini_coefficient(self.values)


def critical_sample_ratio(
    task: Task, run: Run, *, split: str = "train", radius: float = 0.3, steps: int = 20, step_size: float = 0.25,
    noise: float = 0.2, n_rows: int = 1000,
) -> CriticalSamples:  # fmt: skip
    """Search a box around each row for an input with another prediction.

    Args:
        task: A classifier of one tensor of real numbers.
        run: Device, precision, seed of the noise and of the rows, progress.
        split: Whose rows.
        radius: Half the side of the box, in units of the encoded input.
        steps: Steps of the search.
        step_size: Length of a step, as a share of the radius.
        noise: Standard deviation of the noise of a step, as a share of the radius.
        n_rows: Rows looked at, at most; more are sampled.

    Raises:
        Unavailable: The model takes something else, or does not classify.
        BadInput: The radius or the number of steps is not positive.
    """
    if radius <= 0 or steps < 1:
        raise BadInput("Nothing to search", f"radius is {radius} and steps {steps}.", "Give both above 0.")
    if not task.loss.classifies:
        raise Unavailable(
            "There are no critical samples", "The model does not predict classes.", "Use loss_sensitivity."
        )
    examples = task.split(split)
    generator = torch.Generator().manual_seed(run.seed)
    places = torch.randperm(len(examples), generator=generator)[:n_rows].sort().values
    model = task.model_at(-1, run.device, run.dtype)
    parts = []
    chunks = places.split(run.batch_size)
    for index in run.track(chunks, "search for other predictions", len(chunks)):
        start = _real(examples.batch(index, run.device, run.dtype).inputs)
        parts.append(_critical(model, start, radius, steps, step_size * radius, noise * radius, generator))
    return CriticalSamples(task.ids(split)[places.numpy()].tolist(), torch.cat(parts).cpu(), radius)


def _critical(
    model: Any, start: Tensor, radius: float, steps: int, step: float, noise: float, generator: torch.Generator
) -> Tensor:
    with torch.no_grad():
        before = predicted_classes(outputs(model, start))
    found = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    x = start
    for k in range(steps + 1):
        # The last step goes to the corner itself: what the noise hides near the edge of the box is still found.
        slope = _away(model, x, before)
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        moved = start + radius * slope.sign() if k == steps else x + step * slope.sign() + noise * drawn
        x = start + (moved - start).clamp(-radius, radius)
        with torch.no_grad():
            found |= predicted_classes(outputs(model, x)) != before
        if bool(found.all()):
            break
    return found


def _away(model: Any, x: Tensor, label: Tensor) -> Tensor:
    """Return the direction that takes each row's prediction from its class: the slope of the best other logit."""
    x = x.detach().requires_grad_(True)
    f = outputs(model, x)
    f = f.reshape(len(f), -1)
    if f.shape[1] == 1:
        gap = f[:, 0] * (1 - 2 * label.to(f.dtype))
    else:
        own = torch.nn.functional.one_hot(label, f.shape[1]).bool()
        gap = f.masked_fill(own, -torch.inf).amax(1) - f.gather(1, label.unsqueeze(1)).squeeze(1)
    return torch.autograd.grad(gap.sum(), x)[0]


def loss_sensitivity(task: Task, run: Run) -> LossSensitivity:
    """Return how strongly each training row's loss hangs on its input, over the recorded checkpoints.

    Raises:
        Unavailable: The model takes something else than one tensor of real numbers.
    """
    train, rows = task.split("train"), []
    for c in run.track(range(task.n_checkpoints), "input gradients", task.n_checkpoints):
        model = task.model_at(c, run.device, run.dtype)
        parts = []
        for _, batch in train.batches(run.batch_size, run.device, run.dtype):
            x = _real(batch.inputs).detach().requires_grad_(True)
            loss = task.loss(model, Batch(x, batch.targets)).sum()
            parts.append(torch.autograd.grad(loss, x)[0].flatten(1).abs().sum(1))
        rows.append(torch.cat(parts))
    table = torch.stack(rows).cpu()
    return LossSensitivity(table.mean(0), table)


def gini_coefficient(values: Tensor) -> float:
    """Return the Gini coefficient of non-negative numbers ``[n]``; 0 where all are 0."""
    ordered = values.double().sort().values
    total = float(ordered.sum())
    if total == 0:
        return 0.0
    n = len(ordered)
    ranks = torch.arange(1, n + 1, dtype=torch.float64)
    return float((2 * ranks - n - 1) @ ordered) / (n * total)


def _real(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise Unavailable(
            "The inputs have no neighbourhood", "The model does not take one tensor of real numbers.",
            "Use this on images or tables; for texts, look at the word embedding with tracin_we.",
        )  # fmt: skip
    return inputs


# -- by id ------------------------------------------------------------------------------------------------------------


class CriticalConfig(Config):
    """How far and how hard is searched."""

    split: Literal["train", "test"] = Field("train", description="Whose rows.")
    radius: float = Field(0.3, gt=0, description="Half the side of the box, in units of the encoded input.")
    steps: int = Field(20, ge=1, description="Steps of the search.")
    step_size: float = Field(0.25, gt=0, description="Length of a step, as a share of the radius.")
    noise: float = Field(0.2, ge=0, description="Noise of a step, as a share of the radius.")
    n_rows: int = Field(1000, ge=1, description="Rows looked at, at most; more are sampled.")


class SensitivityConfig(Config):
    """Sensitivity of the loss has no options."""


@diagnostic(
    "critical_sample_ratio", "Critical sample ratio",
    "The share of rows that a small change of the input would give another prediction: more where noise was learnt.",
    _REFERENCE, CriticalConfig,
)  # fmt: skip
def _critical_samples(findings: Findings, config: CriticalConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: the row's id, and whether an input of another predicted class was found: ``critical``.
    """
    found = critical_sample_ratio(findings.task, findings.run, **config.model_dump())
    name = f"{config.split}_id"
    said = (
        f"Critical sample ratio: {found.ratio:.4g} of {len(found.ids):,} {config.split} rows, within {found.radius:g} "
        "of the encoded input; the search finds a lower bound."
    )
    return pd.DataFrame({name: found.ids, "critical": found.critical.numpy()}), (said,)


@diagnostic(
    "loss_sensitivity", "Sensitivity of the loss to the input",
    "How strongly each training row's loss hangs on its input, over the recorded checkpoints.",
    _REFERENCE, SensitivityConfig,
)  # fmt: skip
def _sensitive(findings: Findings, config: SensitivityConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``train_id``; ``sensitivity``, the L1 norm of the loss's gradient in the input, mean over checkpoints.
    """
    found = loss_sensitivity(findings.task, findings.run)
    table = pd.DataFrame({"train_id": findings.task.ids("train"), "sensitivity": found.values.double().numpy()})
    table = table.sort_values("sensitivity", ascending=False, kind="stable", ignore_index=True)
    count = findings.task.n_checkpoints
    return table, (f"Mean over {count} checkpoints; Gini coefficient over the rows {found.gini:.4g}.",)


@diagnostic(
    "gini_sensitivity", "Inequality of the loss's sensitivity",
    "How unevenly the loss hangs on the rows' inputs, by checkpoint: where noise is learnt, few rows carry it.",
    _REFERENCE, SensitivityConfig,
)  # fmt: skip
def _uneven(findings: Findings, config: SensitivityConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``checkpoint`` from 0; ``gini`` of the sensitivities over the rows; their mean.
    """
    found = loss_sensitivity(findings.task, findings.run)
    table = pd.DataFrame({
        "checkpoint": range(len(found.by_checkpoint)),
        "gini": [gini_coefficient(values) for values in found.by_checkpoint],
        "mean_sensitivity": found.by_checkpoint.double().mean(1).numpy(),
    })  # fmt: skip
    return table, (f"Gini coefficient of the mean over the checkpoints: {found.gini:.4g} (0: all rows alike).",)
