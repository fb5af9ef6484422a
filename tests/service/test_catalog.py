"""What the overview, the prediction list and the method menu show, against the files of the studies themselves."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest

from influence_core import Run, Study, architectures, fitting, registry, service
from influence_core.errors import Unavailable
from influence_core.service import BadInput, InfluenceError, PredictionFilter
from influence_core.service.requests import plain_options
from influence_core.task import Needs
from tests.small_studies import CLASSES, COLUMNS, FLIPPED, SIZES

MODELS = {
    "table": ("mlp", {"n_inputs": 4, "n_classes": 3, "hidden": [5]}, "6", 3),
    "linear": ("logistic", {"n_inputs": 4, "n_classes": 3}, "300", 1),
    "image": ("cnn", {"channels": 1, "size": 8, "n_classes": 3, "widths": [3, 4], "hidden": 6}, "3", 1),
}


def table_of(path: Path, split: str) -> pd.DataFrame:
    """The rows of a split as they stand in the file."""
    return pd.read_parquet(path / f"{split}.parquet")


def inputs_of(path: Path, split: str) -> torch.Tensor:
    """The model's inputs, encoded by hand with what ``encoder.json`` says."""
    rows, encoder = table_of(path, split), json.loads((path / "encoder.json").read_text())
    if encoder["kind"] == "image":
        pixels = np.stack(rows["pixels"].tolist()).reshape(-1, 1, 8, 8).astype(np.float32)
        return torch.from_numpy((pixels / 255 - encoder["mean"]) / encoder["std"]).float()
    values = rows[list(COLUMNS)].to_numpy(float)
    return torch.from_numpy((values - np.array(encoder["mean"])) / np.array(encoder["std"])).float()


def model_of(path: Path) -> torch.nn.Module:
    """The explained model, from the last checkpoint's file."""
    architecture, options, _, _ = MODELS[path.name]
    last = max((path / "checkpoints").iterdir(), key=lambda file: int(file.stem))
    model = architectures.model_factory(architecture, options)()
    model.load_state_dict(load_file(last))
    return model.eval()


def chances_of(path: Path, split: str) -> np.ndarray:
    """The probabilities ``[n, 3]`` of the explained model."""
    with torch.no_grad():
        outputs = model_of(path)(inputs_of(path, split)).double().numpy()
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def frame_of(path: Path, split: str) -> pd.DataFrame:
    """Id, given label, prediction and confidence of every row of a split, in the order of the file."""
    chances = chances_of(path, split)
    said = [CLASSES[i] for i in chances.argmax(1)]
    rows = table_of(path, split)[["id", "label"]]
    return rows.assign(predicted=said, confidence=chances.max(1)).rename(columns={"label": "given"})


def ids_of(rows: Any) -> list:
    return [row.row_id for row in rows]


