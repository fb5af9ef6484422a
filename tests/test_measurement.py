"""Measurements: their values, their gradients, and what tells two functions apart."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import BadInput
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows, measured_values, source_hash
from influence_core.primitives.losses import LOSSES, CustomLoss
from tests.cases import integers, made, normal

CE, BCE, MSE = LOSSES["cross_entropy"], LOSSES["bce"], LOSSES["mse"]


def expected_values(kind: str, f: Tensor, y: Tensor, binary: bool) -> Tensor:
    """From probabilities, the long way round."""
    if binary:
        f = torch.stack([-f[:, 0] / 2, f[:, 0] / 2], 1)
    p = f.exp() / f.exp().sum(1, keepdim=True)
    own = p[range(len(y)), y]
    if kind == "logit":
        return (own / (1 - own)).log() if binary else f[range(len(y)), y]
    return {"loss": own.log(), "probability": own, "margin": (own / (1 - own)).log()}[kind]


@pytest.mark.parametrize("kind", ["loss", "margin", "probability", "logit"])
@pytest.mark.parametrize("binary", [False, True])
def test_values_and_gradients_equal_autograd(kind: str, binary: bool) -> None:
    loss = BCE if binary else CE
    model = made(lambda: nn.Linear(4, 1 if binary else 3), 0)
    x, y = normal(6, 4, seed=1), integers(2 if binary else 3, 6, seed=2)
    negated = Measurement(kind).scalar(loss)(model, Batch(x, y))
    values = expected_values(kind, model(x), y, binary)
    torch.testing.assert_close(-negated, values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(measured_values(model(x), y, loss, Measurement(kind)), values, rtol=1e-12, atol=1e-12)
    weights = normal(6, seed=3)
    found = torch.autograd.grad((-weights * negated).sum(), list(model.parameters()))
    wanted = torch.autograd.grad((weights * values).sum(), list(model.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_the_margin_of_a_certain_model_is_finite() -> None:
    """``log(p / (1 - p))`` would be infinite here."""
    f = torch.tensor([[800.0, -800.0, 0.0]])
    margin = measured_values(f, torch.tensor([0]), CE, Measurement("margin"))
    assert margin.tolist() == [800.0]


def test_loss_of_a_regression_is_measured_and_nothing_else() -> None:
    f, y = normal(5, 2, seed=1), normal(5, 2, seed=2)
    torch.testing.assert_close(measured_values(f, y, MSE, Measurement()), -((f - y) ** 2).sum(1) / 2)
    for kind in ("margin", "probability", "logit"):
        with pytest.raises(BadInput, match="cannot be measured here"):
            Measurement(kind).scalar(MSE)
        with pytest.raises(BadInput, match="needs the model itself"):
            measured_values(f, y, MSE, Measurement(kind))
    with pytest.raises(BadInput, match="cannot be measured here"):
        Measurement("margin").scalar(CustomLoss(lambda model, batch: batch.targets, "mine"))


def test_a_function_is_negated() -> None:
    value = Measurement(lambda model, batch: batch.inputs.sum(1)).scalar(CE)(
        None, Batch(torch.ones(2, 3), torch.zeros(2))
    )
    assert value.tolist() == [-3.0, -3.0]


def test_unknown_words_are_refused() -> None:
    with pytest.raises(BadInput, match="Unknown measurement"):
        Measurement("accuracy")
    with pytest.raises(BadInput, match="Unknown target label"):
        Measurement("loss", "false")
    with pytest.raises(BadInput, match="Unknown target label"):
        Measurement("loss", 1.5)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Unknown split"):
        Rows("validation", (1,))
    with pytest.raises(BadInput, match="Unknown reduction"):
        Rows("test", (1,), "sum")


def test_row_ids_are_plain_values_whatever_held_them() -> None:
    rows = Rows("test", np.arange(3)[1:])  # type: ignore[arg-type]
    assert rows.ids == (1, 2) and all(type(i) is int for i in rows.ids)
    assert Rows("test", torch.tensor([4, 5])).ids == (4, 5)  # type: ignore[arg-type]
    assert Rows("test", ["a", np.str_("b")]).ids == ("a", "b")  # type: ignore[arg-type]
    assert hash(rows) == hash(Rows("test", (1, 2)))


# -- what tells two functions apart -----------------------------------------------------------------------------------


def scaled_by(factor: Any) -> Any:
    def measured(model: Any, batch: Any) -> Tensor:
        return model(batch.inputs).sum(1) * factor

    return measured


def first(model: Any, batch: Any, power: int = 1, *, sign: int = 1) -> Tensor:
    return sign * model(batch.inputs)[:, 0] ** power


def second(model: Any, batch: Any, power: int = 2, *, sign: int = 1) -> Tensor:
    return sign * model(batch.inputs)[:, 0] ** power


class Scaled:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def measured(self, model: Any, batch: Any) -> Tensor:
        return model(batch.inputs).sum(1) * self.factor


def identity(function: Any) -> Any:
    return Measurement(function).identity()


def test_equal_functions_have_one_identity() -> None:
    assert identity(scaled_by(2.0)) == identity(scaled_by(2.0))
    assert identity(first) == identity(first) != identity(second)
    assert Measurement("margin", 3).identity() == {"kind": "margin", "target": 3}
    assert Measurement("margin", 3).identity() != Measurement("margin", 2).identity()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.0, 2.0), ("1", 1), (torch.ones(5000), torch.ones(5000).index_fill(0, torch.tensor([2500]), 2.0)),
        (np.ones(5000), np.where(np.arange(5000) == 2500, 2.0, 1.0)),
        ({"w": torch.ones(5000)}, {"w": torch.ones(5000).index_fill(0, torch.tensor([2500]), 2.0)}),
        ([np.ones(5000)], [np.where(np.arange(5000) == 2500, 2.0, 1.0)]),
        (made(lambda: nn.Linear(40, 40), 0), made(lambda: nn.Linear(40, 40), 1)),
        (first, second), (Scaled(1.0), Scaled(2.0)),
    ],
    ids=["number", "type", "tensor", "array", "tensor in a mapping", "array in a list", "module", "function", "object"],
)  # fmt: skip
def test_what_a_function_closes_over_tells_it_apart(a: Any, b: Any) -> None:
    assert source_hash(scaled_by(a)) != source_hash(scaled_by(b))
    assert source_hash(scaled_by(a)) == source_hash(scaled_by(a))


def test_a_method_is_told_apart_by_its_object() -> None:
    assert source_hash(Scaled(1.0).measured) != source_hash(Scaled(2.0).measured)
    assert source_hash(Scaled(1.0).measured) == source_hash(Scaled(1.0).measured)


@pytest.mark.parametrize(
    "function", [eval("lambda model, batch: model(batch.inputs)"), partial(first, power=3), F.relu.__call__, max]
)
def test_a_function_without_a_source_is_refused(function: Any) -> None:
    with pytest.raises(BadInput, match="cannot be told from another"):
        Measurement(function).identity()
