"""A regression in the service, against the study's own files and plain formulas."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import mean_absolute_error, r2_score

from influence_core import Run, Study, fitting, registry, service
from influence_core.figures import figure
from influence_core.service import BadInput, ExplainRequest, Explanation, InfluenceError, PredictionFilter, regression

NAMES = ("diabetes", "heights")


def table_of(path: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(path / f"{split}.parquet")


def inputs_of(path: Path, split: str) -> np.ndarray:
    """The inputs, encoded by hand."""
    encoder = json.loads((path / "encoder.json").read_text())
    values = table_of(path, split)[encoder["columns"]].to_numpy(float)
    return (values - np.array(encoder["mean"])) / np.array(encoder["std"])


def said_by(path: Path, split: str) -> np.ndarray:
    """The predicted numbers, from the last checkpoint's file by matrix products."""
    weights = load_file(sorted((path / "checkpoints").iterdir())[-1])
    values = inputs_of(path, split)
    names = sorted(name for name in weights if name.endswith("weight"))
    for name in names:
        values = values @ weights[name].T.astype(float) + weights[name.replace("weight", "bias")]
        values = values if name == names[-1] else np.maximum(values, 0)
    return values[:, 0]


def frame_of(path: Path, split: str) -> pd.DataFrame:
    rows = table_of(path, split)[["id", "label"]].rename(columns={"label": "given"})
    return rows.assign(predicted=said_by(path, split), error=said_by(path, split) - rows["given"])


def fitted(path: Path, method: str) -> None:
    study = Study(path)
    fitting.fit(study.task, registry.made(method), Run(store=study.store))


def ids_of(rows: tuple) -> list:
    return [row.row_id for row in rows]


