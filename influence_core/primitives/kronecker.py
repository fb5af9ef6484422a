"""Kronecker factors of affine layers: the curvature of a Linear layer or a convolution as ``G (x) A``.

The gradient of an affine layer for a row is ``sum_t e_t a_t'`` over its positions (``a``: the input, with a 1 for the
bias; ``e``: the error of the output). Its second moment, the layer's Gauss-Newton block, is approximated by ``G (x) A``
with ``A = mean a a'`` over rows and positions and ``G = (1/n) sum e e'`` (positions summed): exact for one position
where a and e are independent, and exact for a linear model under squared error.

Which errors: those of functions ``f . v`` of the outputs, with columns v chosen so that ``sum v v'`` is the Hessian of
the loss in the outputs. ``exact`` takes a root of it (as many columns as outputs), ``sampled`` random columns with that
covariance (the gradients for labels drawn from the model: unbiased), ``true`` the gradient at the true labels (the
empirical Fisher: another matrix).

References: Martens & Grosse (2015); Grosse & Martens (2016) for convolutions; George et al. (2018) for EK-FAC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.examples import Batch
from influence_core.primitives.gradients import GENERAL, GradientPlan, per_example_gradients
from influence_core.primitives.layers import input_columns, layer_side
from influence_core.primitives.losses import BinaryCrossEntropy, BuiltinLoss, CrossEntropy, Scalar, outputs
from influence_core.primitives.sides import Side

Labels = Literal["exact", "sampled", "true"]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_ROW_BYTES = 2 << 20  # of gradients that are written out together: they stay in the processor's cache
MAX_SIDE = 4096  # inputs or outputs of a layer up to which its factor is built: an eigendecomposition of a minute


# -- functions of the outputs whose gradients make up the curvature --------------------------------------------------


def noise(n: int, n_outputs: int, samples: int, seed: int, draw: int = 0) -> Tensor:
    """Return what labels are drawn with, ``[n, n_outputs, samples]`` uniform in (0, 1): one draw for all rows.

    Rows in another batch keep their numbers, and nothing global is touched. ``draw`` counts independent draws of one
    seed.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draw):
        generator.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    return torch.rand(n, n_outputs, samples, generator=generator, dtype=torch.float64).clamp_(1e-12, 1 - 1e-12)


def sampled_labels(loss: BuiltinLoss, f: Tensor, uniform: Tensor) -> Tensor:
    """Return labels drawn from the model, in the form of its targets.

    Args:
        loss: The loss, as the negative logarithm of a density: a Gaussian of variance ``d/2`` for the mean square.
        f: Outputs ``[n, d]``.
        uniform: ``[n, d]`` from ``noise``; cross-entropy uses the first column.
    """
    if isinstance(loss, CrossEntropy):
        reached = F.softmax(f.double(), 1).cumsum(1)
        return (uniform[:, :1].to(f.device) > reached).sum(1).clamp_max(f.shape[1] - 1)
    uniform = uniform.to(f.device)
    if isinstance(loss, BinaryCrossEntropy):
        return (uniform < torch.sigmoid(f.double())).to(f.dtype)
    standard = torch.erfinv(2 * uniform - 1) * 2**0.5
    return f + ((f.shape[1] / 2) ** 0.5 * standard).to(f.dtype)


def columns(loss: BuiltinLoss, f: Tensor, labels: Labels, targets: Tensor, uniform: Tensor | None) -> Tensor:
    """Return V ``[n, d, k]`` with ``V V'`` the Hessian of the loss in the outputs ``[n, d]``, or an estimate of it."""
    f = f.detach().reshape(len(f), -1)
    if labels == "exact":
        return loss.curvature_root(f)
    if labels == "true":
        return _output_gradients(loss, f, targets).unsqueeze(2)
    assert uniform is not None
    # Several outputs of one logit each are a mean of independent losses: their gradient is 1/d of the likelihood's.
    scale = (f.shape[1] if isinstance(loss, BinaryCrossEntropy) else 1) / uniform.shape[2]
    drawn = [
        _output_gradients(loss, f, sampled_labels(loss, f, uniform[:, :, s])) * scale**0.5
        for s in range(uniform.shape[2])
    ]
    return torch.stack(drawn, 2)


