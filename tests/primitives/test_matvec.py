"""The product of a matrix and a vector, whatever their strides, alone and from several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from influence_core.primitives.matvec import matrix_vector


@pytest.mark.parametrize("n", [1, 2, 5, 1000, 4001])
@pytest.mark.parametrize("width", [1, 700])
def test_equals_the_sum_of_products(n: int, width: int) -> None:
    matrix, vector = torch.randn(n, width, dtype=torch.float64), torch.randn(width, dtype=torch.float64)
    torch.testing.assert_close(matrix_vector(matrix, vector), (matrix * vector).sum(1), rtol=1e-12, atol=1e-12)


def test_rows_of_a_larger_table_and_no_rows() -> None:
    table, vector = torch.randn(3000, 1024, dtype=torch.float64), torch.randn(512, dtype=torch.float64)
    matrix = table[::2, :512]  # neither side by side in memory nor from the start
    torch.testing.assert_close(matrix_vector(matrix, vector), (matrix * vector).sum(1), rtol=1e-12, atol=1e-12)
    assert matrix_vector(table[:0, :512], vector).shape == (0,)


def test_callers_in_several_threads_do_not_meet() -> None:
    matrix = torch.randn(2000, 600, dtype=torch.float64)
    vectors = torch.randn(12, 600, dtype=torch.float64)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda vector: matrix_vector(matrix, vector), vectors))
    torch.testing.assert_close(torch.stack(found), vectors @ matrix.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [3, 5000])
def test_sixteen_bit_rows_are_multiplied_in_the_precision_of_the_vector(n: int) -> None:
    matrix, vector = torch.randn(n, 700).half(), torch.randn(700, dtype=torch.float64)
    found = matrix_vector(matrix, vector)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, matrix.double() @ vector, rtol=1e-12, atol=1e-12)
