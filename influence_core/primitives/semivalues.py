"""Exact Shapley values of nearest-neighbour classifiers, by recursion along the sorted training rows.

Both recursions have one form: with the rows sorted by distance, c_j = 1 where the label of the j-th agrees with the
query's,

    phi_p = base + c_p w_p + sum_{j > p} c_j (w_j - w_{j-1}).

Rows at the same distance have no order of their own, so each gets the mean over all orders of its tied block: the
exact Shapley value of the classifier that breaks ties at random. For a row r in a block that ends at e, with w~ the
block's mean of w, c~ the mean label in each block, and u_r the mean label of the *other* rows of its block, that mean
is

    phi_r = base + c_r w~ + u_r (w_e - w~) + sum_{j > e} c~_j (w_j - w_{j-1}).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.errors import BadInput


def knn_shapley(matches: Tensor, k: int, tied: Tensor | None = None) -> Tensor:
    """Return the Shapley values of ``v(S) = (1/k) sum of the min(k, |S|) nearest of c``, with ``v(empty) = 0``.

    Jia et al. (2019), theorem 1, with ``phi_n = c_n min(k, n) / (n k)``: the paper's ``c_n / n`` is wrong for n < k.

    Args:
        matches: c ``[m, n]``, 0 or 1, nearest first.
        k: Neighbours that vote, at least 1.
        tied: Whether the next row is equally near, ``[m, n - 1]``.

    Returns:
        ``[m, n]`` in the same order, float64; each row sums to ``v(all)``.

    Raises:
        BadInput: k is below 1.
    """
    n = _checked_size(matches, k)
    place = torch.arange(1, n + 1, dtype=torch.float64, device=matches.device)
    return _recursion(matches.double(), place.clamp_max(k) / (place * k), tied)


def soft_knn_shapley(matches: Tensor, k: int, n_classes: int, tied: Tensor | None = None) -> Tensor:
    """Return the Shapley values of ``v(S) = mean of c over the min(k, |S|) nearest``, with ``v(empty) = 1/n_classes``.

    Wang & Jia (2023), theorem 2, with its own branch for n <= k, where the released code is wrong.

    Args:
        matches: c ``[m, n]``, 0 or 1, nearest first.
        k: Neighbours that vote, at least 1.
        n_classes: Number of classes.
        tied: Whether the next row is equally near, ``[m, n - 1]``.

    Returns:
        ``[m, n]`` in the same order, float64; each row sums to ``v(all) - 1/n_classes``.

    Raises:
        BadInput: k or n_classes is below 1.
    """
    n = _checked_size(matches, k)
    if n_classes < 1:
        raise BadInput("There are no classes", f"n_classes is {n_classes}.", "Give the number of classes.")
    c = matches.double()
    place = torch.arange(1, n + 1, dtype=torch.float64, device=c.device)
    if n > k:
        steps = (1 / place[:k]).sum() + (place.clamp_max(k) * (n - 1) / place - k) / k
    else:
        steps = (1 / place[: n - 1]).sum().expand(n)
    weights = F.pad(steps[: n - 1] / max(1, n - 1), (0, 1))
    # The last label, or the mean of the labels that tie for last place.
    last = _block_means(c, _bounds(c, tied))[:, -1:] if _any(tied) else c[:, -1:]
    others = (c.sum(1, keepdim=True) - last) / max(1, n - 1)
    base = (last - others) / n * (1 / (1 + place[: min(k, n) - 1])).sum() + (last - 1 / n_classes) / n
    return base + _recursion(c, weights, tied)


def _checked_size(matches: Tensor, k: int) -> int:
    if k < 1:
        raise BadInput("No neighbour can vote", f"k is {k}.", "Use 1 or more.")
    return matches.shape[1]


def _any(tied: Tensor | None) -> bool:
    return tied is not None and bool(tied.any())


def _recursion(c: Tensor, w: Tensor, tied: Tensor | None) -> Tensor:
    """Return ``[m, n]`` of the form above without its base, from labels ``[m, n]`` and weights ``[n]``."""
    change = w - F.pad(w[:-1], (1, 0))
    if not _any(tied):
        later = c * change
        return torch.addcmul(_after(later), c, w)
    bounds = _bounds(c, tied)
    first, last = bounds
    size = (last - first + 1).double()
    mean = _block_means(c, bounds)
    weight = _block_means(w.expand_as(c), bounds)
    others = torch.where(size > 1, (mean * size - c) / (size - 1).clamp_min(1), 0.0)
    after = _after(mean * change).gather(1, last)
    return c * weight + others * (w[last] - weight) + after


def _after(values: Tensor) -> Tensor:
    """Return, at each place, the sum of the later values."""
    total = values.cumsum(1)
    return total[:, -1:] - total


def _bounds(c: Tensor, tied: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the first and last place ``[m, n]`` of the tied block around each place."""
    m, n = c.shape
    places = torch.arange(n, device=c.device).expand(m, n)
    assert tied is not None
    begins = F.pad(~tied, (1, 0), value=True)
    ends = F.pad(~tied, (0, 1), value=True)
    first = torch.where(begins, places, 0).cummax(1).values
    last = torch.where(ends, places, n - 1).flip(1).cummin(1).values.flip(1)
    return first, last


def _block_means(values: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean ``[m, n]`` over the tied block around each place."""
    first, last = bounds
    total = F.pad(values.cumsum(1), (1, 0))
    return (total.gather(1, last + 1) - total.gather(1, first)) / (last - first + 1)
