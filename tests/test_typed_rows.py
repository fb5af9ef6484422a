"""Rows that are in no split: the same numbers as a test row of the same content, and never another row's."""

from __future__ import annotations

import datetime
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from influence_core import Measurement, Rows, Study, attribute, registry
from influence_core.commands import app
from influence_core.encoder.pictures import MAX_BYTES, picture_pixels
from influence_core.errors import BadInput, Unavailable
from influence_core.examples import Examples
from influence_core.workflows import typed_rows
from influence_core.workflows.typed_values import MAX_TEXT, MAX_WORD, fields, notes_on, texts_of
from tests.more_studies import BUILDERS as MORE
from tests.small_studies import BUILDERS

METHODS = [name for name, entry in registry.entries().items() if entry.info.scores]
FAST = {"loo": {"n_rows": 2}}
KINDS = ("table", "image", "messages", "people", "heights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("typed")
    for name in KINDS:
        {**BUILDERS, **MORE}[name](place / name)
    return place


@pytest.fixture
def study(folder: Path, request: pytest.FixtureRequest) -> Study:
    return Study(folder / request.param)


@pytest.fixture
def messages(folder: Path) -> Study:
    return Study(folder / "messages")


@pytest.fixture
def people(folder: Path) -> Study:
    return Study(folder / "people")


def content(study: Study, position: int) -> dict[str, Any]:
    """A test row as a person would type it; of a picture, a file that holds it."""
    row = study.rows("test", [position])
    (first, *_) = fields(study)
    if first.kind != "image":
        return dict(texts_of(study, row))
    buffer = io.BytesIO()
    Image.fromarray(study.encoder.pixels(row)[0, 0]).save(buffer, "PNG")  # pyright: ignore[reportAttributeAccessIssue]
    return {"image": buffer.getvalue()}


def measured(study: Study) -> Measurement:
    return Measurement("loss", "predicted" if study.header.task == "classification" else "true")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("study", KINDS, indirect=True)
def test_a_typed_test_row_has_the_scores_of_that_row(study: Study, method: str) -> None:
    info = registry.found(method).info
    if registry.missing(info, study.task):
        with pytest.raises(Unavailable):
            attribute(study, method, study.typed(content(study, 3)))
        return
    options, row = FAST.get(method), study.typed(content(study, 3))
    if not info.unseen:
        with pytest.raises(Unavailable, match="cannot explain a typed row"):
            attribute(study, method, row, config=options)
        return
    kind = measured(study) if "loss" in info.measurements or not info.measurements else None
    kind = kind or Measurement(info.measurements[0], "predicted")
    expected = attribute(study, method, [study.task.ids("test")[3]], config=options, measurement=kind)
    found = attribute(study, method, row, config=options)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-6, atol=1e-9)
    assert found.test_ids == row.ids and found.measurement == expected.measurement
    assert float(expected.scores.abs().max()) > 0


@pytest.mark.parametrize("study", KINDS, indirect=True)
def test_two_typed_rows_do_not_mix(study: Study) -> None:
    """Also when the fit was made from the first one's view, and when they are asked together."""
    rows = [study.typed(content(study, position)) for position in (1, 5)]
    expected = attribute(study, "gas", study.task.ids("test")[[1, 5]].tolist(), measurement=measured(study)).scores
    fresh = Study(study.path)
    for i in (0, 1, 0):
        # float32: one row's products are summed in another order than two rows'.
        torch.testing.assert_close(attribute(fresh, "gas", rows[i]).scores, expected[[i]], rtol=1e-5, atol=1e-7)
    both = attribute(fresh, "gas", Rows("typed", rows[1].ids + rows[0].ids)).scores
    torch.testing.assert_close(both, expected[[1, 0]], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)


def test_views_share_what_was_fitted_and_keep_their_outputs_apart(messages: Study) -> None:
    views = [typed_rows.with_typed(messages, messages.typed(text).ids) for text in ("win cash now", "see you at lunch")]
    tasks = [view.task for view in views]
    assert all(task.fingerprint == messages.task.fingerprint and task.memo is messages.task.memo for task in tasks)
    first, second = (task.outputs_of("typed") for task in tasks)  # the whole split, which would be kept
    assert not torch.equal(first, second)
    assert torch.equal(tasks[0].outputs_of("typed"), first)
    assert not any("typed" in key for key in messages.task.memo)
    assert "typed" not in tasks[0].splits
    with pytest.raises(BadInput, match="There is no 'typed' split"):
        messages.task.split("typed")


