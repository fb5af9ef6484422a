"""Versions: the same study with other labels and rows, kept whole, beside an original that stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from influence_core import Run, Study, attribute
from influence_core.changes import Change
from influence_core.errors import BadInput, Unavailable
from influence_core.outcomes import Correction, Outcomes
from influence_core.primitives.paired import paired_changes
from influence_core.study_archive import import_archive, write_archive
from influence_core.study_changes import combined, correction
from influence_core.versions import delete_version, rename_version, version_changes, versions
from influence_core.workflows.comparison import compare
from influence_core.workflows.predicted_gain import predicted_gain
from influence_core.workflows.retraining import plan, retrain


@pytest.fixture
def study(own_studies: Path) -> Study:
    return Study(own_studies / "table")


def changes(study: Study) -> list[Change]:
    """Every planted error corrected, one row dropped, one made lighter, one test label changed."""
    ids, given, truth = study.column("train", "id").tolist(), study.column("train", "label"), study.true_labels
    assert truth is not None and study.planted is not None
    wrong = [Change("train", ids[i], "relabel", given[i], str(truth[i])) for i in np.flatnonzero(study.planted)]
    test, label = study.column("test", "id").tolist(), study.column("test", "label")[2]
    other = next(name for name in study.header.classes if name != label)
    return [
        *wrong, Change("train", ids[0], "drop", given[0]), Change("train", ids[2], "downweight", given[2], weight=0.25),
        Change("train", ids[4], "keep", given[4]), Change("test", test[2], "relabel", label, other),
    ]  # fmt: skip


def test_no_changes_train_the_originals_weights_bit_for_bit(study: Study) -> None:
    version = retrain(study, [], "same", Run(), 1)
    states = study.task.state(-1), study.version(version.id).task.state(-1)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_version_has_its_own_rows_labels_and_fingerprint(study: Study) -> None:
    before = study.fingerprint
    version = retrain(study, changes(study), "fixed", Run(), 2)
    made, fresh = Study.open(f"{study.path}@{version.id}"), Study(study.path)
    assert made.n_rows("train") == 59 and study.column("train", "id")[0] not in made.column("train", "id")
    assert made.planted is not None and not made.planted.any()
    assert made.task.n_train == 59 and made.fingerprint != before == fresh.fingerprint
    assert [row["id"] for row in made.rows("train", [0, 58]).to_pylist()] == made.column("train", "id")[
        [0, 58]
    ].tolist()
    labels = [row["label"] for row in made.rows("train", range(59)).to_pylist()]
    assert labels == made.column("train", "label").tolist() == [made.header.classes[i] for i in made.targets("train")]
    expected = torch.as_tensor(study.task.split("train").batch(slice(1, 60)).inputs)
    assert torch.equal(made.task.split("train").batch(slice(0, 59)).inputs, expected)
    assert (made.targets("test") != study.targets("test")).nonzero()[0].tolist() == [2]
    assert attribute(made, "tracin_cp", test=[made.column("test", "id")[0]]).scores.shape == (1, 59)
    assert version.counts == {"relabelled": 6, "dropped": 1, "downweighted": 1, "test": 1}
    assert any("unweighted" in note for note in made.header.notes)


def test_the_same_retraining_again_is_the_same_version(study: Study) -> None:
    first = retrain(study, changes(study), "fixed", Run(), 2)
    assert retrain(study, changes(study), "fixed", Run(), 2) == first and len(versions(study.path)) == 1
    assert plan(study, changes(study), Run(), 2).models == 1  # all outcomes are known: the checkpoints alone


def test_outcomes_of_removed_rows_keep_their_key(study: Study) -> None:
    outcomes = Outcomes(study.task, Run().with_store(study.store))
    key, inputs = outcomes._identity(Correction((3, 1)), 0)
    assert inputs["removed"] == [1, 3] and set(inputs) == {"kind", "version", "task", "recipe", "removed", "seed"}
    outcomes.without([3, 1], 0)
    assert outcomes.has(Correction((1, 3)), 0) and not outcomes.has(Correction((1, 3), {0: 1.0}), 0)


def test_versions_are_renamed_deleted_and_travel(study: Study, tmp_path: Path) -> None:
    version = retrain(study, changes(study), "fixed", Run(), 1)
    assert rename_version(study.path, version.id, " after   review ").name == "after review"
    archive = write_archive(study.path, tmp_path / "a.zip", Run())
    copy = import_archive(archive, tmp_path / "copy", Run())
    assert copy.version("v1").header.title.endswith("after review")
    assert compare(copy, "", "v1").seeds == (0,)
    delete_version(study.path, version.id)
    with pytest.raises(BadInput, match="none of this study"):
        study.version(version.id)
    assert copy.version("v1").task.n_train == 59


@pytest.mark.parametrize("version_id", ["v9", "../x", "", "v1/../../x"])
def test_ids_are_never_paths(study: Study, version_id: str) -> None:
    if version_id == "":
        assert study.version("").made is None
    else:
        with pytest.raises(BadInput, match="Unknown version"):
            study.version(version_id)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("locked", 1, "drop"), "never changed"), (Change("train", -5, "drop"), "not there"),
        (Change("train", 1000, "relabel", "wrong", "ant"), "other data"),
    ],
)  # fmt: skip
def test_changes_that_cannot_be_are_refused(study: Study, change: Change, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        retrain(study, [change], "x", Run(), 1)
    assert versions(study.path) == []


def test_a_new_class_grows_the_output_layer(study: Study) -> None:
    ids = study.column("train", "id").tolist()
    version = retrain(study, [Change("train", i, "relabel", None, "dog") for i in ids[:8]], "dogs", Run(), 1)
    made = study.version(version.id)
    assert made.header.classes == ("ant", "bee", "cat", "dog") and made.task.n_classes == 4
    assert compare(study, "", version.id).labels == made.header.classes


def test_without_a_recipe_it_is_refused_in_the_words_of_the_methods(study: Study) -> None:
    study.header = replace(study.header, recipe=None)
    study.version = lambda version_id: study  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="needs a training recipe"):
        retrain(study, changes(study), "x", Run(), 1)


def test_later_changes_hold_and_a_version_can_be_a_parent(study: Study) -> None:
    first = retrain(study, changes(study), "one", Run(), 1)
    ids = study.column("train", "id").tolist()
    then = retrain(study, [Change("train", ids[0], "keep")], "two", Run(), 1, first.id)
    assert study.version(then.id).n_rows("train") == 60 and then.parent == first.id
    assert len(version_changes(study, then.id)) == len(combined(changes(study), []))
    assert compare(study, first.id, then.id).names == ("one", "two")


def test_relabelling_to_the_same_label_is_predicted_to_do_nothing_and_a_drop_as_its_influence(study: Study) -> None:
    task, test = study.task, study.task.split("test").raw(slice(None))
    own = {row: float(study.targets("train")[row]) for row in (0, 7, 31)}
    assert abs(predicted_gain(task, Correction(labels=own), test, Run()).total) < 1e-6
    ids = tuple(study.column("test", "id").tolist())
    scores = attribute(study, "if_ggn", test=list(ids)).scores.mean(0)
    gain = predicted_gain(task, Correction((5, 9), weights={3: 0.25}), test, Run())
    assert gain.dropped == pytest.approx(-float(scores[[5, 9]].sum()), abs=1e-6)
    assert gain.downweighted == pytest.approx(-0.75 * float(scores[3]), abs=1e-6)


def test_a_paired_interval_covers_what_it_should() -> None:
    random = np.random.default_rng(1)
    before = random.normal(size=(6, 400))
    moved = paired_changes(before, before + 0.3)[0]
    assert moved.change == pytest.approx(0.3) and moved.low == pytest.approx(0.3) == moved.high
    groups = np.repeat([0, 1, -1, 2], 100)
    found = paired_changes(before, before + groups, groups, 4)
    assert [round(one.change, 9) for one in found[:3]] == [0, 1, 2] and found[3].n == 0 and np.isnan(found[3].change)
    covered = 0
    for _ in range(60):
        difference = 0.1 * random.normal(size=(8, 1)) + random.normal(size=(1, 150)) + 0.2
        one = paired_changes(np.zeros((8, 150)), difference, draws=300)[0]
        covered += one.low <= 0.2 <= one.high
    assert covered >= 50


def test_a_correction_says_what_is_trained(study: Study) -> None:
    fix = correction(study, changes(study))
    weights = fix.row_weights(60)
    assert weights[0] == 0 and weights[2] == 0.25 and weights.sum() == 58.25 and len(fix.labels) == 6
