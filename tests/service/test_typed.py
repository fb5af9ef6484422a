"""A visitor's own input through the service: the form, keeping it, and every question about it."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from influence_core import service
from influence_core.errors import BadInput, Unavailable
from influence_core.service import requests
from influence_core.service.opened import opened
from influence_core.service.views import ExplainRequest, Explanation, FitNeeded
from influence_core.workflows import typed_rows

MARKUP = "win <b>cash</b> prize now & call"


@pytest.fixture
def copies(more_studies_folder: Path, studies_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of studies of every kind, for what is typed is written beside them."""
    for name in ("messages", "people", "heights"):
        shutil.copytree(more_studies_folder / name, tmp_path / name, ignore=shutil.ignore_patterns("typed", "jobs*"))
    for name in ("table", "image"):
        shutil.copytree(studies_folder / name, tmp_path / name, ignore=shutil.ignore_patterns("typed", "jobs*"))
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path))
    return tmp_path


def asked(study: str, row: str, method: str = "gas", **changes: object) -> ExplainRequest:
    """A question about a typed row whose method is fitted."""
    request = replace(ExplainRequest(ids=(row,), method=method, split="typed"), **changes)
    held = opened(study)
    requests.fitting.fit(held.study.task, requests.registry.made(method), held.run)
    return request


def answered(study: str, request: ExplainRequest) -> Explanation:
    found = service.explain(study, request)
    assert isinstance(found, Explanation)
    return found


def test_a_text_has_a_card_without_a_label_and_its_evidence(copies: Path) -> None:
    row = service.keep_typed("messages", {"message": MARKUP})
    found = answered("messages", asked("messages", row))
    (datum,) = found.query.data
    assert (datum.split, datum.row_id, datum.given, datum.text) == ("typed", row, "", MARKUP)
    assert datum.predicted == "spam" and datum.alt == "Your input, predicted spam" and datum.planted is None
    assert found.query.title == "Your input" and sum(p for _, p in found.query.probabilities) == pytest.approx(1)
    assert found.query.probabilities[0] == ("spam", pytest.approx(datum.confidence))
    assert found.measured == "the log-probability the model gives to “spam” (predicted)"
    assert {r.datum.given for r in found.proponents} == {"spam"} and {r.datum.given for r in found.opponents} == {"ham"}
    parts = service.input_attribution("messages", "typed", row).parts
    assert "cash" in [name for name, _ in parts]
    table = json.loads(service.export_scores("messages", asked("messages", row), "json"))
    assert len(table) == 60 and table[0]["query"] == f"typed {row}" and table[0]["target"] == "predicted"
    assert table[0]["train_id"] == found.proponents[0].datum.row_id


@pytest.mark.parametrize("study", ["messages", "people", "table", "heights"])
def test_a_test_row_typed_again_has_the_same_answer(copies: Path, study: str) -> None:
    held = opened(study)
    test = str(held.study.task.ids("test")[2])
    form = service.typed_form(study, "test", test)
    row = service.keep_typed(study, {field.name: field.value for field in form.fields})
    mine = answered(study, asked(study, row))
    given = answered(study, ExplainRequest(ids=(test,), method="gas"))
    assert [r.datum.row_id for r in mine.proponents] == [r.datum.row_id for r in given.proponents]
    assert [r.score for r in mine.proponents] == pytest.approx([r.score for r in given.proponents], rel=1e-5)
    assert mine.query.data[0].predicted == given.query.data[0].predicted
    assert dict(mine.query.probabilities) == pytest.approx(dict(given.query.probabilities), rel=1e-5)
    errors = [found.query.data[0].error for found in (mine, given)]
    assert errors[0] == (None if study != "heights" else pytest.approx(errors[1], rel=1e-5)) and mine.query.notes == ()
    assert mine.query.data[0].alt == f"Your input, predicted {mine.query.data[0].predicted}"
    again = service.typed_form(study, "typed", row)
    assert [field.value for field in again.fields] == [field.value for field in form.fields]


def test_two_inputs_in_turn_do_not_mix(copies: Path) -> None:
    first, second = (service.keep_typed("messages", {"message": text}) for text in ("win cash", "lunch tomorrow love"))
    answers = [answered("messages", asked("messages", row)) for row in (first, second, first)]
    assert [found.query.data[0].text for found in answers] == ["win cash", "lunch tomorrow love", "win cash"]
    assert [found.query.data[0].predicted for found in answers] == ["spam", "ham", "spam"]
    assert answers[0].query == answers[2].query and answers[0].query.probabilities != answers[1].query.probabilities
    words = [dict(service.input_attribution("messages", "typed", row).parts) for row in (first, second)]
    assert "cash" in words[0] and "cash" not in words[1] and "lunch" in words[1]
    assert opened("messages").recalled(("probabilities", "typed")) is None


