"""Checks by retraining: against direct refits and closed forms, exact pairing, what is foreseen, and what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ttest_1samp
from torch import Tensor

from influence_core import Measurement, Rows, Run, Study, attribute, registry
from influence_core.changes import Change
from influence_core.errors import BadInput, Unavailable
from influence_core.measurement import TYPED
from influence_core.metrics.intervals import t_interval
from influence_core.outcomes import Outcomes
from influence_core.versions import version_outcomes
from influence_core.workflows import check as checks
from influence_core.workflows.check import Asked, check, check_plan
from influence_core.workflows.check_records import Foreseen, Pairs, kept_checks
from influence_core.workflows.retraining import retrain
from tests.more_studies import diabetes_study
from tests.oracles.influence import logistic, ridge

EXACT = Run(dtype=torch.float64)


def asked(study: Study, count: int = 3, method: str = "if_exact", **more: Any) -> Asked:
    """Ask about the first test row and the first training rows."""
    ids = tuple(study.task.ids("train")[:count].tolist())
    rows = Rows("test", (study.task.ids("test").tolist()[0],))
    options = more.pop("config", {})
    return Asked(rows, more.pop("measurement", Measurement()), registry.made(method, options, study.task), ids, **more)


@pytest.fixture
def linear(own_studies: Path) -> Study:
    return Study(own_studies / "linear")


@pytest.fixture
def table(own_studies: Path) -> Study:
    return Study(own_studies / "table")


# -- oracles ----------------------------------------------------------------------------------------------------------


class Logistic:
    """The linear study refitted by Newton's method, and its first order."""

    def __init__(self, study: Study) -> None:
        train, test = (study.task.split(split).raw(slice(None)) for split in ("train", "test"))
        self.x, self.y = train.inputs.double(), train.targets
        self.t, self.t_label = test.inputs[0].double(), int(test.targets[0])
        assert study.header.recipe is not None
        self.decay, self.n = study.header.recipe.weight_decay, len(self.y)
        weight, bias = study.task.model_at(-1, torch.device("cpu"), torch.float64).parameters()
        self.kept = torch.cat([weight, bias.unsqueeze(1)], 1).detach()  # the optimum in the digits of its file

    def value(self, labels: Tensor, weights: Tensor) -> float:
        """Return minus the loss of the first test row after a refit."""
        theta = logistic(self.x, labels, 3, self.decay, weights)
        return float((theta[:, :-1] @ self.t + theta[:, -1]).log_softmax(0)[self.t_label])

    def change(self, labels: Tensor, weights: Tensor) -> float:
        return self.value(labels, weights) - self.value(self.y, torch.ones(self.n, dtype=torch.float64))

    def first_order(self, labels: Tensor, weights: Tensor) -> float:
        """Return ``(1/n) g_t' H^-1 sum_i (w_i g_i(new label) - g_i(old label))``, ``g`` of losses."""
        theta = self.kept
        padded = torch.cat([self.x, torch.ones(self.n, 1, dtype=torch.float64)], 1)
        p = (padded @ theta.T).softmax(1)

        def gradients(targets: Tensor) -> Tensor:
            return ((p - F.one_hot(targets, 3)).unsqueeze(2) * padded.unsqueeze(1)).flatten(1)

        outer = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        size = theta.numel()
        hessian = torch.einsum("ncd,np,nq->cpdq", outer, padded, padded).reshape(size, size) / self.n
        hessian += self.decay * torch.eye(size, dtype=torch.float64)
        at = torch.cat([self.t, torch.ones(1, dtype=torch.float64)])
        mine = ((theta @ at).softmax(0) - F.one_hot(torch.tensor(self.t_label), 3)).unsqueeze(1) * at
        moved = (weights.unsqueeze(1) * gradients(labels) - gradients(self.y)).sum(0)
        return float(mine.flatten() @ torch.linalg.solve(hessian, moved)) / self.n


def changed(oracle: Logistic, action: str, count: int) -> tuple[Tensor, Tensor]:
    labels, weights = oracle.y.clone(), torch.ones(oracle.n, dtype=torch.float64)
    if action == "flip":
        labels[:count] = 2
    else:
        weights[:count] = {"drop": 0.0, "downweight": 0.25}[action]
    return labels, weights


@pytest.mark.parametrize("action", ["drop", "flip", "downweight"])
def test_change_is_that_of_direct_refits_and_foreseen_is_the_closed_form(linear: Study, action: str) -> None:
    oracle, count = Logistic(linear), 4
    query = asked(linear, count, action=action, config={"damping": 0.0}, labels=("cat",) * 4, weight=0.25)
    found = check(linear, query, EXACT)
    where = changed(oracle, action, count)
    assert found.converged and found.actual.seeds == (0,)
    assert found.actual.change.value == pytest.approx(oracle.change(*where), rel=1e-8)
    assert found.actual.change.value != 0
    (foreseen,) = found.foreseen
    assert foreseen.change == pytest.approx(oracle.first_order(*where), rel=1e-9)
    assert foreseen.sign == np.sign(foreseen.change)


