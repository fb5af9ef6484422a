"""The L2 fit of one linear layer by Newton's method on the whole Hessian, written out, and its representer values."""

from __future__ import annotations

import numpy as np


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of several logits; sigmoid of a single one."""
    if logits.shape[1] == 1:
        return 1 / (1 + np.exp(-logits))
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gradient(weights: np.ndarray, f: np.ndarray, targets: np.ndarray, lam: float) -> np.ndarray:
    """Of ``mean_i l(W f_i, t_i) + lam |W|^2``, cross-entropy or binary cross-entropy."""
    return (probabilities(f @ weights.T) - targets).T @ f / len(f) + 2 * lam * weights


def fitted_weights(f: np.ndarray, targets: np.ndarray, lam: float, steps: int = 200) -> np.ndarray:
    """The minimum ``[C, d]``; short steps first, so that no line search is needed."""
    n, d = f.shape
    c = targets.shape[1]
    weights = np.zeros((c, d))
    for step in range(steps):
        p = probabilities(f @ weights.T)
        hessian = 2 * lam * np.eye(c * d)
        for i in range(n):
            inner = p[i] * (1 - p[i]) if c == 1 else np.diag(p[i]) - np.outer(p[i], p[i])
            hessian += np.kron(np.atleast_2d(inner), np.outer(f[i], f[i])) / n
        change = np.linalg.solve(hessian, gradient(weights, f, targets, lam).ravel()).reshape(c, d)
        weights = weights - change * (0.5 if step < 30 else 1.0)
        if step > 30 and np.abs(change).max() < 1e-15:
            break
    return weights


def representer_values(
    f: np.ndarray, f_test: np.ndarray, targets: np.ndarray, lam: float, classes: np.ndarray
) -> np.ndarray:
    """``[m, n]``: each training row's share of the logit of the class of each test row, a pair at a time."""
    weights = fitted_weights(f, targets, lam)
    alpha = -(probabilities(f @ weights.T) - targets) / (2 * lam * len(f))
    return np.array([[alpha[i, c] * (f[i] @ q) for i in range(len(f))] for q, c in zip(f_test, classes, strict=True)])
