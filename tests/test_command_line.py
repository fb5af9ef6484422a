"""The command line: what it prints, row ids everywhere, exit codes 0, 2 and 130, one line per error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from influence_core import Measurement, Rows, Run, Study, attribute, evaluate, list_estimators, registry, self_influence
from influence_core.__main__ import main
from influence_core.commands import base, methods
from influence_core.commands.work import execute
from influence_core.errors import BadInput, Cancelled
from influence_core.tables import table_bytes
from influence_core.task import Needs

ROOT = Path(__file__).resolve().parents[1]
Call = Callable[..., str]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process and return its output, or its error line where another code is expected."""

    def call(*argv: object, code: int = 0) -> str:
        ended = main([str(word) for word in argv])
        out, err = capfd.readouterr()
        assert ended == code, err
        if code == 0:
            assert err == ""
            return out
        assert out == "" and err.count("\n") == 1 and err.endswith("\n"), err
        return err

    return call


def frame(csv: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv), dtype={"target": str})


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_methods_lists_all_with_their_cost(run: Call, studies: Path) -> None:
    lines = run("methods").splitlines()
    assert [line.split()[0] for line in lines] == list_estimators()
    listed = pd.DataFrame(json.loads(run("methods", "--format", "json")))
    assert listed["method"].tolist() == list_estimators() and set(listed) >= {"title", "family", "units", "summary"}
    here = frame(run("methods", "--study", studies / "table", "--format", "csv"))
    wordless = [Needs.WORD_EMBEDDING in entry.info.needs for entry in registry.entries().values()]
    assert here["reason"].notna().tolist() == wordless
    assert here.loc[here["reason"].isna(), "cost"].str.contains("second|minute|hour").all()


def test_methods_on_a_study_without_weights_still_lists_them(run: Call, own_studies: Path) -> None:
    path = own_studies / "linear" / "study.toml"
    text = path.read_text()
    start = text.index("checkpoints = [\n    {")
    path.write_text(text[:start] + text[text.index("]\n", start) + 2 :])
    lines = {line.split()[0]: line for line in run("methods", "--study", own_studies / "linear").splitlines()}
    assert "[not here: needs" in lines["tracin_cp"] and list(lines) == list_estimators()


@pytest.mark.parametrize("method", ["tracin_cp", "knn_shapley", "rps_l2"])
def test_attribute_prints_what_the_function_returns_by_id(method: str, run: Call, studies: Path) -> None:
    study = Study(studies / "table")
    ids = study.task.ids("test")[[4, 2]].tolist()
    table = frame(run("attribute", studies / "table", "--method", method, "--test", ids[0], ids[1], "--top", 3))
    kind = "logit" if method == "rps_l2" else "loss"
    expected = attribute(study, method, ids, measurement=Measurement(kind)).to_frame(3)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=1e-6)
    assert set(table["test_id"]) == set(ids) and set(table["train_id"]) <= set(study.task.ids("train").tolist())
    assert not set(table["train_id"]) & set(range(60))  # no positions
    again = run("attribute", studies / "table", "-m", method, "--test", ids[0], "--test", ids[1], "--top", 3)
    pd.testing.assert_frame_equal(frame(again), table)


def test_attribute_takes_measurement_target_mean_and_options(run: Call, studies: Path) -> None:
    study = Study(studies / "table")
    ids = study.task.ids("test")[:3].tolist()
    options = ["--measurement", "margin", "--target", "cat", "--reduce", "mean", "--config", '{"layers": ["3"]}']
    table = frame(run("attribute", studies / "table", "-m", "grad_dot", "--test", *ids, "--top", 0, *options))
    rows = Rows("test", tuple(ids), "mean")
    expected = attribute(study, "grad_dot", rows, config={"layers": ["3"]}, measurement=Measurement("margin", 2))
    assert table["test_id"].tolist() == ["mean of 3 rows"]
    assert table.columns[1:].tolist() == [str(value) for value in study.task.ids("train").tolist()]
    np.testing.assert_allclose(table.iloc[0, 1:].to_numpy(float), expected.scores[0].numpy(), rtol=1e-6)


