"""A matrix times a vector at the speed of memory.

The library behind ``torch.mv`` runs this product on one thread and reads about 20 GB/s; NumPy's reads 40 on two. A warm
query is little else than this product.
"""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_vector(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return ``matrix [n, P] @ vector [P]`` as ``[n]``, both float32 or float64, without a gradient."""
    if matrix.device.type != "cpu":
        return torch.mv(matrix, vector)
    return torch.from_numpy(matrix.numpy() @ vector.numpy())
