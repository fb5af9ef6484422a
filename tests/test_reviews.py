"""The review log against a list in memory: whatever is sent, sent again, undone and redone, the same decisions hold."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_core.errors import BadInput, StoreProblem
from influence_core.reviews import FILE_NAME, Act, Decision, Reviews


def decided(number: int, *decisions: Decision, tab: str = "a") -> Act:
    return Act(tab, number, "decide", decisions)


def holds(reviews: Reviews) -> dict[tuple[str, str, int | str], tuple[str, str | None]]:
    found = reviews.standing()
    return {(s.reviewer, s.decision.split, s.decision.row): (s.decision.action, s.decision.label) for s in found}


class Model:
    """What a reviewer's decisions should be: a list of acts, and a stack of undone ones."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.undone: list[Act] = []

    def take(self, act: Act) -> None:
        if act.kind == "decide":
            self.acts.append(act)
            self.undone.clear()
        elif act.kind == "undo" and self.acts:
            self.undone.append(self.acts.pop())
        elif act.kind == "redo" and self.undone:
            self.acts.append(self.undone.pop())

    def holds(self) -> dict[tuple[str, int | str], tuple[str, str | None]]:
        found = {}
        for act in self.acts:
            found |= {(d.split, d.row): (d.action, d.label) for d in act.decisions}
        return found