def by_error(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[np.argsort(-rows["error"].abs().to_numpy(), kind="stable")]


# -- overview ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_are_those_of_the_files(name: str, more_studies: Path) -> None:
    shown = service.overview(name)
    found = shown.regression
    assert found is not None
    splits = [split for split in ("train", "test", "locked") if (more_studies / name / f"{split}.parquet").exists()]
    assert list(found.r2) == list(found.mae) == splits and ("locked" in splits) == (name == "diabetes")
    for split in splits:
        rows = frame_of(more_studies / name, split)
        r2, mae = found.r2[split], found.mae[split]
        assert r2.value == pytest.approx(r2_score(rows["given"], rows["predicted"]), abs=1e-5)
        assert mae.value == pytest.approx(mean_absolute_error(rows["given"], rows["predicted"]), rel=1e-5)
        assert r2.n == mae.n == len(rows) and r2.low < r2.value < r2.high and mae.low < mae.value < mae.high
        draws = np.random.default_rng(0).integers(0, len(rows), (1000, len(rows)))
        size = rows["error"].abs().to_numpy()
        expected = np.percentile([size[draw].mean() for draw in draws], (2.5, 97.5))
        np.testing.assert_allclose((mae.low, mae.high), expected, rtol=1e-5)
    assert shown.study.task == "regression" and shown.study.n_classes == 0
    assert shown.classes == () and shown.class_counts == shown.accuracy == {} and shown.confusion.size == 0
    assert shown.confidently_wrong == () and shown.n_wrong == 0 and shown.planted_share is None
    assert shown.notes == (("2 rows without a label were left out.",) if name == "diabetes" else ())


def test_the_model_is_told_in_words(more_studies: Path) -> None:
    assert service.overview("diabetes").model == "linear regression"
    assert service.overview("heights").model == "multi-layer perceptron, trained by sgd for 8 epochs"


@pytest.mark.parametrize("name", NAMES)
def test_residuals_and_points_are_those_of_the_files(name: str, more_studies: Path) -> None:
    found, rows = service.overview(name).regression, frame_of(more_studies / name, "test")
    assert found is not None
    assert found.counts.sum() == len(rows)
    np.testing.assert_allclose(found.edges[[0, -1]], (rows["error"].min(), rows["error"].max()), rtol=1e-5)
    np.testing.assert_allclose(np.diff(found.edges), np.ptp(rows["error"]) / len(found.counts), rtol=1e-4)
    for edge, below in zip(found.edges[1:-1], np.cumsum(found.counts), strict=False):
        if np.abs(rows["error"] - edge).min() > 1e-4:  # not decided by rounding
            assert (rows["error"] < edge).sum() == below
    assert list(found.ids) == rows["id"].tolist()
    np.testing.assert_allclose(found.given, rows["given"], rtol=1e-6)
    np.testing.assert_allclose(found.predicted, rows["predicted"], rtol=1e-5, atol=1e-5)
    assert ids_of(found.largest_errors) == by_error(rows)["id"].tolist()[:8]


def test_of_many_rows_a_fixed_sample_is_drawn(more_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "_POINTS", 12)
    held = service.catalog.opened("diabetes")
    found, again = regression._figures(held), regression._figures(held)
    rows = frame_of(more_studies / "diabetes", "test").set_index("id")
    assert len(set(found.ids)) == 12 == len(found.given) and found.ids == again.ids
    np.testing.assert_allclose(found.given, rows.loc[list(found.ids), "given"], rtol=1e-6)
    np.testing.assert_allclose(found.predicted, rows.loc[list(found.ids), "predicted"], rtol=1e-5)
    assert found.counts.sum() == 40  # the histogram is of all


@pytest.mark.parametrize("residuals", [[2.5] * 4, [1e6, np.nextafter(1e6, 2e6)], [0.0], [-1.0, 3.0]])
def test_the_histogram_survives_any_residuals(residuals: list[float]) -> None:
    counts, edges = regression._histogram(np.array(residuals))
    assert counts.sum() == len(residuals) and len(edges) == len(counts) + 1
    assert edges[0] <= min(residuals) and edges[-1] >= max(residuals) and (np.diff(edges) > 0).all()


# -- predictions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_listed_by_error(name: str, more_studies: Path) -> None:
    rows = by_error(frame_of(more_studies / name, "test"))
    for order in ("confidence", "error"):
        found = service.predictions(name, PredictionFilter(order=order))
        assert ids_of(found.rows) == rows["id"].tolist() and found.total == len(rows)
    for datum, (_, row) in zip(found.rows, rows.iterrows(), strict=True):
        assert datum.error == pytest.approx(row["error"], rel=1e-4, abs=1e-5) and datum.confidence == 0.0
        assert float(datum.given.replace("−", "-")) == pytest.approx(row["given"], rel=1e-3, abs=1e-6)
        assert float(datum.predicted.replace("−", "-")) == pytest.approx(row["predicted"], rel=1e-3, abs=1e-4)
        assert datum.given in datum.alt and (datum.truth, datum.planted) == (None, None)
    tenth = service.predictions(name, PredictionFilter(status="largest-errors"))
    assert ids_of(tenth.rows) == rows["id"].tolist()[: {"diabetes": 4, "heights": 3}[name]]
    in_order = service.predictions(name, PredictionFilter(order="id", limit=5))
    assert ids_of(in_order.rows) == frame_of(more_studies / name, "test")["id"].tolist()[:5]
    mixed = [service.predictions(name, PredictionFilter(order="random", seed=seed)).rows for seed in (1, 1, 2)]
    assert ids_of(mixed[0]) == ids_of(mixed[1]) != ids_of(mixed[2]) and len(mixed[0]) == len(rows)


def test_numbers_are_searched_as_they_are_typed(more_studies: Path) -> None:
    rows = service.predictions("heights", PredictionFilter(order="id")).rows
    negative = next(datum for datum in rows if datum.given.startswith("−"))
    for text in (negative.given, negative.given.replace("−", "-")):
        assert negative.row_id in ids_of(service.predictions("heights", PredictionFilter(text=text)).rows)
    assert ids_of(service.predictions("heights", PredictionFilter(text="H60")).rows) == ["h60"]


@pytest.mark.parametrize(
    "change", [{"status": "wrong"}, {"status": "right"}, {"given": "3"}, {"predicted": "3"}, {"order": "up"}]
)
def test_what_only_classes_have_is_refused(change: dict, more_studies: Path) -> None:
    with pytest.raises(BadInput) as caught:
        service.predictions("diabetes", replace(PredictionFilter(), **change))
    assert str(next(iter(change.values()))) in caught.value.why and caught.value.fix


@pytest.mark.parametrize("status", ["largest-errors"])
def test_what_only_numbers_have_is_refused_elsewhere(status: str, studies: Path) -> None:
    with pytest.raises(BadInput, match="status is 'largest-errors'"):
        service.predictions("table", PredictionFilter(status=status))
    with pytest.raises(BadInput, match="order is 'error'"):
        service.predictions("table", PredictionFilter(order="error"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (-0.0, "0"), (152.0, "152"), (152.34, "152.3"), (-3.40846, "−3.408"), (2015.0, "2015"),
        (1999.6, "2000"), (9999.7, "10,000"), (208500.4, "208,500"), (-1234567.0, "−1,234,567"), (0.1234567, "0.1235"),
        (0.00012345, "0.0001234"), (1e-5, "1.000e-05"), (-2.5e13, "−2.500e+13"), (100.0, "100"), (1.5, "1.5"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(value: float, shown: str) -> None:
    assert figure(value) == shown


# -- questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["predicted", "true"])
def test_gradient_products_of_a_linear_model_by_formula(target: str, more_studies: Path) -> None:
    path = more_studies / "diabetes"
    fitted(path, "grad_dot")
    train, test = frame_of(path, "train"), frame_of(path, "test")
    row = 5
    answer = service.explain("diabetes", ExplainRequest((test["id"][row],), "grad_dot", target=target, k=4))
    assert isinstance(answer, Explanation)
    # The gradient of (f - y)^2 is 2 (f - y) (x, 1).
    products = inputs_of(path, "train") @ inputs_of(path, "test")[row] + 1
    scores = 4 * train["error"].to_numpy() * test["error"][row] * products
    for side, order in ((answer.proponents, np.argsort(-scores)), (answer.opponents, np.argsort(scores))):
        assert ids_of(tuple(ranked.datum for ranked in side)) == train["id"].iloc[order[:4]].tolist()
        np.testing.assert_allclose([ranked.score for ranked in side], scores[order[:4]], rtol=1e-3)
    assert answer.measured == "minus the squared error" and answer.n_train == 90
    assert answer.query.probabilities == () and answer.query.title == f"Test row {test['id'][row]}"


def test_a_set_of_rows_is_their_mean(more_studies: Path) -> None:
    path = more_studies / "diabetes"
    fitted(path, "grad_dot")
    test = frame_of(path, "test")
    request = ExplainRequest(tuple(test["id"][:3]), "grad_dot", reduce="mean", k=3)
    answer = service.explain("diabetes", request)
    assert isinstance(answer, Explanation)
    products = inputs_of(path, "test")[:3] @ inputs_of(path, "train").T + 1
    scores = (4 * test["error"].to_numpy()[:3, None] * frame_of(path, "train")["error"].to_numpy() * products).mean(0)
    np.testing.assert_allclose([ranked.score for ranked in answer.proponents], -np.sort(-scores)[:3], rtol=1e-3)
    assert answer.query.title == "3 test rows" and answer.query.n_rows == 3
    assert answer.measured == "minus the squared error, the mean over these rows"


def test_a_class_or_another_measurement_is_refused(more_studies: Path) -> None:
    row = int(frame_of(more_studies / "diabetes", "test")["id"][0])
    for change in ({"target": "bee"}, {"measurement": "margin"}):
        with pytest.raises(InfluenceError) as caught:
            service.explain("diabetes", replace(ExplainRequest((row,), "grad_dot"), **change))
        assert caught.value.what and caught.value.fix


def test_methods_offer_what_numbers_have(more_studies: Path) -> None:
    views = {view.id: view for view in service.methods("heights")}
    for view in views.values():
        assert view.measurements in ((), ("loss",)) and bool(view.reason) == (not view.available)
    assert not views["knn_shapley"].available and "class labels" in views["knn_shapley"].reason
    assert views[service.default_method("heights")[0]].available


def test_exported_numbers_are_numbers(more_studies: Path) -> None:
    path = more_studies / "heights"
    fitted(path, "grad_cos")
    row = frame_of(path, "test")["id"][2]
    content = service.export_scores("heights", ExplainRequest((row,), "grad_cos"), "parquet")
    found, train = pd.read_parquet(io.BytesIO(content)), frame_of(path, "train").set_index("id")
    assert len(found) == 50 and set(found["target"]) == {"true"} and set(found["measurement"]) == {"loss"}
    np.testing.assert_allclose(found["label"], train.loc[found["train_id"], "given"], rtol=1e-6)
    np.testing.assert_allclose(found["predicted"], train.loc[found["train_id"], "predicted"], rtol=1e-4, atol=1e-5)


# -- rows and inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_told_by_its_squared_error(name: str, more_studies: Path) -> None:
    rows = frame_of(more_studies / name, "train")
    for position in (0, 7):
        card = service.row_card(name, "train", str(rows["id"][position]), "grad_cos")
        assert card.loss == pytest.approx(rows["error"][position] ** 2, rel=1e-3)
        assert card.loss_rank == (rows["error"].abs() > abs(rows["error"][position])).sum() + 1
        assert card.probabilities == () and len(card.neighbours) == 6


def test_the_test_rows_that_a_row_moves_are_looked_at_from_the_worst_on(more_studies: Path) -> None:
    path = more_studies / "diabetes"
    fitted(path, "grad_dot")
    train, test = frame_of(path, "train"), frame_of(path, "test")
    card = service.row_card("diabetes", "train", int(train["id"][3]), "grad_dot")
    products = inputs_of(path, "test") @ inputs_of(path, "train")[3] + 1
    scores = 4 * train["error"][3] * test["error"].to_numpy() * products
    order = np.argsort(-scores)[:6]
    assert ids_of(tuple(ranked.datum for ranked in card.helps)) == test["id"].iloc[order].tolist()
    np.testing.assert_allclose([ranked.score for ranked in card.helps], scores[order], rtol=1e-3)
    assert card.affected_note == "Among 40 test rows, largest errors first, on loss at the given number."


@pytest.mark.parametrize("target", ["predicted", "true"])
def test_contributions_to_a_number_are_weight_times_input(target: str, more_studies: Path) -> None:
    path = more_studies / "diabetes"
    weights = load_file(next((path / "checkpoints").iterdir()))
    (matrix,) = (value for name, value in weights.items() if name.endswith("weight"))
    columns = json.loads((path / "encoder.json").read_text())["columns"]
    shown = service.input_attribution("diabetes", "test", int(table_of(path, "test")["id"][4]), target)
    expected = dict(zip(columns, matrix[0] * inputs_of(path, "test")[4], strict=True))
    assert len(shown.parts) == 8
    for column, value in shown.parts:
        assert value == pytest.approx(expected[column], rel=1e-3, abs=1e-3)
    assert "moves the predicted number, against an average row" in shown.note
