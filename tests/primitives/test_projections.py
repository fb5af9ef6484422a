"""Random projections keep inner products, and are one seeded matrix."""

from __future__ import annotations

import pytest
import torch

from influence_core.errors import BadInput
from influence_core.primitives.projections import GaussianProjection
from influence_core.primitives.sides import Dense, Factored
from tests.cases import normal


def test_a_projection_keeps_products_and_is_one_matrix_over_all_layers() -> None:
    sizes, k, cpu = [12, 7], 4000, torch.device("cpu")
    projection = GaussianProjection(sizes, k, 3, cpu, torch.float64)
    matrix = torch.cat(projection.matrices)
    sides = [Factored(normal(5, 2, 4, seed=1), normal(5, 2, 3, seed=2), False), Dense(normal(5, 7, seed=3))]
    g = torch.cat([side.dense() for side in sides], 1)
    found = projection(sides).values  # type: ignore[arg-type]
    torch.testing.assert_close(found, g @ matrix)
    lengths = g.norm(dim=1)
    error = (found @ found.T - g @ g.T).abs()
    assert bool((error < 5 * lengths[:, None] * lengths * (2 / k) ** 0.5).all())
    again = GaussianProjection(sizes, k, 3, cpu, torch.float64)
    assert torch.equal(torch.cat(again.matrices), matrix)
    other = GaussianProjection(sizes, k, 4, cpu, torch.float64)
    assert not torch.equal(torch.cat(other.matrices), matrix)
    with pytest.raises(BadInput, match="too large"):
        GaussianProjection([1 << 20], 1 << 12, 0, cpu, torch.float32)