@torch.enable_grad()
def _output_gradients(loss: BuiltinLoss, f: Tensor, targets: Tensor) -> Tensor:
    leaf = f.clone().requires_grad_(True)
    return torch.autograd.grad(loss.from_outputs(leaf, targets).sum(), leaf)[0]


# -- what the layers see -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a layer was given and the errors of its output, ``[n, ...]`` each, for every time it was called.

    Nothing is unfolded here: a convolution's patches are many times its input, and are made a few rows at a time.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    errors: tuple[Tensor, ...]

    @property
    def positions(self) -> int:
        """Return T, the positions of a row over all calls."""
        return sum(error[0].numel() // self._outs for error in self.errors)

    @property
    def _outs(self) -> int:
        return len(self.module.weight)  # type: ignore[arg-type]

    def input_moment(self) -> Tensor:
        """Return ``sum a a'`` over rows and positions, ``[d, d]`` in float64, with a 1 in a for the bias."""
        size, biased = self.module.weight[0].numel(), self.module.bias is not None  # type: ignore[index]
        total = self.inputs[0].new_zeros(size + biased, size + biased)
        for given, errors in zip(self.inputs, self.errors, strict=True):
            for a in input_columns(self.module, given, errors):
                total[:size, :size].addmm_(a, a.T)
                if biased:
                    total[size, :size] += a.sum(1)
                    total[size, size] += a.shape[1]
        if biased:
            total[:size, size] = total[size, :size]
        return total.double()

    def error_moment(self) -> Tensor:
        """Return ``sum e e'`` over rows and positions, ``[o, o]`` in float64."""
        parts = []
        for error in self.errors:
            if isinstance(self.module, nn.Linear):
                e = error.reshape(-1, self._outs)
                parts.append(e.T @ e)
            else:
                e = error.flatten(2).transpose(0, 1).reshape(self._outs, -1)
                parts.append(e @ e.T)
        return torch.stack(parts).sum(0).double()

    def rotated_squares(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        """Return ``sum_i (left' G_i right)^2`` ``[o, d]`` of the rows' gradients G_i ``[o, d]``, in float64.

        Positions are turned where they are few, gradients where they are fewer numbers: for a convolution ``o d (o +
        d)`` operations a row instead of ``T (o^2 + d^2)``, and only some rows at a time are ever written out.
        """
        n, o = len(self.inputs[0]), self._outs
        d = self.module.weight[0].numel() + (self.module.bias is not None)  # type: ignore[index]
        if isinstance(self.module, nn.Linear) and self.positions == 1:
            a, e = self.inputs[0].reshape(n, -1), self.errors[0].reshape(n, -1)
            a, e = _turned(a, right, d), e if left is None else e @ left
            return (e.square_() if left is not None else e.square()).T.matmul(a.square()).double()
        total = self.inputs[0].new_zeros(o, d)
        step = max(1, _ROW_BYTES // (o * d * total.element_size()))
        for start in range(0, n, step):
            rows = slice(start, start + step)
            found = self._gradients(rows)
            if left is not None and right is not None:
                found = left.mT @ (found.reshape(-1, d) @ right).reshape(found.shape)
            total += found.square_().sum(0)
        return total.double()

    def _gradients(self, rows: slice) -> Tensor:
        """Return the gradients of some rows, ``[n, o, d]``, summed over calls."""
        parts = [
            layer_side(self.module, given[rows], error[rows]).dense()
            for given, error in zip(self.inputs, self.errors, strict=True)
        ]
        total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        return total.reshape(len(total), self._outs, -1)


def _turned(a: Tensor, right: Tensor | None, d: int) -> Tensor:
    """Return inputs ``[n, d]`` in a basis, the 1 of the bias included."""
    if right is None:
        return a if a.shape[1] == d else F.pad(a, (0, 1), value=1.0)
    return a @ right if a.shape[1] == d else torch.addmm(right[-1], a, right[:-1])


def is_factored(module: nn.Module) -> bool:
    """Tell whether a layer has Kronecker factors of a bearable size."""
    if not isinstance(module, LAYERS) or getattr(module, "groups", 1) != 1:
        return False
    d = module.weight[0].numel() + (module.bias is not None)
    return max(d, len(module.weight)) <= MAX_SIDE


def split_plan(model: nn.Module, plan: GradientPlan) -> tuple[tuple[str, ...], GradientPlan]:
    """Return the layers of a plan that have Kronecker factors, and the plan of everything else."""
    names = tuple(name for name in plan.factored if is_factored(model.get_submodule(name)))
    rest = tuple(name for name in plan.factored if name not in names)
    sizes = {name: plan.sizes[name] for name in (*rest, *((GENERAL,) if plan.general else ()))}
    return names, replace(plan, factored=rest, sizes=sizes)


def layers_seen(
    model: nn.Module, names: tuple[str, ...], batch: Batch, found: Callable[[Any], Iterator[Tensor]]
) -> Iterator[dict[str, Seen]]:
    """Yield, for every function of the outputs, what each layer saw: one forward pass, a backward pass per function.

    Args:
        model: In eval mode, parameters requiring gradients.
        names: Layers with Kronecker factors, proved to be called with one row of input per row of data.
        batch: ``n`` rows.
        found: Called with the model inside the recording; yields the summed functions to differentiate.
    """
    calls: list[tuple[str, Tensor, Any, Tensor]] = []

    def hook(name: str) -> Any:
        def record(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            # The edge is the layer's own output, whatever happens to the tensor in place afterwards.
            edge = torch.autograd.graph.get_gradient_edge(output)
            calls.append((name, args[0].detach(), edge, output.detach()))

        return record

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.enable_grad():
            totals = list(found(model))
    finally:
        for handle in handles:
            handle.remove()
    for c, total in enumerate(totals):
        edges = [edge for _, _, edge, _ in calls]
        kept = c + 1 < len(totals)
        errors = torch.autograd.grad(total, edges, allow_unused=True, retain_graph=kept) if edges else ()
        result: dict[str, Seen] = {}
        for (name, given, _, out), error in zip(calls, errors, strict=True):
            earlier = result.get(name, Seen(model.get_submodule(name), (), ()))  # a module may be called twice
            e = torch.zeros_like(out) if error is None else error
            result[name] = Seen(earlier.module, (*earlier.inputs, given), (*earlier.errors, e))
        yield result


def batch_seen(
    model: nn.Module, loss: Any, names: tuple[str, ...], batch: Batch, labels: Labels, uniform: Tensor | None
) -> Iterator[dict[str, Seen]]:
    """Yield what each layer saw for every column of the loss's Hessian; a custom loss has the one of its true labels.

    Raises:
        AssertionError: Another kind of labels for a loss whose outputs are unknown.
    """

    def found(inner: Any) -> Iterator[Tensor]:
        if labels == "true":
            yield loss(inner, batch).sum()
            return
        f = outputs(inner, batch.inputs)
        v = columns(loss, f, labels, batch.targets, uniform)
        for c in range(v.shape[2]):
            yield (f.reshape(len(f), -1) * v[:, :, c]).sum()

    return layers_seen(model, names, batch, found)


def batch_sides(
    model: nn.Module, loss: Any, plan: GradientPlan, batch: Batch, labels: Labels, uniform: Tensor | None
) -> Iterator[list[Side]]:
    """Yield the per-example gradients of the other parameters for every such column."""
    if labels == "true":
        yield per_example_gradients(model, loss, batch, plan)
        return
    with torch.no_grad():
        v = columns(loss, outputs(model, batch.inputs), labels, batch.targets, uniform)

    def scalar(inner: Callable[..., Any], rows: Any) -> Tensor:
        return (outputs(inner, rows.inputs).reshape(len(rows.targets), -1) * rows.targets).sum(1)

    chosen: Scalar = scalar
    for c in range(v.shape[2]):
        # The column travels in the place of the targets, so that it is cut with the rows it belongs to.
        yield per_example_gradients(model, chosen, batch._replace(targets=v[:, :, c]), plan)


# -- moments ----------------------------------------------------------------------------------------------------------


def eigenbasis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (rounding below zero cut off) and eigenvectors of a second moment, in its precision."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return values.clamp_min(0.0), vectors