def test_dropping_is_foreseen_as_minus_the_sum_of_the_scores_on_screen(linear: Study) -> None:
    for kind in ("loss", "margin"):
        query = asked(linear, 5, method="if_ggn", measurement=Measurement(kind, "predicted"))
        scores = attribute(linear, "if_ggn", query.rows, measurement=query.measurement).scores[0]
        (foreseen,) = check(linear, query, Run()).foreseen
        assert foreseen.change == pytest.approx(-float(scores[:5].double().sum()), rel=1e-6)


def test_a_regression_is_refitted_too(tmp_path: Path) -> None:
    study = diabetes_study(tmp_path / "diabetes")
    found = check(study, asked(study, 3, method="if_ggn"), EXACT)
    train, test = (study.task.split(split).raw(slice(None)) for split in ("train", "test"))
    x, t = (torch.cat([b.inputs.double(), torch.ones(len(b.inputs), 1).double()], 1) for b in (train, test))
    y, weights = train.targets.double().reshape(-1), torch.ones(len(train.inputs)).double()
    assert study.header.recipe is not None
    said = []
    for w in (weights, torch.cat([torch.zeros(3).double(), weights[3:]])):
        said.append(float(t[0] @ ridge(x, y, study.header.recipe.weight_decay, w)))
    assert [float(found.actual.said_before[0]), float(found.actual.said_after[0])] == pytest.approx(said, rel=1e-9)
    target = float(test.targets.double().reshape(-1)[0])
    assert found.actual.change.value == pytest.approx((said[0] - target) ** 2 - (said[1] - target) ** 2, rel=1e-8)
    assert found.headline.startswith("Without these 3 rows the model says ") and found.regression
    with pytest.raises(BadInput, match="predicts a number"):
        check(study, asked(study, 3, method="if_ggn", action="flip", labels=("1",) * 3), EXACT)


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_no_change_is_a_change_of_exactly_nothing(table: Study) -> None:
    trials = checks._Trials(table, asked(table), Run())
    pairs = trials.pairs([trials.base] * 5, trials.seeds)
    assert pairs.seeds == (0, 1, 2, 3, 4) and len(set(pairs.before)) == 5
    assert (pairs.changes == 0).all() and pairs.flips == 0
    assert pairs.change == (0.0, 0.0, 0.0, 5)


def test_pairs_are_outcomes_of_the_shared_table(table: Study) -> None:
    query = asked(table, 2, method="grad_cos", seeds=3, draws=2)
    found = check(table, query, Run())
    outcomes, target = Outcomes(table.task, Run().with_store(table.store)), int(table.task.split("test").targets[0])
    for i, seed in enumerate(found.actual.seeds):
        for value, removed in ((found.actual.before[i], ()), (found.actual.after[i], (0, 1))):
            said = outcomes.known(removed, seed)
            assert said is not None
            assert value == pytest.approx(float(said.outputs["test"][0].double().log_softmax(0)[target]), abs=1e-12)
    assert found.random.before == found.actual.before[:2] and found.random.seeds == (0, 1)


def test_models_that_are_there_are_not_trained_again(table: Study) -> None:
    query = asked(table, 2, method="grad_cos", seeds=2, draws=2)
    plan = check_plan(table, query, Run())
    assert plan.models == plan.missing == 6 and plan.in_words.startswith("6 models to train, about ")
    check(table, query, Run())
    done = check_plan(table, query, Run())
    assert done.missing == 0 and done.in_words == "Every model it needs is trained already."
    other = check_plan(table, replace(query, changed=query.changed[:1]), Run())
    assert other.models - other.missing >= 2  # those on all rows


def test_random_rows_are_others_and_differ_by_draw(table: Study) -> None:
    query = asked(table, 4, method="grad_cos", action="flip", labels=("bee",) * 4, draws=6)
    trials = checks._Trials(table, query, Run())
    given = table.task.split("train").targets.numpy()
    drawn = [tuple(which.labels) for which in trials.random]
    assert len(drawn) == 6 == len(set(drawn)) and not {0, 1, 2, 3} & {row for rows in drawn for row in rows}
    assert all(len(rows) == len(trials.changed) for rows in drawn)
    assert all(given[row] != label for which in trials.random for row, label in which.labels.items())
    assert trials.draw_seeds == (0, 1, 2, 3, 4, 0)


