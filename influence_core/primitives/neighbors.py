"""Exact nearest neighbours: squared distances in float64, every point sorted by distance, ties marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from influence_core.errors import BadInput

_POINT_BYTES = 32 << 20  # of points converted to float64 at a time
_CHUNK_BYTES = 32 << 20  # of distances sorted at a time
# Distances closer than this share of the squares they are differences of cannot be told apart in float64.
_TIE = 1e-13
_CENTER_ROWS = 4096


class Distances(NamedTuple):
    """Squared distances ``[m, n]``, and the squared lengths ``[m]``, ``[n]`` they are differences of; float64."""

    squared: Tensor
    queries: Tensor
    points: Tensor


class Neighbors(NamedTuple):
    """All points by distance from each query.

    Attributes:
        order: Positions of the points ``[m, n]``, nearest first; those equally near in any order.
        squared: Squared distances ``[m, n]`` in that order, float64.
        tied: Whether the next point is equally near, ``[m, n - 1]``.
    """

    order: Tensor
    squared: Tensor
    tied: Tensor


def central_point(points: Tensor) -> Tensor:
    """Return a point ``[d]``, float64, in the midst of the points: the medians of up to some thousand rows.

    Taken off all rows, it keeps a large common offset (a year, a timestamp) from costing digits; unlike the mean it
    stays in the midst when a single row is far away.
    """
    return points[:: -(-len(points) // _CENTER_ROWS)].double().median(0).values


def squared_distances(
    queries: Tensor, points: Tensor, twins: Tensor | None = None, center: Tensor | None = None
) -> Distances:
    """Return the squared Euclidean distances.

    Args:
        queries: ``[m, d]``.
        points: ``[n, d]``; may be memory-mapped, and is converted a block at a time.
        twins: First point that is identical to each point, ``[n]``: twins get the same distance to the last bit.
        center: ``[d]``, float64, taken off both sides so that no digits are lost; default: ``central_point``.

    Raises:
        BadInput: The widths differ.
    """
    if queries.shape[1] != points.shape[1]:
        raise BadInput(
            "Distances cannot be taken",
            f"Queries have {queries.shape[1]} numbers per row, points have {points.shape[1]}.",
            "Give rows of the same kind.",
        )
    center = central_point(points).to(queries.device) if center is None else center
    q = queries.double() - center
    q_squared, p_squared = q.square().sum(1), q.new_empty(len(points))
    result = q.new_empty(len(q), len(points))
    step = max(1, _POINT_BYTES // (8 * max(1, points.shape[1])))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        p = points[rows].to(q.device).double() - center
        p_squared[rows] = p.square().sum(1)
        result[:, rows] = torch.addmm(p_squared[rows], q, p.T, alpha=-2)
    result.add_(q_squared.unsqueeze(1)).clamp_min_(0)
    if twins is not None:
        later = (twins != torch.arange(len(twins), device=twins.device)).nonzero().squeeze(1)
        result[:, later] = result[:, twins[later]]
    return Distances(result, q_squared, p_squared)


def sorted_neighbors(
    queries: Tensor, points: Tensor, twins: Tensor | None = None, center: Tensor | None = None
) -> Neighbors:
    """Return all points sorted by distance from each query; arguments as ``squared_distances``."""
    squared, q_squared, p_squared = squared_distances(queries, points, twins, center)
    # NumPy's vectorised sort is three times as fast as PyTorch's on a CPU.
    order = (
        torch.from_numpy(squared.numpy().argsort(axis=1)) if squared.device.type == "cpu" else squared.argsort(dim=1)
    )
    ordered = squared.gather(1, order)
    tied = ordered.diff(dim=1) <= _TIE * (q_squared.unsqueeze(1) + p_squared[order[:, 1:]])
    return Neighbors(order, ordered, tied)


def neighbor_chunks(
    queries: Tensor, points: Tensor, twins: Tensor | None = None, center: Tensor | None = None
) -> Iterator[tuple[slice, Neighbors]]:
    """Yield ``(query rows, neighbours)``, as many queries at a time as keep the memory small."""
    center = central_point(points).to(queries.device) if center is None else center
    step = max(1, _CHUNK_BYTES // (8 * max(1, len(points))))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        yield rows, sorted_neighbors(queries[rows], points, twins, center)


def cosines(queries: Tensor, points: Tensor) -> Tensor:
    """Return the cosines ``[m, n]`` of queries ``[m, d]`` and points ``[n, d]``; 0 with a row that is all zeros."""
    result = queries.new_empty(len(queries), len(points))
    step = max(1, _POINT_BYTES // (queries.element_size() * max(1, points.shape[1])))
    q = _unit(queries)
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        result[:, rows] = q @ _unit(points[rows].to(queries.device)).T
    return result


def _unit(rows: Tensor) -> Tensor:
    # Divided by the largest number first, so that no square overflows or vanishes.
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