def test_a_task_in_memory_takes_rows_of_its_own(messages: Study) -> None:
    task, ids = messages.task, messages.task.ids("test")[:2]
    batch = task.split("test").batch(slice(0, 2))
    view = task.with_typed(Examples((batch.inputs, torch.zeros(2, dtype=torch.long))), ["a", "b"])
    found = attribute(view, "tracin_cp", Rows("typed", ("b", "a")), run=None).scores
    expected = attribute(task, "tracin_cp", ids[::-1].tolist(), measurement=Measurement(target="predicted")).scores
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_true_label_is_refused_and_a_class_is_explained(messages: Study) -> None:
    row = messages.typed(text="win cash see you")
    with pytest.raises(BadInput, match="has no label of its own"):
        attribute(messages, "gas", row, measurement=Measurement("loss", "true"))
    one, other = (attribute(messages, "gas", row, measurement=Measurement("margin", c)).scores for c in (0, 1))
    torch.testing.assert_close(one, -other, rtol=1e-5, atol=1e-8)  # two classes: their margins are opposite
    with pytest.raises(BadInput, match="no label of its own"):
        messages.typed({"message": "hello", "label": "spam"})


def test_the_content_is_found_again_by_another_process_and_a_missing_one_says_so(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "messages", tmp_path / "copy", ignore=shutil.ignore_patterns("typed"))
    study = Study(tmp_path / "copy")
    odd = "<b>WIN</b> \u2028 & \U0001f600"
    row = study.typed(odd)
    assert row.ids == study.typed(text=odd).ids == study.typed(message=odd).ids
    assert typed_rows.stored(Study(study.path), row.ids[0]) == {"message": odd}
    assert study.fingerprint == Study(folder / "messages").fingerprint
    for wrong in ("0" * 32, "../study", "x", row.ids[0].upper()):
        with pytest.raises(BadInput, match="not kept any more"):
            typed_rows.with_typed(study, [wrong])
    file = study.path / "typed" / f"{row.ids[0]}.json"
    file.write_text(json.dumps({"format": 1, "values": {"message": "another"}}))
    with pytest.raises(BadInput, match="has been changed"):
        attribute(study, "gas", row)
    for damage in ("[" * 100_000, "[]", '{"format": 1, "values": {"message": NaN}}', "{", "\0"):
        file.write_text(damage)
        with pytest.raises(BadInput, match="This input cannot be read"):
            attribute(study, "gas", row)


