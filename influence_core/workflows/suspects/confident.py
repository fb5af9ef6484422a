"""Confident learning: which labels contradict predictions of models that did not see the row.

Northcutt, Jiang & Chuang, Confident Learning, JAIR 2021. A class's threshold is the mean probability that the models
give to it among the rows that carry it; a row counts as class j where j's probability reaches j's threshold (of
several, the most probable). Needs out-of-fold probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_thresholds(shares: Tensor, labels: Tensor) -> Tensor:
    """Return the mean self-confidence ``[C]`` of the rows of each class; 1 where a class has no row."""
    n_classes = shares.shape[1]
    own = shares.gather(1, labels.unsqueeze(1)).squeeze(1)
    sums = torch.zeros(n_classes, dtype=shares.dtype).scatter_add_(0, labels, own)
    counts = torch.zeros(n_classes, dtype=shares.dtype).scatter_add_(0, labels, torch.ones_like(own))
    return torch.where(counts > 0, sums / counts.clamp_min(1), 1.0)


def confident_joint(shares: Tensor, labels: Tensor) -> Tensor:
    """Return how many rows labelled i count as class j, ``[C, C]``; unsure ones count nowhere."""
    n_classes = shares.shape[1]
    reached = shares >= class_thresholds(shares, labels) - 1e-12
    sure = reached.any(1)
    counted = shares.masked_fill(~reached, -torch.inf).argmax(1)
    pairs = (labels * n_classes + counted)[sure]
    return torch.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def estimated_errors(shares: Tensor, labels: Tensor) -> int:
    """Return how many labels are wrong by the confident joint, calibrated to the number of rows of each class."""
    joint = confident_joint(shares, labels).double()
    counts = torch.bincount(labels, minlength=shares.shape[1]).double()
    share = joint / joint.sum(1, keepdim=True).clamp_min(1)
    return round(float(((1 - share.diagonal()) * counts)[joint.sum(1) > 0].sum()))


def normalized_margins(shares: Tensor, labels: Tensor) -> Tensor:
    """Return the best other class's lead ``[n]``, every class's probability taken less its threshold."""
    adjusted = shares - class_thresholds(shares, labels)
    given = labels.unsqueeze(1)
    return adjusted.scatter(1, given, -torch.inf).amax(1) - adjusted.gather(1, given).squeeze(1)
