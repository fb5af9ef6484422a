from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from influence_core.errors import BadInput
from influence_core.primitives.semivalues import knn_shapley, soft_knn_shapley
from tests.oracles.shapley import knn_values, soft_knn_values, votes, votes_over_all_orders

N, CLASSES = 7, 3
KS = (1, 3, 7, 9, 20)
# Distances of seven rows: all apart; pairs; a block in the middle, at the start, at the end; all the same.
DISTANCES = {
    "apart": (0, 1, 2, 3, 4, 5, 6),
    "pairs": (0, 0, 1, 1, 2, 2, 3),
    "middle": (0, 1, 2, 2, 2, 3, 4),
    "first": (1, 1, 1, 1, 2, 3, 4),
    "last": (0, 1, 2, 3, 4, 4, 4),
    "all": (2, 2, 2, 2, 2, 2, 2),
}


def labels(rows: int, n: int = N) -> np.ndarray:
    random = np.random.default_rng(0).integers(0, 2, (rows, n))
    return np.concatenate([random, np.zeros((1, n), int), np.ones((1, n), int)])


def tied(distances: np.ndarray, rows: int) -> torch.Tensor:
    return torch.tensor(distances[1:] == distances[:-1]).expand(rows, -1)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", DISTANCES)
def test_both_utilities_equal_brute_force_over_all_coalitions(name: str, k: int) -> None:
    distances, c = np.array(DISTANCES[name]), labels(4)
    hard = knn_shapley(torch.tensor(c), k, tied(distances, len(c)))
    soft = soft_knn_shapley(torch.tensor(c), k, CLASSES, tied(distances, len(c)))
    assert hard.dtype == soft.dtype == torch.float64
    assert_close(hard, torch.tensor(np.stack([knn_values(distances, row, k) for row in c])), rtol=0, atol=1e-12)
    expected = np.stack([soft_knn_values(distances, row, k, CLASSES) for row in c])
    assert_close(soft, torch.tensor(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", (1, 2, 3))
def test_the_oracle_shares_border_places_as_all_orders_do(k: int) -> None:
    distances, matches = np.array([0, 1, 1, 1, 2, 2]), np.array([1, 0, 1, 1, 0, 1])
    for members in ((0, 1, 2, 3, 4, 5), (1, 2, 4), (4, 5), (2,)):
        assert votes(distances, matches, members, k) == pytest.approx(
            votes_over_all_orders(distances, matches, members, k), abs=1e-14
        )


@pytest.mark.parametrize("n", (1, 2))
@pytest.mark.parametrize("k", (1, 2, 5))
def test_one_and_two_rows(n: int, k: int) -> None:
    distances, c = np.arange(n), labels(3, n)
    for border in (None, tied(distances, len(c)), torch.ones(len(c), n - 1, dtype=torch.bool)):
        places = np.zeros(n) if border is not None and bool(border.all()) and n > 1 else distances
        hard = np.stack([knn_values(places, row, k) for row in c])
        soft = np.stack([soft_knn_values(places, row, k, CLASSES) for row in c])
        assert_close(knn_shapley(torch.tensor(c), k, border), torch.tensor(hard), rtol=0, atol=1e-14)
        assert_close(soft_knn_shapley(torch.tensor(c), k, CLASSES, border), torch.tensor(soft), rtol=0, atol=1e-14)


@pytest.mark.parametrize("k", (1, 5, 400))
def test_values_sum_to_the_utility_of_all_rows(k: int) -> None:
    generator = torch.Generator().manual_seed(1)
    c = torch.randint(2, (6, 300), generator=generator)
    border = torch.rand(6, 299, generator=generator) < 0.3
    border[:, min(k, 299) - 1 : min(k, 299)] = False  # no tie at the k-th place, so that the votes are plain
    nearest = c[:, :k].double()
    hard, soft = knn_shapley(c, k, border), soft_knn_shapley(c, k, 10, border)
    assert_close(hard.sum(1), nearest.sum(1) / k, rtol=0, atol=1e-11)
    assert_close(soft.sum(1), nearest.mean(1) - 0.1, rtol=0, atol=1e-11)


def test_no_ties_and_an_empty_mask_are_the_same() -> None:
    c = torch.randint(2, (3, 50), generator=torch.Generator().manual_seed(2))
    none = torch.zeros(3, 49, dtype=torch.bool)
    assert torch.equal(knn_shapley(c, 5), knn_shapley(c, 5, none))
    assert torch.equal(soft_knn_shapley(c, 5, 4), soft_knn_shapley(c, 5, 4, none))


def test_rows_are_independent_whether_others_tie_or_not() -> None:
    c = torch.randint(2, (2, 40), generator=torch.Generator().manual_seed(3))
    border = torch.zeros(2, 39, dtype=torch.bool)
    border[1, 4:20] = True
    assert_close(knn_shapley(c, 3, border)[0], knn_shapley(c[:1], 3)[0], rtol=0, atol=1e-13)
    assert_close(soft_knn_shapley(c, 3, 5, border)[0], soft_knn_shapley(c[:1], 3, 5)[0], rtol=0, atol=1e-13)


def test_values_do_not_depend_on_the_order_inside_a_tie() -> None:
    c = torch.tensor([[1, 0, 0, 1, 1, 0, 1]])
    border = torch.tensor([[False, True, True, True, False, False]])
    swapped = [0, 4, 2, 1, 3, 5, 6]
    for values in (lambda x: knn_shapley(x, 2, border), lambda x: soft_knn_shapley(x, 2, 3, border)):
        assert_close(values(c)[:, swapped], values(c[:, swapped]), rtol=0, atol=1e-14)


def test_bad_input_is_named() -> None:
    with pytest.raises(BadInput, match="k is 0"):
        knn_shapley(torch.ones(1, 3), 0)
    with pytest.raises(BadInput, match="n_classes is 0"):
        soft_knn_shapley(torch.ones(1, 3), 1, 0)
