"""What leaving a whole group of rows out does: first order, second order, and a full Newton step.

With ``A = C + (damping + weight_decay) I`` the curvature of the mean loss, ``g_U`` and ``C_U`` the sums over the group
divided by n, a group that leaves with divisor and L2 unchanged moves the weights by

================================  =========================================================================
``group_if``                      ``A^-1 g_U``: the sum of its members (Koh et al. 2019)
``group_if_second_order``         ``A^-1 g_U + A^-1 C_U A^-1 g_U``: with the curvature that leaves (Basu et al. 2020)
``group_newton``                  ``(A - C_U)^-1 g_U``: one whole Newton step without the group
================================  =========================================================================

and ``S[t, U] = g_t' (that)``, positive = the group is a proponent, in units of the measurement. Sums of single rows
underrate large groups, which take the curvature that held the others with them: for a ridge regression the Newton step
is exact. The second-order term enters with a plus here; written for the paper's weights that shrink the divisor along
with the group it has other factors, and with the wrong sign it is worse than none. C is the Gauss-Newton matrix.

Cost: that of ``if_exact``; a group adds its rows' curvature, ``|U| C P`` numbers. Memory ``n P`` numbers for the single
rows and ``P^2`` for the matrix.

References: Koh, Ang, Teo & Liang, On the Accuracy of Influence Functions for Measuring Group Effects, NeurIPS 2019;
Basu, You & Feizi, On Second-Order Group Influence Functions for Black-Box Predictions, ICML 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core import damping
from influence_core.config import digest
from influence_core.curvature_cache import MAX_EIGEN, Curvature, check_curvature
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.losses import CustomLoss
from influence_core.primitives.operators import ggn_roots
from influence_core.primitives.solvers import EigenInverse
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
MAX_BYTES = 4 << 30  # of the single rows' changes
_FLOP = 1.5e-11  # seconds per floating-point operation of a float64 matrix product


class GroupConfig(GradientConfig):
    """How a group's curvature is taken into account."""

    order: Literal["first", "second", "newton"] = Field(
        "newton", description="first: sums of single rows. second: and the curvature that leaves. newton: all of it."
    )
    damping: float | None = Field(None, ge=0, description=damping.HELP)


@final
@preset(
    "group_if", "Group influence, first order",
    "What leaving a group of rows out does to the answer, as the sum of what each row does.", order="first",
)  # fmt: skip
@preset(
    "group_if_second_order", "Group influence, second order",
    "What leaving a group of rows out does to the answer, with the curvature that the group takes along.",
    order="second",
)  # fmt: skip
@register
class GroupInfluence(Bilinear):
    """Influence of groups."""

    info = Info(
        name="group_newton", title="Group influence, Newton step", family="curvature",
        summary="What leaving a group of rows out does to the answer, by a whole Newton step: for large groups.",
        estimand="change of the measurement after one Newton step without the group",
        reference="Koh et al., On the Accuracy of Influence Functions for Measuring Group Effects, NeurIPS 2019",
        needs=Needs.MODEL | Needs.OUTPUTS, units="measurement", additive=False, groups=True,
    )  # fmt: skip
    Config = GroupConfig
    config: GroupConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def fit(self, task: Task, run: Run) -> Fitted:
        """Factorise the curvature, and move every row out by itself.

        Raises:
            Unavailable: Too many parameters, or a custom loss.
        """
        self.check(task)
        return GroupFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse a curvature that a custom loss does not have."""
        check_curvature(task, "ggn")

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients, the curvature, and every row's change."""
        base, p, c = super().cost(task, sizes), min(sizes.n_params, MAX_EIGEN), max(1, sizes.n_classes)
        written = 3 * c * sizes.pass_seconds + 2 * _FLOP * sizes.n_train * (2 * c + 1) * p**2
        root = 1.5 * c * sizes.pass_seconds / max(1, sizes.n_train)
        member = {"first": 0.0, "second": root, "newton": root + 2 * _FLOP * c * p**2}[self.config.order]
        return Cost(
            base.seconds + written + 14 * _FLOP * p**3, base.bytes + 8 * p**2 + 8.0 * sizes.n_train * p, member=member
        )


