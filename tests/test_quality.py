"""The bar of model quality: what an import trains is about as good as scikit-learn's usual models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import OURS, cases, markdown, measured, missed
from benchmarks.quality_rivals import BOOSTING, LINEAR, NETWORK, Rows, Scores, rival_scores, scored

# Where the bar is known to be missed, beside which model; a bar that is met again must leave this list.
KNOWN: dict[str, set[str]] = {}
CASES = cases()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_imported_model_is_about_as_good_as_the_usual_ones(case) -> None:
    scores = measured(case)
    assert set(missed(scores)) == KNOWN.get(case.name, set()), markdown({case.name: scores})


def test_a_score_is_accuracy_and_log_loss_or_r2_and_squared_error() -> None:
    classes = Rows(pd.DataFrame(index=range(4)), np.array([0, 1, 1, 0]), 2)
    found = scored(np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.5, 0.5]]), classes)
    assert found.score == 0.75
    assert found.loss == pytest.approx(-np.log([0.9, 0.6, 0.2, 0.5]).mean())
    numbers = Rows(pd.DataFrame(index=range(2)), np.array([1.0, 3.0]), 0)
    assert scored(np.array([1.0, 2.0]), numbers) == Scores(0.5, 0.5)


def test_the_bar_is_missed_only_where_score_and_loss_both_are_worse() -> None:
    rivals = {LINEAR: Scores(0.90, 0.30), BOOSTING: Scores(0.93, 0.20), NETWORK: Scores(0.95, 0.29)}
    assert missed({OURS: Scores(0.90, 0.30), **rivals}) == [BOOSTING]
    table = markdown({"wine": {OURS: Scores(0.90, 0.30), **rivals}})
    assert "**missed** beside boosting" in table and "0.900 / 0.3" in table


def test_a_rival_learns_from_mixed_columns_and_scores_classes_it_never_saw() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=240), "w": random.choice(["a", "b"], 240)})
    frame.loc[::9, "x"] = np.nan
    targets = (frame["w"] == "a").to_numpy().astype(np.int64)
    train, rest = Rows(frame[:160], targets[:160], 3), Rows(frame[160:], targets[160:], 3)
    for name in (LINEAR, BOOSTING, NETWORK):
        assert rival_scores(name, train, rest, 0, text=False).score == 1.0, name