def test_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 7)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = t_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-14)
    assert found.value == pytest.approx(values.mean(), abs=1e-15) and found.n == 7
    assert np.isnan(t_interval(values[:1]).low) and np.isnan(t_interval(values[:0]).value)


def test_a_version_is_checked_on_top_of_its_changes(table: Study) -> None:
    ids = table.task.ids("train").tolist()
    made = retrain(table, [Change("train", ids[20], "drop"), Change("train", ids[21], "downweight", weight=0.5)], "v",
                   Run(), 2)  # fmt: skip
    version = table.version(made.id)
    found = check(version, asked(version, 2, method="grad_cos", seeds=2, draws=1), Run())
    kept = version_outcomes(table.path, made.id)["after/test"][:, 0].double().log_softmax(1)
    target = int(version.task.split("test").targets[0])
    assert found.actual.before == pytest.approx(kept[:, target].tolist(), abs=1e-6)
    assert kept_checks(table, found_rows(table)) == [] and kept_checks(version, found_rows(version)) == [found]


def found_rows(study: Study) -> Rows:
    return Rows("test", (study.task.ids("test").tolist()[0],))


# -- what is foreseen -------------------------------------------------------------------------------------------------


def test_an_order_foresees_a_direction_and_influence_an_amount_beside(table: Study) -> None:
    query = asked(table, 1, method="gas", seeds=2, draws=0)
    scores = attribute(table, "gas", query.rows, measurement=query.measurement).scores[0]
    own, beside = check(table, query, Run()).foreseen
    assert own.change is None and own.sign == -np.sign(float(scores[0])) and "an order, not amounts" in own.note
    assert beside.method == "if_ggn" and beside.change is not None
    influence = attribute(table, "if_ggn", query.rows, measurement=query.measurement).scores[0]
    assert beside.change == pytest.approx(-float(influence[0]), rel=1e-5)


def test_scores_about_leaving_out_do_not_foresee_how_far_a_new_label_moves(table: Study) -> None:
    query = asked(table, 3, method="if_ekfac", action="flip", labels=("bee",) * 3, seeds=1, draws=0)
    own, beside = check(table, query, Run()).foreseen
    assert own.change is None and "not what another label does" in own.note and beside.change is not None


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def found(table: Study) -> checks.Check:
    return check(table, asked(table, 2, method="grad_cos", seeds=2, draws=0), Run())


def said(found: checks.Check, before: str, after: str, **more: Any) -> checks.Check:
    """Replace what a check found: the models' words, and changes of -1, -1.1, ..."""
    values = tuple(-1 - 0.1 * i for i in range(len(before)))
    pairs = Pairs(tuple(range(len(before))), (0.0,) * len(before), values, tuple(before), tuple(after))
    return replace(found, **{"actual": pairs, "explained": "8", "target": "predicted", **more})


def test_the_headline_says_what_the_model_says(found: checks.Check) -> None:
    flips = said(found, "88888", "33383", changed=tuple(range(10)))
    assert flips.headline == "Without these 10 rows the model says 3 instead of 8 in 4 of 5 trainings."
    several = said(found, "88888", "33588")
    assert several.headline == (
        "Without these 2 rows the model says something else in 3 of 5 trainings, mostly 3 instead of 8."
    )
    still = said(found, "88888", "88888", action="flip", labels=("bee", "bee"))
    assert still.headline == "With these 2 rows labelled bee the model still says 8 in all 5 trainings."
    once = said(found, "8", "3", converged=True, changed=(1,), action="downweight", weight=0.5)
    assert once.headline == "With this row counting 0.5 instead of 1 the model says 3 instead of 8."


def test_findings_compare_with_noise_random_rows_and_what_was_foreseen(found: checks.Check) -> None:
    random = Pairs((0, 1), (0.0, 0.0), (-0.01, 0.01))
    right = Foreseen("a", "A <b>", -1.15, -1, "")
    wrong, sign = replace(right, change=2.0, sign=1), replace(right, change=None)
    words = " ".join(said(found, "888", "333", random=random, foreseen=(right, wrong, sign)).findings)
    assert "2 random rows hardly move the measurement." in words and "A <b> foresaw −1.15, within the interval" in words
    assert "A <b> foresaw that the measurement rises; it fell." in words and "disagree" not in words
    assert "A <b> foresaw the direction: the measurement falls." in words
    unsure = replace(said(found, "88", "88"), actual=Pairs((0, 1), (0.0, 0.0), (-1.0, 0.9), ("8", "3"), ("8", "3")))
    assert "disagree" in unsure.findings[0] and "in only 1 of 2 trainings" in unsure.findings[-1]
    alike = said(found, "88", "88", random=Pairs((0, 1), (0.0, 0.0), (-1.2, -0.9)))
    assert "2 random rows move the measurement as much." in alike.findings