steps = st.lists(
    st.tuples(
        st.sampled_from(["anna", "ben"]), st.sampled_from(["t1", "t2"]),
        st.sampled_from(["decide", "decide", "decide", "undo", "redo"]),
        st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), st.sampled_from(["keep", "drop", "unsure"]),
        st.integers(1, 3),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_sequence_holds_what_a_list_holds(
    steps: Sequence[tuple[str, str, str, list[int], str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    reviews = Reviews(tmp_path_factory.mktemp("study"))
    models = {"anna": Model(), "ben": Model()}
    numbers: dict[tuple[str, str], int] = {}
    seqs: dict[tuple[str, str, int], int] = {}
    for reviewer, tab, kind, rows, action, times in steps:
        number = numbers[reviewer, tab] = numbers.get((reviewer, tab), 0) + 1
        decisions = tuple(Decision("train", row, action) for row in rows) if kind == "decide" else ()  # type: ignore[arg-type]
        act = Act(tab, number, kind, decisions)  # type: ignore[arg-type]
        models[reviewer].take(act)
        answers = [reviews.record(reviewer, [act])[0].seq for _ in range(times)]  # sent again after a lost connection
        assert len(set(answers)) == 1
        seqs[reviewer, tab, number] = answers[0]
        for name, model in models.items():  # what an undo or redo is about is known beforehand
            for way, stack in (("undo", model.acts), ("redo", model.undone)):
                step, known = reviews.next_step(name, way), stack[-1] if stack else None  # type: ignore[arg-type]
                assert (step and step.seq) == (known and seqs[name, known.tab, known.number])
                if step and known:
                    counted = Counter((d.action, d.label) for d in known.decisions)
                    assert {(a, label): n for a, label, n in step.counts} == counted
                    assert step.n_rows == len(known.decisions) and step.first in known.decisions
    expected = {(name, *key): value for name, model in models.items() for key, value in model.holds().items()}
    assert holds(reviews) == expected
    assert len(reviews.log(limit=1000)) == sum(numbers.values())


def test_an_undo_that_was_announced_is_refused_when_the_last_act_is_another(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    first = reviews.record("anna", [decided(1, Decision("train", 1, "keep"))])[0].seq
    second = reviews.record("anna", [decided(1, Decision("train", 2, "drop"), tab="b")])[0].seq
    with pytest.raises(BadInput, match="Nothing was undone"):
        reviews.record("anna", [Act("c", 1, "undo", expects=first)])
    assert len(holds(reviews)) == 2 and len(reviews.log()) == 2
    assert reviews.record("anna", [Act("c", 1, "undo", expects=second)])[0].target == second
    with pytest.raises(BadInput, match="Nothing was redone"):
        reviews.record("anna", [Act("c", 2, "redo", expects=first)])


def test_the_later_of_two_tabs_wins_and_both_stay_in_the_log(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    reviews.record("anna", [decided(1, Decision("train", 7, "keep"), tab="a")])
    reviews.record("anna", [decided(1, Decision("train", 7, "relabel", label="cat"), tab="b")])
    assert holds(reviews) == {("anna", "train", 7): ("relabel", "cat")}
    assert [line.tab for line, _ in reviews.log()] == ["b", "a"]
    assert [s.decision.label for s in reviews.about("train", 7)] == ["cat"] and reviews.about("train", "7") == []


def test_a_number_and_its_digits_are_two_rows(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    reviews.record("a", [decided(1, Decision("train", 7, "keep"), Decision("train", "7", "drop"))])
    assert holds(reviews) == {("a", "train", 7): ("keep", None), ("a", "train", "7"): ("drop", None)}


def test_one_undo_takes_back_a_whole_batch_also_after_a_restart(tmp_path: Path) -> None:
    rows = [Decision("train", i, "relabel", label="dog") for i in range(5000)]
    Reviews(tmp_path).record("anna", [decided(1, Decision("train", 3, "keep")), decided(2, *rows)])
    logged = Reviews(tmp_path).record("anna", [Act("new tab", 1, "undo")])[0]
    assert holds(Reviews(tmp_path)) == {("anna", "train", 3): ("keep", None)}
    batch = next(line for line, _ in Reviews(tmp_path).log() if line.n_rows == 5000)
    assert logged.target == batch.seq and not batch.standing
    Reviews(tmp_path).record("anna", [Act("new tab", 2, "redo")])
    assert len(holds(Reviews(tmp_path))) == 5000


def test_an_undo_by_name_takes_back_that_act_alone_and_what_is_redone_is_what_was_undone_last(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    batch = decided(1, *(Decision("train", i, "relabel", label="dog") for i in range(3)), tab="list")
    reviews.record("anna", [batch, decided(1, Decision("train", 1, "keep")), decided(2, Decision("train", 9, "drop"))])
    undo = Act("undo", 1, "undo", of=("list", 1))
    first = reviews.record("anna", [undo])[0]
    assert holds(reviews) == {("anna", "train", 1): ("keep", None), ("anna", "train", 9): ("drop", None)}
    assert reviews.record("anna", [undo])[0] == first  # sent again
    assert reviews.record("anna", [Act("undo", 2, "undo", of=("list", 1))])[0].target is None  # it does not stand
    assert reviews.record("ben", [Act("undo", 1, "undo", of=("a", 1))])[0].target is None  # another's
    reviews.record("anna", [Act("a", 3, "undo")])
    assert holds(reviews) == {("anna", "train", 1): ("keep", None)}
    reviews.record("anna", [Act("a", 4, "redo")])  # the later undo first, though its act is younger
    assert set(holds(reviews)) == {("anna", "train", 1), ("anna", "train", 9)}
    reviews.record("anna", [Act("a", 5, "redo")])
    assert holds(reviews)["anna", "train", 0] == ("relabel", "dog")
    assert holds(reviews)["anna", "train", 1] == ("keep", None)  # decided after the batch, as it was
    reviews.record("anna", [Act("a", 6, "undo", of=("list", 1)), Act("a", 7, "redo", of=("list", 1))])
    assert len(holds(reviews)) == 4
    assert [line.n_rows for line, _ in reviews.batches()] == [3] and reviews.batches("ben") == []


def test_a_batch_can_spare_what_anybody_decided(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    reviews.record("anna", [decided(1, Decision("train", 1, "keep"))])
    reviews.record("ben", [decided(1, Decision("train", "2", "drop")), decided(2, Decision("train", 3, "drop"))])
    reviews.record("ben", [Act("a", 3, "undo")])
    batch = Act("list", 1, "decide", tuple(Decision("train", i, "drop") for i in (1, 2, 3, "2")), spares=True)
    line = reviews.record("anna", [batch])[0]
    assert line.n_rows == 2 and reviews.record("anna", [batch])[0] == line
    assert [d.row for d in reviews.decisions(line.seq)] == [2, 3]
    assert reviews.decided_rows("train") == {1, "2", 2, 3} and reviews.decided_rows("test") == set()
    with pytest.raises(BadInput, match="Nothing is left to decide"):
        reviews.record("anna", [Act("list", 2, "decide", batch.decisions, spares=True)])
    assert len(reviews.log()) == 5


def test_nothing_to_undo_is_an_act_without_a_target(tmp_path: Path) -> None:
    assert [line.target for line in Reviews(tmp_path).record("a", [Act("t", 1, "undo"), Act("t", 2, "redo")])] == [
        None
    ] * 2


def test_an_undo_is_of_ones_own_acts(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    reviews.record("anna", [decided(1, Decision("train", 1, "keep"))])
    reviews.record("ben", [Act("a", 1, "undo")])
    assert holds(reviews) == {("anna", "train", 1): ("keep", None)}


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (decided(1, Decision("locked", 1, "keep")), "Locked rows"),
        (decided(1, Decision("train", 1, "relabel")), "label None"),
        (decided(1, Decision("train", 1, "keep", label="x")), "label 'x'"),
        (decided(1, Decision("train", 1, "downweight", weight=2.0)), "weight is 2"),
        (decided(1, Decision("train", 1, "explode")), "explode"),  # type: ignore[arg-type]
        (decided(1, Decision("train", 1, "keep", comment="x" * 3000)), "3,000 characters"),
        (decided(1, Decision("train", 1, "keep"), Decision("train", 1, "drop")), "twice"),
        (decided(0, Decision("train", 1, "keep")), "number is 0"),
        (Act("a", 1, "decide"), "0 decisions"),
        (Act("", 1, "undo"), "tab"),
        (Act("a", 1, "decide", (Decision("train", 1, "keep"),), of=("a", 1)), "names an act"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_of_its_company_is_kept(act: Act, said: str, tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    with pytest.raises(BadInput, match=said):
        reviews.record("anna", [decided(9, Decision("train", 5, "drop")), act])
    assert holds(reviews) == {} and reviews.log() == []


def test_the_log_is_searched_page_by_page(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    for number in range(1, 8):
        note = "blurred" if number % 2 else ""
        reviews.record("anna", [decided(number, Decision("train", number, "relabel", label="Cat", comment=note))])
    assert len(reviews.log(text="BLURRED")) == 4 and len(reviews.log(text="cat")) == 7 and reviews.log(text="dog") == []
    first = reviews.log(limit=3)
    rest = reviews.log(limit=10, before=first[-1][0].seq)
    assert [line.number for line, _ in first + rest] == [7, 6, 5, 4, 3, 2, 1]
    assert reviews.counts()["anna"][0] == 7


def test_looking_writes_nothing(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    assert reviews.standing() == [] and reviews.log() == [] and reviews.counts() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_log_from_the_future_or_a_damaged_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreProblem, match="review log cannot be read"):
        Reviews(tmp_path).standing()
    (tmp_path / FILE_NAME).unlink()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreProblem, match="newer program"):
        Reviews(tmp_path).record("a", [decided(1, Decision("train", 1, "keep"))])
