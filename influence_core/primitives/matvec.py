"""A matrix times a vector at the speed of memory: what a warm query is little else than."""

from __future__ import annotations

import torch
from torch import Tensor

from influence_core.primitives.threads import one_core_threads

_WORTH_IT = 1 << 20  # numbers: below this, waking the threads takes longer than they save
_BLOCK_BYTES = 1 << 21  # of converted rows: they stay in the core's cache between conversion and product


def matrix_vector(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return ``matrix [n, P] @ vector [P]`` as ``[n]`` in the vector's precision, on all cores.

    A matrix of another precision (16-bit storage) is converted some rows at a time, never as a whole.
    """
    if matrix.device.type != "cpu":
        return torch.mv(matrix.to(vector.dtype), vector)
    result = vector.new_empty(len(matrix))
    if matrix.numel() < _WORTH_IT:
        _multiply(matrix, vector, result)
        return result
    cores = torch.get_num_threads()
    parts = zip(matrix.tensor_split(cores), result.tensor_split(cores), strict=True)
    pool = one_core_threads("matrix-vector", cores)
    for done in [pool.submit(_multiply, rows, vector, out) for rows, out in parts]:
        done.result()
    return result


def _multiply(matrix: Tensor, vector: Tensor, out: Tensor) -> None:
    if matrix.dtype == vector.dtype:
        torch.mv(matrix, vector, out=out)
        return
    step = max(1, _BLOCK_BYTES // (vector.nbytes or 1))
    converted = vector.new_empty(min(step, len(matrix)), matrix.shape[1])
    for start in range(0, len(matrix), step):
        rows = matrix[start : start + step]
        torch.mv(converted[: len(rows)].copy_(rows), vector, out=out[start : start + step])
