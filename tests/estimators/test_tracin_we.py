"""TracIn on the word embedding against plain autograd, word by word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.api import attribute
from influence_core.errors import BadInput, Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.primitives.sides import Tokens
from influence_core.primitives.words import by_word
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, integers, made
from tests.oracles.gradients import BUILTIN, at, loop_gradients

EXACT = {"rtol": 1e-10, "atol": 1e-13}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


class Bag(nn.Module):
    """Nonlinear in the words, so that gradients differ by word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens).tanh().mean(1))


def texts(n: int, seed: int) -> tuple[Tensor, Tensor]:
    return integers(30, n, 6, seed=seed), integers(3, n, seed=seed + 50)


def task_of_bags() -> Task:
    states = [made(Bag, seed).state_dict() for seed in range(2)]
    return Task(lambda: made(Bag, 0), texts(9, 1), texts(3, 2), checkpoints=states, learning_rates=[0.1, 0.3])


def tables(task: Task, c: int, split: str, name: str) -> Tensor:
    """Gradient of the embedding for every row, ``[n, V, d]``."""
    model = at(task.module, dict(task.state(c)))
    batch = task.split(split).batch(slice(None), "cpu", torch.float64)
    return loop_gradients(model, BUILTIN[task.loss.name], batch.inputs, batch.targets)[name]


@pytest.mark.parametrize(("make", "name"), [(task_of_bags, "words.weight"), (CASES["transformer"], "embedding.weight")])
def test_equals_dense_tracin_on_the_embedding(make: Any, name: str, run: Run) -> None:
    task = make()
    expected = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    for c, rate in enumerate(task.learning_rates):
        test, train = (tables(task, c, split, name).flatten(1) for split in ("test", "train"))
        expected += rate * test @ train.T
    found = attribute(task, "tracin_we", task.ids("test").tolist(), run=run)
    torch.testing.assert_close(found.scores, expected, **EXACT)


def kept(table: Tensor, top: int, skip: tuple[int, ...]) -> Tensor:
    table = table.clone()
    table[:, list(skip)] = 0
    for row in table:
        lengths = row.norm(dim=1)
        row[lengths.argsort(descending=True, stable=True)[top:]] = 0
    return table


def test_only_the_top_words_that_are_not_skipped_count(run: Run) -> None:
    task = task_of_bags()
    expected = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    for c, rate in enumerate(task.learning_rates or ()):
        test, train = (kept(tables(task, c, s, "words.weight"), 2, (0, 7)).flatten(1) for s in ("test", "train"))
        expected += rate * test @ train.T
    config = {"top": 2, "skip": (0, 7)}
    found = attribute(task, "tracin_we", task.ids("test").tolist(), config=config, run=run)
    torch.testing.assert_close(found.scores, expected, **EXACT)
    assert registry.entries()["tracin_we_topk"].defaults.to_json()["top"] == 10


def test_texts_without_a_common_word_do_not_influence_each_other(run: Run) -> None:
    train = (torch.arange(12).reshape(2, 6), torch.tensor([0, 1]))
    test = (torch.tensor([[12, 13, 14, 15, 16, 3]]), torch.tensor([1]))
    task = Task(lambda: made(Bag, 0), train, test, checkpoints=[made(Bag, 0).state_dict()], learning_rates=[1.0])
    scores = attribute(task, "tracin_we", [0], run=run).scores[0]
    assert float(scores[0]) != 0.0  # they share word 3
    assert float(scores[1]) == 0.0


def test_parts_of_words_add_up(run: Run) -> None:
    task = task_of_bags()
    fitted: Any = fit(task, registry.made("tracin_we"), run)
    rows = Rows("train", tuple(range(9)))
    parts = fitted.parts(Rows("test", (1,)), rows)
    scores = fitted.scores(Rows("test", (1,)))[0]
    sums = torch.tensor([sum(part.values()) for part in parts], dtype=torch.float64)
    torch.testing.assert_close(sums, scores, **EXACT)
    query = set(task.split("test").raw(slice(1, 2)).inputs[0].tolist())
    texts_of = task.split("train").raw(slice(None)).inputs.tolist()
    assert [set(part) for part in parts] == [query & set(text) for text in texts_of]


def test_repeated_words_are_one_and_not_counted_pairwise() -> None:
    errors = torch.arange(8.0).double().reshape(1, 4, 2)
    side = by_word(Tokens(torch.tensor([[3, 5, 3, -1]]), errors, 6))
    assert side.tokens.tolist() == [[3, 5, -1, -1]]
    assert side.errors[0, 0].tolist() == [4.0, 6.0]
    torch.testing.assert_close(side.dense(), Tokens(torch.tensor([[3, 5, 3, -1]]), errors, 6).dense())


def test_a_tied_embedding_and_a_wrong_layer_are_refused(run: Run) -> None:
    tied = CASES["tied_weights"]()
    with pytest.raises(Unavailable, match="shares its weights"):
        attribute(tied, "tracin_we", tied.ids("test").tolist()[:1], run=run)
    with pytest.raises(BadInput, match="Not a word embedding"):
        attribute(task_of_bags(), "tracin_we", [0], config={"layer": "head"}, run=run)
    with pytest.raises(Unavailable, match="a word embedding"):
        attribute(CASES["convex"](), "tracin_we", [0], run=run)
