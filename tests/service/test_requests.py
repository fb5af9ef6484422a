"""Questions and answers: what Explain shows equals the scores, and bad questions are explained."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from influence_core import Measurement, Rows, Study, attribute, fitting, registry, service
from influence_core.commands.work import execute
from influence_core.service import ExplainRequest, Explanation, FitNeeded, InfluenceError, tasks
from influence_core.service.jobs import Jobs
from influence_core.task import Needs
from tests.service.test_catalog import chances_of, frame_of, ids_of
from tests.small_studies import CLASSES

# The studies here are tables: no words.
PAIRWISE = [
    name for name, entry in registry.entries().items()
    if entry.info.scores and Needs.WORD_EMBEDDING not in entry.info.needs
]  # fmt: skip
INSTANT = [name for name in PAIRWISE if registry.entries()[name].info.query == "instant" and name != "loo"]


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Jobs are queued and run by the tests themselves; the list says how often a worker was asked for."""
    asked: list[Path] = []
    monkeypatch.setattr(tasks, "ensure_worker", lambda folder: bool(asked.append(folder)))
    yield asked


def first_ids(name: str, folder: Path) -> list:
    return frame_of(folder / name, "test")["id"].tolist()


def fitted(study: Path, method: str, config: dict | None = None) -> None:
    """Do the train-side work as a job does it: through the command line, in a Study of its own."""
    argv = ["fit", "--method", method, "--config", json.dumps(config or {})]
    execute(study, argv, lambda *_: None, lambda: False)


def expected_sides(scores: np.ndarray, ids: list, k: int) -> tuple[list, list]:
    """Proponents and opponents by a plain sort: strongest first, equal ones by position, zeros on neither side."""
    up = sorted((i for i, s in enumerate(scores) if s > 0), key=lambda i: (-scores[i], i))[:k]
    down = sorted((i for i, s in enumerate(scores) if s < 0), key=lambda i: (scores[i], i))[:k]
    return [(ids[i], scores[i]) for i in up], [(ids[i], scores[i]) for i in down]


def shown_sides(answer: Explanation) -> tuple[list, list]:
    for side in (answer.proponents, answer.opponents):
        assert [row.rank for row in side] == list(range(1, len(side) + 1))
        assert all(row.datum.split == "train" for row in side)
    up, down = ([(row.datum.row_id, row.score) for row in side] for side in (answer.proponents, answer.opponents))
    return up, down


def asked(study: str, request: ExplainRequest) -> Explanation:
    answer = service.explain(study, request)
    assert isinstance(answer, Explanation), answer
    return answer


def own_kind(method: str, kind: str = "loss") -> str:
    kinds = registry.entries()[method].info.measurements
    return kind if not kinds or kind in kinds else kinds[0]


# -- the answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", INSTANT)
@pytest.mark.parametrize("target", ["true", "predicted", "cat"])
def test_both_sides_are_the_sorted_scores(method: str, target: str, studies: Path) -> None:
    study = Study(studies / "table")
    test, ids = first_ids("table", studies)[3], frame_of(studies / "table", "train")["id"].tolist()
    fitted(studies / "table", method)
    answer = asked("table", ExplainRequest((test,), method, target=target, k=7))
    measurement = Measurement(own_kind(method), CLASSES.index(target) if target in CLASSES else target)
    scores = attribute(study, method, [test], measurement=measurement).scores[0].double().numpy()
    assert shown_sides(answer) == expected_sides(scores, ids, 7)
    assert (answer.n_train, int(answer.counts.sum())) == (60, 60)
    counts, edges = np.histogram(scores, bins=len(answer.counts))
    assert answer.counts.tolist() == counts.tolist() and answer.edges.tolist() == edges.tolist()
    info = registry.entries()[method].info
    assert (answer.method, answer.method_title, answer.units) == (method, info.title, info.units)
    assert answer.share is None or 0 < answer.share <= 1
    train = frame_of(studies / "table", "train").set_index("id")
    for row in (*answer.proponents, *answer.opponents):
        facts = train.loc[row.datum.row_id]
        assert (row.datum.given, row.datum.predicted) == (facts["given"], facts["predicted"])
        assert row.datum.confidence == pytest.approx(facts["confidence"], abs=1e-6)