def test_a_picture_is_explained_and_drawn(copies: Path) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    (field,) = service.typed_form("image").fields
    assert field.kind == "image"
    row = service.keep_typed("image", {field.name: buffer.getvalue()})
    found = answered("image", asked("image", row))
    assert (found.query.data[0].image or "").startswith("data:image/png;base64,") and found.proponents
    assert (service.input_attribution("image", "typed", row).image or "").startswith("data:image/png;base64,")
    with pytest.raises(BadInput, match="No file was chosen"):
        service.keep_typed("image", {})


def test_columns_that_the_form_does_not_draw_keep_their_values(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.service.typed._DRAWN", 2)
    form = service.typed_form("people", "test", "81")
    assert [field.name for field in form.fields] == ["age", "city"] and form.n_hidden == 3
    row = service.keep_typed("people", {"age": "44", "city": "Atlantis"}, "test", "81")
    held, study = typed_rows.stored(opened("people").study, row), opened("people").study
    raw = study.rows("test", study.task.positions(typed_rows.Rows("test", (81,))).tolist()).to_pylist()[0]
    assert (held["age"], held["city"], held["income"], held["member"]) == (44, "Atlantis", raw["income"], raw["member"])
    assert "'Atlantis' is not among the 3 values known" in answered("people", asked("people", row)).query.notes[0]
    usual = service.keep_typed("people", {"age": "44"})
    assert typed_rows.stored(study, usual)["city"] == service.typed_form("people").fields[1].typical


def test_a_number_is_explained_by_the_error_to_the_expected_one(copies: Path) -> None:
    form = service.typed_form("heights")
    assert [field.is_label for field in form.fields] == [False, False, False, True] and not form.fields[3].value
    typed = {"x0": "0.5", "x1": "-1", "x2": "0", "label": "2.5"}
    found = answered("heights", asked("heights", service.keep_typed("heights", typed)))
    datum = found.query.data[0]
    assert datum.given == "2.5" and datum.error == pytest.approx(
        float(datum.predicted.replace("−", "-")) - 2.5, abs=1e-3
    )
    with pytest.raises(BadInput, match="number that you would expect"):
        service.keep_typed("heights", {**typed, "label": ""})


def test_the_given_label_and_methods_that_only_know_the_splits_are_refused(copies: Path) -> None:
    row = service.keep_typed("table", dict.fromkeys(("height", "width", "depth", "weight"), "1"))
    with pytest.raises(BadInput, match="no label of its own"):
        service.explain("table", asked("table", row, target="true"))
    with pytest.raises(Unavailable, match="cannot explain a typed row"):
        service.explain("table", ExplainRequest(ids=(row,), method="loo", split="typed"))
    assert answered("table", asked("table", row, target="bee")).measured.endswith("“bee”")


def test_a_method_that_solves_for_every_query_asks_for_a_job_about_this_row(copies: Path) -> None:
    row = service.keep_typed("table", dict.fromkeys(("height", "width", "depth", "weight"), "1"))
    other = service.keep_typed("table", dict.fromkeys(("height", "width", "depth", "weight"), "2"))
    needed = [
        service.explain("table", ExplainRequest(ids=(one,), method="if_cg", split="typed")) for one in (row, other)
    ]
    assert all(isinstance(one, FitNeeded) for one in needed) and needed[0].key != needed[1].key  # pyright: ignore
    question = requests.Question("table", ExplainRequest(ids=(row,), method="if_cg", split="typed"))
    argv = question.argv()
    assert argv[0] == "answer" and argv[argv.index("--test") + 1] == row and argv[argv.index("--split") + 1] == "typed"

    from typer.testing import CliRunner

    from influence_core.commands import app

    done = CliRunner().invoke(app, [argv[0], str(copies / "table"), *argv[1:]])
    assert done.exit_code == 0, (done.output, done.exception)
    assert isinstance(service.explain("table", question.request), Explanation)
    assert isinstance(service.explain("table", replace(question.request, ids=(other,))), FitNeeded)


@pytest.mark.parametrize("row", ["f" * 32, "../messages", "", "1"])
def test_a_row_that_is_not_kept_says_so(copies: Path, row: str) -> None:
    with pytest.raises(BadInput, match="not kept any more"):
        service.query("messages", ExplainRequest(ids=(row,), method="gas", split="typed"))
    with pytest.raises(BadInput, match="not kept any more"):
        service.typed_form("messages", "typed", row)


def test_another_study_does_not_know_the_row(copies: Path) -> None:
    row = service.keep_typed("messages", {"message": "win"})
    with pytest.raises(BadInput, match="not kept any more"):
        service.query("people", ExplainRequest(ids=(row,), method="gas", split="typed"))


def test_only_texts_and_files_come_from_a_form(copies: Path) -> None:
    for values in ({"message": Path("/etc/hostname")}, {"message": 3}, ["x"], {"message": None}):
        with pytest.raises(BadInput, match="cannot be read"):
            service.keep_typed("messages", values)  # type: ignore[arg-type]
    assert not (copies / "messages" / "typed").exists()
