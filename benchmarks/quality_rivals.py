"""The usual models of scikit-learn, each in its usual encoding, and what a score is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LINEAR, BOOSTING, NETWORK = "logistic / ridge", "boosting", "mlp"
RIVALS = (LINEAR, BOOSTING, NETWORK)


@dataclass(frozen=True)
class Rows:
    """Rows as a rival takes them.

    Attributes:
        inputs: Raw columns.
        targets: Class indices or numbers ``[n]``.
        n_classes: 0 for a regression.
    """

    inputs: pd.DataFrame
    targets: np.ndarray
    n_classes: int


@dataclass(frozen=True)
class Scores:
    """Accuracy and log-loss, or R2 and mean squared error."""

    score: float
    loss: float

    @staticmethod
    def mean(several: Sequence[Scores]) -> Scores:
        """Return the mean of each."""
        return Scores(float(np.mean([one.score for one in several])), float(np.mean([one.loss for one in several])))


def scored(answers: np.ndarray, rows: Rows) -> Scores:
    """Score answers: probabilities ``[n, C]``, or numbers ``[n]``."""
    if rows.n_classes:
        right = np.clip(answers[np.arange(len(answers)), rows.targets], 1e-15, 1)
        return Scores(float((answers.argmax(1) == rows.targets).mean()), float(-np.log(right).mean()))
    error = float(np.square(answers - rows.targets).mean())
    return Scores(1 - error / float(np.var(rows.targets)), error)


def rival_scores(name: str, train: Rows, rest: Rows, seed: int, *, text: bool) -> Scores:
    """Fit a rival on the train rows and score it on the rest."""
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(*_encoding(name, train, text), _model(name, bool(train.n_classes), seed))
    fitted_on, asked = (rows.inputs.iloc[:, 0] if text else rows.inputs for rows in (train, rest))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network stops after its 500 passes, as its users let it
        model.fit(fitted_on, train.targets)
        if not train.n_classes:
            return scored(np.asarray(model.predict(asked)), rest)
        found = np.asarray(model.predict_proba(asked))
    answers = np.zeros((len(found), train.n_classes))
    answers[:, np.asarray(model.classes_, dtype=np.int64)] = found
    return scored(answers, rest)


def _model(name: str, classes: bool, seed: int) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    if name == LINEAR:
        return LogisticRegression(max_iter=2000) if classes else Ridge()
    if name == BOOSTING:
        return (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=seed)
    if classes:
        return MLPClassifier(hidden_layer_sizes=(32,), max_iter=500, random_state=seed)
    # Labels of mean 0 and spread 1, as its users do: a network of these widths does not get to large numbers.
    network = MLPRegressor(hidden_layer_sizes=(32,), max_iter=500, random_state=seed)
    return TransformedTargetRegressor(network, transformer=StandardScaler())


def _encoding(name: str, train: Rows, text: bool) -> list[Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    if text:
        dense = [] if name == LINEAR else [TruncatedSVD(100, random_state=0)]
        return [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), *dense]
    numbers = list(train.inputs.select_dtypes(["number", "bool"]).columns)
    words = [column for column in train.inputs.columns if column not in numbers]
    if name == BOOSTING:
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        return [ColumnTransformer([("numbers", "passthrough", numbers), ("words", codes, words)])]
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return [ColumnTransformer([("numbers", scaled, numbers), ("words", OneHotEncoder(handle_unknown="ignore"), words)])]
