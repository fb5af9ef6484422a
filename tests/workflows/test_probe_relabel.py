"""Probes lead to the rows that taught the model to pass them: ranks, signs, refusals, the command, and hidden spam."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from influence_core.__main__ import main
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.workflows.patch_replay import replayed
from influence_core.workflows.patches import read_patch
from influence_core.workflows.probe_relabel import ProbesConfig, mean_ranks, probe_relabel
from tests.workflows.proposal_cases import accuracy, converged, linear_task

EXACT = Run(dtype=torch.float64)
SMS = Path(__file__).resolve().parents[3] / "shared" / "data" / "sms-spam.csv"


def with_probes(task: Task, x: Tensor) -> tuple[Task, Rows]:
    ids = tuple(f"p{i}" for i in range(len(x)))
    return task.with_typed(Examples((x, torch.zeros(len(x), dtype=torch.long))), ids), Rows("typed", ids)


def hidden() -> tuple[Task, Tensor]:
    """Two classes; 12 rows of a second kind of class 1 (around +4 in the third column) are labelled 0; 8 probes."""
    random = np.random.default_rng(2)
    kinds = np.repeat([0, 1, 2], [80, 60, 12])
    centres = np.array([[2.0, 0, 0, 1], [-2.0, 0, 0, 1], [0, 0, 4.0, 1]])
    x = torch.from_numpy(centres[kinds] + 0.7 * random.normal(size=(152, 4)) * [1, 1, 1, 0])
    y = torch.from_numpy((kinds == 1).astype(int))
    probes = torch.from_numpy(centres[np.full(8, 2)] + 0.7 * random.normal(size=(8, 4)) * [1, 1, 1, 0])
    return linear_task(x, y, (x[::3] + 0.01, y[::3]), 0.01), probes


def test_ranks_are_averaged_and_scores_are_not() -> None:
    loud = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [300.0, 200.0, -900.0]])
    assert torch.allclose(mean_ranks(loud), torch.tensor([5.0, 6.0, 7.0]).double() / 3)
    assert loud.mean(0).argmin() == 2  # by scores the loud probe would put the last row first
    assert mean_ranks(torch.tensor([[5.0, 1.0, 5.0, 5.0, 9.0]])).tolist() == [3.0, 1.0, 3.0, 3.0, 5.0]


def test_the_rows_that_taught_the_mistake_come_first() -> None:
    task, x = hidden()
    view, rows = with_probes(task, x)
    found = probe_relabel(view, rows, 1, EXACT, ProbesConfig(count=12))
    rows_found = {int(c.row) for c in found.changes}
    assert found.wrong == (0,) and len(rows_found & set(range(140, 152))) >= 9  # 12 of 92 candidates are wrong
    assert {(c.old, c.new, c.action, c.reviewer) for c in found.changes} == {("0", "1", "relabel", "probes")}
    assert set(found.positions.tolist()) == {i for i, y in enumerate(task.split("train").targets.tolist()) if y == 0}
    assert any("Fewer than" in note for note in found.notes)


def test_mending_the_first_rows_raises_the_probability_of_the_probes() -> None:
    task, x = hidden()
    view, rows = with_probes(task, x)
    found = probe_relabel(view, rows, 1, EXACT, ProbesConfig(count=5))
    inputs, y = task.split("train").raw(slice(None))
    assert task.recipe is not None
    before = converged(inputs, y, task.recipe)(x).softmax(1)[:, 1].mean()
    y = y.clone()
    y[[int(change.row) for change in found.changes]] = 1
    assert converged(inputs, y, task.recipe)(x).softmax(1)[:, 1].mean() > before + 0.05


def test_probes_that_are_rows_of_train_or_test_are_left_out() -> None:
    task, x = hidden()
    view, rows = with_probes(task, torch.cat([x, task.split("train").raw(slice(140, 143)).inputs]))
    found = probe_relabel(view, rows, 1, EXACT)
    assert found.probes == rows.ids[:8] and "3 of the probes" in found.notes[0]
    assert torch.equal(found.ranks, probe_relabel(*with_probes(task, x), 1, EXACT).ranks)


def test_what_are_no_probes_is_refused() -> None:
    task, x = hidden()
    view, rows = with_probes(task, x)
    for probes, label in ((Rows("test", (0,)), 1), (Rows("locked", (0,)), 1), (rows, 0), (rows, 2), (rows, "ham")):
        with pytest.raises(BadInput):
            probe_relabel(view, probes, label, EXACT)
    with pytest.raises(BadInput):
        probe_relabel(*with_probes(task, task.split("test").raw(slice(0, 4)).inputs), 1, EXACT)


def command(*words: object, code: int = 0) -> None:
    assert main(["propose", *map(str, words)]) == code


@pytest.mark.parametrize("workflow", ["rdia", "selfinf"])
def test_the_command_writes_a_patch_that_can_be_applied(own_studies: Path, tmp_path: Path, workflow: str) -> None:
    study, out = Study(own_studies / "table"), tmp_path / "patch.csv"
    command(study.path, "--workflow", workflow, "--out", out)
    table = pd.read_csv(out)
    assert list(table) == "row_id split action old_label new_label weight reviewer at comment content".split()
    changes = read_patch(out, study)
    done = replayed(study, changes)
    assert changes and len(done.of("applied")) == len(changes)
    assert {(c.reviewer, c.split) for c in changes} == {(workflow, "train")} and all(c.at > 1e9 for c in changes)


def test_the_command_reads_probes(own_studies: Path, tmp_path: Path) -> None:
    study, out, file = Study(own_studies / "table"), tmp_path / "patch.csv", tmp_path / "probes.csv"
    rows = study.rows("test", range(24)).to_pandas()
    said = study.task.predicted("test", torch.arange(24))
    cases = rows[said.numpy() != 2].drop(columns="id").assign(label="cat")
    cases["weight"] += 0.5
    cases.to_csv(file, index=False)
    command(study.path, "--workflow", "probes", "--probes", file, "--out", out, "--config", '{"count": 4}')
    changes = read_patch(out, study)
    assert len(changes) == 4 and {c.new for c in changes} == {"cat"} and "cat" not in {c.old for c in changes}
    two = cases.assign(label=["ant", *["cat"] * (len(cases) - 1)])
    for bad in (cases.drop(columns="label"), cases.drop(columns="width"), cases[:0], two):
        bad.to_csv(file, index=False)
        command(study.path, "--workflow", "probes", "--probes", file, "--out", out, code=2)
    command(study.path, "--workflow", "probes", "--out", out, code=2)


@pytest.mark.slow
@pytest.mark.skipif(not SMS.exists(), reason="shared/data/sms-spam.csv is not beside this checkout")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spam_about_phones_hidden_among_ham_is_found(seed: int) -> None:
    extraction = pytest.importorskip("sklearn.feature_extraction.text")
    decomposition = pytest.importorskip("sklearn.decomposition")
    table = pd.read_csv(SMS).drop_duplicates("text")
    text, spam = table["text"].to_numpy(), table["spam"].to_numpy() == 1
    kind = spam & np.array([bool(re.search(r"\b(ring)?tones?\b|ringtone|mobile|camera|nokia", t, re.I)) for t in text])
    random = np.random.default_rng(seed)
    veiled, other, ham = (random.permutation(np.flatnonzero(w)) for w in (kind, spam & ~kind, ~spam))
    train, unseen = np.r_[veiled[:110], other[:250], ham[:2250]], veiled[130:]
    test = np.r_[other[250:], ham[2250:]]
    words = extraction.TfidfVectorizer(sublinear_tf=True, min_df=2).fit(text[train])
    axes = decomposition.TruncatedSVD(300, random_state=0).fit(words.transform(text[train]))

    def rows(which: np.ndarray) -> tuple[Tensor, Tensor]:
        x = np.c_[axes.transform(words.transform(text[which])), np.ones(len(which))]
        return torch.from_numpy(x), torch.from_numpy(spam[which].astype(int))

    x, y = rows(train)
    y[:110] = 0
    task = linear_task(x, y, rows(test), 2 / len(x))
    assert task.recipe is not None
    found = probe_relabel(*with_probes(task, rows(veiled[110:130])[0]), 1, EXACT, ProbesConfig(count=110))
    chosen = torch.tensor([int(change.row) for change in found.changes])
    mended = y.clone()
    mended[chosen] = 1
    before, after = task.model_at(-1, dtype=torch.float64), converged(x, mended, task.recipe)
    figures = [accuracy(model, *rows(which)) for which in (unseen, test) for model in (before, after)]
    assert (chosen < 110).double().mean() >= 0.55
    assert figures[0] < 0.1 and figures[1] >= 0.5
    assert figures[3] >= figures[2] - 0.01
