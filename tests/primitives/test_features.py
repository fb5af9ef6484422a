"""What a row looks like inside a model, and which layer ends it."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from influence_core.errors import BadInput
from influence_core.primitives.features import final_linear, flat_inputs, layer_values
from tests.cases import made, normal


def layered() -> nn.Module:
    parts = [("body", nn.Linear(4, 5)), ("bend", nn.ReLU(inplace=True)), ("head", nn.Linear(5, 3))]
    return made(lambda: nn.Sequential(OrderedDict(parts)), 0).eval()


def test_what_goes_into_and_comes_out_of_a_layer() -> None:
    model, x = layered(), normal(6, 4, seed=1)
    bodied = x @ model.body.weight.T + model.body.bias  # type: ignore[operator, union-attr]
    torch.testing.assert_close(layer_values(model, x, "body"), bodied.detach())  # the ReLU is in place
    torch.testing.assert_close(layer_values(model, x, "head", "input"), bodied.detach().relu())
    with pytest.raises(BadInput, match="Use one of: body, bend, head"):
        layer_values(model, x, "tail")


def test_the_layer_that_ends_a_model() -> None:
    x = normal(6, 4, seed=1)
    assert final_linear(layered(), x) == "head"
    assert final_linear(nn.Sequential(layered(), nn.Flatten()), x) == "0.head"
    assert final_linear(nn.Sequential(layered(), nn.Softmax(1)), x) is None


def test_inputs_side_by_side() -> None:
    a, b = normal(3, 2, 2, seed=1), normal(3, seed=2)
    assert torch.equal(flat_inputs(a), a.flatten(1)) and flat_inputs(b).shape == (3, 1)
    both = flat_inputs({"a": a.float(), "b": b.float()})
    assert torch.equal(both, torch.cat([a.flatten(1), b[:, None]], 1).float())
    assert torch.equal(flat_inputs((a.float(), b.float())), both)
