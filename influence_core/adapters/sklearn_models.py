"""A fitted scikit-learn estimator as one of our models: the same function, weight for weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.errors import BadInput
from influence_core.recipe import Recipe

SUPPORTED = (
    "LogisticRegression, LogisticRegressionCV, LinearRegression, Ridge, RidgeCV, SGDClassifier(loss='log_loss') of two "
    "classes, SGDRegressor(loss='squared_error'), MLPClassifier, MLPRegressor, and pipelines that end in one"
)
_HINGE = "its hinge loss is neither cross-entropy nor squared error, and is flat for most rows"
_REASONS = {
    "LinearSVC": _HINGE, "SVC": _HINGE, "Perceptron": _HINGE, "PassiveAggressiveClassifier": _HINGE,
    "LinearSVR": "its loss is not the squared error",
    "RidgeClassifier": "it fits squared errors of -1 and 1, and says no probabilities",
    "RidgeClassifierCV": "it fits squared errors of -1 and 1, and says no probabilities",
    "Lasso": "its L1 penalty has no curvature where a weight is zero",
    "ElasticNet": "its L1 penalty has no curvature where a weight is zero",
    "OneVsRestClassifier": "its classes are separate models, and probabilities are rescaled afterwards",
    "CalibratedClassifierCV": "it averages several models",
}  # fmt: skip
_AT_MINIMUM = 0.02  # of the rows' summed gradient lengths: above it, the weights are not where fitting these rows ends
_AT_ONCE = 4096
_RANKED = 20_000_000  # numbers whose rank is computed, in seconds


@dataclass(frozen=True)
class Copied:
    """An estimator as a study keeps it.

    Attributes:
        architecture: Of the built-in ones, with its ``options`` and the weights in ``state``.
        loss: ``"cross_entropy"``, ``"bce"`` or ``"mse"``.
        classes: As the estimator has them ``[C]``; None for a regression.
        n_inputs: Numbers that a row is.
    """

    architecture: str
    options: dict[str, Any]
    state: dict[str, Tensor]
    loss: str
    classes: np.ndarray | None
    n_inputs: int


@dataclass(frozen=True)
class Fit:
    """How an estimator was fitted, as far as it can be repeated: a recipe, or none and sentences that say why."""

    recipe: Recipe | None
    notes: tuple[str, ...] = field(default=())


def check_supported(model: Any) -> None:
    """Check that an estimator, fitted or not, is one that can be explained as it is.

    Raises:
        BadInput: It is another, or has settings that the study could not express; with the reason.
    """
    name = type(model).__name__
    why = _REASONS.get(name) or _why_not(model, name)
    if why is not None:
        raise BadInput(f"{name} cannot be explained here", f"{name}: {why}.", f"Use one of: {SUPPORTED}.")


def _why_not(model: Any, name: str) -> str | None:
    from sklearn import linear_model, neural_network

    if type(model).__module__.partition(".")[0] != "sklearn":
        return f"it comes from {type(model).__module__}, and only scikit-learn's own models are known"
    linear = ("LogisticRegression", "LogisticRegressionCV", "LinearRegression", "Ridge", "RidgeCV", "SGDClassifier",
              "SGDRegressor")  # fmt: skip
    known = [getattr(linear_model, one) for one in linear]
    if type(model) not in (*known, neural_network.MLPClassifier, neural_network.MLPRegressor):
        return "it is not among the models that are known"
    if getattr(model, "class_weight", None) is not None:
        return "class_weight makes rows count differently, which a study cannot say; fit with class_weight=None"
    if name == "SGDClassifier" and model.loss != "log_loss":
        return f"loss='{model.loss}' is not the cross-entropy; fit with loss='log_loss'"
    if name == "SGDRegressor" and model.loss != "squared_error":
        return f"loss='{model.loss}' is not the squared error"
    if name.startswith("MLP") and getattr(model, "loss", None) == "poisson":
        return "loss='poisson' is not the squared error"
    return _why_not_fitted(model, name)


def _why_not_fitted(model: Any, name: str) -> str | None:
    n_classes = len(getattr(model, "classes_", ()))
    if name == "SGDClassifier" and n_classes > 2:
        return "with more than two classes it is one model per class; use LogisticRegression"
    separate = getattr(model, "multi_class", None) == "ovr" or getattr(model, "solver", None) == "liblinear"
    if name.startswith("LogisticRegression") and n_classes > 2 and separate:
        return "with these settings it is one model per class, whose probabilities are rescaled; use solver='lbfgs'"
    if name == "MLPClassifier" and hasattr(model, "classes_") and model.out_activation_ == "logistic":
        if model.n_outputs_ > 1:
            return "it was fitted on several labels a row"
    n_outputs = getattr(model, "n_outputs_", 1) if name == "MLPRegressor" else 1
    if n_outputs > 1 or (n_classes == 0 and len(np.atleast_2d(getattr(model, "coef_", 0))) > 1 and "MLP" not in name):
        return "it predicts several numbers a row"
    return None


def copied(model: Any) -> Copied:
    """Return a fitted, supported estimator as one of our models, weights in float32.

    Raises:
        BadInput: Its fitted parts do not go together, as in a file that was changed by hand.
    """
    try:
        return _copied(model)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        why = f"{type(model).__name__}: {' '.join(str(error).split())[:200].rstrip('.')}."
        raise BadInput("The model is damaged", why, "Fit it again with this version of scikit-learn.") from None


def _copied(model: Any) -> Copied:
    classes = getattr(model, "classes_", None)
    if type(model).__name__.startswith("MLP"):
        weights, biases = list(model.coefs_), list(model.intercepts_)
        options: dict[str, Any] = {"hidden": [len(bias) for bias in biases[:-1]], "activation": model.activation}
        architecture, bias = "mlp", True
    else:
        weights = [np.atleast_2d(model.coef_).T]
        biases = [np.broadcast_to(np.atleast_1d(model.intercept_), (weights[0].shape[1],))]
        architecture, bias = "logistic", bool(model.fit_intercept)
        options = {} if bias else {"bias": False}
    state = {}
    for layer, (weight, offset) in enumerate(zip(weights, biases, strict=True)):
        state[f"{1 + 2 * layer}.weight"] = torch.tensor(weight.T, dtype=torch.float32)
        if bias:
            state[f"{1 + 2 * layer}.bias"] = torch.tensor(offset, dtype=torch.float32)
    n_outputs = weights[-1].shape[1]
    loss = "mse" if classes is None else "bce" if n_outputs == 1 else "cross_entropy"
    n_inputs = len(weights[0])
    options |= {"n_inputs": n_inputs, "n_classes": n_outputs}
    return Copied(architecture, options, state, loss, None if classes is None else np.asarray(classes), n_inputs)


def how_fitted(model: Any, inputs: np.ndarray, targets: np.ndarray) -> Fit:
    """Return how a fitted estimator can be retrained.

    A recipe's L2 takes every parameter. scikit-learn's linear models spare the intercept, so that their penalty is a
    recipe's only where there is no intercept or no penalty (or in liblinear, which does not spare it). The loss of
    LogisticRegression is ``C sum loss + |w|^2 / 2``, hence ``weight_decay = 1 / (C n)``; Ridge's is ``sum of squares +
    alpha |w|^2``, hence ``2 alpha / n``.

    Args:
        model: Fitted and supported.
        inputs: What it reads of the train rows ``[n, d]``.
        targets: Class indices, or numbers ``[n]``.
    """
    name, n_rows = type(model).__name__, len(inputs)
    if name.startswith(("MLP", "SGD")):
        return Fit(None, (f"No retraining: the order of rows and the steps of {name} cannot be repeated exactly.",))
    decay, why = _penalty(model, n_rows)
    notes = []
    if decay is not None:
        residual = _residual(model, decay, inputs, targets)
        if residual > _AT_MINIMUM:
            notes.append(
                f"The weights are not where fitting these train rows ends (a gradient of {residual:.1%} is left): were "
                "others used, sample weights given, or the fitting stopped early?"
            )
            why = "fitting these rows would give other weights"
        elif not decay and not _decided(inputs):
            why = "without a penalty, several weights fit these rows equally well (or there are too many to tell)"
    if decay is None or why:
        return Fit(None, (*notes, f"No retraining: {why}."))
    recipe = {"optimizer": "lbfgs", "weight_decay": decay, "epochs": 1000, "dtype": "float64"}
    return Fit(Recipe.checked(recipe), ())


def _penalty(model: Any, n_rows: int) -> tuple[float | None, str]:
    """Return the L2 per row on the weights, None if it has another penalty; and why no recipe says it, or ""."""
    if getattr(model, "positive", False):
        return None, "its weights were kept positive"
    decay = 0.0
    if type(model).__name__.startswith("Ridge"):
        alpha = np.unique(getattr(model, "alpha_", model.alpha if hasattr(model, "alpha") else 0.0))
        if len(alpha) > 1:
            return None, "alpha differs by output"
        decay = 2 * float(alpha[0]) / n_rows
    elif type(model).__name__.startswith("Logistic"):
        strength, l1 = _strength(model)
        if l1 or strength is None:
            return None, "its L1 penalty is not part of a recipe" if l1 else "C differs by class"
        decay = 0.0 if np.isinf(strength) else 1 / (strength * n_rows)
    liblinear = getattr(model, "solver", None) == "liblinear" and getattr(model, "intercept_scaling", 0) == 1
    spared = decay > 0 and model.fit_intercept and not liblinear
    why = "scikit-learn's L2 spares the intercept, a recipe's takes every parameter"
    return decay, f"{why}; in influence functions, a damping of {decay:.3g} stands for it" if spared else ""


def _strength(model: Any) -> tuple[float | None, bool]:
    """Return C of a logistic regression, infinite for no penalty, None for several; and whether there is an L1 part."""
    penalty = getattr(model, "penalty", "deprecated")
    ratio = np.unique(getattr(model, "l1_ratio_", getattr(model, "l1_ratio", 0) or 0)).tolist()
    l1 = penalty == "l1" or (penalty in ("elasticnet", "deprecated") and any(ratio))
    strength = np.unique(np.asarray(getattr(model, "C_", getattr(model, "C", 1.0)), dtype=np.float64))
    if penalty is None:
        return np.inf, False
    return (float(strength[0]) if len(strength) == 1 else None), l1


def _decided(inputs: np.ndarray) -> bool:
    """Return whether the rows decide every weight and the intercept: no column is a sum of others."""
    if inputs.size > _RANKED or len(inputs) <= inputs.shape[1]:
        return False
    centred = inputs - inputs.mean(0, dtype=np.float64)
    scale = centred.std(0)
    return bool((scale > 0).all()) and int(np.linalg.matrix_rank(centred / scale, rtol=1e-5)) == inputs.shape[1]


def _residual(model: Any, decay: float, inputs: np.ndarray, targets: np.ndarray) -> float:
    """Return how much gradient is left at the weights: 0 at the minimum, relative to the rows' own gradients."""
    weights = np.atleast_2d(model.coef_).astype(np.float64)
    left, pull = decay * weights, np.zeros_like(weights)
    for start in range(0, len(inputs), _AT_ONCE):
        x = inputs[start : start + _AT_ONCE].astype(np.float64)
        errors = _errors(model, x @ weights.T + model.intercept_, targets[start : start + _AT_ONCE])
        left += errors.T @ x / len(inputs)
        pull += np.abs(errors).T @ np.abs(x) / len(inputs)
    # As length by length over all weights: one feature without any pull must not decide.
    return float(np.linalg.norm(left) / max(np.linalg.norm(pull), np.finfo(np.float64).tiny))


def _errors(model: Any, f: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the gradients of the losses in the outputs ``[n, C]``."""
    if not hasattr(model, "classes_"):
        return 2 * (f - targets[:, None])
    if f.shape[1] == 1:
        return 1 / (1 + np.exp(-np.clip(f, -700, 700))) - targets[:, None]
    p = np.exp(f - f.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True) - np.eye(f.shape[1])[targets]
