"""Studies of a user's own tensors in the app: cards, search, row pages, input attribution, all kinds of outputs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from influence_core import Study, model_reference, service
from influence_core.service import ExplainRequest, PredictionFilter
from tests import own_models
from tests.adapters.test_torch_study import normal, texts, weights, whole

N = {"train": 20, "test": 8}


def study(folder: Path, name: str, factory: Any, rows: Any, **options: Any) -> Study:
    data = {split: rows(n, i + 1) for i, (split, n) in enumerate(N.items())}
    return Study.from_torch(
        name, factory, **data, checkpoints=weights(factory), learning_rates=[0.1, 0.2], out=folder / name, **options
    )  # fmt: skip


def frame(n: int) -> pd.DataFrame:
    words = [f"the <b>{i}</b> text " + "on and on " * 60 for i in range(n)]
    return pd.DataFrame({"text": words, "page": range(n), "author": ["Ångström" if i % 2 else "x" for i in range(n)]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies of every form, shared by all tests; nothing but their caches changes."""
    place = tmp_path_factory.mktemp("tensor-studies")
    study(place, "vectors", own_models.net, lambda n, s: (normal(n, 6, seed=s), whole(3, n, seed=s)))
    study(
        place, "pictures", own_models.picture_net,
        lambda n, s: (normal(n, 1, 6, 6, seed=s), whole(3, n, seed=s)),
        show={"test": pd.DataFrame({"page": range(8)})}, class_names=["ant", "bee", "cat"],
    )  # fmt: skip
    study(place, "tokens", own_models.Reader, texts, show=frame(28), class_names=["ham", "spam"])
    study(place, "pairs", own_models.Pair, lambda n, s: ((normal(n, 3), normal(n, 2)), whole(3, n, seed=s)))
    for name, factory in (("logit", own_models.logit), ("flat-logit", own_models.Logit)):
        study(place, name, factory, lambda n, s: (normal(n, 4, seed=s), whole(2, n, seed=s)), loss="bce")
    study(place, "numbers", own_models.number, lambda n, s: (normal(n, 4, seed=s), normal(n, seed=s)), loss="mse")
    return place


@pytest.fixture
def tensors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFLUENCE_STUDIES", str(folder))
    return folder


NAMES = ("vectors", "pictures", "tokens", "pairs", "logit", "flat-logit", "numbers")


def explained(name: str, ids: tuple[str, ...], **more: Any) -> service.Explanation:
    """What Explain shows, once the train-side work is done."""
    from influence_core import fitting, registry
    from influence_core.service.opened import opened

    held = opened(name)
    fitting.fit(held.study.task, registry.made("tracin_cp", {}, held.study.task), held.run)
    result = service.explain(name, ExplainRequest(method="tracin_cp", ids=ids, **more))
    assert isinstance(result, service.Explanation)
    return result


def own_outputs(folder: Path, name: str, factory: Any) -> torch.Tensor:
    """The user's own forward pass on the test rows."""
    model = factory()
    model.load_state_dict(weights(factory)[-1])
    rows = Study(folder / name).task.split("test").raw(slice(None)).inputs
    with torch.no_grad():
        return model.eval()(rows)


@pytest.mark.parametrize("name", NAMES)
def test_every_screen_of_every_form_is_filled(name: str, tensors: Path) -> None:
    overview = service.overview(name)
    assert overview.model.startswith("your model tests.own_models:")
    assert any("8 test rows" in note and "agree" in note for note in overview.notes)
    listed = service.predictions(name, PredictionFilter(limit=50))
    assert listed.total == 8
    row = listed.rows[0].row_id
    card = service.row_card(name, "train", 3, "grad_dot")
    assert card.neighbours and card.datum.row_id == 3
    result = explained(name, (str(row),))
    assert result.proponents and result.opponents and result.query.data[0].row_id == row
    shown = service.input_attribution(name, "test", row)
    assert shown.alt and (shown.image or shown.parts or shown.note)
    assert {method.id for method in service.methods(name) if method.available} >= {"tracin_cp", "grad_dot", "loss"}


def test_one_logit_counts_as_two_classes(tensors: Path) -> None:
    for name, factory in (("logit", own_models.logit), ("flat-logit", own_models.Logit)):
        chance = own_outputs(tensors, name, factory).reshape(-1).sigmoid().numpy()
        overview = service.overview(name)
        given = np.asarray(Study(tensors / name).column("test", "label").astype(int))
        assert overview.classes == ("0", "1")
        assert overview.accuracy["test"].value == pytest.approx(float(((chance > 0.5) == given).mean()))
        expected = np.zeros((2, 2), int)
        np.add.at(expected, (given, (chance > 0.5).astype(int)), 1)
        np.testing.assert_array_equal(overview.confusion, expected)
        for datum in service.predictions(name, PredictionFilter(limit=8)).rows:
            mine = chance[int(datum.row_id)]
            assert datum.predicted == str(int(mine > 0.5)) and datum.confidence == pytest.approx(max(mine, 1 - mine))
        for target in ("true", "predicted", "0", "1"):
            scores = {row.datum.row_id: row.score for row in explained(name, ("0",), target=target).proponents}
            assert scores and all(score > 0 for score in scores.values())
        zero, one = (service.input_attribution(name, "test", 0, str(k)).parts for k in (0, 1))
        assert dict(zero) == pytest.approx({part: -value for part, value in one})


