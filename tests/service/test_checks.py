"""Check it through the service: the rows on screen, the price, a job that the command runs, and what is shown again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from influence_core import service
from influence_core.commands.work import execute
from influence_core.errors import BadInput
from influence_core.service.jobs import Jobs
from influence_core.service.opened import opened

DROP = service.CheckRequest("drop", "proponents", seeds=2, draws=1)


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)


@pytest.fixture
def request_of(own_studies: Path) -> service.ExplainRequest:
    study = opened("table").study
    request = service.ExplainRequest((study.task.ids("test").tolist()[0],), "grad_cos", k=4)
    execute(study.path, ["fit", "--method", "grad_cos"], lambda *said: None, lambda: False)
    return request


def ended(study: str, job: service.JobView) -> None:
    """Run a job's command as the worker does, and mark it as done."""
    path = opened(study).study.path
    jobs = Jobs(path)
    (found,) = [one for one in jobs.list() if one.id == job.id]
    execute(path, list(found.argv), lambda *said: None, lambda: False)
    with jobs._open() as db:
        db.execute("UPDATE jobs SET state = 'done' WHERE id = ?", (job.id,))


def test_a_check_is_offered_made_by_its_job_and_shown_again(request_of: service.ExplainRequest) -> None:
    before = service.checks("table", request_of)
    shown = service.explain("table", request_of)
    assert isinstance(shown, service.Explanation)
    assert before.made == () and before.problem == "" and before.may_check and before.job is None
    assert before.classifies and not before.converged and len(shown.proponents) == 4
    assert service.check_offer("table", request_of, DROP).in_words.startswith("5 models to train, about ")
    job = service.start_check("table", request_of, DROP, "a")
    assert service.start_check("table", request_of, DROP, "b").id == job.id
    running = service.checks("table", request_of).job
    assert running is not None and running.id == job.id and "4 proponents dropped" in running.title
    ended("table", job)
    after = service.checks("table", request_of)
    (view,) = after.made
    assert after.job is None and view.title == "4 proponents by Gradient cosine dropped"
    assert view.actual.change.n == 2 == len(view.actual.each) and view.random.change.n == 1 and view.n_rows == 4
    assert view.headline.startswith("Without these 4 rows") and view.measured.startswith("the log-probability")
    assert view.foreseen[0].title == "Gradient cosine" and view.foreseen[0].change is None
    offer = service.check_offer("table", request_of, DROP)
    assert offer.known and "result is below" in offer.in_words
    other = replace(request_of, method="knn_shapley", measurement="loss", k=7)
    execute(opened("table").study.path, ["fit", "--method", "knn_shapley"], lambda *said: None, lambda: False)
    assert service.checks("table", other).made == after.made  # of the prediction, whatever explains it now


def test_rows_are_those_on_screen(request_of: service.ExplainRequest) -> None:
    shown = service.explain("table", request_of)
    assert isinstance(shown, service.Explanation)
    service.start_check("table", request_of, replace(DROP, side="opponents"), "a")
    argv = Jobs(opened("table").study.path).list()[0].argv
    named = [argv[i + 1] for i, word in enumerate(argv) if word == "--row"]
    assert named == [str(row.datum.row_id) for row in shown.opponents] and "--drop" in argv


def test_flips_go_to_a_class_or_to_what_suspects_suggest(request_of: service.ExplainRequest) -> None:
    labels = service.check_labels("table", request_of)
    assert sorted(labels) == ["ant", "bee", "cat"]
    row = service.query("table", request_of).data[0]
    assert labels[0] != row.predicted
    flip = replace(DROP, action="flip")
    assert "Open Suspects first" in service.check_offer("table", request_of, flip).problem
    execute(opened("table").study.path, ["suspects"], lambda *said: None, lambda: False)
    assert service.check_labels("table", request_of) == (service.SUGGESTED, *labels)
    service.start_check("table", request_of, flip, "a")
    argv = Jobs(opened("table").study.path).list()[0].argv
    page = service.suspects("table", service.SuspectFilter(limit=200))
    assert isinstance(page, service.SuspectPage)
    suggested = {str(one.datum.row_id): one.suggested for one in page.rows}
    rows, to = ([argv[i + 1] for i, word in enumerate(argv) if word == name] for name in ("--row", "--to"))
    assert to == [suggested[row] for row in rows] and len(to) == 4


def test_what_cannot_be_checked_says_why(request_of: service.ExplainRequest, own_studies: Path) -> None:
    assert "1 to 50 pairs" in service.check_offer("table", request_of, replace(DROP, seeds=0)).problem
    assert "'friends'" in service.check_offer("table", request_of, replace(DROP, side="friends")).problem
    with pytest.raises(BadInput, match="no class"):
        service.start_check("table", request_of, replace(DROP, action="flip", label="emu"), "a")
    toml = own_studies / "table" / "study.toml"
    head, _, tail = toml.read_text().partition("[recipe]")
    toml.write_text(head + tail[tail.index("\n[") :] if "\n[" in tail else head)
    execute(own_studies / "table", ["fit", "--method", "grad_cos"], lambda *said: None, lambda: False)
    page = service.checks("table", request_of)
    assert page.problem.startswith("It needs a training recipe") and "give recipe=Recipe(...)" in page.problem
    assert service.check_offer("table", request_of, DROP).problem == page.problem


def test_only_owners_start_one(
    request_of: service.ExplainRequest, own_studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influence_core.service.access.role", lambda study: "viewer")
    assert not service.checks("table", request_of).may_check


def test_a_typed_row_says_that_it_cannot_be_checked(own_studies: Path) -> None:
    columns = {field.name: field.typical for field in service.typed_form("table").fields}
    token = service.keep_typed("table", columns)
    request = service.ExplainRequest((token,), "grad_cos", "typed")
    execute(own_studies / "table", ["fit", "--method", "grad_cos"], lambda *said: None, lambda: False)
    page = service.checks("table", request)
    assert "Check a test row" in page.problem and page.made == ()
