"""Exact per-example gradients of any module: factored where the layer allows, ``torch.func`` for the rest.

``planned_gradients`` looks at the model once and decides, per layer, which route is exact; it proves the decision on a
few rows in float64 against autograd, and sends whatever does not agree down the general route. The model must be in
eval mode, with a loss that treats rows independently; a batch-dependent model is refused.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from influence_core.errors import BadInput, NumericalProblem
from influence_core.examples import Batch, moved, taken
from influence_core.primitives.layers import cheapest, is_supported, layer_side, parameter_order
from influence_core.primitives.losses import Scalar, scalar_at
from influence_core.primitives.sides import Dense, Factored, Side, Tokens, concatenated

GENERAL = "(other parameters)"
_QUIET = threading.Lock()  # warnings are switched off for the whole process, so by one thread at a time


@dataclass(frozen=True)
class GradientPlan:
    """Which layers are attributed, and how.

    Attributes:
        factored: Names of modules whose gradients come from their inputs and output errors.
        general: Names of parameters whose gradients come from ``torch.func``.
        sizes: Number of parameters per layer, in the order of ``layers``.
        n_params: Parameters of the whole model.
        looped: The general route goes row by row, because ``torch.func`` cannot see through this model.
    """

    factored: tuple[str, ...]
    general: tuple[str, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    n_params: int = 0
    looped: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the names of the parts, in the order in which sides are returned."""
        return (*self.factored, GENERAL) if self.general else self.factored

    @property
    def n_attributed(self) -> int:
        """Return the number of parameters the gradients cover."""
        return sum(self.sizes.values())


@torch.enable_grad()
def planned_gradients(
    model: nn.Module, scalar: Scalar, batch: Batch, layers: tuple[str, ...] | None = None
) -> GradientPlan:
    """Decide the route of every parameter.

    Args:
        model: In eval mode.
        scalar: The loss, ``[n]`` per row.
        batch: A few rows; at most three are looked at.
        layers: Module names (with everything below them); None: the whole model.

    Raises:
        BadInput: No such layer; the loss does not return one number per row, or has no gradient; rows depend on each
            other.
        NumericalProblem: The loss is not finite.
    """
    wanted = _wanted_parameters(model, layers)
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    factored, covered = [], set()
    for name, module in model.named_modules():
        own = [f"{name}.{part}".lstrip(".") for part in parameter_order(module)]
        alone = all(len(owners[id(dict(model.named_parameters(remove_duplicate=False))[part])]) == 1 for part in own)
        if own and is_supported(module) and alone and set(own) <= wanted:
            factored.append(name)
            covered.update(own)
    general = [name for name, _ in model.named_parameters() if name in wanted - covered]
    sizes = {name: sum(p.numel() for p in model.get_submodule(name).parameters(recurse=False)) for name in factored}
    n_params = sum(parameter.numel() for parameter in model.parameters())
    plan = GradientPlan(tuple(factored), tuple(general), sizes, n_params)
    return _with_general(model, _proven(model, scalar, batch, plan))


def _with_general(model: nn.Module, plan: GradientPlan) -> GradientPlan:
    parameters = dict(model.named_parameters())
    sizes = {name: plan.sizes[name] for name in plan.factored}
    if plan.general:
        sizes[GENERAL] = sum(parameters[name].numel() for name in plan.general)
    return replace(plan, sizes=sizes)


def _wanted_parameters(model: nn.Module, layers: tuple[str, ...] | None) -> set[str]:
    # A shared parameter is asked for by any of its names and known by its first.
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    names = {name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}
    if layers is None:
        return set(first.values())
    known = {name for name, _ in model.named_modules(remove_duplicate=False)} | set(names)
    missing = [layer for layer in layers if layer not in known]
    if missing:
        some = ", ".join(sorted(name for name in known if name)[:20])
        raise BadInput("Unknown layer", f"'{missing[0]}' is not part of this model.", f"Use some of: {some}.")
    wanted = {
        own for name, own in names.items() if any(name == layer or name.startswith(f"{layer}.") for layer in layers)
    }
    if not wanted:
        raise BadInput(
            "No parameters to attribute", f"{', '.join(layers)} has none of its own.", "Name a layer with weights."
        )
    return wanted


