"""The curvature of the mean training loss at the explained model: products with it, and its factorisation in the store.

Every method that divides by a curvature shares these artifacts. The damping is not part of them, so that another one
needs no pass over the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from influence_core.config import digest
from influence_core.errors import NumericalProblem, Unavailable
from influence_core.examples import Batch
from influence_core.primitives.gradients import GradientPlan
from influence_core.primitives.losses import BuiltinLoss, CustomLoss
from influence_core.primitives.operators import Product, ggn_product, ggn_roots, hessian_product, identity_blocks
from influence_core.primitives.solvers import check_finite, eigenvalues, filled, lanczos
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Over, Task

CurvatureKind = Literal["ggn", "hessian"]
KIND_IN_WORDS = {"ggn": "Gauss-Newton matrix", "hessian": "Hessian"}
VERSION = 1
MAX_EIGEN = 4_000  # parameters up to which the eigenvectors are kept, so that another damping costs nothing
_IDENTITY_ROWS = 64
_LANCZOS_STEPS = 30


def check_curvature(task: Task, kind: CurvatureKind) -> None:
    """Raise ``Unavailable`` if a task's loss has no such curvature."""
    if kind == "ggn" and isinstance(task.loss, CustomLoss):
        raise Unavailable(
            "The Gauss-Newton curvature cannot be computed here",
            f"It needs the outputs behind the loss, and '{task.loss.name}' is a custom loss.",
            "Use curvature='hessian', or a built-in loss: cross_entropy, bce or mse.",
        )