@pytest.mark.parametrize("kind", ["loss", "margin", "probability", "logit"])
def test_the_measurement_asked_for_is_the_one_answered(kind: str, studies: Path) -> None:
    fitted(studies / "table", "grad_dot")
    test = first_ids("table", studies)[0]
    scores = attribute(Study(studies / "table"), "grad_dot", [test], measurement=Measurement(kind, "predicted")).scores[
        0
    ]
    answer = asked("table", ExplainRequest((test,), "grad_dot", measurement=kind, k=60))
    ids = frame_of(studies / "table", "train")["id"].tolist()
    assert shown_sides(answer) == expected_sides(scores.double().numpy(), ids, 60)
    said = frame_of(studies / "table", "test")["predicted"][0]
    words = {"loss": "log-probability", "margin": "ahead", "probability": "the probability", "logit": "raw score"}
    assert words[kind] in answer.measured and f"“{said}” (predicted)" in answer.measured


def test_the_layers_asked_for_are_the_share_said(studies: Path) -> None:
    fitted(studies / "table", "grad_dot", {"layers": ["3"]})
    test = first_ids("table", studies)[0]
    answer = asked("table", ExplainRequest((test,), "grad_dot", config={"layers": "3"}, target="true"))
    assert answer.share == 18 / 43 and answer.share_in_words == "looks at 42% of the model's parameters (layers: 3)"
    for name in ("3.weight", "last", "1, 3"):  # a parameter, a word and a list are layers too
        assert service.explain("table", ExplainRequest((test,), "grad_dot", config={"layers": name}))
    scores = attribute(Study(studies / "table"), "grad_dot", [test], config={"layers": ["3"]}).scores[0]
    assert shown_sides(answer)[0][0] == (
        frame_of(studies / "table", "train")["id"][int(scores.argmax())], float(scores.max())
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 59, 60, 61, 10_000])
def test_k_bounds_each_side(k: int, studies: Path) -> None:
    fitted(studies / "table", "knn_shapley")
    test, ids = first_ids("table", studies)[1], frame_of(studies / "table", "train")["id"].tolist()
    scores = attribute(Study(studies / "table"), "knn_shapley", [test]).scores[0].double().numpy()
    assert len(np.unique(scores)) < 60  # equal scores are among them
    answer = asked("table", ExplainRequest((test,), "knn_shapley", target="true", k=k))
    assert shown_sides(answer) == expected_sides(scores, ids, k)


