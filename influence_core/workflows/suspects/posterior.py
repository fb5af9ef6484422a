"""How likely each class is to be a row's true one.

The evidence (a model's probabilities averaged with the neighbours' votes) is raised to one power that fits the test
labels best: temperature scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). Label noise in train
flattens the evidence, which the power undoes as far as the test labels are right.

Rows that are hard by nature have a chance of being wrong as well: all chances added up come to a third more than there
are errors. The number of rows that are more probably wrong than right is closer (docs/suspects.md).

Expectation maximisation over the confusion matrix was tried and left out: with class-pair noise in a network that
memorises it explains every wrong label by a confusion of classes and finds no error at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

_LEAST = 1e-6


class Beliefs(NamedTuple):
    """What the true class of each row is likely to be.

    Attributes:
        likelihood: Probability of every class ``[n, C]``.
        suggested: The most probable class other than the given one ``[n]``.
        chance: Its probability ``[n]``.
        wrong: Probability that the given label is wrong ``[n]``.
    """

    likelihood: np.ndarray
    suggested: np.ndarray
    chance: np.ndarray
    wrong: np.ndarray


def beliefs(shares: Tensor, labels: Tensor, known: Tensor, truth: Tensor) -> Beliefs:
    """Return calibrated beliefs.

    Args:
        shares: Evidence on train rows ``[n, C]``, as far as possible from what did not see their labels.
        labels: The labels that they carry ``[n]``.
        known: The same evidence on test rows ``[m, C]``.
        truth: Labels of the test rows ``[m]``.
    """
    power = calibrated_power(known.double(), truth)
    likelihood = raised(shares.double(), power)
    given = labels.unsqueeze(1)
    best = likelihood.scatter(1, given, -1.0).max(1)
    wrong = 1 - likelihood.gather(1, given).squeeze(1)
    return Beliefs(likelihood.float().numpy(), best.indices.numpy(), best.values.numpy(), wrong.numpy())


def raised(shares: Tensor, power: float) -> Tensor:
    """Return probabilities to a power, made to sum to 1."""
    return (shares.clamp_min(_LEAST).log() * power).softmax(1)


def calibrated_power(shares: Tensor, truth: Tensor) -> float:
    """Return the power of the probabilities that fits some labels best."""
    powers = np.geomspace(0.2, 5.0, 41)
    losses = [-float(raised(shares, p).gather(1, truth.unsqueeze(1)).log().mean()) for p in powers]
    return float(powers[int(np.argmin(losses))])
