"""Trust through the service: measured by the command that the job runs, read back without work."""

from __future__ import annotations

from pathlib import Path

import pytest

from influence_core import registry, service
from influence_core.api import evaluate
from influence_core.errors import BadInput
from influence_core.service.opened import opened
from influence_core.service.trust import _in_titles


def test_what_was_measured_is_shown_with_titles(own_studies: Path) -> None:
    before = service.trust("linear")
    assert before.lines == () and before.advice == "" and before.may_measure and not before.problem
    assert {one.method for one in before.candidates} >= {"grad_dot", "if_ggn"}
    assert [one.seconds for one in before.candidates] == sorted(one.seconds for one in before.candidates)
    impossible = dict(before.impossible)
    assert (
        impossible["GAS"].startswith("Its scores are an order")
        and "number per training row" in impossible["Training loss"]
    )
    assert len(impossible) + len(before.candidates) <= len(registry.entries())
    assert not set(impossible) & {one.title for one in before.candidates}
    assert {one.method for one in before.candidates if one.per_query} <= {
        name for name, entry in registry.entries().items() if entry.info.query == "solve"
    }
    assert "models" in service.measuring_plan("linear", ["grad_dot"], 10, 1)
    evaluate(opened("linear").study, ["grad_dot", "if_ggn", "gas"], ["lds", "agreement"],
             options={"subsets": 10, "seeds": 1, "rows": 8})  # fmt: skip
    page = service.trust("linear")
    assert {line.method for line in page.lines} == {"grad_dot", "if_ggn"}
    assert page.lines[0].value >= page.lines[1].value and page.lines[0].title in page.advice
    assert page.agreement.shape == (len(page.compared),) * 2
    assert [title for title, _ in page.unmeasured] == ["GAS"] or page.unmeasured == ()
    assert service.fidelity("linear", "if_ggn").startswith("tracks retraining 0.")
    assert service.fidelity("linear", "tracin_cp") == ""


def test_a_measurement_is_a_job_that_equal_requests_share(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    one = service.start_measuring("linear", ["grad_dot", "if_ggn"], "a", 10, 1)
    two = service.start_measuring("linear", ["grad_dot", "if_ggn"], "b", 10, 1)
    assert one.id == two.id and service.trust("linear").job is not None
    with pytest.raises(BadInput, match="nothing to measure"):
        service.start_measuring("linear", [], "a")
    with pytest.raises(BadInput, match="Unknown method"):
        service.start_measuring("linear", ["no_such"], "a")


def test_ids_become_titles_and_other_words_stay() -> None:
    words = "On trak, trak_ensemble loses; tracking and a source-like word stay."
    said = _in_titles(words, ["trak", "source", "trak_ensemble"])
    assert said == "On TRAK, TRAK (5 models) loses; tracking and a source-like word stay."
    assert _in_titles("nothing", []) == "nothing"
