"""The built-in studies: splits without leaks, label errors of which the truth is known, the same bits every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_core import Run, Study
from influence_core.demos import DEMOS, build_demo
from influence_core.demos.data import CONFUSABLE, digits_data, flipped_labels, split_positions
from influence_core.errors import BadInput, Cancelled


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 40), st.integers(0, 20), st.integers(0, 99)
)
def test_identical_rows_never_straddle_splits(values: list[int], n_train: int, n_test: int, seed: int) -> None:
    rows = np.stack([np.asarray(values) % 4, np.asarray(values) // 4], 1)
    parts = split_positions(rows, (n_train, n_test), seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(rows)))
    kinds = [{tuple(row) for row in rows[part].tolist()} for part in parts]
    assert not kinds[0] & kinds[1] and not kinds[0] & kinds[2] and not kinds[1] & kinds[2]
    assert len(parts[0]) >= min(n_train, len(rows))
    assert len(parts[0]) + len(parts[1]) >= min(n_train + n_test, len(rows))
    assert all(np.array_equal(a, b) for a, b in zip(parts, split_positions(rows, (n_train, n_test), seed), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 300), st.integers(0, 99))
def test_exactly_the_share_is_flipped_and_half_of_it_between_lookalikes(n: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 10, n)
    wrong = flipped_labels(labels, 0.1, 10, seed)
    changed = np.flatnonzero(wrong != labels)
    assert len(changed) == round(0.1 * n) and set(wrong.tolist()) <= set(range(10))
    alike = sum(CONFUSABLE.get(int(labels[i])) == wrong[i] for i in changed)
    assert alike >= len(changed) // 2


def test_digits_hold_their_truth_and_no_image_in_two_splits() -> None:
    data = digits_data()
    assert data.truth is not None
    truth = dict(zip(data.truth["id"].to_pylist(), data.truth["label"].to_pylist(), strict=True))
    ids, given_labels = data.tables["train"]["id"].to_pylist(), data.tables["train"]["label"].to_pylist()
    wrong = [(truth[row], label) for row, label in zip(ids, given_labels, strict=True) if truth[row] != label]
    assert len(ids) >= 1000 and len(wrong) == round(0.1 * len(ids)) and sorted(truth) == sorted(ids)
    assert sum(CONFUSABLE.get(int(a)) == int(b) for a, b in wrong) >= len(wrong) // 2
    pixels = {split: {tuple(row) for row in table["pixels"].to_pylist()} for split, table in data.tables.items()}
    assert not pixels["train"] & (pixels["test"] | pixels["locked"]) and not pixels["test"] & pixels["locked"]


def test_a_demo_is_built_once_and_opened_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "not yet there" / "breast-cancer"
    study = Study.demo("breast-cancer", out)
    stamp = (out / "study.toml").stat()
    again = Study.demo("breast-cancer", out)
    assert again.fingerprint == study.fingerprint and (out / "study.toml").stat() == stamp
    assert [entry["epoch"] for entry in again.header.checkpoints] == list(DEMOS["breast-cancer"].recipe.checkpoints)
    predicted = again.task.predicted("test", torch.arange(again.task.n_test))
    assert (predicted == again.task.split("test").targets).double().mean() > 0.9
    twin = build_demo("breast-cancer", tmp_path / "twin")
    assert twin.fingerprint == study.fingerprint  # the same bits again


def test_building_a_demo_refuses_and_stops_without_leaving_anything(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Unknown demo: 'digit' is not built in. Use one of: digits"):
        build_demo("digit", tmp_path / "a")
    with pytest.raises(BadInput, match="The folder is taken"):
        build_demo("digits-lr", tmp_path)
    with pytest.raises(Cancelled):
        build_demo("breast-cancer", tmp_path / "b", Run(cancel=lambda: True))
    assert list(tmp_path.iterdir()) == []
