"""Rows dealt among reviewers: a partition with an overlap, the same everywhere, that hardly moves when people join."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from influence_core import service
from influence_core.errors import BadInput
from influence_core.service.dealing import Dealing, own_rows, owner

ROWS = list(range(4000))


def test_every_row_is_everybodys_or_one_reviewers() -> None:
    deal = Dealing(("ann", "ben", "cem"), 0.2)
    parts = {name: set(own_rows(deal, "train", ROWS, name)) for name in deal.reviewers}
    shared = set.intersection(*parts.values())
    assert 0.17 < len(shared) / 4000 < 0.23
    assert set.union(*parts.values()) == set(ROWS)
    alone = [part - shared for part in parts.values()]
    assert sum(map(len, alone)) == 4000 - len(shared)
    assert all(len(part) == pytest.approx(3200 / 3, rel=0.1) for part in alone)


def test_the_deal_depends_on_the_row_alone() -> None:
    deal = Dealing(("ann", "ben"), 0.3)
    part = own_rows(deal, "train", ROWS[::-1], "ann")
    assert list(part) == sorted(part, reverse=True)  # the queue's order
    assert set(own_rows(deal, "train", ROWS[:500], "ann")) == set(part) & set(ROWS[:500])
    assert own_rows(Dealing(("ben", "ann"), 0.3), "train", ROWS, "ann") == part[::-1]
    assert {owner(deal, "train", row) for row in ROWS[:50]} == {"ann", "ben", None}


def test_somebody_who_joins_takes_rows_and_moves_none() -> None:
    before, after = Dealing(("ann", "ben"), 0.1), Dealing(("ann", "ben", "cem"), 0.1)
    moved = [(owner(before, "train", row), owner(after, "train", row)) for row in ROWS]
    assert {new for old, new in moved if old != new} == {"cem"}
    assert {old for old, new in moved if new is None} == {None}
    assert 0.25 < sum(new == "cem" for _, new in moved) / 4000 < 0.35


@pytest.mark.parametrize(("overlap", "n_shared"), [(0.0, 0), (1.0, 4000)])
def test_nothing_or_everything_is_shared(overlap: float, n_shared: int) -> None:
    deal = Dealing(("ann", "ben"), overlap)
    assert sum(owner(deal, "train", row) is None for row in ROWS) == n_shared


def test_a_reviewer_sees_their_part_and_anybody_else_sees_all(own_studies: Path) -> None:
    whole = service.queue("table", "loss").row_ids
    service.save_dealing("table", [" ann ", "ben", "", "ann"], 0.2)
    deal = service.dealing("table")
    assert deal == Dealing(("ann", "ben"), 0.2)
    seen = {}
    for name in ("ann", "ben", "cem"):
        batch = service.review_batch("table", "loss", name, after=0, n=50)
        seen[name] = [card.row_id for card in batch.cards]
        mine = own_rows(deal, "train", whole, name) if name != "cem" else whole
        assert batch.total == len(mine) and seen[name] == list(mine[:50])
    assert seen["ann"] != seen["ben"]
    found = service.shares("table")
    assert found.total == len(service.queue("table").row_ids)
    assert found.shared + sum(n for _, n in found.own) == found.total
    service.save_dealing("table", ["ann"], 0.2)
    assert service.review_batch("table", "loss", "ann", after=0).total == len(whole)


def test_a_deal_that_cannot_be_used_is_refused(own_studies: Path) -> None:
    for names, overlap in ((["ann"], 1.5), (["a" * 101, "b"], 0.1), ([str(k) for k in range(101)], 0.1)):
        with pytest.raises(BadInput, match="cannot be dealt"):
            service.save_dealing("table", names, overlap)
    assert service.dealing("table") == Dealing()
    (own_studies / "table" / "dealing.json").write_text(json.dumps({"reviewers": 3}), encoding="utf-8")
    with pytest.raises(BadInput, match="damaged"):
        service.dealing("table")