# -- keeping and refusing ---------------------------------------------------------------------------------------------


def test_checks_are_kept_with_the_study_newest_first(table: Study, found: checks.Check) -> None:
    again = Study(table.path)
    assert kept_checks(again, found_rows(again)) == [found]
    other = check(again, asked(again, 1, method="grad_cos", seeds=1, draws=0), Run())
    both = kept_checks(again, found_rows(again))
    assert {one.key for one in both} == {found.key, other.key} and both[0].made >= both[1].made
    (file,) = again.path.glob(f"checks/*/{other.key}.json")
    assert json.loads(file.read_text())["changed"] == list(other.changed)
    for damaged in ("", "[]", '{"format": 1}', '{"format": 99}', "null"):
        file.write_text(damaged)
        assert kept_checks(again, found_rows(again)) == [found]
    assert check(again, asked(again, 1, method="grad_cos", seeds=1, draws=0), Run()).actual == other.actual


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"action": "burn"}, "Actions are"),
        ({"draws": -1}, "random draws"),
        ({"seeds": 0}, "pairs"),
        ({"action": "downweight", "weight": 1.0}, "weight is 1.0"),
        ({"action": "flip", "labels": ("bee",)}, "one label for each row"),
        ({"action": "flip", "labels": ("emu",) * 3}, "'emu' is no class"),
        ({"changed": ()}, "1 to 1000"),
        ({"changed": (1007, 1007)}, "each once"),
        ({"changed": (5,)}, "5"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_anything_is_trained(table: Study, more: dict, words: str) -> None:
    query = replace(asked(table, 3, method="grad_cos"), **more)
    for ask in (check, check_plan):
        with pytest.raises(BadInput, match=words):
            ask(table, query, Run())
    assert not (table.path / "checks").exists()


def test_rows_that_are_labelled_so_already_stay_and_are_told(table: Study) -> None:
    given = [table.header.classes[i] for i in table.task.split("train").targets[:3].tolist()]
    query = asked(table, 3, method="grad_cos", action="flip", labels=(given[0],) * 3, seeds=1, draws=0)
    if len(set(given)) == 1:
        with pytest.raises(BadInput, match="Nothing would change"):
            check(table, query, Run())
        return
    found = check(table, query, Run())
    assert len(found.changed) == sum(label != given[0] for label in given) and "that label already" in found.notes[0]


def test_without_a_recipe_or_for_a_typed_row_it_says_why(table: Study) -> None:
    with pytest.raises(Unavailable, match="own rows"):
        checks.check_possible(table, Rows(TYPED, ("a",)))
    without, rows = Study(table.path), found_rows(table)
    without.header = replace(without.header, recipe=None)
    with pytest.raises(Unavailable, match="needs a training recipe .* To make it possible, give recipe"):
        checks.check_possible(without, rows)


def test_several_rows_are_one_query_by_their_mean(table: Study) -> None:
    ids = tuple(table.task.ids("test")[:3].tolist())
    query = replace(asked(table, 2, method="grad_cos", seeds=2, draws=0), rows=Rows("test", ids, "mean"))
    single = [check(table, replace(query, rows=Rows("test", (row,))), Run()).actual for row in ids]
    found = check(table, query, Run())
    assert found.actual.after == pytest.approx(np.mean([one.after for one in single], 0).tolist(), abs=1e-12)
    assert found.actual.said_before == () and "over these 3 predictions" in found.headline


def test_a_check_that_is_stopped_goes_on_with_the_models_it_has(table: Study, tmp_path: Path) -> None:
    from tests.faults import real_fits as fits

    row = table.task.ids("test")[0]
    words = ("check", table.path, "--method", "grad_cos", "--test", row, "--drop", "proponents", "--k", 3, "--seeds",
             30, "--draws", 5)  # fmt: skip

    def trained() -> dict[str, int]:
        found = [path for path in (table.path / "cache").glob("??/*/meta.json") if '"outcome"' in path.read_text()]
        return {path.parent.name: path.stat().st_ino for path in found if path.parent.suffix == ""}

    process = fits.started(*words)
    fits.wait_for(lambda: len(trained()) >= 8, "eight models")
    process.kill()
    process.communicate(timeout=30)
    kept = trained()
    assert 8 <= len(kept) < 65 and not list(table.path.glob("checks/*/*"))
    code, out, err = fits.ended(fits.started(*words))
    assert code == 0 and "Without these 3 rows" in out, err
    assert kept.items() <= trained().items() and len(trained()) == 65
    assert len(list(table.path.glob("checks/*/*"))) == 1
