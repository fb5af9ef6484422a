"""Random projections that keep inner products: ``E <Rg, Rh> = <g, h>``, error ``|g||h| sqrt(2/k)``."""

from __future__ import annotations

import torch

from influence_core.errors import BadInput
from influence_core.primitives.sides import Dense, Side

_LIMIT_BYTES = 2 << 30


class GaussianProjection:
    """One Gaussian matrix ``[P, k]`` over all layers, drawn layer by layer from a seeded generator and kept.

    Args:
        sizes: Parameters per layer.
        dimensions: k.
        seed: Equal seeds give equal matrices, on every device.
        device, dtype: Where the matrix lives.

    Raises:
        BadInput: The matrix would take more than 2 GiB.
    """

    def __init__(self, sizes: list[int], dimensions: int, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        """Draw the matrix."""
        needed = sum(sizes) * dimensions * dtype.itemsize
        if needed > _LIMIT_BYTES:
            raise BadInput(
                "The projection is too large",
                f"{sum(sizes):,} parameters x {dimensions} dimensions need {needed / 2**30:.1f} GiB.",
                "Use fewer dimensions, or name the layers to attribute.",
            )
        generator = torch.Generator().manual_seed(seed)
        self.matrices = [
            (torch.randn(size, dimensions, generator=generator, dtype=torch.float32) / dimensions**0.5).to(
                device, dtype
            )
            for size in sizes
        ]

    def __call__(self, sides: list[Side]) -> Dense:
        """Return the projected gradients ``[n, k]`` of all layers together."""
        total = sides[0].dense() @ self.matrices[0]
        for side, matrix in zip(sides[1:], self.matrices[1:], strict=True):
            total.addmm_(side.dense(), matrix)
        return Dense(total)