def test_linear_contributions_are_weight_times_value(tensors: Path) -> None:
    for name, factory in (("flat-logit", own_models.Logit), ("numbers", own_models.number)):
        state = weights(factory)[-1]
        weight = next(value for key, value in state.items() if key.endswith("weight"))[0]
        row = Study(tensors / name).task.split("test").raw(torch.tensor([2])).inputs[0]
        target = "1" if name == "flat-logit" else "predicted"
        parts = dict(service.input_attribution(name, "test", 2, target).parts)
        assert parts == pytest.approx({f"value {j}": float(weight[j] * row[j]) for j in range(4)}, abs=1e-5)


def test_pictures_are_drawn_between_the_darkest_and_the_lightest_of_train(tensors: Path) -> None:
    train = normal(20, 1, 6, 6, seed=1)
    (datum,) = [d for d in service.predictions("pictures", PredictionFilter(limit=8)).rows if d.row_id == 3]
    assert datum.modality == "image" and datum.image is not None and datum.given in ("ant", "bee", "cat")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(datum.image.split(",")[1]))))
    mine = (normal(8, 1, 6, 6, seed=2)[3, 0] - train.min()) / (train.max() - train.min())
    np.testing.assert_allclose(pixels, np.clip(mine.numpy(), 0, 1) * 255, atol=0.51)
    assert datum.cells == (("page", "3"),)
    shown = service.input_attribution("pictures", "test", 3)
    assert shown.image is not None and Image.open(io.BytesIO(base64.b64decode(shown.image.split(",")[1]))).size == (
        6,
        6,
    )


def test_texts_are_shown_as_text_and_found_by_words_and_cells(tensors: Path) -> None:
    datum = service.row_card("tokens", "test", 2, "loss").datum
    whole_text = frame(28)["text"][22]
    assert datum.text == whole_text and datum.cells == (("page", "22"), ("author", "x")) and datum.modality == "text"
    short = service.predictions("tokens", PredictionFilter(limit=8)).rows[0].text
    assert short is not None and short.endswith("…") and len(short) < 320
    found = {
        text: {d.row_id for d in service.predictions("tokens", PredictionFilter(text=text, limit=9)).rows}
        for text in ("<B>22</b>", "ÅNGSTRÖM", "page 24", "nowhere", "spam")
    }
    assert found["<B>22</b>"] == {2} and found["ÅNGSTRÖM"] == {1, 3, 5, 7} and found["page 24"] == {4}
    assert not found["nowhere"] and found["spam"]


def test_rows_without_anything_to_show_have_their_first_numbers(tensors: Path) -> None:
    inputs = normal(8, 6, seed=2)
    datum = service.row_card("vectors", "test", 1, "loss").datum
    assert datum.modality == "table" and datum.text is None and datum.image is None
    assert datum.cells == tuple((f"value {j}", f"{float(inputs[1, j]):.4g}") for j in range(6))
    names = [name for name, _ in service.row_card("pairs", "test", 1, "loss").datum.cells]
    assert names == ["0 0", "0 1", "0 2", "1 0", "1 1"]


def test_what_has_no_gradient_says_so_in_a_sentence(tensors: Path) -> None:
    for name in ("tokens", "pairs"):
        shown = service.input_attribution(name, "test", 0)
        assert not shown.parts and shown.image is None and shown.note.endswith(".")


def test_cards_of_long_rows_read_no_inputs(tensors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = Study.some_columns

    def watched(self: Study, split: str, positions: Any, columns: Any) -> Any:
        asked.append(columns)
        return real(self, split, positions, columns)

    monkeypatch.setattr(Study, "some_columns", watched)
    service.row_card("tokens", "test", 7, "loss")
    assert asked and all(columns == ["id", "text", "page", "author"] for columns in asked)


def test_a_model_that_is_off_is_one_clear_message_everywhere(
    tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(tensors / "vectors", tmp_path / "copied")
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path))
    monkeypatch.setattr(model_reference, "_allowed", set())
    monkeypatch.delenv("INFLUENCE_MODELS", raising=False)
    (card,) = service.studies()
    assert (card.title, card.n_train, card.n_test) == ("vectors", 20, 8)  # it is listed with its sizes
    asks = [
        lambda: service.overview("copied"), lambda: service.predictions("copied", PredictionFilter()),
        lambda: service.methods("copied"), lambda: service.row_card("copied", "test", 0, "loss"),
        lambda: service.explain("copied", ExplainRequest(method="loss", ids=("0",))),
        lambda: service.input_attribution("copied", "test", 0),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(service.BadInput, match="switched off.*--model tests.own_models:net"):
            ask()
    monkeypatch.setenv("INFLUENCE_MODELS", "tests.own_models:net")
    assert service.overview("copied").n_params > 0  # named now: it opens


@pytest.mark.parametrize(
    ("parity", "words"),
    [
        ({}, ()),
        ({"rows": 1, "largest_difference": 0.0, "agree": True}, ("agree exactly",)),
        ({"rows": 64, "largest_difference": 2e-6, "agree": True}, ("64 test rows", "2e-06")),
        ({"rows": 64, "largest_difference": 0.5, "agree": False}, ("differ", "0.5")),
    ],
)
def test_parity_is_told_in_a_sentence(parity: dict[str, Any], words: tuple[str, ...]) -> None:
    from influence_core.service.catalog import parity_in_words

    said = parity_in_words(parity)
    assert len(said) == bool(parity) and all(word in said[0] for word in words)