# -- the proof on a few rows ----------------------------------------------------------------------------------------


def _proven(model: nn.Module, scalar: Scalar, batch: Batch, plan: GradientPlan) -> GradientPlan:
    """Check that rows are independent and that gradients sum to autograd's; demote what differs.

    Rows carry different weights in the sum: else a layer that sees ``[length, rows, d]`` would pass where the length
    happens to be the number of rows.
    """
    twin = copy.deepcopy(model).cpu()
    few = Batch(*moved(taken(batch, slice(0, 3)), torch.device("cpu"), torch.float64))
    tolerance = 1e-8
    try:
        losses = _losses(twin.double(), scalar, few)
    except RuntimeError:
        # A loss with float32 constants inside cannot be tried in float64.
        twin, tolerance = copy.deepcopy(model).cpu(), 1e-3
        few = Batch(*moved(taken(batch, slice(0, 3)), torch.device("cpu"), torch.float32))
        losses = _losses(twin, scalar, few)
    _check_independence(twin, scalar, few, losses, tolerance)
    weights = torch.linspace(1, 2, len(few.targets), dtype=losses.dtype)
    named = dict(twin.named_parameters())
    total = (weights * scalar(twin, few)).sum()
    truth = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    exact = {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), truth, strict=True)}

    def agrees(side: Side, expected: Tensor) -> bool:
        found = side.scaled(weights).mean().dense()[0] * side.rows
        return found.shape == expected.shape and bool(
            (found - expected).abs().max() <= tolerance * expected.abs().max() + 1e-14
        )

    sides = _factored_gradients(twin, scalar, few, plan.factored, proof=True)
    good, bad = [], []
    for name in plan.factored:
        module = twin.get_submodule(name)
        own = {part: exact[f"{name}.{part}".lstrip(".")] for part in parameter_order(module)}
        expected = packed(module, own)
        side = sides.get(name, Dense(expected.new_zeros(len(losses), len(expected))))
        good.append(name) if side.rows == len(losses) and agrees(side, expected) else bad.append(name)
    demoted = (f"{name}.{part}".lstrip(".") for name in bad for part in parameter_order(twin.get_submodule(name)))
    general = (*plan.general, *demoted)
    side = _general_gradients(twin, scalar, few, general)
    looped = bool(general) and not agrees(side, torch.cat([exact[name].flatten() for name in general]))
    return replace(plan, factored=tuple(good), general=general, looped=looped)


def _losses(model: nn.Module, scalar: Scalar, batch: Batch) -> Tensor:
    losses = scalar(model, batch)
    if losses.shape != batch.targets.shape[:1]:
        raise BadInput(
            "The loss cannot be used",
            f"It returned shape {tuple(losses.shape)} for {len(batch.targets)} rows.",
            "Return one number per row, not their mean or sum.",
        )
    if not bool(losses.isfinite().all()):
        raise NumericalProblem(
            "The loss is not a number",
            "It is NaN or infinite on the first rows.",
            "Check the data and the checkpoint: scores of this model would mean nothing.",
        )
    if not losses.requires_grad:
        raise BadInput(
            "The loss cannot be used",
            "It has no gradient in the parameters.",
            "Compute it from the model's outputs without detach, no_grad or item.",
        )
    return losses.detach()


def _check_independence(model: nn.Module, scalar: Scalar, batch: Batch, losses: Tensor, tolerance: float) -> None:
    # With gradients on: without them, some modules take a fast path of slightly other numbers.
    again = scalar(model, batch).detach()
    try:
        alone = torch.cat([scalar(model, taken(batch, slice(i, i + 1))).detach() for i in range(len(losses))])
    except (RuntimeError, ValueError):  # what a normalisation over the batch says to a batch of one
        alone = torch.full_like(losses, torch.inf)
    scale = losses.abs().max().clamp_min(1.0) * max(tolerance, 1e-6)
    if bool((again - losses).abs().max() > scale):
        raise BadInput(
            "The model is random",
            "Two passes over the same rows gave different losses in eval mode.",
            "Switch its noise off in eval mode.",
        )
    if bool((alone - losses).abs().max() > scale):
        raise BadInput(
            "Rows depend on each other",
            "The loss of a row changes with the other rows of its batch, so it has no gradient of its own.",
            "Use running statistics (BatchNorm with track_running_stats=True) or another normalisation.",
        )


