"""Near rows alone: all of them are the unfiltered scores, and recall grows with their number."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.cases import CASES
from tests.estimators.test_lissa import fitted, rows


def test_all_rows_are_the_unfiltered_scores(tmp_path: Path) -> None:
    task = CASES["convex"]()
    plain = fitted(task, "if_lissa", tmp_path, sample=16).scores(rows(task))
    whole = fitted(task, "fastif", tmp_path, sample=16, nearest=10_000).scores(rows(task))
    torch.testing.assert_close(whole, plain, rtol=0, atol=0)


def test_only_the_nearest_are_scored_and_more_find_more(tmp_path: Path) -> None:
    task = CASES["convex"]()
    whole = fitted(task, "fastif", tmp_path, nearest=10_000).scores(rows(task))
    x, xt = task.split("train").raw(slice(None)).inputs, task.split("test").raw(slice(0, 3)).inputs
    order = torch.cdist(xt, x).argsort(dim=1)
    best = whole.abs().topk(5, dim=1).indices
    recalls = []
    for k in (5, 15, 30):
        one = fitted(task, "fastif", tmp_path, nearest=k)
        some = one.scores(rows(task))
        for t in range(3):
            assert set(some[t].isfinite().nonzero().flatten().tolist()) == set(order[t, :k].tolist())
        known = some.isfinite()
        torch.testing.assert_close(some[known], whole[known], rtol=0, atol=0)
        recalls.append(float(known.gather(1, best).double().mean()))
        assert f"the {k} nearest" in one.notes[-1]
    assert recalls == sorted(recalls) and recalls[0] < recalls[-1]
