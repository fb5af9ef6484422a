"""Retraining: pairs that share their seeds, models that are trained once, and a job that is killed and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from influence_core import Run, Study
from influence_core.changes import Change
from influence_core.errors import BadInput
from influence_core.outcomes import Correction, Outcomes
from influence_core.study_changes import correction
from influence_core.versions import version_outcomes, versions
from influence_core.workflows.patches import patch_bytes
from influence_core.workflows.retraining import plan, retrain
from tests.faults import real_fits as fits


@pytest.fixture
def study(own_studies: Path) -> Study:
    return Study(own_studies / "table")


def a_drop(study: Study) -> list[Change]:
    ids, given = study.column("train", "id").tolist(), study.column("train", "label").tolist()
    return [Change("train", ids[3], "drop", given[3]), Change("train", ids[8], "downweight", given[8], weight=0.5)]


def test_both_models_of_a_pair_have_its_seed_and_differ_in_the_change_alone(study: Study) -> None:
    version = retrain(study, a_drop(study), "less", Run(), 3)
    kept, outcomes = version_outcomes(study.path, version.id), Outcomes(study.task, Run().with_store(study.store))
    fix = correction(study, a_drop(study))
    for i, seed in enumerate(version.seeds):
        for side, which in (("before", Correction()), ("after", fix)):
            expected = outcomes.corrected(which, seed).outputs
            for split in ("test", "locked"):
                assert torch.equal(kept[f"{side}/{split}"][i], expected[split].float())
            assert torch.equal(kept[f"{side}/train"][i].long(), expected["train"].argmax(1))
    assert version.seeds == (0, 1, 2)
    first = [kept["before/test"][i] for i in range(3)]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


def test_a_change_of_nothing_leaves_every_pair_equal(study: Study) -> None:
    ids, given = study.column("train", "id").tolist(), study.column("train", "label").tolist()
    version = retrain(study, [Change("train", ids[0], "relabel", given[0], given[0])], "same", Run(), 2)
    kept = version_outcomes(study.path, version.id)
    assert all(torch.equal(kept[f"before/{split}"], kept[f"after/{split}"]) for split in ("train", "test", "locked"))


def test_the_versions_own_model_is_the_first_corrected_one(study: Study) -> None:
    version = retrain(study, a_drop(study), "less", Run(), 1)
    said = study.version(version.id).task.outputs_of("test").float()
    assert torch.allclose(said, version_outcomes(study.path, version.id)["after/test"][0], atol=1e-6)


def test_originals_are_trained_once_for_all_versions(study: Study) -> None:
    assert plan(study, a_drop(study), Run(), 2).models == 5
    retrain(study, a_drop(study), "less", Run(), 2)
    assert plan(study, a_drop(study)[:1], Run(), 2).models == 3  # two corrected ones, and the checkpoints


@pytest.mark.parametrize("seeds", [0, 101, -1])
def test_a_number_of_pairs_that_cannot_be_is_refused(study: Study, seeds: int) -> None:
    with pytest.raises(BadInput, match="pairs"):
        retrain(study, a_drop(study), "x", Run(), seeds)


def test_killed_retraining_goes_on_with_the_models_it_has(study: Study, tmp_path: Path) -> None:
    """``kill -9`` once half of the models are there: none of them is trained again, and the version is whole."""
    patch = tmp_path / "patch.csv"
    patch.write_bytes(patch_bytes(a_drop(study), "csv"))
    pairs = 40
    words = ("retrain", study.path, "--patch", patch, "--name", "less", "--seeds", pairs)

    def trained_models() -> dict[str, int]:
        found = [path for path in (study.path / "cache").glob("??/*/meta.json") if '"outcome"' in path.read_text()]
        return {path.parent.name: path.stat().st_ino for path in found if path.parent.suffix == ""}

    process = fits.started(*words)
    fits.wait_for(lambda: len(trained_models()) >= 10, "ten models")
    process.kill()
    process.communicate(timeout=30)
    kept = trained_models()
    assert 10 <= len(kept) < 2 * pairs, "the kill came in the midst of it"
    assert versions(study.path) == []
    code, out, err = fits.ended(fits.started(*words))
    assert code == 0 and "less is " in out, err
    assert kept.items() <= trained_models().items() and len(trained_models()) == 2 * pairs
    assert [version.name for version in versions(study.path)] == ["less"]
    assert not list((study.path / "versions").glob(".part-*")) and fits.parts(study.path) == []