@final
class GroupFitted(BilinearFitted):
    """The inverse of the curvature, and the change of the weights by each row."""

    estimator: GroupInfluence

    def __init__(self, estimator: GroupInfluence, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        size = self.cache.plan.n_attributed
        if size > MAX_EIGEN or 8 * size * task.n_train > MAX_BYTES:
            raise Unavailable(
                f"{self.info.title} cannot run here",
                f"{size:,} parameters and {task.n_train:,} rows; it takes {MAX_EIGEN:,} parameters and 4 GiB.",
                "Use config layers=('last',), or if_ekfac, whose scores add up to a group's first order.",
            )
        self.curvature = Curvature(task, run, self.cache.plan, "ggn")
        artifact = self.curvature.factorised()
        values, vectors = (artifact.tensor(name).to(run.device) for name in ("values", "vectors"))
        self.chosen = damping.chosen(estimator.config.damping, self.cache, run, None, damping.WHOLE)
        damping.check_lifted(float(values[0]), float(values[-1]), self.chosen)
        self.inverse = EigenInverse(values, vectors, self.chosen.total)
        inputs: dict[str, Any] = {
            "kind": "rows moved out", "version": VERSION, "of": artifact.key, "gradients": self.cache.artifact.key,
            "damping": self.chosen.total, "order": estimator.config.order,
        }  # fmt: skip
        self.changes = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the damping."""
        return (self.chosen.note,)

    def group(self, test: Rows, groups: Sequence[Sequence[Any]], measurement: Measurement | None = None) -> Tensor:
        """Return the influence ``[n_test, n_groups]`` of whole groups of training rows."""
        measurement = measurement or Measurement()
        query = self._query(self.task.query(test, measurement, self.run.dtype), measurement)
        columns = [self.moved(self.task.positions(Rows("train", tuple(group)))) for group in groups]
        found = (query @ torch.stack(columns, 1)).to(self.run.dtype)
        return found.mean(0, keepdim=True) if test.reduce == "mean" else found

    def moved(self, positions: Tensor) -> Tensor:
        """Return the change of the weights ``[P]`` when the rows at these positions leave together."""
        if len(positions) == 0:
            return self.inverse.values.new_zeros(self.cache.plan.n_attributed)
        n = self.task.n_train
        sides = [side.take(positions.to(self.run.device)) for side in self.cache.block(slice(0, n))]
        total = torch.cat([side.dense() for side in sides], 1).double().sum(0) / n
        first = self.inverse.solved(total[None])[0]
        if self.estimator.config.order == "first":
            return first
        roots = self._roots(positions).reshape(-1, len(total)) / n**0.5
        return _with_curvature(self.inverse, roots, first, self.estimator.config.order)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        changes = self.changes.tensor("changes").to(self.run.device)
        return (self._query(batch, measurement) @ changes.T).to(self.run.dtype)

    def _self_influence(self) -> Tensor:
        """Return each row's change of its own loss."""
        changes, n = self.changes.tensor("changes").to(self.run.device), self.task.n_train
        parts = []
        for start in range(0, n, 256):
            rows = slice(start, min(start + 256, n))
            gradients = torch.cat([side.dense() for side in self.cache.block(rows)], 1).double()
            parts.append((gradients * changes[rows]).sum(1))
        return torch.cat(parts).to(self.run.dtype)

    def _query(self, batch: Batch, measurement: Measurement) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        return torch.cat([side.dense() for side in query], 1).double()

    def _roots(self, positions: Tensor | slice) -> Tensor:
        """Return ``D`` ``[k, C, P]`` of some rows, with ``D_i' D_i`` the Gauss-Newton matrix of a row's loss."""
        loss = self.task.loss
        assert not isinstance(loss, CustomLoss)  # check_curvature has refused it
        batch = self.task.split("train").batch(positions, self.run.device, self.curvature.dtype)
        return torch.stack(list(ggn_roots(self.curvature.model, loss, batch, self.cache.plan)), 1).double()

    def _produce(self, writer: Writer) -> None:
        n, size, order = self.task.n_train, self.cache.plan.n_attributed, self.estimator.config.order
        writer.create("changes", (n, size), np.float64)
        step = max(1, min(256, (64 << 20) // (8 * size * max(1, self.task.n_classes or 1))))
        starts = range(0, n, step)
        for start in self.run.track(starts, "moving each row out", len(starts)):
            rows = slice(start, min(start + step, n))
            if writer.is_done(f"rows {start}:{rows.stop}"):
                continue
            gradients = torch.cat([side.dense() for side in self.cache.block(rows)], 1).double() / n
            first = self.inverse.solved(gradients)
            if order != "first":
                roots = self._roots(rows) / n**0.5
                first = torch.stack(
                    [_with_curvature(self.inverse, r, f, order) for r, f in zip(roots, first, strict=True)]
                )
            writer.write("changes", start, first)
            writer.mark_done(f"rows {start}:{rows.stop}")


def _with_curvature(inverse: EigenInverse, roots: Tensor, first: Tensor, order: str) -> Tensor:
    """Return ``A^-1 g`` with the curvature ``D'D`` of what leaves taken into account.

    Args:
        inverse: ``A^-1``.
        roots: ``D`` ``[k, P]``.
        first: ``A^-1 g`` ``[P]``.
        order: ``second``: ``(I + A^-1 D'D) A^-1 g``. ``newton``: ``(A - D'D)^-1 g``, by Woodbury's identity where the
            roots are few.
    """
    seen = roots @ first
    if order == "second":
        return first + inverse.solved((roots.T @ seen)[None])[0]
    if len(roots) > len(first):
        return torch.linalg.solve(inverse.inverted - roots.T @ roots, inverse.inverted @ first)
    solved = inverse.solved(roots)
    left = torch.eye(len(roots), dtype=roots.dtype, device=roots.device) - roots @ solved.T
    return first + solved.T @ torch.linalg.solve(left, seen)
