"""Scikit-learn models as studies: the same predictions, exact influences, honest recipes, hostile files refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC

from influence_core import Study, architectures, attribute
from influence_core.adapters import sklearn_rows
from influence_core.adapters.sklearn_study import study_from_sklearn
from influence_core.errors import BadInput
from influence_core.primitives.training import new_model, training
from tests.adapters.sklearn_case import MLP, N_TEST, N_TRAIN, WIDTH, fitted, made, probabilities, rows

CLASSIFIERS: dict[str, tuple[Callable[[], Any], int]] = {
    "binary": (lambda: LogisticRegression(), 2),
    "binary, no intercept": (lambda: LogisticRegression(fit_intercept=False), 2),
    "multinomial": (lambda: LogisticRegression(C=3.0), 3),
    "cv": (lambda: LogisticRegressionCV(l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy"), 3),
    "liblinear": (lambda: LogisticRegression(solver="liblinear"), 2),
    "sgd": (lambda: SGDClassifier(loss="log_loss", random_state=0), 2),
    "scaled": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), 3),
    "nested": (lambda: make_pipeline(PolynomialFeatures(2), make_pipeline(StandardScaler(), LogisticRegression())), 2),
    "mlp": (lambda: MLPClassifier((7, 5), activation="tanh", **MLP), 3),
    "mlp, two classes": (lambda: MLPClassifier((6,), activation="logistic", **MLP), 2),
    "mlp, relu": (lambda: MLPClassifier((6,), **MLP), 3),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_probabilities_are_those_of_the_estimator(tmp_path: Path, name: str) -> None:
    make, n_classes = CLASSIFIERS[name]
    model = fitted(make(), n_classes)
    study = made(tmp_path, model, n_classes)
    (_, _), (x, y) = rows(n_classes)
    np.testing.assert_allclose(probabilities(study), model.predict_proba(x), atol=1e-6)
    predicted = study.task.predicted("test", torch.arange(N_TEST)).numpy()
    np.testing.assert_array_equal(predicted, model.predict(x))
    np.testing.assert_array_equal(study.targets("test"), y)
    assert study.header.classes == tuple(str(c) for c in range(n_classes))


REGRESSIONS: dict[str, Callable[[], Any]] = {
    "least squares": LinearRegression, "ridge": lambda: Ridge(2.0), "ridge cv": RidgeCV,
    "sgd": lambda: SGDRegressor(random_state=0),
    "mlp": lambda: MLPRegressor(hidden_layer_sizes=(5,), activation="identity", **MLP),
    "mlp, two layers": lambda: MLPRegressor(hidden_layer_sizes=(6, 3), activation="tanh", **MLP),
}  # fmt: skip


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_predicts_what_the_estimator_does(tmp_path: Path, name: str) -> None:
    model = fitted(REGRESSIONS[name](), 0)
    study = made(tmp_path, model, 0)
    (_, _), (x, y) = rows(0)
    np.testing.assert_allclose(study.task.outputs_of("test").numpy().ravel(), model.predict(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(study.targets("test"), y, rtol=1e-6)
    assert study.header.task == "regression" and study.header.classes == ()


def test_exact_influence_of_a_logistic_regression(tmp_path: Path) -> None:
    (x, y), (xt, yt) = rows()
    model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y)
    study = made(tmp_path, model)
    found = attribute(study, "if_exact", test=list(range(N_TEST)), config={"damping": 0.0}).scores.numpy()

    def chance(rows: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-rows @ model.coef_[0]))

    p = chance(x)
    hessian = (x * (p * (1 - p))[:, None]).T @ x / N_TRAIN + np.eye(WIDTH) / (0.5 * N_TRAIN)
    train, test = (p - y)[:, None] * x, (chance(xt) - yt)[:, None] * xt
    expected = test @ np.linalg.solve(hessian, train.T) / N_TRAIN
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_the_damping_of_the_note_stands_for_a_penalty_that_spares_the_intercept(tmp_path: Path) -> None:
    (x, y), (xt, yt) = rows()
    make = LogisticRegression(C=0.2, tol=1e-10, max_iter=1000)
    study = made(tmp_path, make.fit(x, y))
    said = next(note for note in study.header.notes if "damping" in note)
    damping = float(re.search(r"damping of ([\d.e-]+)", said)[1])  # type: ignore[index]
    assert damping == pytest.approx(1 / (0.2 * N_TRAIN), rel=1e-2)
    found = attribute(study, "if_exact", test=list(range(N_TEST)), config={"damping": damping}).scores.numpy()

    def losses(model: LogisticRegression) -> np.ndarray:
        return -np.log(model.predict_proba(xt)[np.arange(N_TEST), yt])

    own = losses(make)
    left_out = []
    for i in range(15):
        # A row left out leaves the weight of the others, and of the penalty, unchanged.
        rest = LogisticRegression(C=0.2, tol=1e-10, max_iter=1000).fit(np.delete(x, i, 0), np.delete(y, i))
        left_out.append(losses(rest) - own)
    assert np.corrcoef(found[:, :15].ravel(), np.stack(left_out, 1).ravel())[0, 1] > 0.99


EXACT: dict[str, tuple[Callable[[], Any], int]] = {
    "no intercept": (lambda: LogisticRegression(C=0.7, fit_intercept=False, tol=1e-9, max_iter=2000), 2),
    "no intercept, three classes": (lambda: LogisticRegression(C=2, fit_intercept=False, tol=1e-9, max_iter=2000), 3),
    "no penalty": (lambda: LogisticRegression(C=np.inf, tol=1e-9, max_iter=2000), 2),
    "liblinear": (lambda: LogisticRegression(C=0.3, solver="liblinear", tol=1e-9, max_iter=2000), 2),
    "least squares": (LinearRegression, 0),
    "ridge": (lambda: Ridge(5.0, fit_intercept=False), 0),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_recipe_leads_to_the_same_weights(tmp_path: Path, name: str) -> None:
    make, n_classes = EXACT[name]
    study = made(tmp_path, fitted(make(), n_classes), n_classes)
    task = study.task
    assert task.recipe is not None and task.factory is not None
    again = new_model(task.factory, task.recipe)
    for _ in training(again, task.split("train"), task.loss, task.recipe):
        pass
    for key, weights in task.state().items():
        torch.testing.assert_close(again.state_dict()[key].float(), weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "n_classes", "said"),
    [
        (LogisticRegression(), 2, "spares the intercept"),
        (Ridge(), 0, "spares the intercept"),
        (LogisticRegression(C=1, l1_ratio=1, solver="saga", max_iter=5000), 2, "L1 penalty"),
        (LinearRegression(positive=True), 0, "positive"),
        (MLPClassifier((4,), **MLP), 2, "cannot be repeated"),
        (make_pipeline(PolynomialFeatures(1), LinearRegression()), 0, "equally well"),
    ],
)
def test_no_recipe_where_none_is_exact(tmp_path: Path, model: Any, n_classes: int, said: str) -> None:
    study = made(tmp_path, fitted(model, n_classes), n_classes)
    assert study.header.recipe is None
    assert any("No retraining" in note and said in note for note in study.header.notes), study.header.notes


def test_weights_of_other_rows_are_noticed(tmp_path: Path) -> None:
    (x, y), _ = rows()
    model = LogisticRegression(C=np.inf).fit(x, y, sample_weight=np.where(np.arange(len(x)) < 30, 5.0, 1.0))
    study = made(tmp_path, model)
    assert study.header.recipe is None
    assert any("not where fitting these train rows ends" in note for note in study.header.notes)


def test_an_unfitted_model_is_copied_and_fitted(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=3))
    study = made(tmp_path, model, 3)
    assert not hasattr(model[-1], "coefs_") and model[-1].random_state is None
    assert any("Fitted on the train rows" in note for note in study.header.notes)
    assert any("before it converged" in note for note in study.header.notes)
    (x, y), (xt, _) = rows(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        own = make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=3, random_state=0)).fit(x, y)
    np.testing.assert_allclose(probabilities(study), own.predict_proba(xt), atol=1e-6)


def people(n: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "age": random.integers(18, 80, n).astype(float), "id": random.integers(0, 9, n),
        "town": pd.Categorical(random.choice(["Ulm", "Köln", "<b>"], n)), "mixed": [1, "a", None, 2.5] * (n // 4),
    })  # fmt: skip
    frame.loc[::7, "age"] = np.nan
    return frame, np.where(frame["id"] + random.normal(size=n) > 4, "yes", "no")


def test_a_data_frame_through_a_column_transformer(tmp_path: Path) -> None:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "id"]), (OneHotEncoder(), ["town"])
    )
    (x, y), (xt, yt) = people(80), people(20, 1)
    model = make_pipeline(columns, LogisticRegression()).fit(x, y)
    study = study_from_sklearn(
        "people", model, train=(x, y), test=(xt, yt), locked=(xt, yt), train_ids=[f"p{i}" for i in range(80)],
        class_names=["stays", "leaves"], out=tmp_path / "people",
    )  # fmt: skip
    np.testing.assert_allclose(probabilities(study), model.predict_proba(xt), atol=1e-6)
    shown = study.rows("test", [0, 1, 2])
    assert shown["town"].to_pylist() == xt["town"].tolist()[:3]
    assert shown["original id"].to_pylist() == xt["id"].tolist()[:3]
    assert shown["mixed"].to_pylist() == ["1", "a", None]
    assert shown["label"].to_pylist() == [{"no": "stays", "yes": "leaves"}[str(label)] for label in yt[:3]]
    assert study.splits == ("train", "test", "locked") and study.task.ids("train")[3] == "p3"
    found = attribute(study, "if_exact", test=[0])
    assert found.scores.shape == (1, 80) and bool(found.scores.isfinite().all())


WORDS = ["good film", "bad film", "a good day", "such a bad day", "very good", "very very bad"] * 5


def test_texts_through_tf_idf(tmp_path: Path) -> None:
    labels = ["good" in words for words in WORDS]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(WORDS, labels)
    study = study_from_sklearn(
        "films", model, train=(WORDS, labels), test=(WORDS[:6], labels[:6]), out=tmp_path / "films"
    )
    np.testing.assert_allclose(probabilities(study), model.predict_proba(WORDS[:6]), atol=1e-6)
    assert study.rows("test", [1])["text"].to_pylist() == ["bad film"]
    assert study.header.classes == ("False", "True")


def test_sparse_rows_are_made_dense_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), (xt, yt) = rows()
    model = LogisticRegression().fit(x, y)
    pairs = {"train": (sparse.csr_matrix(x), y), "test": (sparse.csr_matrix(xt), yt)}
    study = study_from_sklearn("sparse", model, **pairs, out=tmp_path / "sparse")
    np.testing.assert_allclose(probabilities(study), model.predict_proba(xt), atol=1e-6)
    monkeypatch.setattr(sklearn_rows, "DENSE_BYTES", 1000)
    with pytest.raises(BadInput, match="too large"):
        study_from_sklearn("large", model, **pairs, out=tmp_path / "large")
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (LogisticRegression(class_weight="balanced"), "class_weight"),
        (LinearSVC(), "hinge"),
        (SGDClassifier(), "hinge"),
        (RidgeClassifier(), "probabilities"),
        (Lasso(), "L1"),
        (SGDClassifier(loss="log_loss"), "one model per class"),
        (SGDRegressor(loss="huber"), "squared error"),
        (LogisticRegression, "class LogisticRegression"),
        ("a.skops", "does not exist"),
        (Pipeline([("scale", StandardScaler()), ("end", "passthrough")]), "last step"),
        (StandardScaler(), "not among"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=said):
        made(tmp_path, model, 3)
    assert not (tmp_path / "mine").exists()


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    (x, y), _ = rows(0)
    both = np.stack([y, -y], 1)
    several = np.stack([y > 0, y < 1], 1).astype(int)
    network = fitted(MLPClassifier((3,), **MLP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels, numbers = network.fit(x, several), MLPRegressor(hidden_layer_sizes=(3,), **MLP).fit(x, both)
    for model in (Ridge().fit(x, both), numbers, labels):
        with pytest.raises(BadInput, match="several"):
            made(tmp_path, model, 0)


def test_rows_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (x, y), (xt, yt) = rows()
    model = LogisticRegression().fit(x, y)
    holed = xt.copy()
    holed[2, 1] = np.nan
    cases = {
        "Row 3 has a missing": (holed, yt), "29 labels": (xt, yt[:-1]), "the model takes 4": (xt[:, :3], yt),
        "no class of the model": (xt, np.where(np.arange(N_TEST) == 4, 9, yt)), "pair": xt,
        "rows are a Table": (pa.table({"x": xt[:, 0]}), yt), "not numbers": (np.full((N_TEST, WIDTH), "a"), yt),
    }  # fmt: skip
    for said, test in cases.items():
        with pytest.raises(BadInput) as caught:
            study_from_sklearn("mine", model, train=(x, y), test=test, out=tmp_path / "mine")
        assert said in str(caught.value), (said, str(caught.value))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(BadInput, match="sine"):
        architectures.model_factory("mlp", {"n_inputs": 2, "n_classes": 2, "activation": "sine"})


def test_the_study_is_marked_as_compared(tmp_path: Path) -> None:
    made(tmp_path, fitted(LogisticRegression()))
    assert "[parity]" in (tmp_path / "mine" / "study.toml").read_text(encoding="utf-8")
    assert not any("sample weight" in note for note in Study.open(tmp_path / "mine").header.notes)