@pytest.mark.parametrize("k", [1, 3, 5, 8, 200, 3000])
def test_equal_scores_are_ranked_by_position(k: int, studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(studies / "table", "grad_dot")
    values = torch.randint(-3, 4, (1, 60), generator=torch.Generator().manual_seed(k)).float()
    study = service.requests.opened("table").study
    cls = type(fitting.fit(study.task, registry.made("grad_dot"), service.requests.opened("table").run))
    monkeypatch.setattr(cls, "_scores", lambda self, batch, measurement, rows: values)
    config = {"projection": 16 + k}  # a query that nothing remembers
    fitted(studies / "table", "grad_dot", config)
    answer = asked("table", ExplainRequest((first_ids("table", studies)[0],), "grad_dot", k=k, config=config))
    ids = frame_of(studies / "table", "train")["id"].tolist()
    assert shown_sides(answer) == expected_sides(values[0].double().numpy(), ids, k)


@pytest.mark.parametrize("method", ["grad_dot", "gas", "knn_shapley", "if_ggn", "rps_l2"])
@pytest.mark.parametrize("target", ["true", "predicted", "bee"])
def test_a_set_is_answered_by_the_mean(method: str, target: str, studies: Path) -> None:
    fitted(studies / "table", method)
    some = tuple(first_ids("table", studies)[i] for i in (9, 2, 5, 14, 7, 8, 21))
    answer = asked("table", ExplainRequest(some, method, reduce="mean", target=target, k=60))
    measurement = Measurement(own_kind(method), CLASSES.index(target) if target in CLASSES else target)
    single = [attribute(Study(studies / "table"), method, [i], measurement=measurement).scores[0] for i in some]
    mean = torch.stack(single).double().mean(0).numpy()
    ids = frame_of(studies / "table", "train")["id"].tolist()
    found = {row.datum.row_id: row.score for row in (*answer.proponents, *answer.opponents)}
    largest = np.abs(mean).max()
    assert len(found) == (np.abs(mean) > 0).sum() or len(found) >= (np.abs(mean) > 1e-6 * largest).sum()
    for i, value in zip(ids, mean, strict=True):
        assert found.get(i, 0.0) == pytest.approx(value, abs=2e-6 * largest)
    assert [row.score for row in answer.proponents] == sorted((r.score for r in answer.proponents), reverse=True)
    assert [row.score for row in answer.opponents] == sorted(r.score for r in answer.opponents)
    assert (answer.query.n_rows, ids_of(answer.query.data)) == (7, list(some[:6]))


def test_one_row_with_reduce_is_that_row(studies: Path) -> None:
    fitted(studies / "table", "gas")
    test = first_ids("table", studies)[4]
    plain = asked("table", ExplainRequest((test,), "gas"))
    assert shown_sides(asked("table", ExplainRequest((test,), "gas", reduce="mean"))) == shown_sides(plain)
    assert shown_sides(asked("table", ExplainRequest((str(test),), "gas"))) == shown_sides(plain)  # as in a URL


@pytest.mark.parametrize("split", ["train", "test", "locked"])
def test_rows_of_every_split_can_be_asked_about(split: str, studies: Path) -> None:
    fitted(studies / "table", "grad_cos")
    row = frame_of(studies / "table", split)["id"].tolist()[2]
    scores = attribute(Study(studies / "table"), "grad_cos", Rows(split, (row,))).scores[0].double().numpy()
    ids = frame_of(studies / "table", "train")["id"].tolist()
    answer = asked("table", ExplainRequest((row,), "grad_cos", split=split, target="true"))
    assert shown_sides(answer) == expected_sides(scores, ids, 5)
    assert answer.query.title == f"{split.capitalize()} row {row}"
    if split == "train":
        assert answer.proponents[0].datum.row_id == row and answer.proponents[0].score == pytest.approx(1, abs=1e-5)


# -- the explained prediction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table", "linear", "image"])
def test_the_query_shows_the_models_probabilities(name: str, studies: Path) -> None:
    chances, rows = chances_of(studies / name, "test"), frame_of(studies / name, "test")
    for position in (0, 5):
        view = service.query(name, ExplainRequest((rows["id"][position],), "gas"))
        expected = sorted(zip(CLASSES, chances[position], strict=True), key=lambda pair: -pair[1])
        assert [label for label, _ in view.probabilities] == [label for label, _ in expected]
        assert [p for _, p in view.probabilities] == pytest.approx([p for _, p in expected], abs=1e-6)
        assert (view.n_rows, ids_of(view.data), view.title) == (
            1,
            [rows["id"][position]],
            f"Test row {rows['id'][position]}",
        )
    some = rows["id"].tolist()
    view = service.query(name, ExplainRequest(tuple(some), "gas", reduce="mean"))
    assert dict(view.probabilities) == pytest.approx(dict(zip(CLASSES, chances.mean(0), strict=True)), abs=1e-6)
    assert (view.n_rows, ids_of(view.data), view.title) == (len(some), some[:6], f"{len(some)} test rows")


def test_the_title_of_a_set_names_its_labels_only_where_all_share_them(studies: Path) -> None:
    rows = frame_of(studies / "table", "test")
    cell = rows.groupby(["given", "predicted"])["id"].apply(list)
    (given, said), same = max(cell.items(), key=lambda item: len(item[1]))
    assert len(same) >= 6
    view = service.query("table", ExplainRequest(tuple(same), "gas", reduce="mean"))
    assert view.title == f"{len(same)} test rows: given {given}, predicted {said}"
    other = rows[(rows["given"] != given)]["id"].tolist()[0]
    view = service.query("table", ExplainRequest((*same[:6], other), "gas", reduce="mean"))
    assert view.title == "7 test rows"  # the one that differs is not among the cards shown


# -- before and after the fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in PAIRWISE if name != "loo"])
def test_a_method_says_what_it_needs_until_its_job_has_run(method: str, own_studies: Path) -> None:
    path, ids = own_studies / "table", frame_of(own_studies / "table", "test")["id"].tolist()
    request = ExplainRequest((ids[6],), method)
    needed = service.explain("table", request)
    assert isinstance(needed, FitNeeded) and needed.job is None and needed.method == method
    assert needed.seconds >= 0 and needed.megabytes >= 0 and needed.in_words.endswith(".")
    job = service.start_fit("table", request, "me")
    assert (job.key, job.state, job.is_active) == (needed.key, "queued", True)
    waiting = service.explain("table", request)
    assert isinstance(waiting, FitNeeded) and waiting.job == job
    queued = Jobs(path).get(job.id)
    assert queued is not None
    execute(path, list(queued.argv), lambda *_: None, lambda: False)
    answer = asked("table", request)
    measurement = Measurement(own_kind(method), "predicted")
    scores = attribute(Study(path), method, [ids[6]], measurement=measurement).scores[0].double().numpy()
    train = frame_of(path, "train")["id"].tolist()
    assert shown_sides(answer) == expected_sides(scores, train, 5)
    other = service.explain("table", replace(request, ids=(ids[7],)))
    if registry.entries()[method].info.query == "solve":
        assert isinstance(other, FitNeeded) and other.key != needed.key
        assert "computation of its own" in other.in_words and f"Test row {ids[6]}" in job.title
    else:
        assert isinstance(other, Explanation) and "every later prediction is instant" in needed.in_words


def test_a_solved_set_with_a_named_class_is_the_job_that_was_asked_for(own_studies: Path) -> None:
    path = own_studies / "linear"
    request = ExplainRequest(("row 031", "row 033"), "if_cg", reduce="mean", target="cat", measurement="margin", k=30)
    job = service.start_fit("linear", request, "me")
    execute(path, list(Jobs(path).get(job.id).argv), lambda *_: None, lambda: False)  # type: ignore[union-attr]
    answer = asked("linear", request)
    exact = attribute(Study(path), "if_ggn", Rows("test", request.ids, "mean"), measurement=Measurement("margin", 2))
    expected = dict(zip(exact.train_ids.tolist(), exact.scores[0].tolist(), strict=True))
    found = {row.datum.row_id: row.score for row in (*answer.proponents, *answer.opponents)}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5) and len(found) == 30


