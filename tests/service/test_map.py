"""The map's service: points, filters, colours, regions over all rows, group influence, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from influence_core import Study, attribute, service
from influence_core.errors import BadInput
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.service import map as module
from influence_core.service import map_rows
from influence_core.workflows.projection import ProjectionConfig, projection

PCA = service.MapRequest(drawn="pca")
EVERYWHERE = [(-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)]
QUERY = service.ExplainRequest(ids=(1000,), method="grad_dot")


def view(request: service.MapRequest = PCA) -> service.MapView:
    found = service.map_points("table", request)
    assert isinstance(found, service.MapView)
    return found


def first_test_query(studies: Path, **options: object) -> service.ExplainRequest:
    return replace(QUERY, ids=(Study(studies / "table").task.ids("test")[0].item(),), **options)  # type: ignore[arg-type]


def test_every_train_and_test_row_is_a_point_and_no_locked_one(own_studies: Path) -> None:
    found, study = view(), Study(own_studies / "table")
    wanted = [*study.task.ids("train").tolist(), *study.task.ids("test").tolist()]
    assert list(found.points.ids) == wanted and found.n_rows == {"train": 60, "test": 24}
    assert not set(found.points.ids) & set(study.task.ids("locked").tolist())
    xy = projection(study.task, Run(store=study.store), ProjectionConfig(kind="pca")).xy
    np.testing.assert_array_equal(found.points.x, np.concatenate([xy["train"], xy["test"]])[:, 0])
    assert found.points.is_test.sum() == 24 and found.density is None and found.drawn == "pca"
    names = [found.colours.names[code] for code in found.points.codes]
    assert names == list(found.points.labels)
    assert list(found.points.labels[:60]) == study.column("train", "label").tolist()


def test_umap_is_named_with_its_price_until_it_is_there(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What UMAP lays out is tested with the projection; compiling it again here would take half a minute.
    monkeypatch.setattr(
        "influence_core.workflows.projection.umap_coordinates", lambda rows, chosen, seed, run: rows[:, :2]
    )
    waiting = view(service.MapRequest())
    assert waiting.drawn == "pca" and waiting.umap is not None and waiting.umap.seconds > 0
    study = Study(own_studies / "table")
    made = projection(study.task, Run(store=study.store), ProjectionConfig())
    there = view(service.MapRequest())
    assert there.drawn == "umap" and there.umap is None and there.key == made.key != waiting.key
    np.testing.assert_array_equal(there.points.y[:60], made.xy["train"][:, 1])


def test_a_projection_that_takes_long_is_a_job(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_rows, "AT_ONCE_SECONDS", 0.0)
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    needed = service.map_points("table", PCA)
    assert isinstance(needed, service.MapNeeded) and needed.job is None
    job = service.start_projection("table", PCA, "pca", "me")
    again = service.map_points("table", PCA)
    assert isinstance(again, service.MapNeeded) and again.job is not None and again.job.id == job.id
    with pytest.raises(BadInput, match="not there yet"):
        service.rows_in_polygon("table", PCA, EVERYWHERE)


def test_filters_leave_ghosts_which_no_region_selects(own_studies: Path) -> None:
    everything = view()
    some = replace(PCA, split="train", given="ant")
    found = view(some)
    wanted = [i for i, label, test in zip(everything.points.ids, everything.points.labels, everything.points.is_test,
                                          strict=True) if label == "ant" and not test]  # fmt: skip
    assert list(found.points.ids) == wanted and len(found.ghosts) == 84 - len(wanted)
    chosen = service.rows_in_polygon("table", some, EVERYWHERE)
    assert chosen.count == {"train": len(wanted), "test": 0} and chosen.mix == (("ant", len(wanted)),)
    wrong = view(replace(PCA, status="wrong"))
    right = view(replace(PCA, status="right"))
    assert wrong.n_matching + right.n_matching == 84 and wrong.n_matching > 0
    assert service.rows_in_polygon("table", PCA, EVERYWHERE).n_wrong == wrong.n_matching


def test_a_region_counts_all_rows_also_those_not_drawn(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = view()
    monkeypatch.setattr(module, "MAX_POINTS", 10)
    few = view()
    assert len(few.points.ids) == 10 and few.density is not None and few.density.sum() == 84
    assert few.points.ids == view().points.ids
    middle = (float(np.median(everything.points.x)), float(np.median(everything.points.y)))
    corners = [(middle[0] - 1, middle[1] - 1), (middle[0] + 1, middle[1] - 1.2), (middle[0], middle[1] + 1)]
    xy = np.stack([everything.points.x, everything.points.y], 1)
    inside = Outline([*corners, corners[0]]).contains_points(xy)
    found = service.rows_in_polygon("table", PCA, corners)
    assert found.total == inside.sum() > 3 and found.count["test"] == inside[everything.points.is_test].sum()
    ids = service.row_ids_in_polygon("table", PCA, corners)
    train = inside & ~everything.points.is_test
    assert sorted(ids) == sorted(np.asarray(everything.points.ids)[train].tolist())
    assert found.examples and len(found.examples) <= 12


def test_the_order_for_review_is_by_loss(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = view(replace(PCA, colour="loss"))
    loss = dict(zip(found.points.ids, found.points.values.tolist(), strict=True))
    ids = service.row_ids_in_polygon("table", PCA, EVERYWHERE)
    assert len(ids) == 60 and [loss[i] for i in ids] == sorted((loss[i] for i in ids), reverse=True)
    assert len(service.row_ids_in_polygon("table", PCA, EVERYWHERE, "test")) == 24


def test_group_influence_is_the_sum_of_the_scores(own_studies: Path) -> None:
    query = first_test_query(own_studies)
    asked = replace(PCA, query=query, colour="influence")
    before = service.rows_in_polygon("table", asked, EVERYWHERE)
    assert before.influence is None and "not been computed" in before.influence_note
    study = Study(own_studies / "table")
    scores = attribute(study, "grad_dot", Rows("test", query.ids), measurement=Measurement("loss", "predicted")).scores
    view_now = view(asked)
    corners = [(-1e6, -1e6), (float(np.median(view_now.points.x)), -1e6), (float(np.median(view_now.points.x)), 1e6),
               (-1e6, 1e6)]  # fmt: skip
    found = service.rows_in_polygon("table", asked, corners).influence
    assert found is not None
    left = view_now.points.x[:60] < np.median(view_now.points.x)
    wanted = scores[0].numpy()
    assert found.total == pytest.approx(wanted[left].sum(), rel=1e-4)
    assert found.everything == pytest.approx(wanted.sum(), rel=1e-4) and found.n_train == left.sum()
    np.testing.assert_allclose(view_now.points.values[:60], wanted, rtol=1e-4)
    assert np.isnan(view_now.points.values[60:]).all() and view_now.colours.kind == "diverging"


def test_lines_go_to_the_strongest_rows_of_both_sides(own_studies: Path) -> None:
    query = first_test_query(own_studies, k=3)
    study = Study(own_studies / "table")
    scores = attribute(study, "grad_dot", Rows("test", query.ids), measurement=Measurement("loss", "predicted"))
    found = view(replace(PCA, query=query))
    wanted = [row_id for row_id, _ in zip(study.task.ids("train")[scores.scores[0].argsort(descending=True)], range(3),
                                          strict=False)]  # fmt: skip
    assert [link.row_id for link in found.links if link.score > 0] == wanted
    assert len([link for link in found.links if link.score < 0]) == 3
    place = found.points.ids.index(query.ids[0])
    np.testing.assert_allclose(found.query[0], [found.points.x[place], found.points.y[place]])


@pytest.mark.parametrize("colour", map_rows.COLOURS)
def test_every_colour_is_drawn_or_says_why_not(own_studies: Path, colour: str) -> None:
    found = view(replace(PCA, colour=colour))
    values = found.points.codes if found.colours.kind == "category" else found.points.values
    assert len(values) == 84
    assert bool(found.colours.note) == (colour in ("suspicion", "self-influence", "influence"))


@pytest.mark.parametrize("options", [{"place": "x"}, {"colour": "x"}, {"split": "locked"}, {"given": "dog"},
                                     {"status": "x"}, {"drawn": "tsne"}])  # fmt: skip
def test_a_choice_that_does_not_exist_is_refused(own_studies: Path, options: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        service.map_points("table", replace(PCA, **options))  # type: ignore[arg-type]


def test_cards_of_locked_rows_are_refused(own_studies: Path) -> None:
    locked = Study(own_studies / "table").task.ids("locked")[0].item()
    with pytest.raises(BadInput):
        service.map_cards("table", [("locked", locked)])
    with pytest.raises(BadInput):
        service.row_ids_in_polygon("table", PCA, EVERYWHERE, "locked")
    train = view().points.ids[0]
    assert service.map_cards("table", [("train", train)])[0].row_id == train