def test_the_least_recently_used_go_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder / "messages", tmp_path / "copy", ignore=shutil.ignore_patterns("typed"))
    study, kept = Study(tmp_path / "copy"), []
    monkeypatch.setattr(typed_rows, "KEPT", 3)
    for number in range(3):
        kept.append(study.typed(f"text {number}").ids[0])
        os.utime(study.path / "typed" / f"{kept[-1]}.json", (1000 + number, 1000 + number))
    typed_rows.stored(study, kept[0])  # looked at: newer than the others now
    kept.append(study.typed("text 3").ids[0])
    left = {path.stem for path in (study.path / "typed").iterdir()}
    assert left == {kept[0], kept[2], kept[3]}


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "messages", tmp_path / "copy", ignore=shutil.ignore_patterns("typed"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy" / "typed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="leads out of the study"):
        Study(tmp_path / "copy").typed("hello")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_columns_are_parsed_by_their_kind(people: Study) -> None:
    whole = {"age": "31", "city": "Oslo", "member": "Yes", "income": "1e4", "since": "2021-02-03"}
    told = people.typed({**whole, "age": 31, "member": True, "since": datetime.date(2021, 2, 3)})
    assert people.typed(whole).ids == told.ids
    gaps = people.typed(dict.fromkeys(whole, ""))
    assert set(typed_rows.stored(people, gaps.ids[0]).values()) == {None}
    assert attribute(people, "gas", gaps).scores.isfinite().all()
    strange = typed_rows.stored(people, people.typed({**whole, "city": "Atlantis", "age": "900"}).ids[0])
    notes = notes_on(people, strange)
    assert any("'Atlantis' is not among the 3 values known" in note for note in notes)
    assert any("900 lies outside the training rows" in note for note in notes) and len(notes) == 2


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("age", "nan", "no finite number"), ("age", "inf", "no finite number"), ("age", "1e999", "no finite number"),
        ("age", "1_0", "no finite number"), ("age", "<b>", "no finite number"), ("age", "٣", "no finite number"),
        ("age", [1], "no text"), ("income", "1e39", "no finite number"), ("member", "perhaps", "neither true"),
        ("since", "yesterday", "no date"), ("since", "2021-13-01", "no date"), ("city", "x" * (MAX_WORD + 1), "lett"),
        ("city", "\ud800", "no text"), ("name", "x", "not among what the model looks at"),
        ("label", "yes", "it is the label|is the label"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_named(people: Study, column: str, value: Any, why: str) -> None:
    whole = {"age": "31", "city": "Oslo", "member": "yes", "income": "1e4", "since": "2021-02-03"}
    with pytest.raises(BadInput, match=why):
        people.typed({**whole, column: value})


def test_what_is_missing_is_named(people: Study, folder: Path) -> None:
    with pytest.raises(BadInput, match="'city', 'member', 'income', 'since'"):
        people.typed(age=3)
    with pytest.raises(BadInput, match="cannot read a missing value"):
        Study(folder / "table").typed({name: "" for name in ("height", "width", "depth", "weight")})
    with pytest.raises(BadInput, match="number that you would expect"):
        Study(folder / "heights").typed({"x0": 1, "x1": 2, "x2": 3, "label": ""})
    with pytest.raises(BadInput, match="has 5 columns"):
        people.typed("Oslo")
    for text, why in (("", "empty text"), (" \n", "empty text"), ("x" * (MAX_TEXT + 1), "letters")):
        with pytest.raises(BadInput, match=why):
            Study(folder / "messages").typed(text)


def picture(mode: str, size: tuple[int, int], color: Any, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, form)
    return buffer.getvalue()


def test_pictures_are_laid_on_white_made_grey_and_resized(folder: Path) -> None:
    assert (picture_pixels(picture("RGBA", (40, 30), (0, 0, 0, 0)), (1, 8, 8)) == 255).all()
    assert picture_pixels(picture("RGB", (40, 30), (255, 0, 9)), (3, 4, 5)).tolist()[0] == [[255] * 5] * 4
    assert (picture_pixels(picture("I;16", (9, 9), 257 * 50), (1, 8, 8)) == 50).all()
    assert picture_pixels(picture("L", (20, 20), 7, "JPEG"), (3, 8, 8)).shape == (3, 8, 8)
    study = Study(folder / "image")
    a, b = (study.typed(picture("L", (8, 8), level)) for level in (10, 200))
    assert a.ids != b.ids
    drawn = typed_rows.with_typed(study, b.ids)
    assert np.unique(drawn.encoder.pixels(drawn.rows("typed", [0]))).tolist() == [200]  # pyright: ignore[reportAttributeAccessIssue]


def test_files_that_are_no_pictures_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, whole = Study(folder / "image"), picture("RGB", (200, 200), (1, 2, 3))
    for data in (b"", b"<svg onload=alert(1)>", whole[:60], b"\x80\x04pickle"):
        with pytest.raises(BadInput, match="cannot be read"):
            study.typed(data)
    with pytest.raises(BadInput, match="cannot be read"):
        study.typed(folder / "nothing.png")
    with pytest.raises(BadInput, match="too large"):
        study.typed(bytes(MAX_BYTES + 1))
    monkeypatch.setattr("influence_core.encoder.pictures.MAX_PIXELS", 39_999)
    with pytest.raises(BadInput, match="200 × 200 pixels"):
        study.typed(whole)


def test_the_command_line_explains_a_typed_row(folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["attribute", *arguments, "--format", "json"])

    text = json.dumps({"text": "win cash prize now"})
    done = run(str(folder / "messages"), "--method", "gas", "--typed", text, "--top", "3")
    assert done.exit_code == 0, done.output
    study = Study(folder / "messages")
    expected = attribute(study, "gas", study.typed("win cash prize now"))
    assert [row["train_id"] for row in json.loads(done.stdout)][:3] == expected.proponents(3).ids[0]
    file = tmp_path / "x.png"
    file.write_bytes(content(Study(folder / "image"), 2)["image"])
    assert run(str(folder / "image"), "-m", "gas", "--typed", json.dumps({"image": str(file)})).exit_code == 0
    for wrong in ([], ["--typed", text, "--test", "m61"], ["--typed", "[]"]):
        assert isinstance(run(str(folder / "messages"), "-m", "gas", *wrong).exception, BadInput)


def test_the_answer_command_keeps_the_answer_of_a_typed_row(folder: Path) -> None:
    from influence_core.answers import answer_key
    from influence_core.run import Run

    study = Study(folder / "table")
    row = study.typed(content(study, 4))
    command = ["answer", str(study.path), "--method", "if_cg", "--test", row.ids[0], "--split", "typed"]
    done = CliRunner().invoke(app, [*command, "--target", "predicted"])
    assert done.exit_code == 0, (done.output, done.exception)
    run = Run().with_store(study.store)
    key = answer_key(study.task, registry.made("if_cg"), row, Measurement("loss", "predicted"), run)
    assert run.artifacts.find(key) is not None