def test_options_are_part_of_what_is_fitted(own_studies: Path) -> None:
    test = first_ids("table", own_studies)[0]
    fitted(own_studies / "table", "if_ggn", {"damping": 0.5})
    assert isinstance(service.explain("table", ExplainRequest((test,), "if_ggn")), FitNeeded)
    assert isinstance(service.explain("table", ExplainRequest((test,), "if_ggn", config={"damping": 0.5})), Explanation)
    assert isinstance(service.explain("table", ExplainRequest((test,), "if_ggn", config={"damping": 0.4})), FitNeeded)
    assert isinstance(service.explain("table", ExplainRequest((test,), "knn_shapley", config={})), FitNeeded)


@pytest.mark.parametrize("odd", ["-1", "--help", "a b", "'; --", "ü=\\", "--test=1"])
def test_an_id_that_looks_like_an_option_reaches_the_job_as_it_is(odd: str, own_studies: Path) -> None:
    path = own_studies / "linear" / "test.parquet"
    rows = pd.read_parquet(path)
    rows.loc[3, "id"] = odd
    rows.to_parquet(path, index=False)
    request = ExplainRequest((odd,), "if_cg")
    job = Jobs(own_studies / "linear").get(service.start_fit("linear", request, "me").id)
    assert job is not None
    execute(own_studies / "linear", list(job.argv), lambda *_: None, lambda: False)
    found = service.explain("linear", request)
    assert isinstance(found, Explanation) and found.query.data[0].row_id == odd


def test_rows_never_left_out_are_neither_shown_nor_counted(own_studies: Path) -> None:
    fitted(own_studies / "linear", "loo", {"n_rows": 5})
    ids = first_ids("linear", own_studies)
    request = ExplainRequest((ids[0],), "loo", k=30, config={"n_rows": 5})
    found = service.explain("linear", request)
    assert isinstance(found, Explanation)
    scores = attribute(
        Study(own_studies / "linear"), "loo", [ids[0]], config={"n_rows": 5},
        measurement=Measurement("loss", "predicted"),
    ).scores[0].double().numpy()  # fmt: skip
    known = np.isfinite(scores)
    assert known.sum() == found.n_train == found.counts.sum() == 5
    assert np.isclose(found.edges[[0, -1]], [scores[known].min(), scores[known].max()]).all()
    train = frame_of(own_studies / "linear", "train")["id"].tolist()
    up, down = expected_sides(np.nan_to_num(scores), train, 30)
    assert [row.datum.row_id for row in found.proponents] == [i for i, _ in up]
    assert [row.datum.row_id for row in found.opponents] == [i for i, _ in down]
    table = pd.read_parquet(io.BytesIO(service.export_scores("linear", request, "parquet")))
    assert len(table) == 30 and table["score"].notna().sum() == 5 and table["score"].iloc[:5].notna().all()


