"""Studies on disk: they move, they notice every change, and what is damaged is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from influence_core import Rows, Study, attribute, self_influence
from influence_core.encoder import ImageEncoder, TableEncoder, load_encoder
from influence_core.errors import BadInput, InfluenceError, NumericalProblem, Unavailable
from influence_core.study import save_study
from tests.small_studies import CLASSES, COLUMNS, FLIPPED, SIZES


@pytest.fixture
def table(own_studies: Path) -> Path:
    return own_studies / "table"


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in ``study.toml``; it must be there."""
    text = (path / "study.toml").read_text()
    assert old in text, text
    (path / "study.toml").write_text(text.replace(old, new, 1))


def change_column(path: Path, split: str, name: str, change: Callable[[list], list], **options: object) -> None:
    rows = pq.read_table(path / f"{split}.parquet")
    values = change(rows[name].to_pylist())
    table = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, path / f"{split}.parquet", **options)


def relabelled(labels: list) -> list:
    return [CLASSES[(CLASSES.index(labels[0]) + 1) % 3], *labels[1:]]


# -- what a study holds -----------------------------------------------------------------------------------------------


def test_a_study_reads_back_what_was_saved(studies: Path) -> None:
    study = Study.open(studies / "table")
    assert study.splits == ("train", "test", "locked")
    assert {split: study.n_rows(split) for split in study.splits} == SIZES
    assert study.header.classes == CLASSES and study.header.recipe is not None and study.header.recipe.epochs == 6
    task = study.task
    assert (task.n_checkpoints, task.learning_rates, task.class_names) == (2, (0.2, 0.2), CLASSES)
    raw = pq.read_table(studies / "table" / "test.parquet")
    assert task.ids("test").tolist() == raw["id"].to_pylist() != list(range(SIZES["test"]))
    assert [CLASSES[i] for i in task.split("test").targets.tolist()] == raw["label"].to_pylist()
    train = pq.read_table(studies / "table" / "train.parquet")
    values = np.stack([train[name].to_numpy() for name in COLUMNS], 1)
    expected = (np.stack([raw[name].to_numpy() for name in COLUMNS], 1) - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(task.split("test").batch(slice(None)).inputs.numpy(), expected, rtol=0, atol=1e-5)


def test_the_recipe_trains_the_last_checkpoint_again_bit_for_bit(studies: Path) -> None:
    from influence_core.primitives.training import new_model, training

    for name in ("table", "image"):
        task = Study(studies / name).task
        assert task.factory is not None and task.recipe is not None
        model = new_model(task.factory, task.recipe)
        list(training(model, task.split("train"), task.loss, task.recipe))
        for key, value in task.state(-1).items():
            assert torch.equal(value, model.state_dict()[key]), (name, key)


def test_planted_errors_are_known_where_the_truth_is_kept(studies: Path) -> None:
    study = Study(studies / "table")
    assert study.planted is not None and study.true_labels is not None
    assert np.flatnonzero(study.planted).tolist() == list(range(1, 2 * FLIPPED, 2))
    given = study.column("train", "label")
    assert (study.true_labels[~study.planted] == given[~study.planted]).all()
    assert Study(studies / "linear").planted is None


def test_a_copy_elsewhere_is_the_same_study(table: Path, tmp_path: Path) -> None:
    here = Study(table)
    scores = attribute(here, "tracin_cp", here.task.ids("test")[:2].tolist()).scores
    moved = tmp_path / "other" / "name of its own"
    moved.parent.mkdir()
    shutil.move(table, moved)
    there = Study(moved)
    assert there.fingerprint == here.fingerprint
    before = set(there.store.keys())
    assert torch.equal(attribute(there, "tracin_cp", there.task.ids("test")[:2].tolist()).scores, scores)
    assert set(there.store.keys()) == before  # everything was read from the cache that moved along


def test_rows_are_read_across_row_groups_in_the_order_asked_for(table: Path) -> None:
    rows = pq.read_table(table / "train.parquet")
    pq.write_table(rows, table / "train.parquet", row_group_size=7)
    study = Study(table)
    for positions in ([59], [0, 6, 7, 8, 13, 14], [50, 3, 3, 20, 0, 59], list(range(59, -1, -1)), []):
        assert study.rows("train", positions).to_pylist() == rows.take(pa.array(positions, pa.int64())).to_pylist()


def test_encoding_is_made_once_and_again_when_its_parts_change(table: Path) -> None:
    Study(table).task.split("train")
    keys = set(Study(table).store.keys())
    assert len(keys) == 3 and Study(table).task and set(Study(table).store.keys()) == keys
    change_column(table, "test", "width", lambda values: [values[0] + 1, *values[1:]])
    changed = Study(table)
    assert changed.task and len(changed.store.keys()) == 4


# -- the fingerprint --------------------------------------------------------------------------------------------------


def test_every_change_of_content_changes_the_fingerprint(table: Path) -> None:
    seen = [Study(table).fingerprint]
    assert Study(table).fingerprint == seen[0]
    encoder = json.loads((table / "encoder.json").read_text())

    def one_weight_byte() -> None:
        content = bytearray((table / "checkpoints" / "2.safetensors").read_bytes())
        content[-1] ^= 1
        (table / "checkpoints" / "2.safetensors").write_bytes(bytes(content))

    changes = {
        "one train label": lambda: change_column(table, "train", "label", relabelled),
        "one locked label": lambda: change_column(table, "locked", "label", relabelled),
        "one weight byte": one_weight_byte,
        "the encoder": lambda: (table / "encoder.json").write_text(json.dumps({**encoder, "mean": [0.0] * 4})),
        "the recipe": lambda: edit(table, "momentum = 0.5", "momentum = 0.6"),
        "a learning rate": lambda: edit(table, "epoch = 2, learning_rate = 0.2", "epoch = 2, learning_rate = 0.3"),
        "the order of the classes": lambda: edit(table, '"ant",\n    "bee"', '"bee",\n    "ant"'),
        "the column of the labels": lambda: edit(table, 'label = "label"', 'label = "other"'),
        "the column of the ids": lambda: edit(table, 'label = "other"', 'label = "other"\nid = "width"'),
    }  # fmt: skip
    for name, change in changes.items():
        change()
        seen.append(Study(table).fingerprint)
        assert len(set(seen)) == len(seen), f"{name} leaves the fingerprint as it was"


def test_words_about_a_study_do_not_change_its_fingerprint(table: Path) -> None:
    before = Study(table).fingerprint
    edit(table, 'title = "Small <table>"', 'title = "Käfer"')
    (table / "truth.parquet").unlink()
    study = Study(table)
    assert (study.fingerprint, study.header.title, study.planted) == (before, "Käfer", None)


# -- what is damaged is named -----------------------------------------------------------------------------------------


def broken_weights(path: Path, change: Callable[[dict], dict]) -> None:
    file = path / "checkpoints" / "6.safetensors"
    save_file(change(load_file(file)), file)


def with_nan(state: dict) -> dict:
    state["1.bias"][2] = torch.nan
    return state


def without_checkpoints(path: Path) -> None:
    text = (path / "study.toml").read_text()
    (listed,) = re.findall(r"checkpoints = \[\n +\{.*?\n\]\n", text, re.DOTALL)
    (path / "study.toml").write_text(text.replace(listed, ""))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


DAMAGES: dict[str, tuple[Callable[[Path], object], type[InfluenceError], str]] = {
    "no folder": (lambda p: shutil.rmtree(p), BadInput, "There is no study here"),
    "not toml": (lambda p: (p / "study.toml").write_text("name = "), BadInput, "The study cannot be read"),
    "not text": (lambda p: (p / "study.toml").write_bytes(b"\xff\xfe\x00"), BadInput, "The study cannot be read"),
    "newer": (lambda p: edit(p, "format = 1", "format = 2"), BadInput, "The study is from a newer version"),
    "no classes": (lambda p: edit(p, "classes = [", "colours = ["), BadInput, "The study is incomplete"),
    "no title": (lambda p: edit(p, "title = ", "heading = "), BadInput, "The study is incomplete"),
    "bad recipe": (lambda p: edit(p, "momentum = 0.5", "momentum = 5"), BadInput, "These options cannot be used"),
    "model without a name": (lambda p: edit(p, "architecture = ", "arc = "), BadInput, "The study is incomplete"),
    "checkpoint without a file": (lambda p: edit(p, "file = ", "fill = "), BadInput, "The study is incomplete"),
    "checkpoint without a rate": (
        lambda p: edit(p, "epoch = 2, learning_rate", "epoch = 2, rate"),
        BadInput,
        "The study is incomplete",
    ),
    "unknown model": (lambda p: edit(p, '"mlp"', '"os.system"'), BadInput, "Unknown model"),
    "unknown model option": (
        lambda p: edit(p, "n_inputs = 4", "n_input = 4"),
        BadInput,
        "The model 'mlp' cannot be built",
    ),
    "other model": (lambda p: edit(p, "n_inputs = 4", "n_inputs = 5"), BadInput, "Checkpoint 1 does not fit the model"),
    "unknown loss": (lambda p: edit(p, '"cross_entropy"', '"hinge"'), BadInput, "Unknown loss"),
    "checkpoint gone": (lambda p: (p / "checkpoints/2.safetensors").unlink(), BadInput, "A checkpoint is gone"),
    "checkpoint elsewhere": (
        lambda p: edit(p, '"checkpoints/6', '"../../6'),
        BadInput,
        "A checkpoint lies outside the study",
    ),
    "absolute checkpoint": (
        lambda p: edit(p, '"checkpoints/6', '"/etc/6'),
        BadInput,
        "A checkpoint lies outside the study",
    ),
    "checkpoint cut": (
        lambda p: cut(p / "checkpoints/6.safetensors"),
        BadInput,
        "Checkpoint 1 cannot be read",
    ),
    "no checkpoint at all": (
        without_checkpoints,
        Unavailable,
        "TracIn cannot run here",
    ),
    "other layer names": (
        lambda p: broken_weights(p, lambda s: {f"x.{k}": v for k, v in s.items()}),
        BadInput,
        "Checkpoint 1 does not fit the model",
    ),
    "NaN weights": (lambda p: broken_weights(p, with_nan), NumericalProblem, "Checkpoint 1 is broken"),
    "no encoder": (lambda p: (p / "encoder.json").unlink(), BadInput, "The encoder cannot be read"),
    "encoder cut": (lambda p: (p / "encoder.json").write_text('{"kind": "ta'), BadInput, "The encoder cannot be read"),
    "encoder a list": (lambda p: (p / "encoder.json").write_text("[1]"), BadInput, "The encoder cannot be read"),
    "encoder half": (
        lambda p: (p / "encoder.json").write_text('{"kind": "table"}'),
        BadInput,
        "The encoder cannot be read",
    ),
    "encoder of another kind": (
        lambda p: (p / "encoder.json").write_text('{"kind": "sound"}'),
        BadInput,
        "Unknown encoder",
    ),
    "no test rows": (lambda p: (p / "test.parquet").unlink(), BadInput, "A file of the study is gone"),
    "no train rows": (lambda p: (p / "train.parquet").unlink(), BadInput, "A file of the study is gone"),
    "rows cut": (
        lambda p: cut(p / "test.parquet"),
        BadInput,
        "The 'test' data cannot be read",
    ),
    "unknown label": (
        lambda p: change_column(p, "test", "label", lambda v: ["ape", *v[1:]]),
        BadInput,
        "A label of the test split is no class",
    ),
    "missing label": (
        lambda p: change_column(p, "train", "label", lambda v: [None, *v[1:]]),
        BadInput,
        "A label of the train split is no class",
    ),
    "no label column": (lambda p: edit(p, 'label = "label"', 'label = "colour"'), BadInput, "A column is missing"),
    "no id column": (
        lambda p: edit(p, 'label = "label"', 'label = "label"\nid = "number"'),
        BadInput,
        "A column is missing",
    ),
    "no column of the encoder": (
        lambda p: pq.write_table(pq.read_table(p / "test.parquet").drop_columns(["depth"]), p / "test.parquet"),
        BadInput,
        "A column is missing",
    ),
    "an id twice": (
        lambda p: change_column(p, "test", "id", lambda v: [v[1], *v[1:]]),
        BadInput,
        "The test row ids are not unique",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_clear_message(name: str, table: Path) -> None:
    damage, kind, what = DAMAGES[name]
    damage(table)
    with pytest.raises(kind) as caught:
        study = Study(table)
        self_influence(study, "tracin_cp")
    assert caught.value.what == what
    assert caught.value.why and caught.value.fix and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["row missing", "cut", "no label"])
def test_damaged_truth_is_named(damage: str, table: Path) -> None:
    truth = pq.read_table(table / "truth.parquet")
    if damage == "row missing":
        pq.write_table(truth.slice(1), table / "truth.parquet")
    elif damage == "no label":
        pq.write_table(truth.drop_columns(["label"]), table / "truth.parquet")
    else:
        cut(table / "truth.parquet")
    with pytest.raises(BadInput, match="The planted truth cannot be read"):
        _ = Study(table).planted


# -- ids, targets, encoders, saving -----------------------------------------------------------------------------------


def test_row_ids_are_read_as_their_split_writes_them(studies: Path) -> None:
    numbers, texts = Study(studies / "table"), Study(studies / "linear")
    known = numbers.task.ids("test").tolist()
    assert numbers.row_id("test", str(known[3])) == numbers.row_id("test", known[3]) == known[3]
    assert texts.row_id("train", "=1+1") == "=1+1" and texts.row_id("test", "row 031") == "row 031"
    scores = attribute(texts, "grad_dot", Rows("test", ("row 031",)))
    assert scores.train_ids[0] == "=1+1" and scores.test_ids == ("row 031",)
    for study, split, text in (
        (numbers, "test", "x"),
        (numbers, "test", "5"),
        (texts, "test", "row 001"),
        (texts, "locked", "1"),
    ):
        with pytest.raises(BadInput, match="Unknown row id|There is no 'locked' split"):
            study.row_id(split, text)


def test_targets_are_words_or_classes(studies: Path) -> None:
    study = Study(studies / "table")
    assert [study.target(text) for text in ("true", "predicted", "cat")] == ["true", "predicted", 2]
    with pytest.raises(BadInput, match="Unknown target label: 'dog' is no class"):
        study.target("dog")


@pytest.mark.parametrize("name", ["table", "image"])
def test_encoders_go_through_json_without_a_bit_lost(name: str, studies: Path, tmp_path: Path) -> None:
    encoder = Study(studies / name).encoder
    (tmp_path / "encoder.json").write_text(json.dumps(encoder.to_json()))
    again = load_encoder(tmp_path / "encoder.json")
    assert again == encoder and isinstance(again, TableEncoder if name == "table" else ImageEncoder)
    rows = pq.read_table(studies / name / "test.parquet")
    assert np.array_equal(again.encoded(rows), encoder.encoded(rows)) and again.encoded(rows).dtype == np.float32
    assert again.encoded(rows).shape[1:] == again.shape


def test_a_constant_column_keeps_its_scale() -> None:
    rows = pa.table({"a": [2, 2, 2], "b": [1.0, 2.0, 3.0]})
    assert TableEncoder.fitted(rows, ("a", "b")).encoded(rows) == pytest.approx(
        np.array([[0, -(1.5**0.5)], [0, 0], [0, 1.5**0.5]])
    )


def test_saving_is_all_or_nothing(studies: Path, tmp_path: Path) -> None:
    study = Study(studies / "table")
    with pytest.raises(BadInput, match="The folder is taken"):
        save_study(studies / "table", {}, {}, study.encoder, {})
    with pytest.raises(Exception, match="object"):
        save_study(tmp_path / "new", {"name": object()}, {}, study.encoder, {})
    assert not (tmp_path / "new").exists()
