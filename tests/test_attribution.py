"""Ranking, saving and reading of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from influence_core.attribution import Attribution
from influence_core.errors import BadInput
from tests.cases import normal


def attribution(scores: Tensor, train_ids: np.ndarray | None = None, test_ids: tuple | None = None) -> Attribution:
    return Attribution(
        scores, test_ids or tuple(range(len(scores))), np.arange(scores.shape[1]) if train_ids is None else train_ids,
        "tracin_cp", {"layers": ["last"], "projection": None}, {"kind": "loss", "target": "true"}, "gradient", 0.5,
        ("A note.",),
    )  # fmt: skip


def brute(row: Tensor, k: int, sign: int) -> list[int]:
    """By score, then by column; only what pulls that way, NaN never."""
    order = sorted((i for i in range(len(row)) if sign * float(row[i]) > 0), key=lambda i: (-sign * float(row[i]), i))
    return order[:k]


@pytest.mark.parametrize("k", [1, 3, 64, 65, 10_000])
@pytest.mark.parametrize("n", [7, 4095, 4096, 9000])
@pytest.mark.parametrize("ties", ["none", "many", "all equal", "with NaN"])
def test_top_k_is_by_score_then_by_column(k: int, n: int, ties: str) -> None:
    scores = normal(2, n, seed=n)
    if ties == "many":
        scores = scores.round()
    if ties == "all equal":
        scores = torch.full((2, n), 0.5, dtype=torch.float64)
        scores[1] = -0.5
    if ties == "with NaN":
        scores[:, ::2] = torch.nan
    found = attribution(scores)
    for sign, ranked in ((1, found.proponents(k)), (-1, found.opponents(k))):
        for row, ids, values in zip(scores, ranked.ids, ranked.scores, strict=True):
            expected = brute(row, k, sign)
            assert ids == expected
            assert torch.equal(values[: len(ids)], row[expected])
            assert bool(values[len(ids) :].isnan().all())


def test_zero_is_neither_proponent_nor_opponent() -> None:
    found = attribution(torch.zeros(1, 5))
    assert found.proponents(5).ids == [[]] and found.opponents(5).ids == [[]]


def test_nothing_to_rank() -> None:
    with pytest.raises(BadInput, match="Nothing to rank"):
        attribution(torch.ones(1, 3)).proponents(0)


def test_ids_are_the_users() -> None:
    found = attribution(torch.tensor([[3.0, -1.0, 2.0]]), np.asarray(["cat", "dog", "eel"]), ("q",))
    assert found.proponents().ids == [["cat", "eel"]]
    assert found.opponents().ids == [["dog"]]
    frame = found.to_frame(2)
    assert frame[["test_id", "side", "rank", "train_id", "score"]].values.tolist() == [
        ["q", "proponent", 1, "cat", 3.0], ["q", "proponent", 2, "eel", 2.0], ["q", "opponent", 1, "dog", -1.0],
    ]  # fmt: skip
    assert set(frame["units"]) == {"gradient"}


def test_integer_ids_stay_python_integers() -> None:
    assert type(attribution(torch.ones(1, 3)).proponents(1).ids[0][0]) is int


@pytest.mark.parametrize("ids", [np.asarray(["a", "ü", "c"]), np.asarray([10, 20, 30])])
def test_saved_and_read_again(tmp_path: Path, ids: np.ndarray) -> None:
    scores = normal(2, 3, seed=1)
    scores[0, 1] = torch.nan
    before = attribution(scores, ids, ("x", "y"))
    path = tmp_path / "scores.safetensors"
    before.save(path)
    after = Attribution.load(path)
    torch.testing.assert_close(after.scores, scores, rtol=0, atol=0, equal_nan=True)
    assert after.train_ids.tolist() == ids.tolist() and after.test_ids == ("x", "y")
    for name in ("method", "config", "measurement", "units", "share", "notes"):
        assert getattr(after, name) == getattr(before, name)
    assert after.proponents(2).ids == before.proponents(2).ids


@pytest.mark.parametrize("content", [None, b"", b"not a file of ours", b"\x80\x04pickle"])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match="not an attribution"):
        Attribution.load(path)


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"scores": torch.ones(1, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="not an attribution"):
        Attribution.load(tmp_path / "x.safetensors")


def test_a_notebook_shows_the_strongest_rows_and_escapes_ids() -> None:
    scores = torch.tensor([[3.0, -2.0, 1.0]]).repeat(5, 1)
    shown = attribution(scores, np.asarray(["<b>a</b>", "b", "c"]), tuple(range(5)))._repr_html_()
    assert "&lt;b&gt;a&lt;/b&gt;" in shown and "<b>a</b>" not in shown
    assert "tracin_cp" in shown and "gradient" in shown and "first 3 of 5" in shown
    assert shown.count("proponent") == 3 * 2 and shown.count("opponent") == 3
