"""When the alarm rings, when a gain is doubted, and both on models that were really trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from influence_core import Run, Study
from influence_core.changes import Change
from influence_core.encoder import TableEncoder
from influence_core.errors import BadInput
from influence_core.primitives.paired import Paired
from influence_core.recipe import Recipe
from influence_core.workflows.comparison import SplitChange, alarm, compare, doubt, headline, sides_of
from influence_core.workflows.retraining import retrain
from tests.small_studies import COLUMNS, table_rows, trained

AGREES = Paired(0.80, 0.90, 0.10, 0.05, 0.15, 100)
LOSS = Paired(0.5, 0.5, 0.0, -0.1, 0.1, 100)


def locked(change: float, low: float, high: float) -> SplitChange:
    return SplitChange("locked", 100, Paired(0.8, 0.8 + change, change, low, high, 100), LOSS)


@pytest.mark.parametrize(
    ("change", "low", "high", "words"),
    [
        (-0.05, -0.08, -0.02, "fell (-5.0 points, 95% interval -8.0 to -2.0)"),
        (-0.01, -0.04, 0.02, "fell (-1.0 points"),
        (0.0, -0.02, 0.02, "stayed the same (+0.0 points"),
    ],
)
def test_it_rings_where_agreement_rises_and_the_locked_rows_do_not(
    change: float, low: float, high: float, words: str
) -> None:
    said = alarm(locked(change, low, high), AGREES)
    assert words in said and "+10.0 points" in said and "locked rows" in said
    assert doubt(locked(change, low, high)) == ""


def test_a_gain_is_no_alarm_and_is_doubted_where_its_interval_reaches_zero() -> None:
    for low in (-0.01, 0.0):
        reported = locked(0.004, low, 0.03)
        assert alarm(reported, AGREES) == "" and "not shown to be better" in doubt(reported)
    assert alarm(locked(0.03, 0.01, 0.05), AGREES) == "" == doubt(locked(0.03, 0.01, 0.05))


def test_it_is_silent_where_agreement_does_not_rise() -> None:
    for agreement in (Paired(0.9, 0.9, 0.0, -0.1, 0.1, 100), Paired(0.9, 0.8, -0.1, -0.2, 0.1, 100), None):
        assert alarm(locked(-0.05, -0.08, -0.02), agreement) == ""


def test_of_a_regression_less_loss_is_better() -> None:
    def numbers(change: float, low: float, high: float) -> SplitChange:
        return SplitChange("test", 50, None, Paired(1.0, 1.0 + change, change, low, high, 50))

    assert "not shown to be better" in doubt(numbers(-0.1, -0.3, 0.1))
    assert doubt(numbers(-0.1, -0.2, -0.05)) == "" == doubt(numbers(0.1, -0.1, 0.3))
    assert alarm(numbers(0.1, 0, 0.3), None) == ""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three classes, three training labels in ten moved on to the next class, a linear model that cannot do so."""
    tables = table_rows(5, {"train": 120, "test": 60, "locked": 90}, lambda i: i)
    random, truth = np.random.default_rng(0), tables["train"].select(["id", "label"])
    names = ("ant", "bee", "cat")
    given = [
        names[(names.index(label) + 1) % 3] if random.random() < 0.3 else label for label in truth["label"].to_pylist()
    ]
    place = tables["train"].schema.get_field_index("label")
    tables["train"] = tables["train"].set_column(place, "label", pa.array(given))
    recipe = Recipe.checked({"learning_rate": 0.1, "weight_decay": 1e-2, "batch_size": 40, "epochs": 25})
    options, encoder = {"n_inputs": len(COLUMNS), "n_classes": 3}, TableEncoder.fitted(tables["train"], COLUMNS)
    path = tmp_path_factory.mktemp("noisy") / "noisy"
    return trained(path, "Noisy", "table", tables, encoder, "logistic", options, recipe, truth)


def relabelled(study: Study, wanted: list[str]) -> list[Change]:
    ids, given = study.column("train", "id").tolist(), study.column("train", "label").tolist()
    return [
        Change("train", i, "relabel", old, new) for i, old, new in zip(ids, given, wanted, strict=True) if old != new
    ]


def test_fitting_the_labels_to_the_model_rings_and_the_truth_does_not(noisy: Study) -> None:
    said = noisy.task.outputs_of("train").argmax(1).tolist()
    fitted = retrain(noisy, relabelled(noisy, [noisy.header.classes[c] for c in said]), "as it says", Run(), 3)
    found = compare(noisy, "", fitted.id)
    gain = found.splits[0].accuracy
    assert found.agreement is not None and found.agreement.change > 0.1 and found.agreement.low > 0
    assert gain is not None and gain.change < -0.02 and found.reported == "locked"
    assert "fitted to the model" in found.alarm and "fell" in found.alarm and found.doubt == ""
    truth = noisy.true_labels
    assert truth is not None
    mended = retrain(noisy, relabelled(noisy, [str(label) for label in truth]), "truth", Run(), 3)
    better = compare(noisy, "", mended.id)
    assert better.agreement is not None and better.agreement.change > 0.1
    gain = better.splits[0].accuracy
    assert gain is not None and gain.change > 0.01 and better.alarm == ""
    assert (better.doubt != "") == (gain.low <= 0)


def test_figures_are_means_over_the_pairs_of_what_was_kept(own_studies: Path) -> None:
    study = Study(own_studies / "table")
    truth = study.true_labels
    assert truth is not None
    version = retrain(study, relabelled(study, [str(label) for label in truth]), "truth", Run(), 2)
    (before, after), seeds = sides_of(study, "", version.id)
    found, targets = compare(study, "", version.id), study.task.split("locked").targets
    accuracy = found.splits[0].accuracy
    assert seeds == (0, 1) == found.seeds and accuracy is not None and found.confusion is not None
    for side, value, counts in ((before, accuracy.before, 0), (after, accuracy.after, 1)):
        right = [(said.argmax(1) == targets).double().mean() for said in side.said["locked"]]
        assert value == pytest.approx(float(sum(right)) / 2, abs=1e-12)
        assert float(np.trace(found.confusion[counts])) == pytest.approx(value * len(targets), abs=1e-9)
    assert sum(item.change.n for item in found.classes) == len(targets)
    swapped = compare(study, version.id, "")
    assert swapped.splits[0].accuracy is not None
    assert swapped.splits[0].accuracy.change == pytest.approx(-accuracy.change, abs=1e-12)
    assert headline(found.splits[0], after).startswith("After 6 corrected training rows, ")


@pytest.mark.parametrize(("before", "after"), [("", ""), ("v1", "v1"), ("", "v9"), ("v9", "")])
def test_what_cannot_be_compared_is_refused(noisy: Study, before: str, after: str) -> None:
    with pytest.raises(BadInput):
        compare(noisy, before, after)


def test_versions_without_a_common_seed_cannot_be_compared(own_studies: Path) -> None:
    study = Study(own_studies / "table")
    first, then = (retrain(study, [], name, Run(), 1) for name in ("one", "two"))
    file = study.path / "versions" / then.id / "version.toml"
    text = file.read_text(encoding="utf-8")
    changed = text.replace("seeds = [\n    0,\n]", "seeds = [\n    5,\n]")
    assert changed != text
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(BadInput, match="different seeds"):
        compare(study, first.id, then.id)