# -- factored gradients ---------------------------------------------------------------------------------------------


@contextmanager
def _recording(model: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, list[tuple[Tensor, Any, Tensor]]]]:
    """Record inputs, gradient edges and outputs of every call of the named modules.

    The edge is taken inside the hook: an in-place operation that follows the layer moves the output tensor on, while
    the edge still means the layer's own output.
    """
    calls: dict[str, list[tuple[Tensor, Any, Tensor]]] = {name: [] for name in names}

    def hook(name: str) -> Any:
        def record(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor) and output.requires_grad:
                calls[name].append((args[0].detach(), torch.autograd.graph.get_gradient_edge(output), output.detach()))

        return record

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _factored_gradients(
    model: nn.Module, scalar: Scalar, batch: Batch, names: tuple[str, ...], *, proof: bool = False
) -> dict[str, Side]:
    """Return the sides of the layers that ran; weight gradients are never computed by autograd."""
    if not names:
        return {}
    with torch.enable_grad(), _recording(model, names) as calls:
        total = scalar(model, batch).sum()
    flat = [(name, *call) for name in names for call in calls[name]]
    if not flat or not total.requires_grad:
        return {}
    errors = torch.autograd.grad(total, [edge for _, _, edge, _ in flat], allow_unused=True)
    n = len(batch.targets)
    sides: dict[str, Side] = {}
    for (name, given, _, out), error in zip(flat, errors, strict=True):
        if len(given) != n or len(out) != n:
            if proof:
                continue  # not one row of input per row of data: goes to the general route
            raise BadInput(
                f"The layer '{name}' cannot be attributed",
                f"It was called with {len(given)} rows for {n} rows of data.",
                "Leave it out by naming the other layers.",
            )
        error = torch.zeros_like(out) if error is None else error
        side = layer_side(model.get_submodule(name), given, error)
        sides[name] = _added(sides[name], side) if name in sides else side
    return sides


def _added(first: Side, second: Side) -> Side:
    """Return the sum of the gradients of two calls of one module."""
    if isinstance(first, Factored) and isinstance(second, Factored):
        both = Factored(
            torch.cat([first.inputs, second.inputs], 1), torch.cat([first.errors, second.errors], 1), first.bias
        )
        return cheapest(both)
    if isinstance(first, Tokens) and isinstance(second, Tokens):
        return Tokens(
            torch.cat([first.tokens, second.tokens], 1), torch.cat([first.errors, second.errors], 1), first.n_tokens
        )
    return Dense(first.dense() + second.dense())


# -- the general route ----------------------------------------------------------------------------------------------


def _general_gradients(
    model: nn.Module, scalar: Scalar, batch: Batch, names: tuple[str, ...], looped: bool = False
) -> Dense:
    """Return gradients of some parameters by ``vmap(grad)``, or by a loop where the model cannot be vectorised."""
    n = len(batch.targets)
    own = dict(model.named_parameters())
    if not names:
        return Dense(batch.targets.new_zeros(n, 0))
    if looped:
        return _looped_gradients(model, scalar, batch, [own[name] for name in names])
    chosen = {name: own[name].detach() for name in names}

    def one(parameters: dict[str, Tensor], row: Batch) -> Tensor:
        single = taken(row, None)  # indexing with None adds the batch axis back
        return scalar_at(model, scalar, parameters, single).squeeze(0)

    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vmap announces every operator it has to loop over
            grad = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0), randomness="error")
            per_row = grad(chosen, batch)
    except (RuntimeError, TypeError, ValueError):
        return _looped_gradients(model, scalar, batch, [own[name] for name in names])
    return Dense(torch.cat([per_row[name].detach().reshape(n, -1) for name in names], 1))


