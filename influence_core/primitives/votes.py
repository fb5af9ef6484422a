"""What the nearest rows' labels say about a row: votes weighted by nearness, never its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from influence_core.primitives.neighbors import central_point

CHUNK_BYTES = 16 << 20  # of distances at a time: more leaves the processor's cache, which takes twice as long
_BLOCK = 64  # points among which the nearest is found first
_LEAST = 1e-6  # weight of a neighbour, however far: someone always votes


class Nearest(NamedTuple):
    """The nearest points of each query: positions ``[m, k]`` and distances ``[m, k]``, nearest first, float32."""

    positions: Tensor
    distances: Tensor


def nearest_points(
    queries: Tensor, points: Tensor, k: int, own: Tensor | None = None
) -> Iterator[tuple[slice, Nearest]]:
    """Yield ``(query rows, their k nearest points)`` by Euclidean distance, in chunks of bounded memory.

    Args:
        queries: ``[m, d]``.
        points: ``[n, d]`` with n > k.
        k: How many.
        own: Position among the points of the query itself ``[m]``, -1 for none: it is not its own neighbour.
    """
    center = central_point(points)
    p = (points.double() - center).float()
    squares = p.square().sum(1)
    step = max(1, CHUNK_BYTES // (4 * len(p)))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        q = (queries[rows].to(p.device).double() - center).float()
        squared = torch.addmm(squares, q, p.T, alpha=-2)  # the query's own square changes no order
        if own is not None:
            mine = own[rows].to(p.device)
            here = (mine >= 0).nonzero().squeeze(1)
            squared[here, mine[here]] = torch.inf
        # Then the exact distance of these few: the product above loses digits to cancellation.
        positions = _smallest(squared, k).sort(dim=1).values
        distances = (p[positions] - q.unsqueeze(1)).norm(dim=2)
        order = distances.argsort(dim=1, stable=True)
        yield rows, Nearest(positions.gather(1, order), distances.gather(1, order))


def _smallest(values: Tensor, k: int) -> Tensor:
    """Return the places ``[m, k]`` of the k smallest numbers of each row, in any order.

    They lie in the k blocks with the smallest minima; only those are sorted out.
    """
    n = values.shape[1]
    whole = n // _BLOCK * _BLOCK
    if whole < 4 * k * _BLOCK:
        return values.topk(k, dim=1, largest=False).indices
    blocks = values[:, :whole].unflatten(1, (-1, _BLOCK)).amin(2).topk(k, dim=1, largest=False).indices
    inside = torch.arange(_BLOCK, device=values.device)
    places = (blocks.unsqueeze(2) * _BLOCK + inside).flatten(1)
    rest = torch.arange(whole, n, device=values.device).expand(len(values), -1)
    places = torch.cat([places, rest], 1)
    return places.gather(1, values.gather(1, places).topk(k, dim=1, largest=False).indices)


def vote_shares(nearest: Nearest, labels: Tensor, n_classes: int, scale: float) -> Tensor:
    """Return each class's share ``[m, n_classes]`` of the neighbours' votes, which weigh ``exp(-(d / scale)^2)``.

    Args:
        nearest: Neighbours of the queries.
        labels: Class of every point ``[n]``.
        n_classes: Number of classes.
        scale: A typical distance; all votes weigh about the same where it is 0.
    """
    weights = torch.exp(-(nearest.distances / max(scale, 1e-30)).square()) + _LEAST
    votes = torch.zeros(len(weights), n_classes, dtype=weights.dtype, device=weights.device)
    votes.scatter_add_(1, labels.to(weights.device)[nearest.positions], weights)
    return votes / votes.sum(1, keepdim=True)


def margins(shares: Tensor, labels: Tensor) -> Tensor:
    """Return how far the best other class leads over the given one ``[n]``, from -1 (sure of it) to 1 (sure not)."""
    given = labels.to(shares.device).unsqueeze(1)
    others = shares.scatter(1, given, -torch.inf).amax(1)
    return others - shares.gather(1, given).squeeze(1)
