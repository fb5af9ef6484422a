"""Votes of neighbours against scikit-learn's neighbours and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from influence_core.primitives import votes
from influence_core.primitives.votes import Nearest, margins, nearest_points, vote_shares


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_neighbours_are_those_of_scikit_learn(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes, "CHUNK_BYTES", 4 * 200 * 7)  # uneven chunks
    points = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).double() + offset
    queries = torch.randn(33, 5, generator=torch.Generator().manual_seed(1)).double() + offset
    expected, where = NearestNeighbors(n_neighbors=4).fit(points.numpy()).kneighbors(queries.numpy())
    seen = 0
    for rows, nearest in nearest_points(queries, points, 4):
        assert np.array_equal(nearest.positions.numpy(), where[rows])
        assert np.allclose(nearest.distances.numpy(), expected[rows], rtol=1e-5)
        seen += len(nearest.positions)
    assert seen == 33


def test_neighbours_among_many_points_are_those_of_scikit_learn() -> None:
    points = torch.randn(3001, 5, generator=torch.Generator().manual_seed(0))  # whole blocks, and some points more
    queries = torch.cat([points[:40], points[-40:] + 1e-4])
    expected, where = NearestNeighbors(n_neighbors=7).fit(points.double().numpy()).kneighbors(queries.double().numpy())
    (_, nearest), *_ = nearest_points(queries, points, 7)
    assert np.array_equal(nearest.positions.numpy(), where)
    assert np.allclose(nearest.distances.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_row_is_not_its_own_neighbour_but_its_twin_is() -> None:
    points = torch.tensor([[0.0], [0.0], [1.0], [5.0]])
    (_, nearest), *_ = nearest_points(points, points, 2, torch.tensor([0, 1, 2, -1]))
    assert nearest.positions.tolist()[:3] == [[1, 2], [0, 2], [0, 1]]
    assert nearest.positions[3].tolist() == [3, 2] and nearest.distances[0].tolist() == [0.0, 1.0]


def test_shares_are_the_weighted_votes() -> None:
    nearest = Nearest(torch.tensor([[0, 1, 2], [3, 2, 1]]), torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, 9.0]]))
    labels = torch.tensor([1, 0, 1, 2])
    shares = vote_shares(nearest, labels, 3, scale=2.0)
    for i in range(2):
        weights = np.exp(-((nearest.distances[i].numpy() / 2.0) ** 2)) + 1e-6
        for c in range(3):
            own = sum(w for w, j in zip(weights, nearest.positions[i].tolist(), strict=True) if labels[j] == c)
            assert shares[i, c].item() == pytest.approx(own / weights.sum(), abs=1e-6)
    assert torch.allclose(vote_shares(nearest, labels, 3, scale=0.0).sum(1), torch.ones(2))


def test_margins_run_from_sure_of_the_label_to_sure_of_another() -> None:
    shares = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    assert margins(shares, torch.tensor([0, 0, 2])).tolist() == pytest.approx([-1.0, 1.0, -0.2])