def _looped_gradients(model: nn.Module, scalar: Scalar, batch: Batch, leaves: list[nn.Parameter]) -> Dense:
    """Return gradients by one backward pass per row: slow, and possible for every model."""
    rows = []
    for i in range(len(batch.targets)):
        with torch.enable_grad():
            loss = scalar(model, taken(batch, slice(i, i + 1))).sum()
        grads = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else [None] * len(leaves)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, grads, strict=True)]
        rows.append(torch.cat([value.flatten() for value in flat]))
    return Dense(torch.stack(rows))


def per_example_gradients(model: nn.Module, scalar: Scalar, batch: Batch, plan: GradientPlan) -> list[Side]:
    """Return the gradient of every row of a batch, one side per layer of the plan.

    Args:
        model: In eval mode, on the device of the batch.
        scalar: The loss or negated measurement, ``[n]``.
        batch: ``n`` rows.
        plan: From ``planned_gradients`` of this model.

    Cost: one forward and one backward pass without weight gradients, plus the factors; the general route adds one
    vectorised forward and backward for the parameters that need it.
    """
    sides = _factored_gradients(model, scalar, batch, plan.factored)
    n = len(batch.targets)
    for name in plan.factored:
        if name not in sides:  # a layer that this measurement does not reach
            size = plan.sizes[name]
            parameter = next(model.get_submodule(name).parameters())
            sides[name] = Dense(parameter.new_zeros(n, size))
    result = [sides[name] for name in plan.factored]
    if plan.general:
        rows = max(1, (256 << 20) // (4 * plan.sizes[GENERAL]))
        parts: list[Side] = [
            _general_gradients(model, scalar, taken(batch, slice(start, start + rows)), plan.general, plan.looped)
            for start in range(0, n, rows)
        ]
        result.append(concatenated(parts) if len(parts) > 1 else parts[0])
    return result


# -- between a side's layout and the parameters ----------------------------------------------------------------------


def packed(module: nn.Module, values: dict[str, Tensor]) -> Tensor:
    """Return the parameters of a supported module as one vector, in the layout of ``Side.dense``."""
    if "bias" not in values or values["weight"].shape == values["bias"].shape:
        return torch.cat([values[name].flatten() for name in parameter_order(module)])
    weight = values["weight"].flatten(1)
    return torch.cat([weight, values["bias"].unsqueeze(1)], 1).flatten()


def unpacked(module: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Return the inverse of ``packed``."""
    own = dict(module.named_parameters(recurse=False))
    if "bias" not in own or own["weight"].shape == own["bias"].shape:
        pieces = vector.split([parameter.numel() for parameter in own.values()])
        return {name: piece.reshape(own[name].shape) for name, piece in zip(own, pieces, strict=True)}
    table = vector.reshape(own["bias"].numel(), -1)
    return {"weight": table[:, :-1].reshape(own["weight"].shape), "bias": table[:, -1]}


def parameter_vector(model: nn.Module, plan: GradientPlan, values: dict[str, Tensor]) -> Tensor:
    """Return named parameters as one vector ``[n_attributed]``, in the layout of the plan's sides."""
    parts = []
    for name in plan.factored:
        module = model.get_submodule(name)
        parts.append(packed(module, {part: values[f"{name}.{part}".lstrip(".")] for part in parameter_order(module)}))
    parts += [values[name].flatten() for name in plan.general]
    return torch.cat(parts)


def named_parameters(model: nn.Module, plan: GradientPlan, vector: Tensor) -> dict[str, Tensor]:
    """Return the inverse of ``parameter_vector``."""
    pieces = dict(zip(plan.layers, vector.split([plan.sizes[name] for name in plan.layers]), strict=True))
    result: dict[str, Tensor] = {}
    for name in plan.factored:
        for part, value in unpacked(model.get_submodule(name), pieces[name]).items():
            result[f"{name}.{part}".lstrip(".")] = value
    own = dict(model.named_parameters())
    if plan.general:
        sizes = [own[name].numel() for name in plan.general]
        for name, piece in zip(plan.general, pieces[GENERAL].split(sizes), strict=True):
            result[name] = piece.reshape(own[name].shape)
    return result
