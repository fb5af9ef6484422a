"""A regression for the tests of the screens: diabetes with a linear model, real rows, real gradient products."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from influence_core.errors import BadInput
from influence_core.service import views
from tests.screens.fake_service import FakeService

SIZES = {"train": 300, "test": 100, "locked": 42}


@dataclass(frozen=True)
class Numbers:
    """Inputs, given and predicted numbers by split."""

    inputs: dict[str, np.ndarray]
    given: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    columns: tuple[str, ...]

    def error(self, split: str) -> np.ndarray:
        return self.predicted[split] - self.given[split]


@cache
def numbers() -> Numbers:
    """Return the rows in a fixed random order, and what a ridge regression says of them."""
    source: Any = load_diabetes()
    order = np.random.default_rng(0).permutation(len(source.target))
    inputs, given, start = {}, {}, 0
    for split, n in SIZES.items():
        rows = order[start : start + n]
        inputs[split], given[split] = 20 * source.data[rows], source.target[rows]
        start += n
    model = Ridge(1.0).fit(inputs["train"], given["train"])
    predicted = {split: model.predict(x) for split, x in inputs.items()}
    return Numbers(inputs, given, predicted, tuple(source.feature_names))


@dataclass
class FakeNumbers(FakeService):
    """The fake service with one study, a regression, whose title and note are hostile."""

    names: tuple[str, ...] = ("prices",)
    requests: list[views.ExplainRequest] = field(default_factory=list)

    def studies(self) -> list[views.StudyCard]:
        """List the one study."""
        return [views.StudyCard("prices", "Prices <b>", "table", *SIZES.values(), n_classes=0, task="regression")]

    def _material(self, study: str) -> Any:
        if study not in self.names:
            raise BadInput(f"There is no study {study!r}", "Found: prices.", "Choose one of these.")
        return None

    def datum(self, m: Any, split: str, row_id: Any) -> views.Datum:
        """Return the card's record of one row."""
        all_rows = numbers()
        if not str(row_id).isdigit() or int(row_id) >= SIZES[split]:
            raise BadInput(f"There is no {split} row {row_id!r}", "It is too large.", "Pick one from the list.")
        i = int(row_id)
        given, predicted = all_rows.given[split][i], all_rows.predicted[split][i]
        cells = tuple((c, f"{v:.3g}") for c, v in zip(all_rows.columns, all_rows.inputs[split][i], strict=True))
        shown = f"{given:.0f}", f"{predicted:.1f}"
        alt = f"row {i}, labelled {shown[0]}"
        return views.Datum(
            split, i, "table", None, cells, None, *shown, 0.0, None, None, alt, error=float(predicted - given)
        )

    def overview(self, study: str) -> views.Overview:
        """Summarise the study."""
        self._material(study)
        worst = self.predictions(study, views.PredictionFilter()).rows[:8]
        rows = numbers()
        counts, edges = np.histogram(rows.error("test"), bins=20)
        r2 = {split: views.Interval(0.444, 0.213, 0.611, n) for split, n in SIZES.items()}
        mae = {split: views.Interval(42.1, 35.6, 49.2, n) for split, n in SIZES.items()}
        ids = tuple(range(SIZES["test"]))
        figures = views.RegressionFigures(
            r2, mae, counts, edges, ids, rows.given["test"], rows.predicted["test"], worst
        )
        return views.Overview(
            self.studies()[0], "For the tests.", "linear regression", 11, 1, (), {}, {}, np.zeros((0, 0), int), (), 0,
            None, "grad_cos", self.default_method(study)[1], figures, ("2 rows <i>without</i> a label were left out.",),
        )  # fmt: skip

    def predictions(self, study: str, query: views.PredictionFilter) -> views.PredictionList:
        """Filter and order the test rows; what only a classification has is refused, as the real service does."""
        if query.status not in ("all", "largest-errors") or query.given or query.predicted:
            raise BadInput("Unknown filter", f"{query}.", "Use all or largest-errors.")
        rows = [self.datum(None, "test", i) for i in range(SIZES["test"])]
        worst = sorted(rows, key=lambda d: -abs(d.error or 0.0))
        kept = worst[:10] if query.status == "largest-errors" else worst
        kept = [d for d in kept if query.text in f"{d.row_id} {d.given}"]
        if query.order == "id":
            kept.sort(key=lambda d: int(d.row_id))
        return views.PredictionList(tuple(kept[: query.limit]), len(kept))

    def methods(self, study: str) -> list[views.MethodView]:
        """List the methods with the one measurement of a regression; those of a vote need classes."""
        found = []
        for method in super().methods(study):
            voting = method.family == "neighbor"
            reason = "needs class labels: use it on a classification task" if voting else method.reason
            measured = () if voting else ("loss",)
            found.append(
                replace(method, measurements=measured, available=method.available and not voting, reason=reason)
            )
        return found

    def query(self, study: str, request: views.ExplainRequest) -> views.QueryView:
        """Return the explained row or set, without probabilities."""
        rows = tuple(self.datum(None, "test", i) for i in request.ids)
        title = f"Test row {rows[0].row_id}" if len(rows) == 1 else f"{len(rows)} test rows"
        return views.QueryView(title, rows[:6], len(rows), ())

    def input_attribution(self, study: str, split: str, row_id: Any, target: str) -> views.InputAttribution:
        """Return signed parts."""
        parts = tuple(zip(numbers().columns, numbers().inputs[split][int(row_id)].tolist(), strict=True))
        return views.InputAttribution("Integrated gradients", "Signed.", None, parts[:6], "Contributions")

    def _scores(self, m: Any, request: views.ExplainRequest) -> np.ndarray:
        if request.target != "true" or request.measurement != "loss":
            raise BadInput("There is no other label to explain", f"{request}.", "Use target='true'.")
        self.requests.append(request)
        rows = [int(i) for i in request.ids]
        x, t = numbers().inputs["train"], numbers().inputs["test"][rows]
        products = (t @ x.T) * np.outer(numbers().error("test")[rows], numbers().error("train"))
        norms = np.linalg.norm(x, axis=1) * np.abs(numbers().error("train"))
        own = np.linalg.norm(t, axis=1) * np.abs(numbers().error("test")[rows])
        return (products / norms / own[:, None]).mean(0)

    def explain(self, study: str, request: views.ExplainRequest) -> views.Explanation | views.FitNeeded:
        """Answer as the other studies do, on minus the squared error."""
        found = super().explain(study, request)
        return found if isinstance(found, views.FitNeeded) else replace(found, measured="minus the squared error")

    def row_card(self, study: str, split: str, row_id: Any, method: str) -> views.RowCard:
        """Return a row's own page, without probabilities."""
        d = self.datum(None, split, row_id)
        near = tuple(views.RankedRow(n + 1, 0.9 - 0.1 * n, self.datum(None, "train", n)) for n in range(6))
        return views.RowCard(d, (), 4197.0, 67, SIZES[split], near, method, "Gradient cosine", (), (), "Not fitted.")