class Curvature:
    """The curvature of the mean training loss at the explained model, without weight decay and damping.

    In float64, unless the loss itself cannot be computed in it.
    """

    def __init__(self, task: Task, run: Run, plan: GradientPlan, kind: CurvatureKind, over: Over | None = None) -> None:
        """Load the model, or those of the checkpoints that the mean is taken ``over``."""
        check_curvature(task, kind)
        self.task, self.run, self.plan, self.kind = task, run, plan, kind
        self.dtype = _precise(task, run)
        self.over = over or ((-1, 1.0),)
        self.models = [(task.model_at(c, run.device, self.dtype), weight) for c, weight in self.over]
        self.model = self.models[-1][0]
        if kind == "hessian":
            self._check_symmetric()

    def products(self, vectors: Tensor, run: Run | None = None) -> Tensor:
        """Return ``C v`` for rows v ``[k, P]``: a pass over the training rows, cancelled by ``run`` between batches."""
        total = torch.zeros_like(vectors)
        for _, batch in self._batches():
            (run or self.run).check_cancelled()
            total += self._product(batch)(vectors)
        return total / self.task.n_train

    def factorised(self) -> Artifact:
        """Return ``values``, and ``vectors`` or for a large curvature the ``matrix``, from the store or computed now.

        A matrix that was finished before an interruption is not computed again.
        """
        inputs = {
            "kind": "curvature", "version": VERSION, "task": self.task.fingerprint, "curvature": self.kind,
            "checkpoint": self.task.hash_over(self.over), "layers": self.plan.layers, "general": self.plan.general,
            "precision": str(self.dtype),
        }  # fmt: skip
        return self.run.artifacts.obtain(digest(inputs), inputs, self._produce, self.run.waiting)

    def product_of(self, positions: Tensor) -> Product:
        """Return the map ``v -> C v`` of rows ``[k, P]``, with C that of the mean loss of some training rows."""
        product = self._product(self.task.split("train").batch(positions, self.run.device, self.dtype))
        return lambda vectors: product(vectors) / len(positions)

    def lowest(self) -> float:
        """Return the smallest eigenvalue to a few per cent."""
        return self.ends()[0]

    def ends(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue, from the store or by Lanczos' method: a pass a step."""
        inputs = {
            "kind": "ends of the spectrum", "version": VERSION, "task": self.task.fingerprint, "curvature": self.kind,
            "checkpoint": self.task.hash_over(self.over), "layers": self.plan.layers, "general": self.plan.general,
            "precision": str(self.dtype),
        }  # fmt: skip

        def produce(writer: Writer) -> None:
            start = torch.randn(self.plan.n_attributed, generator=torch.Generator().manual_seed(0), dtype=self.dtype)
            steps = lanczos(lambda v: self.products(v[None])[0], start.to(self.run.device), _LANCZOS_STEPS)
            total = min(_LANCZOS_STEPS, self.plan.n_attributed)
            values = list(self.run.track(filled(steps, total), "smallest and largest curvature", total))
            writer.save("values", values[-1][[0, -1]])

        artifact = self.run.artifacts.obtain(digest(inputs), inputs, produce, self.run.waiting)
        lowest, highest = artifact.tensor("values").tolist()
        return lowest, highest

    def _produce(self, writer: Writer) -> None:
        size = self.plan.n_attributed
        if size <= MAX_EIGEN:
            matrix = self._matrix()
            check_finite(matrix)
            for _ in self.run.track(range(1), "factorising the curvature", 1):
                values, vectors = torch.linalg.eigh(matrix)
                writer.save("values", values)
                writer.save("vectors", vectors)
            return
        # Declared again on resume, so that it is flushed with the rest.
        writer.create("matrix", (size, size), np.float64 if self.dtype == torch.float64 else np.float32)
        if not writer.is_done("matrix"):
            writer.write("matrix", 0, self._matrix())
            writer.mark_done("matrix")
        matrix = writer.read("matrix").to(self.run.device)
        for _ in self.run.track(range(1), "eigenvalues of the curvature", 1):
            writer.save("values", eigenvalues(matrix))

    def _matrix(self) -> Tensor:
        size = self.plan.n_attributed
        total = torch.zeros(size, size, dtype=self.dtype, device=self.run.device)
        batches = -(-self.task.n_train // self.run.batch_size)
        steps = -(-size // _IDENTITY_ROWS) if self.kind == "hessian" else 1
        added = self._hessian_added(total) if self.kind == "hessian" else self._ggn_added(total)
        for _ in self.run.track(added, f"{KIND_IN_WORDS[self.kind]} of the training loss", batches * steps):
            pass
        return (total + total.T).div_(2 * self.task.n_train)

    def _ggn_added(self, total: Tensor) -> Iterator[None]:
        for _, batch in self._batches():
            for model, weight in self.models:
                for root in ggn_roots(model, self._builtin, batch, self.plan):
                    total.addmm_(root.T, root, alpha=weight)
            yield

    def _hessian_added(self, total: Tensor) -> Iterator[None]:
        for _, batch in self._batches():
            product = self._product(batch)
            for start, rows in identity_blocks(len(total), _IDENTITY_ROWS, total):
                total[start : start + len(rows)] += product(rows)
                yield

    def _product(self, batch: Batch) -> Product:
        parts = [(self._product_at(model, batch), weight) for model, weight in self.models]

        def product(vectors: Tensor) -> Tensor:
            total = torch.zeros_like(vectors)
            for part, weight in parts:
                total.add_(part(vectors), alpha=weight)
            return total

        return product

    def _product_at(self, model: nn.Module, batch: Batch) -> Product:
        if self.kind == "hessian":
            return hessian_product(model, self.task.loss, batch, self.plan)
        return ggn_product(model, self._builtin, batch, self.plan)

    @property
    def _builtin(self) -> BuiltinLoss:
        assert not isinstance(self.task.loss, CustomLoss)  # check_curvature has refused it
        return self.task.loss

    def _check_symmetric(self) -> None:
        """Refuse wrong second derivatives: torch 2.13 has some, those of ``torch._weight_norm`` for one."""
        few = self.task.split("train").batch(slice(0, 8), self.run.device, self.dtype)
        probes = torch.randn(2, self.plan.n_attributed, generator=torch.Generator().manual_seed(0), dtype=self.dtype)
        probes = probes.to(self.run.device)
        products = probes @ self._product(few)(probes).T
        difference = float((products[0, 1] - products[1, 0]).abs())
        if difference > torch.finfo(self.dtype).eps ** 0.5 * float(products.abs().max()):
            raise NumericalProblem(
                "The Hessian of this model is wrong",
                f"It is not symmetric: u'Hv and v'Hu are {products[0, 1]:.6g} and {products[1, 0]:.6g}.",
                "One of its operators has a wrong second derivative; use curvature='ggn', which needs none.",
            )

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        return self.task.split("train").batches(self.run.batch_size, self.run.device, self.dtype)


def _precise(task: Task, run: Run) -> torch.dtype:
    """Return float64, or the run's precision for a loss that cannot be computed in float64."""
    evaluated: Callable[..., Tensor] = task.loss
    try:
        with torch.no_grad():
            evaluated(
                task.model_at(-1, run.device, torch.float64),
                task.split("train").batch(slice(0, 1), run.device, torch.float64),
            )
    except RuntimeError:
        return run.dtype
    return torch.float64
