from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from influence_core.errors import BadInput
from influence_core.primitives import neighbors
from influence_core.primitives.neighbors import cosines, neighbor_chunks, sorted_neighbors, squared_distances
from tests.oracles import neighbors as oracle


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32))
@pytest.mark.parametrize("offset", (0.0, 1000.0))
def test_distances_equal_a_loop_over_pairs(dtype: torch.dtype, offset: float) -> None:
    q, p = normal(4, 3, dtype=dtype) + offset, normal(9, 3, seed=1, dtype=dtype) + offset
    expected = torch.tensor(oracle.squared_distances(q.numpy(), p.numpy()))
    assert_close(squared_distances(q, p).squared, expected, rtol=1e-11, atol=1e-12)


def test_blocks_of_points_and_chunks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    q, p = normal(7, 5), normal(50, 5, seed=1)
    whole = sorted_neighbors(q, p)
    monkeypatch.setattr(neighbors, "_POINT_BYTES", 8 * 5 * 7)
    monkeypatch.setattr(neighbors, "_CHUNK_BYTES", 8 * 50 * 3)
    parts = list(neighbor_chunks(q, p))
    assert [part for part, _ in parts] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert torch.equal(torch.cat([found.order for _, found in parts]), whole.order)
    assert_close(torch.cat([found.squared for _, found in parts]), whole.squared, rtol=1e-13, atol=1e-13)


def test_points_are_sorted_as_numpy_sorts_the_loop() -> None:
    q, p = normal(5, 4), normal(30, 4, seed=1)
    expected = oracle.squared_distances(q.numpy(), p.numpy())
    found = sorted_neighbors(q, p)
    np.testing.assert_array_equal(found.order.numpy(), expected.argsort(1))
    np.testing.assert_allclose(found.squared.numpy(), np.sort(expected, 1), rtol=1e-12)
    assert not bool(found.tied.any())


def test_duplicates_and_symmetric_points_tie() -> None:
    # 0.1 and 0.3 are no binary fractions: the two sides differ in their last bits.
    p = torch.tensor([[0.1, 0.0], [5.0, 0.0], [0.3, 0.0], [0.1, 0.0], [0.2, 0.1]], dtype=torch.float64)
    found = sorted_neighbors(torch.tensor([[0.2, 0.0]], dtype=torch.float64), p)
    assert set(found.order[0, :4].tolist()) == {0, 2, 3, 4}
    assert found.order[0, 4] == 1
    assert found.tied[0].tolist() == [True, True, True, False]


def test_close_is_not_tied() -> None:
    p = torch.tensor([[1.0], [1.0 + 1e-9], [-1.0 - 2e-9]], dtype=torch.float64)
    found = sorted_neighbors(torch.zeros(1, 1, dtype=torch.float64), p)
    assert found.order.tolist() == [[0, 1, 2]]
    assert not bool(found.tied.any())


def test_a_far_point_does_not_blur_the_others() -> None:
    p = torch.cat([normal(40, 2, seed=3), torch.full((1, 2), 1e6, dtype=torch.float64)])
    found = sorted_neighbors(normal(3, 2), p)
    assert not bool(found.tied.any())
    expected = oracle.squared_distances(normal(3, 2).numpy(), p.numpy())
    np.testing.assert_array_equal(found.order.numpy(), expected.argsort(1))


def test_twins_are_tied_although_their_numbers_were_rounded_apart() -> None:
    p = normal(6, 8, seed=2, dtype=torch.float32)
    p[4] = p[1] * (1 + 2e-7)
    q = normal(2, 8, dtype=torch.float32)
    place = {row: found for row, found in enumerate(sorted_neighbors(q, p).tied.any(1).tolist())}
    assert place == {0: False, 1: False}
    found = sorted_neighbors(q, p, torch.tensor([0, 1, 2, 3, 1, 5]))
    assert found.tied.sum(1).tolist() == [1, 1]
    squared = squared_distances(q, p, torch.tensor([0, 1, 2, 3, 1, 5])).squared
    assert torch.equal(squared[:, 4], squared[:, 1])


def test_cosines_equal_numpy_and_zeros_are_like_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    q, p = normal(4, 6), normal(11, 6, seed=1)
    q[1], p[3] = 0, 0
    expected = torch.tensor(oracle.cosines(q.numpy(), p.numpy()))
    assert_close(cosines(q, p), expected, rtol=0, atol=1e-14)
    assert bool((cosines(q, p)[1] == 0).all()) and bool((cosines(q, p)[:, 3] == 0).all())
    monkeypatch.setattr(neighbors, "_POINT_BYTES", 8 * 6 * 4)
    assert_close(cosines(q, p), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", (1e-200, 1e200))
def test_cosines_ignore_any_length(scale: float) -> None:
    q, p = normal(2, 3), normal(5, 3, seed=1)
    assert_close(cosines(q * scale, p / scale), cosines(q, p), rtol=0, atol=1e-14)


def test_widths_that_differ_are_named() -> None:
    with pytest.raises(BadInput, match="Queries have 3 numbers per row, points have 4"):
        squared_distances(normal(2, 3), normal(2, 4))
