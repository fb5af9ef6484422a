"""The steps are those of ``torch.optim.SGD``, to the bit, and they go on from a kept state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from influence_core.primitives.descent import Descent


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator).requires_grad_() for size in ((5, 3), (3,), (2,))]


def moved(optimizer, held: list[Tensor], steps: range) -> None:
    for step in steps:
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 40)
        optimizer.zero_grad()
        (x @ held[0] + held[1]).tanh().square().sum().backward()  # the third one has no gradient
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_it_is_the_descent_of_torch(momentum: float, decay: float) -> None:
    theirs, ours, again = parameters(), parameters(), parameters()
    moved(torch.optim.SGD(theirs, 0.05, momentum=momentum, weight_decay=decay), theirs, range(20))
    moved(Descent(ours, 0.05, momentum, decay), ours, range(20))
    first = Descent(again, 0.05, momentum, decay)
    moved(first, again, range(9))
    second = Descent(again, 0.05, momentum, decay)
    second.load_state_dict(first.state_dict())
    moved(second, again, range(9, 20))
    for their, our, one in zip(theirs, ours, again, strict=True):
        assert torch.equal(their, our) and torch.equal(our, one)
    assert not torch.equal(ours[0], parameters()[0]) and torch.equal(ours[2], parameters()[2])
