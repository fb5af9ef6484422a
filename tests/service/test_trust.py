"""Trust through the service: measured by the command that the job runs, read back without work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from influence_core import service
from influence_core.api import evaluate
from influence_core.errors import BadInput
from influence_core.service.opened import opened
from influence_core.service.trust import in_titles, known_of


def test_what_was_measured_is_shown_with_titles(own_studies: Path) -> None:
    before = service.trust("linear")
    assert before.lines == () and before.advice == "" and before.may_measure and before.agreement is None
    assert {one.method for one in before.candidates} >= {"grad_dot", "if_ggn"}
    assert [one.seconds for one in before.candidates] == sorted(one.seconds for one in before.candidates)
    cannot = dict(before.cannot)
    assert cannot and all(cannot.values()) and not set(cannot) & {one.title for one in before.candidates}
    gas = next(one for one in before.candidates if one.method == "gas")
    assert gas.unjudged["lds"].startswith("its scores are an order") and "agreement" not in gas.unjudged
    plan = service.measuring_plan("linear", ["grad_dot"], ["lds"], 10, 1)
    assert "10 models to train" in plan.words and "10 retrainings" in plan.prices["lds"] and plan.dear == ()
    assert {one.name for one in before.metrics if one.problem} == {"mislabel"} and "mislabel" not in plan.prices
    evaluate(opened("linear").study, ["grad_dot", "if_ggn", "gas"], ["lds", "agreement"],
             options={"subsets": 10, "seeds": 1, "rows": 8})  # fmt: skip
    page = service.trust("linear")
    assert {line.method for line in page.lines} == {"grad_dot", "if_ggn"}
    assert page.lines[0].value >= page.lines[1].value and page.lines[0].title in page.advice
    assert page.agreement is not None and page.agreement.titles == (*(line.title for line in page.lines), "GAS")
    assert page.agreement.numbers == (1, 2, 3)
    assert page.agreement.ranks.shape == page.agreement.shared.shape == (len(page.agreement.titles),) * 2
    assert page.agreement.top == 10 and (np.diag(page.agreement.shared) == 1).all()
    assert [title for title, _ in page.unmeasured] == ["GAS"] or page.unmeasured == ()
    assert service.fidelity("linear", "if_ggn").startswith("tracks retraining 0.")
    assert service.fidelity("linear", "tracin_cp") == ""


def test_a_measurement_is_a_job_that_equal_requests_share(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    one = service.start_measuring("linear", ["grad_dot", "if_ggn"], "a", ["lds"], 10, 1)
    two = service.start_measuring("linear", ["grad_dot", "if_ggn"], "b", ["lds"], 10, 1)
    assert one.id == two.id and service.trust("linear").job is not None
    with pytest.raises(BadInput, match="nothing to measure"):
        service.start_measuring("linear", [], "a")
    with pytest.raises(BadInput, match="Unknown method"):
        service.start_measuring("linear", ["no_such"], "a")
    with pytest.raises(BadInput, match="compares methods"):
        service.start_measuring("linear", ["grad_dot"], "a", ["agreement"])
    with pytest.raises(BadInput, match="cannot be measured here.*planted"):
        service.start_measuring("linear", ["grad_dot"], "a", ["mislabel"])


def test_a_cancelled_measurement_is_shown_and_goes_on(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    one = service.start_measuring("linear", ["grad_dot"], "a", ["lds"], 10, 1)
    assert service.cancel_job("linear", one.id, "a") == "cancelled"
    shown = service.trust("linear").job
    assert shown is not None and shown.state == "cancelled"
    again = service.resume_measuring("linear", one.id, "a")
    assert again.id != one.id and again.key == one.key and again.is_active
    assert service.trust("linear").job == again and service.removal("linear").job is None
    with pytest.raises(BadInput, match="no such job"):
        service.resume_measuring("linear", 999, "a")


def test_what_was_measured_is_read_once_until_it_changes(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    held = opened("linear")
    evaluate(held.study, ["grad_dot"], ["lds"], options={"subsets": 10, "seeds": 1, "rows": 8})
    sources, reads = sys.modules["influence_core.service.trust"], []
    real = sources.measured  # type: ignore[attr-defined]
    monkeypatch.setattr(sources, "measured", lambda study: reads.append(1) or real(study))

    for _ in range(3):
        assert service.fidelity("linear", "grad_dot").startswith("tracks retraining")
    assert len(reads) == 1 and known_of(held) is known_of(held)
    evaluate(held.study, ["if_ggn"], ["lds"], options={"subsets": 10, "seeds": 1, "rows": 8})
    assert service.fidelity("linear", "if_ggn").startswith("tracks retraining") and len(reads) == 2


def test_a_removal_is_a_job_about_one_prediction(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    page = service.removal("linear")
    assert page.datum is not None and page.lines == () and page.random is None and page.words == ""
    row = str(page.choices[1].row_id)
    assert service.removal("linear", row).datum == page.choices[1]
    assert "20 random removals" in service.removal_plan("linear", row, ["grad_dot"])
    one = service.start_removal("linear", row, ["grad_dot"], "a")
    assert service.start_removal("linear", row, ["grad_dot"], "b").id == one.id
    assert service.removal("linear").job == one and service.trust("linear").job is None
    evaluate(opened("linear").study, ["grad_dot"], ["removal"],
             options={"predictions": [page.choices[1].row_id], "draws": 3})  # fmt: skip
    known = service.removal("linear")  # the prediction with curves comes first
    assert known.datum == page.choices[1] and [line.title for line in known.lines] == ["Gradient dot product"]
    assert known.random is not None and known.random.draws == 3 and "of 3 random removals" in known.words
    with pytest.raises(BadInput, match="Unknown row id"):
        service.removal("linear", "nobody")
    with pytest.raises(BadInput, match="nothing to remove"):
        service.start_removal("linear", row, [], "a")


def test_other_metrics_have_a_table_of_their_own(own_studies: Path) -> None:
    evaluate(opened("linear").study, ["grad_dot", "if_ggn"], ["loo", "removal", "randomised"],
             options={"left_out": 5, "seeds": 1, "rows": 8, "flipped": 2})  # fmt: skip
    tables = {table.metric: table for table in service.trust("linear").tables}
    assert set(tables) == {"loo", "removal", "randomised"}
    assert "Random rows" in [title for title, _, _ in tables["removal"].rows]
    ranks = [figures[0][0] for _, figures, _ in tables["loo"].rows]
    assert ranks == sorted(ranks, reverse=True) and len(tables["loo"].columns) == 2
    flips = [figures[0][0] for _, figures, _ in tables["removal"].rows]
    assert flips == sorted(flips)


def test_ids_become_titles_and_other_words_stay() -> None:
    words = "On trak, trak_ensemble loses; tracking and a source-like word stay."
    said = in_titles(words, ["trak", "source", "trak_ensemble"])
    assert said == "On TRAK, TRAK (5 models) loses; tracking and a source-like word stay."
    assert in_titles("nothing", []) == "nothing"