def test_the_list_of_studies_reads_the_files(studies: Path) -> None:
    cards = {card.name: card for card in service.studies()}
    assert list(cards) == sorted(MODELS)
    assert cards["table"] == service.StudyCard("table", "Small <table>", "table", 60, 24, 12, 3)
    assert cards["image"] == service.StudyCard("image", "Small images", "image", 30, 12, 0, 3)
    assert (cards["table"].n_train, cards["table"].n_test, cards["table"].n_locked) == tuple(SIZES.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_overview_counts_what_is_in_the_files(name: str, studies: Path) -> None:
    path = studies / name
    shown = service.overview(name)
    splits = [split for split in SIZES if (path / f"{split}.parquet").exists()]
    assert list(shown.class_counts) == list(shown.accuracy) == splits and shown.classes == CLASSES
    for split in splits:
        rows = frame_of(path, split)
        assert shown.class_counts[split] == tuple(int((rows["given"] == c).sum()) for c in CLASSES)
        right = int((rows["given"] == rows["predicted"]).sum())
        interval = binomtest(right, len(rows)).proportion_ci(method="wilson")
        found = shown.accuracy[split]
        assert (found.value, found.n) == (right / len(rows), len(rows))
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    test = frame_of(path, "test")
    confusion = pd.crosstab(test["given"], test["predicted"]).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
    assert shown.confusion.tolist() == confusion.to_numpy().tolist()
    wrong = test[test["given"] != test["predicted"]].sort_values("confidence", ascending=False, kind="stable")
    assert shown.n_wrong == len(wrong) and ids_of(shown.confidently_wrong) == wrong["id"].tolist()[:8]
    assert shown.n_params == sum(p.numel() for p in model_of(path).parameters())
    assert shown.n_checkpoints == len(list((path / "checkpoints").iterdir()))
    assert shown.planted_share == (FLIPPED / SIZES["train"] if name == "table" else None)
    assert (shown.default_method, shown.default_reason) == service.default_method(name)
    assert shown.default_reason.endswith(".") and shown.description == f"A small {shown.study.modality} study."
    assert shown.study == next(card for card in service.studies() if card.name == name)


def test_the_model_is_told_in_words(studies: Path) -> None:
    assert service.overview("table").model == "multi-layer perceptron, trained by sgd for 6 epochs"
    assert service.overview("linear").model == "logistic regression"
    assert service.overview("image").model.startswith("small convolutional network, trained by sgd for 3 epochs")


# -- predictions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("status", ["all", "wrong", "right", "confident-wrong"])
def test_every_filter_keeps_what_the_files_say(name: str, status: str, studies: Path) -> None:
    rows = frame_of(studies / name, "test")
    wrong = rows["given"] != rows["predicted"]
    kept = {"all": wrong | True, "wrong": wrong, "right": ~wrong, "confident-wrong": wrong & (rows.confidence >= 0.8)}
    for given in (None, *CLASSES):
        for predicted in (None, *CLASSES):
            expected = rows[kept[status]]
            expected = expected[(expected["given"] == given) | (given is None)]
            expected = expected[(expected["predicted"] == predicted) | (predicted is None)]
            chosen = PredictionFilter(status, given, predicted, order="id", limit=1000)
            found = service.predictions(name, chosen)
            assert ids_of(found.rows) == expected["id"].tolist() and found.total == len(expected)
            assert [row.given for row in found.rows] == expected["given"].tolist()
            assert [row.predicted for row in found.rows] == expected["predicted"].tolist()
            assert [row.confidence for row in found.rows] == pytest.approx(expected["confidence"].tolist(), abs=1e-6)


def test_orders_and_limits(studies: Path) -> None:
    rows = frame_of(studies / "table", "test")
    best = rows.sort_values("confidence", ascending=False, kind="stable")["id"].tolist()
    assert ids_of(service.predictions("table", PredictionFilter()).rows) == best
    for limit in (1, 5, 24, 99):
        found = service.predictions("table", PredictionFilter(limit=limit))
        assert ids_of(found.rows) == best[:limit] and found.total == 24
    orders = set()
    for seed in range(4):
        mixed = ids_of(service.predictions("table", PredictionFilter(order="random", seed=seed)).rows)
        assert mixed == random.Random(seed).sample(rows["id"].tolist(), 24)
        assert mixed == ids_of(service.predictions("table", PredictionFilter(order="random", seed=seed)).rows)
        orders.add(tuple(mixed))
    assert len(orders) == 4


def test_a_text_is_searched_in_ids_labels_columns_and_values(studies: Path) -> None:
    rows, values = frame_of(studies / "table", "test"), table_of(studies / "table", "test")[list(COLUMNS)]
    lines = [
        " ".join([str(i), given, said, *(f"{column} {value:.4g}" for column, value in cells.items())])
        for (i, given, said), (_, cells) in zip(
            rows[["id", "given", "predicted"]].itertuples(index=False), values.iterrows(), strict=True
        )
    ]
    cell = f"{values['width'].iloc[3]:.4g}"
    for text in (str(rows["id"].iloc[5]), "BEE", " cat ", "Height", cell, "no such text", "", "  "):
        expected = [i for i, line in zip(rows["id"], lines, strict=True) if text.strip().casefold() in line.casefold()]
        assert ids_of(service.predictions("table", PredictionFilter(text=text, order="id")).rows) == expected, text
    assert service.predictions("table", PredictionFilter(text=cell)).total >= 1
    images = frame_of(studies / "image", "test")
    both = (images["given"] == "ant") | (images["predicted"] == "ant")
    found = ids_of(service.predictions("image", PredictionFilter(text="Ant", order="id")).rows)
    assert found == images["id"][both].tolist() and 0 < len(found) < 12


@pytest.mark.parametrize(
    "change",
    [
        {"status": "bad"},
        {"given": "dog"},
        {"predicted": "dog"},
        {"given": ""},
        {"order": "up"},
        {"limit": -1},
        {"limit": 0},
        {"seed": 1.5},
    ],
)
def test_a_wrong_filter_is_explained(change: dict, studies: Path) -> None:
    with pytest.raises(BadInput) as caught:
        service.predictions("table", replace(PredictionFilter(), **change))
    assert str(next(iter(change.values()))) in caught.value.why and caught.value.what and caught.value.fix


# -- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_method_is_listed_with_what_it_says_of_itself(name: str, studies: Path) -> None:
    views = service.methods(name)
    assert [view.id for view in views] == list(registry.entries())
    task = Study.open(studies / name).task
    layers = {n.rsplit(".", 1)[0] for n in model_of(studies / name).state_dict()} - {"weight", "bias"}
    for view in views:
        entry = registry.entries()[view.id]
        info = entry.info
        assert (view.title, view.family, view.summary, view.units, view.measurements, view.utility, view.pairwise) == (
            info.title, info.family, info.summary, info.units, info.measurements, info.utility, info.scores
        )  # fmt: skip
        assert view.units_in_words and view.reference == info.reference
        assert view.reason == registry.missing(info, task) and view.available == (not view.reason)
        if not info.needs & (Needs.WORD_EMBEDDING | Needs.STEPS):
            assert view.available
        assert [field.name for field in view.fields] == list(entry.cls.Config.model_fields)
        assert set(view.layers) == (layers if "layers" in entry.cls.Config.model_fields else set())


def test_the_form_gives_back_the_defaults_and_every_choice(studies: Path) -> None:
    kinds = set()
    for view in service.methods("table"):
        entry = registry.entries()[view.id]
        shown = {field.name: field.default for field in view.fields}
        config = registry.made(view.id, plain_options(view.id, shown)).config
        assert config == entry.defaults, view.id
        for field in view.fields:
            kinds.add(field.kind)
            assert field.label and field.help and field.kind in ("bool", "int", "float", "choice", "text")
            assert (field.kind == "choice") == bool(field.choices)
            for choice in field.choices:
                made = registry.made(view.id, plain_options(view.id, {field.name: choice})).config
                assert str(made.to_json()[field.name]) == choice
            if field.optional:
                assert getattr(registry.made(view.id, {field.name: None}).config, field.name) is None
            for bound, step in ((field.low, -1), (field.high, 1)):
                if bound is not None:
                    with pytest.raises(BadInput, match=field.name):
                        registry.made(view.id, {field.name: bound + step})
            if field.kind in ("int", "float") and field.default is not None:
                assert (field.low is None or field.default >= field.low) and (
                    field.high is None or field.default <= field.high
                )
    assert {"choice", "int", "float", "text"} <= kinds


def test_what_is_fitted_is_said_at_once_and_no_longer_when_it_is_gone(own_studies: Path) -> None:
    def fitted() -> set[str]:
        return {view.id for view in service.methods("table") if view.fitted}

    assert fitted() == set()
    study = Study(own_studies / "table")  # another opening, as in the worker: the app must notice by the disk alone
    run = Run(store=study.store)
    fitting.fit(study.task, registry.made("tracin_cp"), run)
    assert fitted() == {"tracin_cp"}
    fitting.fit(study.task, registry.made("knn_shapley", {"k_neighbors": 3}), run)
    assert fitted() == {"tracin_cp"}  # not with its default options
    fitting.fit(study.task, registry.made("knn_shapley"), run)
    assert fitted() == {"tracin_cp", "knn_shapley"}
    shutil.rmtree(study.store.path(registry.made("tracin_cp").key(study.task, run)))
    assert fitted() == {"knn_shapley"}
    shutil.rmtree(own_studies / "table" / "cache")
    assert fitted() == set()


def test_what_cannot_run_says_what_it_needs(own_studies: Path) -> None:
    toml = own_studies / "table" / "study.toml"
    text = toml.read_text()
    assert service.overview("table").model.endswith("epochs")
    toml.write_text(text[: text.index("[recipe]")])  # the last part of the file
    views = {view.id: view for view in service.methods("table")}
    infos = {name: entry.info for name, entry in registry.entries().items()}
    needing = {name for name, info in infos.items() if Needs.RECIPE in info.needs}
    others = {name for name, info in infos.items() if info.needs & (Needs.STEPS | Needs.WORD_EMBEDDING)}
    assert needing | others == {name for name, view in views.items() if not view.available} and "loo" in needing
    reason = "needs a training recipe and a model factory: give recipe=Recipe(...) and the model as a function"
    for name in needing - others:
        assert views[name].reason == reason and not views[name].fitted
    test = int(table_of(toml.parent, "test")["id"][0])
    with pytest.raises(Unavailable, match="cannot run here: It needs a training recipe and a model factory"):
        service.explain("table", service.ExplainRequest((test,), "loo"))


# -- studies come, go and break ---------------------------------------------------------------------------------------


def test_a_changed_file_opens_the_study_again(own_studies: Path) -> None:
    path = own_studies / "table"
    before = service.overview("table")
    rows = table_of(path, "test")
    rows["label"] = [CLASSES[(CLASSES.index(label) + 1) % 3] for label in rows["label"]]
    state = (path / "test.parquet").stat()
    rows.to_parquet(path / "test.parquet", index=False)
    os.utime(path / "test.parquet", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    after = service.overview("table")
    expected = frame_of(path, "test")
    assert after.class_counts["test"] == tuple(int((expected["given"] == c).sum()) for c in CLASSES)
    assert after.accuracy["test"].value == (expected["given"] == expected["predicted"]).mean()
    assert after.confusion.tolist() == np.roll(before.confusion, 1, 0).tolist()
    (path / "locked.parquet").unlink()
    assert set(service.overview("table").accuracy) == {"train", "test"}


CALLS = {
    "overview": lambda name: service.overview(name),
    "predictions": lambda name: service.predictions(name, PredictionFilter()),
    "methods": lambda name: service.methods(name),
    "default_method": lambda name: service.default_method(name),
    "explain": lambda name: service.explain(name, service.ExplainRequest((1,), "gas")),
    "query": lambda name: service.query(name, service.ExplainRequest((1,), "gas")),
    "start_fit": lambda name: service.start_fit(name, service.ExplainRequest((1,), "gas"), "me"),
    "export": lambda name: service.export_scores(name, service.ExplainRequest((1,), "gas"), "csv"),
    "row_card": lambda name: service.row_card(name, "train", 1, "gas"),
    "input": lambda name: service.input_attribution(name, "test", 1),
    "disk_use": lambda name: service.disk_use(name),
    "listed_jobs": lambda name: service.listed_jobs(name),
    "job": lambda name: service.job(name, 1),
    "touch": lambda name: service.touch_job(name, 1, "me"),
    "cancel": lambda name: service.cancel_job(name, 1, "me"),
    "dismiss": lambda name: service.dismiss_job(name, 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_deleted_study_is_one_message_everywhere(call: str, own_studies: Path) -> None:
    service.overview("linear")
    shutil.rmtree(own_studies / "linear")
    with pytest.raises(BadInput) as caught:
        CALLS[call]("linear")
    assert str(caught.value) == (f"Unknown study: 'linear' is not in {own_studies}. Open one of: image, table.")
    assert not (own_studies / "linear").exists() and [card.name for card in service.studies()] == ["image", "table"]


@pytest.mark.parametrize("name", ["", ".", "..", "../table", "table/", "/etc", "a" * 5000, "a\0b", "\ud800", "no"])
def test_a_name_is_never_a_path(name: str, own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = own_studies / "table" / "inner"
    deeper.mkdir()
    monkeypatch.setenv("INFLUENCE_STUDIES", str(deeper))  # with a study right above it
    with pytest.raises(BadInput, match="Unknown study"):
        service.overview(name)


def test_no_studies_at_all_says_how_to_build_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        monkeypatch.setenv("INFLUENCE_STUDIES", str(folder))
        assert service.studies() == []
        with pytest.raises(BadInput, match="Build one: python -m influence_core demo"):
            service.overview("digits")


BROKEN = {
    "no toml": "= =", "empty": "", "from the future": "format = 99", "half of it": 'format = 1\ntitle = "x"',
    "not utf-8": b"\xff\xfe", "wrong kinds": 'format = 1\nname = 1\ntitle = "t"\nclasses = 3\nmodel = 4\n',
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_study_stays_listed_and_says_what_is_wrong(how: str, own_studies: Path) -> None:
    service.overview("linear")
    content = BROKEN[how]
    (own_studies / "linear" / "study.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    cards = {card.name: card for card in service.studies()}
    assert cards["linear"] == service.StudyCard("linear", "linear (cannot be opened)", "", 0, 0, 0, 0)
    assert cards["table"].n_train == 60
    with pytest.raises(InfluenceError) as caught:
        service.overview("linear")
    assert "study.toml" in caught.value.why and caught.value.fix


def test_a_study_whose_data_are_no_table_stays_listed(own_studies: Path) -> None:
    (own_studies / "linear" / "train.parquet").write_bytes(b"nothing")
    assert {card.name: card.title for card in service.studies()}["linear"] == "linear (cannot be opened)"
    with pytest.raises(InfluenceError, match=r"train\.parquet"):
        service.overview("linear")


def test_more_studies_than_are_kept_open_are_still_answered(own_studies: Path) -> None:
    for number in range(5):
        shutil.copytree(own_studies / "linear", own_studies / f"copy {number}")
    first = [service.overview(f"copy {number}").accuracy["train"].value for number in range(5)]
    again = [service.overview(f"copy {number}").accuracy["train"].value for number in range(5)]
    rows = frame_of(own_studies / "linear", "train")
    assert first == again == [(rows["given"] == rows["predicted"]).mean()] * 5
