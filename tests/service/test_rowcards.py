"""The page of a row: its loss, its neighbours and the test rows it moves, against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from influence_core import Measurement, Run, Study, attribute, fitting, registry, service
from influence_core.service import InfluenceError
from tests.service.test_catalog import MODELS, chances_of, frame_of, ids_of, inputs_of, model_of, table_of
from tests.small_studies import CLASSES, COLUMNS


def fit(path: Path, method: str) -> Study:
    study = Study(path)
    fitting.fit(study.task, registry.made(method), Run(store=study.store))
    return study


def embeddings(path: Path, split: str) -> np.ndarray:
    """What enters the last layer, in float64."""
    with torch.no_grad():
        model = model_of(path)
        return model[:-1](inputs_of(path, split)).flatten(1).double().numpy()  # type: ignore[index]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("split", ["train", "test", "locked"])
def test_a_row_is_told_as_the_files_have_it(name: str, split: str, studies: Path) -> None:
    path = studies / name
    if not (path / f"{split}.parquet").exists():
        with pytest.raises(InfluenceError, match=f"There is no '{split}' split"):
            service.row_card(name, split, 1, "gas")
        return
    rows, chances = frame_of(path, split), chances_of(path, split)
    losses = -np.log(chances[np.arange(len(rows)), [CLASSES.index(label) for label in rows["given"]]])
    for position in (0, 3, len(rows) - 1):
        row_id = rows["id"].tolist()[position]
        card = service.row_card(name, split, str(row_id), "gas")
        expected = sorted(zip(CLASSES, chances[position], strict=True), key=lambda pair: -pair[1])
        assert [label for label, _ in card.probabilities] == [label for label, _ in expected]
        assert [p for _, p in card.probabilities] == pytest.approx([p for _, p in expected], abs=1e-6)
        assert card.loss == pytest.approx(losses[position], rel=1e-4, abs=1e-6)
        assert (card.loss_rank, card.n_rows) == ((losses > losses[position]).sum() + 1, len(rows))
        assert (card.datum.row_id, card.datum.split) == (row_id, split)
        assert (card.datum.given, card.datum.predicted) == (rows["given"][position], rows["predicted"][position])


def test_every_cell_is_shown_the_oddest_first(studies: Path) -> None:
    rows, inputs = table_of(studies / "table", "train"), inputs_of(studies / "table", "train").numpy()
    for position in (0, 17):
        card = service.row_card("table", "train", rows["id"][position], "gas")
        order = np.argsort(-np.abs(inputs[position]), kind="stable")
        assert card.datum.cells == tuple((COLUMNS[j], f"{rows[COLUMNS[j]][position]:.4g}") for j in order)


def test_planted_labels_are_told_with_the_truth(studies: Path) -> None:
    rows = table_of(studies / "table", "train").merge(table_of(studies / "table", "truth"), on="id")
    for given, row_id, truth in zip(rows["label_x"], rows["id"], rows["label_y"], strict=True):
        datum = service.row_card("table", "train", row_id, "gas").datum
        assert datum.planted == (given != truth) and datum.truth == (truth if given != truth else None)
    assert service.row_card("linear", "train", "=1+1", "gas").datum.planted is None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_neighbours_are_those_of_brute_force(name: str, split: str, studies: Path) -> None:
    path = studies / name
    train, own = embeddings(path, "train"), embeddings(path, split)
    norms = np.maximum(np.linalg.norm(train, axis=1), 1e-12)
    ids, asked = frame_of(path, "train")["id"].tolist(), frame_of(path, split)["id"].tolist()
    for position in (0, 4, 9):
        cosine = train @ own[position] / norms / max(np.linalg.norm(own[position]), 1e-12)
        found = service.row_card(name, split, asked[position], "gas").neighbours
        best = sorted(np.delete(cosine, position) if split == "train" else cosine, reverse=True)[:6]
        assert [row.score for row in found] == pytest.approx(best, abs=1e-5)
        assert [row.rank for row in found] == [1, 2, 3, 4, 5, 6] and len(set(ids_of(r.datum for r in found))) == 6
        for row in found:  # each has the similarity that is said of it: rows that tie may come in any order
            assert row.score == pytest.approx(cosine[ids.index(row.datum.row_id)], abs=1e-5)
        assert split != "train" or asked[position] not in ids_of(row.datum for row in found)


def test_neighbours_that_tie_come_in_the_order_of_their_rows(own_studies: Path) -> None:
    path = own_studies / "linear" / "train.parquet"
    rows = pd.read_parquet(path)
    rows.loc[[2, 5, 6, 11, 12, 13, 20, 25], list(COLUMNS)] = rows.loc[2, list(COLUMNS)].to_numpy(dtype=float)
    rows.to_parquet(path, index=False)
    found = service.row_card("linear", "train", rows["id"][6], "gas").neighbours
    assert [row.score for row in found] == pytest.approx([1] * 6, abs=1e-6)
    assert ids_of(row.datum for row in found) == rows["id"][[2, 5, 11, 12, 13, 20]].tolist()


def test_a_row_is_no_neighbour_of_itself_in_the_smallest_study(own_studies: Path) -> None:
    path = own_studies / "linear" / "train.parquet"
    rows = pd.read_parquet(path).iloc[:4]
    rows.to_parquet(path, index=False)
    found = service.row_card("linear", "train", rows["id"][1], "gas").neighbours
    assert sorted(ids_of(row.datum for row in found)) == sorted(rows["id"][[0, 2, 3]])
    assert all(-1.001 <= row.score <= 1.001 for row in found)


@pytest.mark.parametrize("method", ["gas", "tracin_cp", "if_ggn", "knn_shapley", "rps_l2"])
def test_what_a_row_helps_and_hurts_is_its_column_of_scores(method: str, studies: Path) -> None:
    study = fit(studies / "table", method)
    test = frame_of(studies / "table", "test")
    kind = "logit" if method == "rps_l2" else "loss"
    scores = attribute(study, method, test["id"].tolist(), measurement=Measurement(kind)).scores.numpy()
    # Wrong predictions are looked at first; among equal scores they also come first.
    order = np.argsort((test["given"] == test["predicted"]).to_numpy(), kind="stable")
    for position in (1, 2, 30):
        row_id = frame_of(studies / "table", "train")["id"].tolist()[position]
        card = service.row_card("table", "train", row_id, method)
        column = scores[order, position]
        for side, sign in ((card.helps, 1), (card.hurts, -1)):
            best = [i for i in np.argsort(-sign * column, kind="stable") if sign * column[i] > 0][:6]
            assert ids_of(row.datum for row in side) == test["id"].to_numpy()[order][best].tolist()
            assert [row.score for row in side] == pytest.approx(column[best].tolist(), rel=1e-5)
            assert all(sign * row.score > 0 for row in side) and all(row.datum.split == "test" for row in side)
        assert card.affected_note == f"Among 24 test rows, wrong predictions first, on {kind} at the given label."
        assert (card.method, card.method_title) == (method, registry.entries()[method].info.title)


def test_why_nothing_is_said_to_be_affected(own_studies: Path) -> None:
    train = frame_of(own_studies / "table", "train")["id"].tolist()[0]
    test = frame_of(own_studies / "table", "test")["id"].tolist()[0]
    notes = {
        ("test", "gas"): "Only training rows influence predictions.",
        ("train", "gas"): "GAS has not been computed yet",
        ("train", "if_cg"): "solves for every test row anew",
        ("train", "loss"): "cannot rank pairs of rows here",
    }
    for (split, method), note in notes.items():
        card = service.row_card("table", split, train if split == "train" else test, method)
        assert note in card.affected_note and card.helps == card.hurts == ()
        assert len(card.neighbours) == 6
    fit(own_studies / "table", "gas")
    assert service.row_card("table", "train", train, "gas").helps


@pytest.mark.parametrize(
    "change",
    [("train", 3, "gas"), ("train", "x", "gas"), ("nothing", 1, "gas"), ("train", None, "gas"), ("", 1, "gas")],
)
def test_a_row_that_is_none_is_explained(change: tuple, studies: Path) -> None:
    with pytest.raises(InfluenceError) as caught:
        service.row_card("table", *change)
    assert caught.value.what and caught.value.why and caught.value.fix
    with pytest.raises(InfluenceError, match="Unknown method"):
        service.row_card("table", "train", frame_of(studies / "table", "train")["id"][0], "nothing")
