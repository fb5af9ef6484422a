"""``python -m influence_core retrain``: from a patch or the reviewers' decisions into a version; errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from influence_core import Study
from influence_core.changes import Change
from influence_core.reviews import Act, Decision, Reviews
from influence_core.versions import versions
from influence_core.workflows.patches import patch_bytes

Call = Callable[..., str]


@pytest.fixture
def study(own_studies: Path) -> Study:
    return Study(own_studies / "table")


def mended(study: Study) -> list[Change]:
    ids, given, truth = study.column("train", "id").tolist(), study.column("train", "label"), study.true_labels
    assert truth is not None and study.planted is not None
    return [Change("train", ids[i], "relabel", str(given[i]), str(truth[i])) for i in np.flatnonzero(study.planted)]


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_a_patch_becomes_a_version(run: Call, study: Study, tmp_path: Path, format: str) -> None:
    patch = tmp_path / f"patch.{format}"
    patch.write_bytes(patch_bytes(mended(study), format))
    out = run("retrain", study.path, "--patch", patch, "--name", "mended", "--seeds", 2)
    assert out.startswith(
        f"mended is {study.path}@v1. After 6 corrected training rows, accuracy on the 12 locked rows "
    )
    assert patch.exists(), "a patch of the user's own stays"
    version = study.version("v1")
    assert version.planted is not None and not version.planted.any()
    assert out == run("retrain", study.path, "--patch", patch, "--name", "mended", "--seeds", 2)
    assert len(versions(study.path)) == 1


def test_the_reviewers_decisions_become_a_version(run: Call, study: Study) -> None:
    decisions = tuple(Decision("train", c.row, "relabel", c.new, given=c.old) for c in mended(study)[:4])
    Reviews(study.path).record("ann", [Act("tab", 1, "decide", decisions)])
    out = run("retrain", study.path, "--reviews", "--seeds", 1)
    assert out.startswith(f"corrected is {study.path}@v1. After 4 corrected training rows")


def test_a_patch_on_a_version_adds_to_it(run: Call, study: Study, tmp_path: Path) -> None:
    first, then = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_bytes(patch_bytes(mended(study)[:2], "csv"))
    then.write_bytes(patch_bytes(mended(study)[2:], "csv"))
    run("retrain", study.path, "--patch", first, "--seeds", 1)
    run("retrain", f"{study.path}@v1", "--patch", then, "--name", "both", "--seeds", 1)
    made = versions(study.path)[1]
    assert made.parent == "v1" and made.counts["relabelled"] == 6


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(run: Call, study: Study, tmp_path: Path) -> None:
    strange = tmp_path / "strange.csv"
    strange.write_bytes(patch_bytes([Change("train", -5, "drop")], "csv"))
    for words, said in (
        ((), "What is to be changed is not said"), (("--reviews",), "nothing to retrain on"),
        (("--patch", strange), "not there"), (("--patch", tmp_path / "none.csv"), "error: "),
    ):  # fmt: skip
        err = run("retrain", study.path, *words, code=2)
        assert said in err and err.count("\n") == 1, err
    assert versions(study.path) == []
