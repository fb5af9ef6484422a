"""``import`` on the command line: from a file to rows that explain a prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from influence_core import Study, attribute, registry
from influence_core.__main__ import main
from influence_core.fitting import is_fitted
from influence_core.run import Run
from influence_core.workflows.default_method import default_method

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def words_file(folder: Path, n: int = 240) -> Path:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, n)
    vocabulary = (["cash", "prize", "winner", "claim"], ["dinner", "meeting", "tomorrow", "thanks"])
    texts = [" ".join(random.choice(vocabulary[kind], 6)) + f" {i}" for i, kind in enumerate(kinds)]
    file = folder / "messages.csv"
    pd.DataFrame({"key": [f"m{i}" for i in range(n)], "text": texts, "spam": kinds}).to_csv(file, index=False)
    return file


def test_a_file_of_texts_becomes_a_study_that_explains(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "studies" / "mine"
    options = '{"id": "key", "text": "text"}'
    assert main(["import", str(words_file(tmp_path)), "--label", "spam", "--out", str(out), "--roles", options]) == 0
    assert str(out) in capfd.readouterr().out
    study = Study(out)
    header = study.header
    assert (header.modality, header.task, header.classes) == ("text", "classification", ("0", "1"))
    assert set(study.splits) == {"train", "test", "locked"}
    assert sum(study.n_rows(split) for split in study.splits) == 240
    assert str(study.task.ids("test")[0]).startswith("m")
    method, _ = default_method(study.task)
    assert is_fitted(study.task, registry.made(method, {}, study.task), Run(store=study.store))
    assert float((study.task.outputs_of("test").argmax(1).numpy() == study.targets("test")).mean()) > 0.9
    answer = attribute(study, method, study.task.ids("test").tolist()[:1])
    labels = dict(zip(study.task.ids("train").tolist(), study.targets("train").tolist(), strict=True))
    said = int(study.task.outputs_of("test")[0].argmax())
    assert [labels[row] for row in answer.proponents(5).ids[0]] == [said] * 5


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nothing.csv", "--label", "spam"], "nothing.csv"),
        (["messages.csv", "--label", "ham"], "ham"),
        (["messages.csv", "--label", "spam", "--roles", "{"], "roles|JSON|options"),
        (["messages.csv", "--label", "spam", "--roles", '{"nonsense": 1}'], "nonsense"),
    ],
)
def test_bad_requests_get_one_line_and_leave_nothing(
    argv: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import re

    file = words_file(tmp_path)
    out = tmp_path / "studies" / "mine"
    assert main(["import", str(file.with_name(argv[0])), *argv[1:], "--out", str(out)]) == 2
    error = capfd.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1 and "Traceback" not in error
    assert not out.exists() and not list(tmp_path.glob("studies/*"))


def test_an_import_in_the_app_that_died_before_its_first_fit_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json
    import shutil

    from influence_core import service
    from influence_core.commands.work import execute

    studies = tmp_path / "studies"
    monkeypatch.setenv("INFLUENCE_STUDIES", str(studies))
    roles = json.dumps({"label": "spam", "id": "key", "text": "text"})

    def finished() -> None:
        with words_file(tmp_path).open("rb") as file:
            token = service.save_upload("messages.csv", file)
        execute(studies / "mine", ["finish-import", "--", token, roles, "-Mine"], lambda *_: None, lambda: False)
        assert not (studies / ".uploads" / token).exists()

    (studies / "mine").mkdir(parents=True)
    finished()
    before = {file: file.read_bytes() for file in (studies / "mine").glob("*.*") if file.is_file()}
    assert Study(studies / "mine").header.title == "-Mine"
    shutil.rmtree(studies / "mine" / "cache")  # as if killed when the study stood and nothing was fitted
    finished()
    assert {file: file.read_bytes() for file in before} == before
    study = Study(studies / "mine")
    method, _ = default_method(study.task)
    assert is_fitted(study.task, registry.made(method, {}, study.task), Run(store=study.store))


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not beside this checkout")
def test_the_text_file_of_the_field_imports_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "sms"
    assert main(["import", str(SHARED / "sms-spam.csv"), "--label", "spam", "--out", str(out)]) == 0
    study = Study(out)
    assert study.header.modality == "text"
    assert float((study.task.outputs_of("locked").argmax(1).numpy() == study.targets("locked")).mean()) > 0.95


def test_images_and_data_sets_and_packed_studies_are_told_apart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from datasets import Dataset

    from tests.readers.image_cases import contents, folder_of, zip_of

    files = contents(40)
    folder = folder_of(files, tmp_path / "pets")
    packed = zip_of(files, tmp_path / "pets.zip")
    texts = [f"{('cash', 'dinner')[i % 2]} " * 8 + str(i) for i in range(60)]
    kinds = {"spam": [i % 2 for i in range(60)], "text": texts}
    Dataset.from_dict(kinds).save_to_disk(tmp_path / "saved")
    made = {}
    for number, source in enumerate((folder, packed, tmp_path / "saved")):
        out = tmp_path / "studies" / str(number)
        assert main(["import", str(source), "--out", str(out)]) == 0
        made[source.name] = Study(out)
        said = capfd.readouterr().out
        assert "divided 70 / 15 / 15" in said and str(out) in said
    assert [study.header.modality for study in made.values()][:2] == ["image", "image"]
    assert made["pets"].fingerprint == made["pets.zip"].fingerprint
    assert made["saved"].header.classes == ("0", "1")
    method, _ = default_method(made["pets"].task)
    assert is_fitted(made["pets"].task, registry.made(method, {}, made["pets"].task), Run(store=made["pets"].store))
    assert main(["backup", str(made["pets"].path), "--out", str(tmp_path / "study.zip")]) == 0
    assert main(["import", str(tmp_path / "study.zip"), "--out", str(tmp_path / "studies" / "again")]) == 0
    assert Study(tmp_path / "studies" / "again").fingerprint == made["pets"].fingerprint


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("hf:owner/pets", [], r"hub cannot be reached.*save_to_disk"), ("hf:../x", [], "no name on the hub"),
        ("empty", [], "no images"), ("pets", ["--label", "age"], "no column 'age'"),
        ("pets", ["--roles", '{"text": "x"}'], "no such role"),
    ],
)  # fmt: skip
def test_bad_requests_about_images_get_one_line(
    source: str, options: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import re

    from influence_core.readers import hub
    from tests.readers.image_cases import contents, folder_of

    def load(name: str, config: str | None) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "load", load)
    folder_of(contents(10), tmp_path / "pets")
    (tmp_path / "empty").mkdir()
    where = source if source.startswith("hf:") else str(tmp_path / source)
    out = tmp_path / "studies" / "mine"
    assert main(["import", where, "--out", str(out), *options]) == 2
    error = capfd.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1 and "Traceback" not in error
    assert not out.exists()


@pytest.mark.parametrize("name", ["sms-spam", "compas-scores-two-years"])
def test_a_real_file_comes_back_as_it_was_with_the_corrected_labels_alone(name: str, tmp_path: Path) -> None:
    original = Path(__file__).resolve().parents[2] / "shared" / "data" / f"{name}.csv"
    if not original.is_file():
        pytest.skip(f"{name}.csv is not beside the project")
    from influence_core.adapters.original_file import original_file
    from influence_core.changes import Change
    from influence_core.readers import guessed_roles, import_table, open_source
    from influence_core.run import Run
    from influence_core.workflows import patches

    with open_source(original) as source:
        study = import_table(source, guessed_roles(source), tmp_path / "study", Run())
    assert original_file(study, [], original)[0] == original.read_bytes()
    table = patches.whole_table(study)
    row, old, split = (table[c][5].as_py() for c in (study.header.id, study.header.label, table.column_names[-1]))
    new = next(label for label in study.header.classes if label != old)
    found = original_file(study, [Change(split, row, "relabel", old, new)], original)[0]
    before, after = original.read_bytes().splitlines(), found.splitlines()
    assert len(before) == len(after) and sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_a_file_without_ids_comes_back_with_the_right_row_corrected(tmp_path: Path) -> None:
    """The import numbers its rows; a correction finds them by that number, whatever was left out."""
    from influence_core.adapters.original_file import original_file
    from influence_core.changes import Change
    from influence_core.readers import guessed_roles, import_table, open_source
    from influence_core.run import Run
    from influence_core.workflows import patches

    lines = [f"{i % 7}.{i},{i % 3},{'ab'[i % 7 > 3] if i != 4 else ''}" for i in range(80)]
    original = tmp_path / "plain.csv"
    original.write_text("x,y,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    with open_source(original) as source:
        study = import_table(source, guessed_roles(source, "label"), tmp_path / "study", Run())
    table = patches.whole_table(study)
    row, old, split = (table[c][30].as_py() for c in (study.header.id, study.header.label, table.column_names[-1]))
    new = "b" if old == "a" else "a"
    x = str(table["x"][30].as_py())
    found = original_file(study, [Change(split, row, "relabel", old, new)], original)[0].decode().splitlines()
    changed = [(a, b) for a, b in zip(original.read_text().splitlines(), found, strict=True) if a != b]
    assert len(changed) == 1 and float(changed[0][0].split(",")[0]) == float(x)
    assert changed[0][1] == changed[0][0][:-1] + new
