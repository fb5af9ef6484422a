from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_core.errors import BadInput
from influence_core.readers.splits import _by_content, content_hashes, split_names

Batches = Callable[[], Iterator[pa.Table]]


def batches(table: pa.Table, size: int = 7) -> Batches:
    return lambda: iter([table.slice(start, size) for start in range(0, len(table), size)])


def random_table(n: int = 2000, different: int = 600) -> pa.Table:
    draw = np.random.default_rng(0)
    kind = draw.integers(0, different, n)
    return pa.table({"x": kind / 3, "s": [f"w{k % 50}" for k in kind], "y": [f"c{k % 3}" for k in kind]})


def straddling(table: pa.Table, names: np.ndarray) -> list[tuple]:
    """Return the contents that stand in more than one split."""
    places = defaultdict(set)
    for row, name in zip(table.select(["x", "s"]).to_pylist(), names.tolist(), strict=True):
        if name:
            places[tuple(row.values())].add(name)
    return [content for content, found in places.items() if len(found) > 1]


def test_identical_rows_share_a_split_and_every_class_has_its_shares() -> None:
    table = random_table()
    names = split_names(batches(table), ["x", "s"], "y").names
    assert not straddling(table, names)
    for label in ("c0", "c1", "c2"):
        share = Counter(names[np.asarray(table["y"].to_pylist()) == label].tolist())
        total = sum(share.values())
        assert abs(share["train"] / total - 0.70) < 0.01 and abs(share["test"] / total - 0.15) < 0.01


def test_neither_batches_nor_order_matter_and_the_seed_does() -> None:
    table = random_table()
    names = split_names(batches(table), ["x", "s"], "y").names
    assert (split_names(batches(table, 500), ["x", "s"], "y").names == names).all()
    order = np.random.default_rng(1).permutation(len(table))
    assert (split_names(batches(table.take(order)), ["x", "s"], "y").names == names[order]).all()
    assert (split_names(batches(table), ["x", "s"], "y", seed=1).names != names).any()


def test_rows_without_a_label_are_left_out() -> None:
    table = random_table(200)
    table = table.set_column(2, "y", pa.array([None, *table["y"].to_pylist()[1:]]))
    found = split_names(batches(table), ["x", "s"], "y")
    assert found.names[0] == "" and (found.names[1:] != "").all()
    assert "1 rows without a label were left out." in found.notes


def test_the_users_splits_are_kept_and_copies_dropped() -> None:
    table = pa.table(
        {
            "x": [1.0, 2, 3, 1, 4, 5, 4, 6], "s": ["a"] * 8, "y": ["p", "q"] * 4,
            "part": ["Train", "training", "train", "test", "test", "test", "holdout", "locked"],
        }
    )  # fmt: skip
    found = split_names(batches(table, 3), ["x", "s"], "y", split="part")
    assert found.names.tolist() == ["train", "train", "train", "", "test", "test", "", "locked"]
    assert any(note.startswith("1 test rows") for note in found.notes)
    assert any(note.startswith("1 locked rows") for note in found.notes)


def test_locked_is_half_of_test_where_none_is_given() -> None:
    table = random_table(1000, 1000)
    table = table.append_column("part", pa.array((["train"] * 3 + ["valid"] * 2) * 200))
    found = split_names(batches(table), ["x", "s"], "y", split="part")
    counts = Counter(found.names.tolist())
    assert counts["train"] == 600 and abs(counts["test"] - counts["locked"]) < 20 and counts["test"] > 100
    assert not straddling(table, found.names)


def test_validation_is_test_and_test_is_locked_where_both_are_given() -> None:
    table = pa.table({"x": [1.0, 2, 3], "s": ["a"] * 3, "y": ["p", "q", "p"], "part": ["train", "dev", "test"]})
    assert split_names(batches(table), ["x"], "y", split="part").names.tolist() == ["train", "test", "locked"]


@pytest.mark.parametrize(
    ("part", "message"),
    [(["train", "tset"], "'tset' in row 2"), (["train", None], "row 2"), (["train", "train"], "both needed"),
     (["test", "test"], "both needed")],
)  # fmt: skip
def test_splits_that_cannot_be_followed(part: list, message: str) -> None:
    table = pa.table({"x": [1.0, 2.0], "y": ["p", "q"], "part": part})
    with pytest.raises(BadInput, match=message):
        split_names(batches(table, 1), ["x"], "y", split="part")


def test_rows_that_are_all_the_same_cannot_be_divided() -> None:
    with pytest.raises(BadInput, match="split has no rows"):
        split_names(batches(pa.table({"x": [1.0] * 9, "y": ["p", "q", "p"] * 3})), ["x"], "y")


CELLS = st.tuples(st.one_of(st.none(), st.floats(width=16)), st.one_of(st.none(), st.text(max_size=2)))


@settings(max_examples=50, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=30))
def test_equal_content_has_equal_hashes_and_only_that(rows: list[tuple]) -> None:
    numbers, words = zip(*rows, strict=True)
    table = pa.table({"x": pa.array(numbers, pa.float64()), "s": pa.array(words, pa.string())})
    # NaN is missing, and -0.0 is 0.0.
    plain = [(None if x is None or x != x else x + 0.0, s) for x, s in rows]
    hashes = content_hashes(table, ["x", "s"]).tolist()
    for a, left in zip(hashes, plain, strict=True):
        for b, right in zip(hashes, plain, strict=True):
            assert (a == b) == (left == right)


def by_groups(hashes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Walk through the different contents of each class, in the order of their hashes, counting rows."""
    codes = np.zeros(len(hashes), np.int8)
    first = {value: row for row, value in reversed(list(enumerate(hashes.tolist())))}
    for kind in set(labels.tolist()):
        groups = sorted(value for value, row in first.items() if labels[row] == kind)
        total, passed = sum(int((hashes == value).sum()) for value in groups), 0
        for value in groups:
            size = int((hashes == value).sum())
            middle = (passed + size / 2) / total
            codes[hashes == value] = int(middle >= 0.70) + int(middle >= 0.85)
            passed += size
    return codes


@pytest.mark.parametrize("different", [2**63, 40])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 10, 20, 60])
def test_rows_that_all_differ_are_divided_by_the_same_rule(n: int, different: int) -> None:
    draw = np.random.default_rng(n)
    for n_classes in (1, 2, 5):
        hashes, labels = draw.integers(0, different, n).astype(np.uint64), draw.integers(0, n_classes, n)
        assert (_by_content(hashes, labels) == by_groups(hashes, labels)).all()
