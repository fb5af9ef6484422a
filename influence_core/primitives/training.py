"""Training by a recipe, bit for bit repeatable, with a weight per row.

A row of weight 0 is left out: its batch keeps its other rows, its order and its divisor, so that the difference to the
full run is the row's doing and nothing else's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from influence_core.errors import NumericalProblem
from influence_core.examples import Examples
from influence_core.primitives.descent import Descent
from influence_core.primitives.losses import Loss
from influence_core.primitives.solvers import conjugate_gradients
from influence_core.recipe import Recipe

_NEWTON_STEPS, _NEWTON_PRODUCTS = 4, 1000
_PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data did: its number from 1, the learning rate at its end, the mean training loss.

    ``state`` returns all that the further passes depend on, where there can be any: ``training`` goes on from it.
    """

    number: int
    learning_rate: float
    loss: float
    state: Callable[[], dict[str, Tensor]] | None = field(default=None, repr=False, compare=False)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block from a seed and leave the global random state as it was, on the devices in use too.

    ``torch.manual_seed`` also queues a seed, with the whole stack as text, for every kind of device that is not there:
    milliseconds each time.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        yield


def new_model(factory: Callable[[], nn.Module], recipe: Recipe, device: torch.device | str = "cpu") -> nn.Module:
    """Return an untrained model, its initial weights drawn from the recipe's seed."""
    with seeded(recipe.seed):
        model = factory()
    return model.to(device=device, dtype=_PRECISIONS[recipe.dtype])


def training(
    model: nn.Module, rows: Examples, loss: Loss, recipe: Recipe, weights: Tensor | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> Iterator[Epoch]:  # fmt: skip
    """Train in place, yielding after every epoch.

    Args:
        model: From ``new_model``; left in eval mode at every yield.
        rows: Training rows.
        loss: Losses by row.
        recipe: How.
        weights: Weight of each row's loss ``[n]``; None: 1.
        start: What ``Epoch.state`` returned in an earlier run of the same training: its next pass comes first.

    Raises:
        NumericalProblem: The loss became NaN or infinite.
    """
    parameter = next(model.parameters())
    weights = (torch.ones(len(rows)) if weights is None else weights).to(parameter)
    if recipe.optimizer == "lbfgs":
        yield _converged(model, rows, loss, recipe, weights)
        return
    optimizer = _optimizer(model, recipe)
    order = torch.Generator().manual_seed(recipe.seed)
    state = torch.Generator().manual_seed(recipe.seed + 1).get_state()
    steps = math.ceil(len(rows) / recipe.batch_size)
    done, state = (0, state) if start is None else _restored(model, optimizer, start)
    for number in range(1, recipe.epochs + 1):
        permutation = torch.randperm(len(rows), generator=order)
        if number <= done:
            continue
        with torch.random.fork_rng(devices=[]):  # dropout draws from the run's own stream, whatever the caller does
            torch.set_rng_state(state)
            model.train()
            total = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
            for step, index in enumerate(permutation.split(recipe.batch_size)):
                set_rate(optimizer, recipe, (number - 1) * steps + step, recipe.epochs * steps)
                batch = rows.batch(index, parameter.device, parameter.dtype)
                value = (loss(model, batch) * weights[index.to(weights.device)]).sum() / len(index)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                total += value.detach() * len(index)
            state = torch.get_rng_state()
        model.eval()
        mean = float(total) / len(rows)
        if not math.isfinite(mean):
            raise NumericalProblem(
                "Training diverged",
                f"The loss is {mean} in epoch {number}.",
                "Use a smaller learning rate, or look for NaN in the data.",
            )
        yield Epoch(number, optimizer.param_groups[0]["lr"], mean, partial(_state, model, optimizer, number, state))


def _state(model: nn.Module, optimizer: torch.optim.Adam | Descent, number: int, random: Tensor) -> dict[str, Tensor]:
    """Return by name all that the passes after this one depend on, besides the recipe and the rows."""
    found = {"epoch": torch.tensor(number), "random": random}
    found |= {f"model.{name}": value for name, value in model.state_dict().items()}
    for place, held in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{place}.{name}": torch.as_tensor(value) for name, value in held.items()}
    return found


def _restored(
    model: nn.Module, optimizer: torch.optim.Adam | Descent, state: Mapping[str, Tensor]
) -> tuple[int, Tensor]:
    """Take over what ``_state`` returned; return the number of passes done and the random state."""
    model.load_state_dict({n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")})
    held: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, place, name = key.split(".", 2)
            held.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
    return int(state["epoch"]), state["random"]


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Adam | Descent:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    return Descent(list(model.parameters()), recipe.learning_rate, recipe.momentum, recipe.weight_decay)


def set_rate(optimizer: torch.optim.Adam | Descent, recipe: Recipe, step: int, total: int) -> None:
    """Set the size of a step, counted from 0, out of all steps of the training."""
    share = step / total
    factor = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share}[recipe.schedule]
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * factor


def _converged(model: nn.Module, rows: Examples, loss: Loss, recipe: Recipe, weights: Tensor) -> Epoch:
    """Minimise the full objective of a convex model to the precision of its numbers."""
    model.eval()
    parameters = list(model.parameters())
    batch = rows.batch(slice(0, len(rows)), parameters[0].device, parameters[0].dtype)
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=max(100, recipe.epochs), tolerance_grad=1e-12, tolerance_change=1e-16, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        decay = recipe.weight_decay / 2 * sum(parameter.square().sum() for parameter in parameters)
        return (loss(model, batch) * weights).sum() / len(rows) + decay

    def descended() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    optimizer.step(descended)
    value = float(objective().detach())
    if not math.isfinite(value):
        raise NumericalProblem("Training diverged", f"The objective is {value}.", "Look for NaN in the data.")
    _polish([parameter for parameter in parameters if parameter.requires_grad], objective)
    return Epoch(1, 1.0, float(objective().detach()))


def _polish(parameters: list[Tensor], objective: Callable[[], Tensor]) -> None:
    """Take Newton steps while the gradient falls.

    A line search compares values of the objective, which stop changing at half of the digits of the minimiser;
    leave-one-out takes differences of minimisers and needs the other half.
    """

    def slope(*, differentiable: bool = False) -> Tensor:
        parts = torch.autograd.grad(objective(), parameters, create_graph=differentiable)
        return torch.cat([part.reshape(-1) for part in parts])

    sizes = [parameter.numel() for parameter in parameters]
    for _ in range(_NEWTON_STEPS):
        gradient = slope(differentiable=True)
        start = [parameter.detach().clone() for parameter in parameters]

        def product(rows: Tensor, gradient: Tensor = gradient) -> Tensor:
            bent = torch.autograd.grad(gradient, parameters, rows[0], retain_graph=True, materialize_grads=True)
            return torch.cat([part.reshape(-1) for part in bent])[None]

        try:
            *_, solve = conjugate_gradients(product, gradient.detach()[None], 1e-4, _NEWTON_PRODUCTS)
        except NumericalProblem:  # not convex here: what the line search found stays
            return
        with torch.no_grad():
            for parameter, step in zip(parameters, solve.solution[0].split(sizes), strict=True):
                parameter -= step.reshape(parameter.shape)
        if not float(slope().norm()) < 0.5 * float(gradient.detach().norm()):
            with torch.no_grad():
                for parameter, value in zip(parameters, start, strict=True):
                    parameter.copy_(value)
            return