def test_top_0_writes_every_score_in_every_format(run: Call, studies: Path, tmp_path: Path) -> None:
    study = Study(studies / "table")
    ids = study.task.ids("test")[:2].tolist()
    expected = attribute(study, "if_ggn", ids).scores.double().numpy()
    words = ["attribute", studies / "table", "-m", "if_ggn", "--test", *ids, "--top", 0]
    csv, records = frame(run(*words)), pd.DataFrame(json.loads(run(*words, "--format", "json")))
    assert run(*words, "--format", "parquet", "--out", tmp_path / "scores.parquet") == ""
    parquet = pq.read_table(tmp_path / "scores.parquet").to_pandas()
    for table in (csv, records, parquet):
        assert table["test_id"].tolist() == ids
        assert [str(name) for name in table.columns[1:]] == [str(value) for value in study.task.ids("train").tolist()]
        np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(float), expected, rtol=1e-7, atol=0)


def test_parquet_may_go_into_a_pipe(studies: Path) -> None:
    test = int(Study(studies / "table").task.ids("test")[0])
    words = ["attribute", str(studies / "table"), "-m", "grad_dot", "--test", str(test), "--format", "parquet"]
    done = subprocess.run([sys.executable, "-m", "influence_core", *words], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stderr == b""
    expected = attribute(Study(studies / "table"), "grad_dot", [test]).to_frame(10)
    pd.testing.assert_frame_equal(pq.read_table(io.BytesIO(done.stdout)).to_pandas(), expected)


def test_self_influence_is_sorted_and_by_id(run: Call, studies: Path) -> None:
    study = Study(studies / "table")
    table = frame(run("self-influence", studies / "table", "--method", "tracin_cp"))
    assert table.columns.tolist() == ["train_id", "self_influence", "method"] and set(table["method"]) == {"tracin_cp"}
    assert table["self_influence"].is_monotonic_decreasing
    expected = dict(zip(study.task.ids("train").tolist(), self_influence(study, "tracin_cp").tolist(), strict=True))
    assert dict(zip(table["train_id"], table["self_influence"], strict=True)) == pytest.approx(expected, rel=1e-6)


def test_fit_does_the_work_once(run: Call, own_studies: Path) -> None:
    store = Study(own_studies / "table").store
    assert run("fit", own_studies / "table", "--method", "tracin_cp") == "TracIn is fitted on Small <table>.\n"
    keys = set(store.keys())
    assert keys and run("fit", own_studies / "table", "--method", "tracin") and set(store.keys()) == keys


def test_evaluate_prints_the_table_of_evaluate(run: Call, studies: Path) -> None:
    study = Study(studies / "table")
    one = frame(run("evaluate", studies / "table", "--method", "tracin_cp", "gas"))
    pd.testing.assert_frame_equal(one, evaluate(study, ["tracin_cp", "gas"]), check_dtype=False)
    words = ["evaluate", studies / "table", "--methods", "tracin_cp", "--metrics", "loo", "mislabel", "--seeds", 1]
    both = pd.DataFrame(json.loads(run(*words, "--format", "json")))
    assert both["metric"].tolist() == ["loo"] * 2 + ["mislabel"] * 8
    assert both["method"].tolist() == ["tracin_cp"] * 2 + ["loss"] * 4 + ["tracin_cp"] * 4
    one = ["evaluate", studies / "table", "--metric", "mislabel", "loo", "-m", "gas", "-m", "grad_dot", "--seeds", 1]
    assert frame(run(*one))["metric"].tolist() == ["mislabel"] * 12 + ["loo"] * 4
    text = run(*one, "--format", "text").splitlines()
    assert text[0].split()[:4] == ["method", "metric", "figure", "value"] and text[-1].startswith("On this model, ")
    plan = run(*words[:4], "--metrics", "lds", "--subsets", 4, "--seeds", 2, "--preview")
    assert plan.startswith("8 models to train for lds") and plan.count("\n") == 1


def test_answer_keeps_one_answer(run: Call, own_studies: Path) -> None:
    study = Study(own_studies / "table")
    test = study.task.ids("test")[:2].tolist()
    words = ["answer", own_studies / "table", "-m", "if_cg", "--test", test[0], "--test", test[1], "--reduce", "mean"]
    assert run(*words, "--target", "predicted") == ""
    kinds = [study.store.find(key).meta["inputs"]["kind"] for key in study.store.keys()]  # type: ignore[union-attr]
    assert kinds.count("answer") == 1
    count = len(kinds)
    assert run(*words, "--target", "predicted") == "" and len(study.store.keys()) == count


def test_demo_builds_a_study(run: Call, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "table"
    assert run("demo", "breast-cancer", "--out", out) == f"Breast cancer (table): {out}\n"
    assert Study(out).task.n_train >= 300
    assert "The folder is taken" in run("demo", "breast-cancer", "--out", out, code=2)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_cells_that_a_spreadsheet_would_run_are_made_safe(run: Call, studies: Path) -> None:
    table = frame(run("attribute", studies / "linear", "-m", "grad_dot", "--test", "row 030", "--top", 30))
    assert "'=1+1" in table["train_id"].tolist() and "row 001" in table["train_id"].tolist()
    wide = run("attribute", studies / "linear", "-m", "grad_dot", "--test", "row 030", "--top", 0)
    assert wide.startswith("test_id,'=1+1,row 001,")
    words = ["attribute", studies / "linear", "-m", "grad_dot", "--test", "row 030", "--top", 30, "--format", "json"]
    assert "=1+1" in {row["train_id"] for row in json.loads(run(*words))}


def test_formats_keep_every_digit_and_every_gap() -> None:
    values = [1.2345678901234567e-12, -3.3e-300, 0.1, 1e22, float("nan"), 123456789.12345679]
    table = pd.DataFrame({"x": values, "id": ["a", "=b", "ü\n,", "-1", "@", "'"], "n": range(6), 7: True})
    csv = pd.read_csv(io.BytesIO(table_bytes(table, "csv")))
    text = table_bytes(table, "json").decode()
    back = pd.DataFrame(json.loads(text))
    parquet = pd.read_parquet(io.BytesIO(table_bytes(table, "parquet")))
    for read in (csv, back, parquet):
        assert read["n"].tolist() == list(range(6)) and np.isnan(read["x"].astype(float)[4])
        assert np.array_equal(read["x"].astype(float), values, equal_nan=True)
    assert back["id"].tolist() == parquet["id"].tolist() == table["id"].tolist() and "NaN" not in text and "ü" in text
    assert csv["id"].tolist() == ["a", "'=b", "ü\n,", "'-1", "'@", "'"]
    assert list(table.columns) == ["x", "id", "n", 7] and table["id"][1] == "=b"  # the given table is untouched
    with pytest.raises(BadInput, match="Unknown format: format is 'xlsx'. Use csv, json, parquet."):
        table_bytes(table, "xlsx")


def test_an_empty_ranking_keeps_its_header(run: Call, studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(studies / "table")
    fitted = type(registry.made("grad_dot").fit(study.task, Run(store=study.store)))
    monkeypatch.setattr(fitted, "_scores", lambda self, batch, m, rows: torch.zeros(len(rows.ids), 60))
    out = run("attribute", studies / "table", "-m", "grad_dot", "--test", study.task.ids("test")[0])
    assert out == "test_id,side,rank,train_id,score,method,measurement,target,units\n"


# -- how it ends -------------------------------------------------------------------------------------------------------

ATTRIBUTE = ["attribute", "{table}", "--test", "{test}", "-m"]
WRONG = {
    "no study": (["fit", "{folder}/nothing", "-m", "loss"], "There is no study here"),
    "unknown method": (
        [*ATTRIBUTE, "tracin_c"],
        "Unknown method: 'tracin_c' is not registered. Did you mean 'tracin_cp'?",
    ),
    "unknown id": (["attribute", "{table}", "--test", "3", "-m", "loss"], "Unknown row id: 3 is not in the test split"),
    "id no number": (["attribute", "{table}", "--test", "x", "-m", "gas"], "Unknown row id: 'x' is not a number"),
    "no pairs": ([*ATTRIBUTE, "loss"], "Training loss does not score pairs of rows"),
    "broken json": ([*ATTRIBUTE, "gas", "--config", "{{a"], "The options cannot be read: --config is '{a'"),
    "json list": (
        [*ATTRIBUTE, "gas", "--config", "[1]"],
        "The options cannot be read: --config is '[1]'. Give a JSON object",
    ),
    "unknown option": (
        [*ATTRIBUTE, "gas", "--config", '{{"layer": 1}}'],
        "'layer' is not an option. did you mean 'layers'?",
    ),
    "json nan": (
        [*ATTRIBUTE, "if_ggn", "--config", '{{"damping": NaN}}'],
        "These options cannot be used: 'damping' = nan",
    ),
    "unknown kind": ([*ATTRIBUTE, "gas", "--measurement", "loss2"], "Unknown measurement"),
    "unknown target": ([*ATTRIBUTE, "gas", "--target", "dog"], "Unknown target label: 'dog' is no class"),
    "unknown reduction": ([*ATTRIBUTE, "gas", "--reduce", "sum"], "Unknown reduction"),
    "unknown format": ([*ATTRIBUTE, "gas", "--format", "xml"], "Unknown format: format is 'xml'"),
    "negative top": ([*ATTRIBUTE, "gas", "--top", "-1"], "Nothing to rank: k is -1."),
    "no folder": ([*ATTRIBUTE, "gas", "--out", "{folder}/no/file.csv"], "The file cannot be written"),
    "a folder": ([*ATTRIBUTE, "gas", "--out", "{folder}"], "The file cannot be written"),
    "no self-influence": (["self-influence", "{table}", "-m", "gas"], "GAS has no self-influence"),
    "no truth": (["evaluate", "{folder}/linear", "-m", "loss"], "Mislabel detection cannot be measured"),
    "unknown metric": (
        ["evaluate", "{table}", "-m", "gas", "--metric", "ldss"],
        "Unknown metric: 'ldss' is not a metric",
    ),
    "unknown demo": (["demo", "digit"], "Unknown demo: 'digit' is not built in"),
    "no study for methods": (["methods", "--study", "{folder}/x"], "There is no study here"),
    "a worker nowhere": (["worker", "{folder}/nothing"], "nothing"),
    "no such command": (["atribute"], "No such command 'atribute'"),
    "no such option": (["fit", "{table}", "--methods", "gas"], "No such option"),
    "a missing option": (["fit", "{table}"], "Missing option '--method'"),
    "a word for a number": ([*ATTRIBUTE, "gas", "--top", "ten"], "Invalid value for '--top'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(name: str, run: Call, studies: Path) -> None:
    words, message = WRONG[name]
    test = int(Study(studies / "table").task.ids("test")[0])
    known = {"folder": str(studies), "table": str(studies / "table"), "test": str(test)}
    error = run(*(word.format(**known) for word in words), code=2)
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("signal", [Cancelled, KeyboardInterrupt])
def test_cancelled_is_130(signal: type[BaseException], run: Call, own_studies: Path, monkeypatch) -> None:
    from influence_core import fitting

    def stopped(*_: object) -> None:
        raise signal

    monkeypatch.setattr(fitting, "fit", stopped)
    error = run("fit", own_studies / "table", "-m", "tracin_cp", code=130)
    assert error == "cancelled: everything finished so far is kept.\n"


def test_a_fault_of_ours_keeps_its_trace(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "opened", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(studies / "table"), "-m", "gas"])


def test_help_is_help(run: Call) -> None:
    assert "attribute" in run("--help") and "worker" not in run("--help")
    assert "--measurement" in run("attribute", "--help")
    assert main([]) in (0, 2)


def test_the_program_ends_with_the_code(studies: Path) -> None:
    words = [sys.executable, "-m", "influence_core", "fit", str(studies / "nothing"), "--method", "gas"]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: There is no study here")
    assert done.stderr.count("\n") == 1


# -- as a job ----------------------------------------------------------------------------------------------------------


def test_a_job_reports_and_can_be_cancelled(own_studies: Path) -> None:
    reports: list[tuple[str, float, float]] = []
    argv = ["fit", "--method", "tracin_cp", "--config", "{}"]
    with pytest.raises(Cancelled):
        execute(own_studies / "table", argv, lambda *r: reports.append(r), lambda: len(reports) > 1)
    assert reports and base._job is None
    execute(own_studies / "table", argv, lambda *r: reports.append(r), lambda: False)
    stage, done, total = reports[-1]
    assert stage and done == total > 0
    with pytest.raises(BadInput):
        execute(own_studies / "table", ["fit", "--method", "nothing"], lambda *r: None, lambda: False)


# -- studies as a whole ------------------------------------------------------------------------------------------------


def test_studies_are_listed_renamed_packed_and_deleted(run: Call, own_studies: Path, tmp_path: Path) -> None:
    (own_studies / "image" / "study.toml").write_text("format = 99")
    lines = run("studies").splitlines()  # the folder that INFLUENCE_STUDIES names
    assert [line.split()[0] for line in lines] == ["image", "linear", "table"]
    assert "newer version" in lines[0] and "Small <table> · table · 3 classes" in lines[2] and "cache" in lines[2]
    assert run("studies", own_studies).splitlines() == lines
    assert run("rename", own_studies / "table", " New   name ") == f"{own_studies / 'table'} is called New name now.\n"
    assert Study(own_studies / "table").header.title == "New name"
    out = tmp_path / "t.zip"
    assert run("backup", own_studies / "table", "--out", out, "--reviews", "--cache").startswith(f"{out}: ")
    said = run("delete", own_studies / "table", code=2)
    assert "Nothing was deleted" in said and said.rstrip().endswith(f"delete {own_studies / 'table'} --yes")
    assert (own_studies / "table" / "study.toml").exists()
    assert "are free again" in run("delete", own_studies / "table", "--yes")
    assert not (own_studies / "table").exists() and len(run("studies").splitlines()) == 2
    from influence_core.study_archive import import_archive

    assert import_archive(out, own_studies / "table", Run()).header.title == "New name"


def test_studies_of_a_folder_without_any(run: Call, tmp_path: Path) -> None:
    assert run("studies", tmp_path) == f"There are no studies in {tmp_path}.\n"
    assert "There is no such folder" in run("studies", tmp_path / "no", code=2)


@pytest.mark.parametrize("words", [["rename", "x"], ["delete", "--yes"], ["backup", "--out", "x.zip"], ["migrate"]])
def test_a_folder_without_a_study_is_left_alone(run: Call, tmp_path: Path, words: list[str]) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "data").write_text("mine")
    assert "There is no study here" in run(words[0], folder, *words[1:], code=2)
    assert (folder / "data").read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_migrate_says_what_it_did(run: Call, own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from influence_core import study_versions

    assert "nothing was changed" in run("migrate", own_studies / "table")
    step = study_versions.Migration(lambda folder, content: content, "Nothing but the number.")
    monkeypatch.setattr(study_versions, "MIGRATIONS", {0: step})
    file = own_studies / "table" / "study.toml"
    file.write_text(file.read_text().replace("format = 1\n", "format = 0\n"))
    said = run("fit", own_studies / "table", "--method", "grad_dot", code=2)
    assert said.rstrip().endswith(f"python -m influence_core migrate {own_studies / 'table'}")
    assert "Nothing but the number. The originals are in before-format-1/." in run("migrate", own_studies / "table")
    assert Study(own_studies / "table").n_rows("train") == 60
