"""Curvature by layers at the explained model, or a mean over several, in the store: Kronecker factors and diagonals.

Linear layers and convolutions (not grouped, sides up to 4,096) have Kronecker factors. Other parameters (embeddings,
norms, bare ones) get their exact Gauss-Newton block up to 256 numbers per part and the diagonal of it beyond. The
damping is in none of these artifacts: another one needs no pass over the data.

Memory of the pass: ``8 (o^2 + d^2)`` bytes per factored layer for the sums, and a batch's inputs and errors as the
layers see them; patches and gradients are written out a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.examples import Batch
from influence_core.gradient_cache import TrainGradients
from influence_core.primitives.kronecker import (
    Labels,
    Seen,
    batch_seen,
    batch_sides,
    eigenbasis,
    noise,
    split_plan,
)
from influence_core.primitives.losses import CustomLoss, outputs
from influence_core.primitives.sides import Side, without_dust
from influence_core.primitives.solvers import check_finite
from influence_core.primitives.spectrum import Block, DiagonalBlock, FullBlock, KroneckerBlock, Spectrum
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Over

VERSION = 3
MAX_BLOCK = 256
_LABELS_IN_WORDS = {
    "exact": "the Gauss-Newton matrix", "sampled": "labels drawn from the model", "true": "the true labels",
}  # fmt: skip


@dataclass(frozen=True)
class ErrorKind:
    """Which errors the factors are made of: part of the key.

    Attributes:
        labels: ``exact`` (a root of the loss's Hessian), ``sampled`` or ``true`` labels.
        samples: Labels drawn per row, for ``sampled``.
    """

    labels: Labels = "exact"
    samples: int = 1

    @property
    def words(self) -> str:
        """Return what the curvature is made of, in words."""
        return _LABELS_IN_WORDS[self.labels]


class At(NamedTuple):
    """A checkpoint's model, and its weight in the mean over checkpoints."""

    model: nn.Module
    weight: float


class LayerCurvature:
    """The curvature of the mean training loss, layer by layer."""

    def __init__(self, cache: TrainGradients, run: Run, kind: ErrorKind, over: Over | None = None) -> None:
        """Sort the layers.

        Args:
            cache: Tells the attributed layers, and the checkpoint.
            run: How what is missing is computed.
            kind: Which errors are met.
            over: Checkpoints with weights, of which the mean is taken; None: the cache's own.

        Raises:
            Unavailable: A custom loss, whose outputs are unknown, with another kind than ``true``.
        """
        self.cache, self.kind, self.task, self.run = cache, kind, cache.task, run
        check_kind(self.task.loss, kind)
        # A model of its own: hooks on the cache's would meet the queries of other threads.
        self.over = over or ((cache.spec.checkpoint, 1.0),)
        self.models = [At(self.task.model_at(c, run.device, run.dtype), weight) for c, weight in self.over]
        self.model = self.models[-1].model
        self.factored, self.rest = split_plan(self.model, cache.plan)
        self._uniform: dict[int, Tensor] = {}

    def kfac(self) -> Spectrum:
        """Return ``G (x) A`` by layer."""
        artifact = self._factors()
        return self._spectrum(artifact, lambda i: _outer(artifact.tensor(f"{i}.lG"), artifact.tensor(f"{i}.lA")))

    def ekfac(self) -> Spectrum:
        """Return the eigenbasis of ``G (x) A`` with the exact second moments along it as eigenvalues."""
        artifact, corrected = self._factors(), self._corrected()
        return self._spectrum(artifact, lambda i: corrected.tensor(f"{i}.values"))

    def diagonal(self) -> Spectrum:
        """Return the diagonal of the curvature."""
        artifact = self._diagonal()
        blocks: dict[str, Block] = {
            name: KroneckerBlock(self._on_device(artifact.tensor(f"{i}.values")), None, None)
            for i, name in enumerate(self.factored)
        }
        for j, name in enumerate(self.rest.layers):
            blocks[name] = DiagonalBlock(self._on_device(artifact.tensor(f"rest{j}.values")))
        return Spectrum([blocks[name] for name in self.cache.plan.layers])

    @property
    def note(self) -> str:
        """Return which layers are met how."""
        plan = self.cache.plan
        share = sum(plan.sizes[name] for name in self.factored) / max(1, plan.n_attributed)
        return (
            f"Curvature from {self.kind.words}, layer by layer; {len(self.factored)} layers with {share:.1%} of the "
            "parameters have Kronecker factors."
        )

    def _on_device(self, values: Tensor) -> Tensor:
        return values.to(self.run.device)

    def _bases(self, artifact: Artifact, i: int) -> list[Tensor]:
        """Return the eigenvectors of the errors and of the inputs of a layer."""
        whole = (self._on_device(artifact.tensor(f"{i}.{part}")).to(self.run.dtype) for part in ("QG", "QA"))
        return [without_dust(vectors) for vectors in whole]

    def _spectrum(self, artifact: Artifact, values: Callable[[int], Tensor]) -> Spectrum:
        blocks: dict[str, Block] = {}
        for i, name in enumerate(self.factored):
            bases = self._bases(artifact, i)
            blocks[name] = KroneckerBlock(self._on_device(values(i)), *bases)
        names = artifact.names()
        for j, name in enumerate(self.rest.layers):
            own = self._on_device(artifact.tensor(f"rest{j}.values"))
            vectors = f"rest{j}.vectors"
            full = vectors in names
            blocks[name] = FullBlock(own, self._on_device(artifact.tensor(vectors))) if full else DiagonalBlock(own)
        return Spectrum([blocks[name] for name in self.cache.plan.layers])

    # -- artifacts ----------------------------------------------------------------------------------------------------

    def _obtained(self, kind: str, produce: Callable[[Writer], None]) -> Artifact:
        sampled = self.kind.labels == "sampled"
        inputs = {
            "kind": kind, "version": VERSION, "task": self.task.fingerprint,
            "checkpoint": self.task.hash_over(self.over), "layers": self.cache.plan.layers,
            "general": self.cache.plan.general, "labels": self.kind.labels,
            "samples": [self.kind.samples, self.run.seed] if sampled else None, "precision": self.run.precision,
        }  # fmt: skip
        return self.run.artifacts.obtain(digest(inputs), inputs, produce, self.run.waiting)

    def _factors(self) -> Artifact:
        return self._obtained("kronecker factors", self._produce_factors)

    def _corrected(self) -> Artifact:
        return self._obtained("kronecker eigenvalues", self._produce_corrected)

    def _diagonal(self) -> Artifact:
        return self._obtained("diagonal curvature", self._produce_diagonal)

    def _produce_factors(self, writer: Writer) -> None:
        n = self.task.n_train
        sums: dict[str, Tensor] = {}
        positions = dict.fromkeys(self.factored, 1)
        for at, batch, uniform in self._batches("Kronecker factors"):
            for c, seen in enumerate(self._seen(at, batch, uniform)):
                for name, layer in seen.items():
                    positions[name] = layer.positions
                    if c == 0:  # the inputs are the same for every column
                        _add(sums, f"A/{name}", layer.input_moment(), at.weight)
                    _add(sums, f"G/{name}", layer.error_moment(), at.weight)
            self._add_rest(sums, at, batch, uniform)
        for i, name in enumerate(self.run.track(self.factored, "eigenvectors of the factors", len(self.factored))):
            for part, divisor in (("A", n * positions[name]), ("G", n)):
                moment = sums.get(f"{part}/{name}", self._zeros(name, part)) / divisor
                check_finite(moment)
                # In the precision of the products that were summed: they have no more digits than that.
                values, vectors = eigenbasis(moment.to(self.run.dtype))
                writer.save(f"{i}.l{part}", values)
                writer.save(f"{i}.Q{part}", vectors)
        for j, name in enumerate(self.rest.layers):
            total = sums[f"rest/{name}"] / n
            check_finite(total)
            if total.ndim == 2:
                values, vectors = eigenbasis(total)
                writer.save(f"rest{j}.values", values)
                writer.save(f"rest{j}.vectors", vectors)
            else:
                writer.save(f"rest{j}.values", total)

    def _produce_corrected(self, writer: Writer) -> None:
        artifact = self._factors()
        bases = {name: self._bases(artifact, i) for i, name in enumerate(self.factored)}
        self._produce_squares(writer, bases, "eigenvalues along the factors' eigenvectors")

    def _produce_diagonal(self, writer: Writer) -> None:
        sums = self._produce_squares(writer, {}, "diagonal of the curvature")
        for j, name in enumerate(self.rest.layers):
            writer.save(f"rest{j}.values", sums[f"rest/{name}"] / self.task.n_train)

    def _produce_squares(self, writer: Writer, bases: dict[str, list[Tensor]], stage: str) -> dict[str, Tensor]:
        """Write the mean squares of the gradients' numbers in a basis; none given: as they are, other layers too."""
        sums: dict[str, Tensor] = {}
        # Labels drawn anew: along axes fitted to the same draw, the first eigenvalues would be too large.
        for at, batch, uniform in self._batches(stage, draw=1 if bases else 0):
            for seen in self._seen(at, batch, uniform):
                for name, layer in seen.items():
                    _add(sums, name, layer.rotated_squares(*(bases[name] if bases else (None, None))), at.weight)
            if not bases:
                self._add_rest(sums, at, batch, uniform, largest=0)
        for i, name in enumerate(self.factored):
            shape = (len(self._zeros(name, "G")), len(self._zeros(name, "A")))
            zeros = torch.zeros(shape, dtype=torch.float64)
            writer.save(f"{i}.values", sums.get(name, zeros) / self.task.n_train)
        return sums

    # -- passes -------------------------------------------------------------------------------------------------------

    def _batches(self, stage: str, draw: int = 0) -> Iterator[tuple[At, Batch, Tensor | None]]:
        run, size = self.run, self.run.batch_size
        steps = -(-self.task.n_train // size) * len(self.models)
        batches = self.task.split("train").batches(size, run.device, run.dtype)
        met = ((at, start, batch) for start, batch in batches for at in self.models)
        for at, start, batch in run.track(met, stage, steps):
            uniform = self._drawn(batch, draw)
            yield at, batch, None if uniform is None else uniform[start : start + len(batch.targets)]

    def _drawn(self, batch: Batch, draw: int) -> Tensor | None:
        if self.kind.labels != "sampled":
            return None
        if draw not in self._uniform:
            with torch.no_grad():
                f = outputs(self.model, batch.inputs)
            outs = f.reshape(len(f), -1).shape[1]
            self._uniform[draw] = noise(self.task.n_train, outs, self.kind.samples, self.run.seed, draw)
        return self._uniform[draw]

    def _seen(self, at: At, batch: Batch, uniform: Tensor | None) -> Iterator[dict[str, Seen]]:
        if not self.factored:
            return iter(())
        labels = self.kind.labels
        return batch_seen(at.model, self.task.loss, self.factored, batch, labels, uniform)

    def _add_rest(
        self, sums: dict[str, Tensor], at: At, batch: Batch, uniform: Tensor | None, largest: int = MAX_BLOCK
    ) -> None:
        if not self.rest.layers:
            return
        for sides in batch_sides(at.model, self.task.loss, self.rest, batch, self.kind.labels, uniform):
            for name, side in zip(self.rest.layers, sides, strict=True):
                _add(sums, f"rest/{name}", _moment(side, largest), at.weight)

    def _zeros(self, name: str, part: str) -> Tensor:
        module: Any = self.model.get_submodule(name)
        size = len(module.weight) if part == "G" else module.weight[0].numel() + (module.bias is not None)
        return torch.zeros(size, size, dtype=torch.float64, device=self.run.device)


def check_kind(loss: Any, kind: ErrorKind) -> None:
    """Raise ``Unavailable`` where a loss does not tell its outputs and the kind of errors needs them."""
    if isinstance(loss, CustomLoss) and kind.labels != "true":
        raise Unavailable(
            "The curvature cannot be computed here",
            f"Labels of kind '{kind.labels}' need the outputs behind the loss, and '{loss.name}' is a custom loss.",
            "Use labels='true' (the empirical Fisher), or a built-in loss: cross_entropy, bce or mse.",
        )


def _moment(side: Side, largest: int) -> Tensor:
    g = side.dense()
    return (g.mT @ g).double() if g.shape[1] <= largest else g.square().sum(0).double()


def _add(sums: dict[str, Tensor], key: str, value: Tensor, weight: float) -> None:
    value = value if weight == 1 else value * weight
    sums[key] = sums[key] + value if key in sums else value


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(1) * right.unsqueeze(0)
