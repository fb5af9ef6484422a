"""Every id of the literature is found: as a method, as a diagnostic, or with a sentence that says what to call."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from influence_core import (
    Measurement,
    Rows,
    Run,
    Study,
    attribute,
    diagnose,
    list_diagnostics,
    list_estimators,
    registry,
)
from influence_core.commands.propose import Proposer
from influence_core.errors import BadInput
from influence_core.fitting import fit
from influence_core.metrics import METRICS
from influence_core.other_names import OTHER_NAMES
from influence_core.store import Store
from influence_core.workflows.diagnostics.catalogue import diagnostics, found
from influence_core.workflows.measures import class_margin, gap_influence
from tests.cases import CASES

ROOT = Path(__file__).resolve().parents[3]
METHODS = """
tracin_ideal tracin_randproj tracin_we tracin_we_topk gas_layerwise cosin renorm_if if_lissa if_arnoldi if_kfac if_ekfac
if_datainf if_diag if_woodbury relatif_theta relatif_loss fastif ntk_if kernel_loo group_if group_newton
group_if_second_order rps_lje rps_l2 trak logra trackstar source sgd_influence hydra hydra_fast magic cook_distance
dfbeta dffits covratio likelihood_displacement influence_sketching infinitesimal_jackknife seed_average
bayes_tda cross_loss_if
""".split()
DIAGNOSTICS = """
fragility_suite influence_fading if_finetune_check pbrf critical_sample_ratio loss_sensitivity gini_sensitivity
influence_curve if_input_grad cross_loss_if
""".split()
Call = Callable[..., str]


@pytest.fixture
def study(studies: Path) -> Study:
    return Study(studies / "table")


# -- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_and_documented(name: str, run: Call) -> None:
    entry = registry.found(name)
    assert entry.info.name in list_estimators()
    said = run("methods", name)
    assert entry.info.title in said and entry.info.name in said and "Call " in said
    assert f"`{name}`" in (ROOT / "docs" / "methods.md").read_text()


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_a_diagnostic_is_found_and_documented(name: str, run: Call) -> None:
    assert name in list_diagnostics() and found(name).name == name
    assert f"## `{name}`:" in (ROOT / "docs" / "diagnostics.md").read_text()
    assert f"--workflow {name}" in run("methods", name)
    assert run("diagnose").count(f"\n{name} ") + run("diagnose").startswith(f"{name} ") == 1
    said = run("diagnose", "--workflow", name)
    assert all(option in said for option in found(name).Config.model_fields)


def test_asking_for_another_thing_as_a_method_says_what_to_call(run: Call, study: Study) -> None:
    for name in OTHER_NAMES:
        with pytest.raises(BadInput, match="not called as a method") as error:
            registry.found(name)
        assert error.value.fix.startswith("Call ") and "python -m influence_core" in error.value.fix
    error_line = run("attribute", study.path, "--method", "fragility_suite", "--test", 1, code=2)
    assert error_line.count("\n") == 1 and "diagnose STUDY --workflow fragility_suite" in error_line
    with pytest.raises(BadInput, match="Did you mean 'fragility_suite'"):
        registry.found("fragility_suit")


def test_the_table_of_other_names_is_true() -> None:
    """Every diagnostic, metric and workflow is in it, and nothing else: the words are checked against what is there."""
    called = {name for name, other in OTHER_NAMES.items() if "diagnose" in other.command}
    assert called | {"cross_loss_if"} == set(list_diagnostics())
    judged = {name for name, other in OTHER_NAMES.items() if "evaluate" in other.command}
    assert judged | {"pbrf", "loo"} == set(METRICS)  # loo is a method as well
    proposed = {o.command.split("--workflow ")[1].split()[0] for o in OTHER_NAMES.values() if " propose " in o.command}
    assert proposed == {proposer.value for proposer in Proposer}
    assert not set(OTHER_NAMES) & set(list_estimators())


def test_a_name_that_is_no_diagnostic() -> None:
    with pytest.raises(BadInput, match="Did you mean 'pbrf'"):
        found("pbrff")
    with pytest.raises(BadInput, match="is a method"):
        found("grad_dot")


# -- answers ----------------------------------------------------------------------------------------------------------

SMALL = {
    "fragility_suite": {
        "left_out": 3, "rows": 2, "seeds": 0, "weight_decays": [], "widths": [2.0], "depths": [], "solvers": ["if_cg"],
        "dampings": [10.0], "warm_epochs": 1,
    },
    "influence_fading": {"tried": 2, "rows": 2, "horizons": [1, 2]},
    "if_finetune_check": {"k": 2, "steps": 2}, "pbrf": {"left_out": 3, "rows": 2, "methods": ["grad_dot"]},
    "critical_sample_ratio": {"n_rows": 5, "steps": 2}, "if_input_grad": {"k": 1, "top": 2},
    "cross_loss_if": {"classes": ["ant", "bee"], "top": 3}, "score_uncertainty": {"seeds": 2, "rows": 1, "top": 3},
    "error_bars": {"rows": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", list(diagnostics()))
def test_each_answers_from_the_command_line_and_from_python(name: str, run: Call, study: Study) -> None:
    import json

    options = SMALL.get(name, {})
    report = diagnose(study, name, config=options)
    assert report.name == name and len(report.table) and all(note.endswith(".") for note in report.notes)
    printed = pd.read_csv(io.StringIO(run("diagnose", study.path, "-w", name, "--config", json.dumps(options))))
    assert list(printed.columns) == list(report.table.columns)
    for column in printed.columns:
        if report.table[column].dtype.kind == "f":
            np.testing.assert_allclose(printed[column], report.table[column].astype(float), rtol=1e-6, atol=1e-9)
    ids = set(study.task.ids("train").tolist())
    if "train_id" in report.table:
        assert set(report.table["train_id"]) <= ids
    text = run("diagnose", study.path, "-w", name, "--config", json.dumps(options), "--format", "text")
    assert report.notes[0] in text
    documented = found(name).function.__doc__ or ""
    assert name == "pbrf" or any(column in documented for column in report.table.columns)


def test_a_bad_option_is_one_line(run: Call, study: Study, tmp_path: Path) -> None:
    assert "did you mean 'left_out'" in run("diagnose", study.path, "-w", "pbrf", "--config", '{"leftout": 3}', code=2)
    assert "No diagnostic is named" in run("diagnose", study.path, code=2)
    nowhere = tmp_path / "no" / "file.txt"
    arguments = ("-w", "gini_sensitivity", "--format", "text", "--out", nowhere)
    assert "cannot be written" in run("diagnose", study.path, *arguments, code=2)
    assert "no such column" in run(
        "diagnose", study.path, "-w", "influence_curve", "--config", '{"column": "nothing"}', code=2
    )


def test_a_column_of_the_data_has_an_influence_curve(study: Study) -> None:
    report = diagnose(study, "influence_curve", config={"column": "width", "points": [1.0, 20.0]})
    values = study.column("train", "width")
    np.testing.assert_allclose(report.table["influence"], np.asarray([1.0, 20.0]) - values.mean())


def test_the_margin_and_the_gap_are_the_measures_own(study: Study) -> None:
    task, run = study.task, Run(device="cpu").with_store(study.store)
    margin = diagnose(study, "cross_loss_if", config={"classes": ["bee", "cat"], "method": "if_exact", "top": 5})
    rows = Rows("test", tuple(task.ids("test").tolist()), "mean")
    measured = attribute(study, "cross_loss_if", rows, measurement=Measurement(class_margin(1, 2)))
    expected = dict(zip(measured.train_ids.tolist(), measured.scores[0].tolist(), strict=True))
    best = sorted(expected, key=expected.__getitem__, reverse=True)
    assert margin.table["train_id"].tolist() == [*best[:5], *best[-5:]]
    np.testing.assert_allclose(margin.table["score"], [expected[i] for i in margin.table["train_id"]], rtol=1e-4)
    gap = diagnose(
        study, "cross_loss_if",
        config={"column": "label", "groups": ["ant", "bee"], "target": "cat", "method": "if_exact", "top": 30},
    )  # fmt: skip
    labels, ids = study.column("test", "label"), task.ids("test")
    fitted = fit(task, registry.made("if_exact"), run)
    groups = [Rows("test", tuple(ids[labels == name].tolist())) for name in ("ant", "bee")]
    scores = gap_influence(fitted, *groups, Measurement("probability", 2))
    places = task.positions(Rows("train", tuple(gap.table["train_id"].tolist())))
    np.testing.assert_allclose(gap.table["score"], scores[places].numpy(), rtol=1e-5, atol=1e-9)
    for wrong in ({}, {"classes": ["ant", "dog"]}, {"column": "label", "groups": ["ant", "dog"]}):
        with pytest.raises(BadInput):
            diagnose(study, "cross_loss_if", config=wrong)


def test_uncertainty_names_both_errors(study: Study) -> None:
    report = diagnose(study, "score_uncertainty", config={"seeds": 3, "rows": 1, "top": 60, "method": "grad_dot"})
    table = report.table
    assert len(table) == 60
    np.testing.assert_allclose(table["standard_error"], (table["between_seeds"] / 3) ** 0.5, rtol=1e-5)
    from scipy.stats import norm, t

    np.testing.assert_allclose(
        table["p_one_draw"], 2 * norm.sf(np.abs(table["mean"] / table["standard_deviation"])), rtol=1e-3, atol=1e-9
    )
    expected = 2 * t.sf(np.abs(table["mean"] / table["standard_error"]), 2)
    np.testing.assert_allclose(table["p_mean"], expected, rtol=1e-3, atol=1e-9)


def test_a_task_in_memory_is_diagnosed_too(tmp_path: Path) -> None:
    task, run = CASES["mlp"](), Run(device="cpu", dtype=torch.float64, store=Store(tmp_path))
    report = diagnose(task, "if_input_grad", config={"train": [2], "test": [1], "top": 50}, run=run)
    assert report.table["train_id"].unique().tolist() == [2] and len(report.table) == 5
    assert set(report.table["place"]) == {"0", "1", "2", "3", "4"}
    norm = float(np.linalg.norm(report.table["derivative"]))
    np.testing.assert_allclose(report.table["norm"], norm)
    with pytest.raises(BadInput, match="no such column"):
        diagnose(task, "influence_curve", config={"column": "x"}, run=run)
