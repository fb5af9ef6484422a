"""The training rows' gradients, each layer projected from both sides before its gradient is formed (LoGra).

A layer's gradient is ``sum_t e_t a_t'``. With random ``P_out`` and ``P_in`` its projection
``sum_t (P_out e_t)(P_in a_t)'`` needs the small factors alone: the gradient itself is never built, and a row takes
``k_out k_in`` numbers. A side that is no larger than k is kept as it is. Gradients that are not of this form are
projected as vectors to ``k^2`` numbers. The matrices are drawn from ``Run.seed``; inner products are kept on average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.config import digest
from influence_core.gradient_cache import GradientSpec, TrainGradients
from influence_core.primitives.sides import Dense, Factored, Side, Tokens
from influence_core.primitives.spectrum import FullBlock
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 1
_ROWS = 256  # written out at a time
_SMALLEST = 1e-12  # of the largest second moment: a weight that no row moves stays finite


class LayerProjection(TrainGradients):
    """Gradients of all training rows at one checkpoint, projected layer by layer.

    Args:
        task: The task.
        run: Store, device, precision, seed of the matrices.
        spec: Checkpoint and layers.
        dimensions: k, per side of a layer.
        scales: What each layer's gradient is multiplied by, element by element, before it is projected ``[P_layer]``;
            None: nothing, which is cheaper, as the gradient is then not formed.
        scaled_by: What tells those scales from others.
    """

    def __init__(
        self, task: Task, run: Run, spec: GradientSpec, dimensions: int, scales: list[Tensor] | None = None,
        scaled_by: str = "",
    ) -> None:  # fmt: skip
        """Load the artifact, computing it first if needed."""
        self.dimensions, self.scales, self.scaled_by, self._seed = dimensions, scales, scaled_by, run.seed
        self._matrices: dict[tuple[int, str, int], Tensor | None] = {}
        super().__init__(task, run, spec)

    def identity(self) -> dict[str, Any]:
        """Return the projection."""
        return {**super().identity(), "both sides": [self.dimensions, self._seed], "scaled by": self.scaled_by}

    def compressed(self, sides: list[Side]) -> list[Side]:
        """Return ``[n, k_out k_in]`` per layer."""
        return [Dense(self._projected(i, side)) for i, side in enumerate(sides)]

    def _projected(self, i: int, side: Side) -> Tensor:
        if self.scales is not None or not isinstance(side, (Factored, Tokens)):
            return self._vectors(i, side)
        errors = self._times(i, "out", side.errors)
        if isinstance(side, Tokens):
            matrix = self._matrix(i, "in", side.n_tokens)
            kept = (side.tokens >= 0).unsqueeze(2)
            if matrix is None:
                inputs = F.one_hot(side.tokens.clamp_min(0), side.n_tokens).to(errors) * kept
            else:
                inputs = F.embedding(side.tokens.clamp_min(0), matrix) * kept
        else:
            inputs = self._times(i, "in", F.pad(side.inputs, (0, 1), value=1.0) if side.bias else side.inputs)
        return torch.bmm(errors.transpose(1, 2), inputs).flatten(1)

    def _vectors(self, i: int, side: Side) -> Tensor:
        """Return the projection of gradients written out; a scaled Linear's is still taken from both sides."""
        g = side.dense()
        if self.scales is not None:
            g = g * self.scales[i].to(g)
        if isinstance(side, Factored):
            width = side.inputs.shape[2] + side.bias
            matrices = g.reshape(len(g), -1, width)
            return self._times(i, "out", self._times(i, "in", matrices).transpose(1, 2)).transpose(1, 2).flatten(1)
        return self._times(i, "all", g.unsqueeze(1)).squeeze(1)

    def _times(self, i: int, part: str, values: Tensor) -> Tensor:
        matrix = self._matrix(i, part, values.shape[-1])
        return values if matrix is None else values @ matrix

    def _matrix(self, i: int, part: str, size: int) -> Tensor | None:
        """Return ``[size, k]``, or None where the side is kept as it is."""
        key = (i, part, size)
        if key not in self._matrices:
            k = self.dimensions**2 if part == "all" else self.dimensions
            self._matrices[key] = None if size <= k else self._drawn(i, part, size, k)
        return self._matrices[key]

    def _drawn(self, i: int, part: str, size: int, k: int) -> Tensor:
        seed = (self._seed * 1_000_003 + i) * 3 + ("in", "out", "all").index(part)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(size, k, generator=generator, dtype=torch.float64) / k**0.5
        return drawn.to(self.run.device, self.run.dtype)


def fisher_blocks(cache: TrainGradients, run: Run) -> list[FullBlock]:
    """Return the empirical Fisher matrix of kept gradients, one block of eigenvectors per layer, from the store."""

    def produce(writer: Writer) -> None:
        means = _means(cache, run, "Fisher matrix of the projected gradients", lambda g: g.T @ g)
        for i, matrix in enumerate(means):
            values, vectors = torch.linalg.eigh(matrix)
            writer.save(f"{i}.values", values.clamp_min(0))
            writer.save(f"{i}.vectors", vectors)

    inputs = {"kind": "fisher blocks", "version": VERSION, "of": cache.artifact.key}
    artifact = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
    names = ("values", "vectors")
    return [FullBlock(*(artifact.tensor(f"{i}.{n}").to(run.device) for n in names)) for i in range(cache.n_layers)]


def second_moments(cache: TrainGradients, run: Run) -> list[Tensor]:
    """Return ``1 / sqrt(mean g^2)`` of kept gradients, by layer and element ``[P_layer]``, from the store."""

    def produce(writer: Writer) -> None:
        for i, mean in enumerate(_means(cache, run, "second moments of the gradients", lambda g: g.square().sum(0))):
            writer.save(str(i), mean)

    inputs = {"kind": "second moments", "version": VERSION, "of": cache.artifact.key}
    artifact = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
    found = [artifact.tensor(str(i)).to(run.device) for i in range(cache.n_layers)]
    return [moment.clamp_min(max(_SMALLEST * float(moment.max()), 1e-300)).rsqrt() for moment in found]


def _means(cache: TrainGradients, run: Run, stage: str, summed: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return, by layer, what ``summed`` makes of some rows' gradients ``[k, P]``, averaged over the training rows."""
    n, totals = cache.task.n_train, [torch.zeros((), dtype=torch.float64, device=run.device)] * cache.n_layers
    starts = range(0, n, _ROWS)
    for start in run.track(starts, stage, len(starts)):
        for i, side in enumerate(cache.block(slice(start, min(start + _ROWS, n)))):
            totals[i] = totals[i] + summed(side.dense().double())
    return [total / n for total in totals]
