"""Confident learning against loops, and against cleanlab where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from influence_core.workflows.suspects.confident import (
    class_thresholds,
    confident_joint,
    estimated_errors,
    normalized_margins,
)

C = 4


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, C, 300)
    labels[:C] = range(C)
    shares = random.dirichlet(np.full(C, 0.5), 300) + np.eye(C)[labels] * random.random((300, 1))
    return shares / shares.sum(1, keepdims=True), labels


def test_joint_and_errors_are_those_of_a_loop(case: tuple[np.ndarray, np.ndarray]) -> None:
    shares, labels = case
    limits = [np.mean([shares[i, c] for i in range(300) if labels[i] == c]) for c in range(C)]
    assert np.allclose(class_thresholds(torch.from_numpy(shares), torch.from_numpy(labels)), limits)
    joint = np.zeros((C, C), int)
    for i in range(300):
        sure = [c for c in range(C) if shares[i, c] >= limits[c]]
        if sure:
            joint[labels[i], max(sure, key=lambda c: shares[i, c])] += 1
    assert np.array_equal(confident_joint(torch.from_numpy(shares), torch.from_numpy(labels)).numpy(), joint)
    wrong = sum((labels == c).sum() * (1 - joint[c, c] / joint[c].sum()) for c in range(C) if joint[c].sum())
    assert estimated_errors(torch.from_numpy(shares), torch.from_numpy(labels)) == round(wrong)


def test_margins_are_those_of_a_loop(case: tuple[np.ndarray, np.ndarray]) -> None:
    shares, labels = case
    limits = class_thresholds(torch.from_numpy(shares), torch.from_numpy(labels)).numpy()
    found = normalized_margins(torch.from_numpy(shares), torch.from_numpy(labels)).numpy()
    for i in range(300):
        less = shares[i] - limits
        expected = max(less[c] for c in range(C) if c != labels[i]) - less[labels[i]]
        assert found[i] == pytest.approx(expected, abs=1e-12)


def test_a_class_that_no_row_carries_is_never_counted() -> None:
    shares, labels = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]), torch.tensor([0, 1])
    assert confident_joint(shares, labels)[:, 2].sum() == 0


def test_cleanlab_says_the_same(case: tuple[np.ndarray, np.ndarray]) -> None:
    count = pytest.importorskip("cleanlab.count")
    rank = pytest.importorskip("cleanlab.rank")
    shares, labels = case
    ours = confident_joint(torch.from_numpy(shares), torch.from_numpy(labels)).numpy()
    assert np.array_equal(ours, count.compute_confident_joint(labels, shares, calibrate=False))
    issues = count.num_label_issues(labels, shares, estimation_method="off_diagonal_calibrated")
    assert abs(estimated_errors(torch.from_numpy(shares), torch.from_numpy(labels)) - issues) <= C  # rounded by cell
    quality = rank.get_normalized_margin_for_each_label(labels, rank._subtract_confident_thresholds(labels, shares))
    margins = normalized_margins(torch.from_numpy(shares), torch.from_numpy(labels)).numpy()
    assert np.array_equal(np.argsort(-margins, kind="stable")[:50], np.argsort(quality, kind="stable")[:50])