def test_two_browsers_share_one_job(own_studies: Path, no_worker: list[Path]) -> None:
    ids = first_ids("table", own_studies)
    first = service.start_fit("table", ExplainRequest((ids[0],), "gas"), "ann")
    second = service.start_fit("table", ExplainRequest((ids[5],), "gas", measurement="margin"), "bob")
    assert second.id == first.id and len(service.listed_jobs("table")) == 1  # any prediction waits for the same work
    assert service.start_fit("table", ExplainRequest((ids[0],), "grad_cos"), "bob").id != first.id
    one = service.start_fit("table", ExplainRequest((ids[0],), "if_cg"), "ann")
    assert service.start_fit("table", ExplainRequest((ids[1],), "if_cg"), "ann").id != one.id
    assert service.start_fit("table", ExplainRequest((ids[0],), "if_cg", k=3), "bob").id == one.id
    assert service.cancel_job("table", first.id, "ann") == "detached"
    assert service.cancel_job("table", first.id, "bob") == "cancelled"
    assert len(no_worker) >= 6 and set(no_worker) == {own_studies}


# -- bad questions ----------------------------------------------------------------------------------------------------

WRONG: dict[str, dict[str, Any]] = {
    "unknown id": {"ids": (3,)}, "id no number": {"ids": ("x",)}, "endless id": {"ids": ("9" * 5000,)},
    "no id": {"ids": ()}, "two ids": {"ids": "two"}, "id none": {"ids": (None,)}, "id list": {"ids": ([1],)},
    "unknown method": {"method": "nothing"}, "empty method": {"method": ""}, "no pairs": {"method": "loss"},
    "unknown split": {"split": "validation"}, "empty split": {"split": ""},
    "unknown reduction": {"ids": "two", "reduce": "sum"}, "unknown kind": {"measurement": "loss2"},
    "kind of another": {"method": "knn_shapley", "measurement": "margin"},
    "kind not explained": {"method": "rps_l2", "measurement": "margin"},
    "unknown target": {"target": "dog"}, "empty target": {"target": ""}, "k 0": {"k": 0}, "k negative": {"k": -3},
    "k a text": {"k": "5"}, "k a half": {"k": 2.5}, "k none": {"k": None}, "ids a text": {"ids": "1007"},
    "ids a number": {"ids": 1007}, "method none": {"method": None}, "target a number": {"target": 1},
    "unknown reduction of one": {"reduce": "sum"}, "options a list": {"config": ["damping"]},
    "options a text": {"config": "damping=1"},
    "unknown option": {"config": {"layer": "3"}}, "unknown layer": {"config": {"layers": "nine"}},
    "word for a number": {"method": "if_ggn", "config": {"damping": "much"}},
    "not a number": {"method": "if_ggn", "config": {"damping": float("nan")}},
    "below the bound": {"method": "knn_shapley", "config": {"k_neighbors": 0}},
    "no such choice": {"config": {"weights": "none"}}, "an object": {"config": {"layers": {"a": 1}}},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("call", ["explain", "start_fit", "export_scores"])
def test_a_bad_question_is_explained(name: str, call: str, own_studies: Path) -> None:
    fitted(own_studies / "table", "gas")
    ids = first_ids("table", own_studies)
    change = dict(WRONG[name])
    if change.get("ids") == "two":
        change["ids"] = (ids[0], ids[1])
    request = replace(ExplainRequest((ids[0],), "gas"), **change)
    more = {"explain": (), "start_fit": ("me",), "export_scores": ("csv",)}[call]
    with pytest.raises(InfluenceError) as caught:
        getattr(service, call)("table", request, *more)
    for part in (caught.value.what, caught.value.why, caught.value.fix):
        assert part.strip()
    assert Jobs(own_studies / "table").list() == []  # nothing was queued that must fail
