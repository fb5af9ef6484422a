"""Numbers that look right and are not: known traps of influence libraries that no other test here stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.api import attribute, self_influence
from influence_core.primitives.sides import Factored, without_dust
from influence_core.primitives.spectrum import KroneckerBlock, damped_inverse
from influence_core.primitives.statistics import average_precision, recall_at, roc_auc
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import integers, made, normal

F64 = torch.float64
N = 7


def run_in(folder: Path, dtype: torch.dtype = F64) -> Run:
    return Run(device="cpu", dtype=dtype, store=Store(folder))


def net() -> nn.Module:
    return made(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), 0)


def rows(seed: int, n: int = N) -> tuple[Tensor, Tensor]:
    return normal(n, 4, seed=seed), integers(3, n, seed=seed + 10)


def gradients(model: nn.Module, loss: Any, x: Tensor, y: Tensor) -> Tensor:
    found = []
    for i in range(len(x)):
        parts = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)


@pytest.mark.parametrize("rate", [0.1, 3.0])
def test_the_learning_rate_multiplies_once(rate: float, tmp_path: Path) -> None:
    """Once in pairs and in self-influence: a rate on either side would make it the square."""
    train, test = rows(1), rows(2)
    task = Task(net, train, test, checkpoints=[net().state_dict()], learning_rates=[rate])
    g, gt = (gradients(net(), F.cross_entropy, *part) for part in (train, test))
    run = run_in(tmp_path)
    torch.testing.assert_close(attribute(task, "tracin_cp", range(N), run=run).scores, rate * gt @ g.T)
    torch.testing.assert_close(self_influence(task, "tracin_cp", run=run), rate * g.square().sum(1))


@pytest.mark.parametrize("method", ["grad_dot", "tracin_cp", "if_ekfac", "if_ggn", "trak"])
def test_rows_are_queries_where_both_splits_are_as_long(method: str, tmp_path: Path) -> None:
    """A transposed matrix would have the right shape: every row must be its query asked alone."""
    task = Task(net, rows(1), rows(2), checkpoints=[net().state_dict()], learning_rates=[1.0])
    run = run_in(tmp_path)
    square = attribute(task, method, range(N), run=run).scores
    assert square.shape == (N, N) and not torch.allclose(square, square.T)
    for t in range(N):
        torch.testing.assert_close(attribute(task, method, [t], run=run).scores[0], square[t], rtol=1e-9, atol=1e-12)


def test_what_comes_after_the_layer_is_part_of_its_gradient(tmp_path: Path) -> None:
    """A softmax in the model: the error at the layer is not the one at the model's output."""

    def ending() -> nn.Module:
        return made(lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), 0)

    def loss(model: Any, batch: Any) -> Tensor:
        return F.nll_loss(model(batch.inputs).log(), batch.targets, reduction="none")

    train, test = rows(1), rows(2)
    task = Task(ending, train, test, loss, checkpoints=[ending().state_dict()], learning_rates=[1.0])
    g, gt = (gradients(ending(), lambda p, y: F.nll_loss(p.log(), y), *part) for part in (train, test))
    found = attribute(task, "tracin_cp", range(N), run=run_in(tmp_path)).scores
    torch.testing.assert_close(found, gt @ g.T)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_certain_model_has_finite_scores(dtype: torch.dtype, tmp_path: Path) -> None:
    """Probabilities of exactly 1 have no logarithm of 1 - p; the margin is a difference of logits."""
    state = {name: value * 400 for name, value in net().state_dict().items()}
    task = Task(net, rows(1), rows(2), checkpoints=[state], learning_rates=[1.0])
    assert float(task.model_at(-1, "cpu", F64)(rows(1)[0]).detach().softmax(1).max()) == 1.0
    for method in ("trak", "if_ekfac", "tracin_cp"):
        assert bool(attribute(task, method, range(N), run=run_in(tmp_path, dtype)).scores.isfinite().all())


def test_a_faint_query_keeps_its_scores() -> None:
    """Numbers that no sum can see are dropped from a query in single precision; nothing else changes."""
    powers = torch.tensor([0, -5, -12, -20, -35], dtype=F64)
    side = Factored(normal(3, 1, 6, seed=1), 1e-4 * normal(3, 1, 5, seed=2) * 10**powers, bias=True)
    left, right = (torch.linalg.qr(normal(n, n, seed=n))[0] for n in (5, 7))
    block = KroneckerBlock(normal(5, 7, seed=3).square(), left, right)
    single = Factored(side.inputs.float(), side.errors.float(), bias=True)
    exact, found = (block.applied(one, damped_inverse(1e-3)).values for one in (side, single))
    size = exact.abs().amax(1, keepdim=True)
    assert float(((found.double() - exact) / size).abs().max()) < 1e-6
    assert int(((found != 0) & (found.abs() < torch.finfo(torch.float32).tiny)).sum()) == 0


def test_dust_is_below_the_rounding_of_every_row() -> None:
    values = torch.tensor([[1.0, 1e-13, 1e-15, 0.0], [1e-30, -1e-36, 1e-43, -1e-46]])
    found = without_dust(values)
    torch.testing.assert_close(
        found, torch.tensor([[1.0, 1e-13, 0.0, 0.0], [1e-30, -1e-36, 1e-43, 0.0]]), rtol=0, atol=0
    )
    torch.testing.assert_close(without_dust(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_ties_are_not_broken_by_the_order_of_rows() -> None:
    """A score that is the same for every row finds nothing, wherever the wrong rows stand."""
    wrong = np.zeros(50, dtype=bool)
    wrong[:5] = True
    for order in (wrong, wrong[::-1].copy()):
        assert roc_auc(np.ones(50), order) == 0.5
        assert average_precision(np.ones(50), order) == pytest.approx(0.1)
    scores = np.repeat([0.0, 1.0], 25)
    figures = []
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(50)
        figures.append(
            (roc_auc(scores[shuffled], wrong[shuffled]), average_precision(scores[shuffled], wrong[shuffled]))
        )
    assert figures == [pytest.approx(figures[0])] * 5
    assert recall_at(np.ones(50), wrong, 0.1) <= 1.0


class Reader(nn.Module):
    """Attention that looks past padding (0), then the mean over the words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = tokens == 0
        x = self.block(self.embedding(tokens), src_key_padding_mask=hidden)
        there = (~hidden).unsqueeze(2).to(x.dtype)
        return self.head((x * there).sum(1) / there.sum(1))


def reader() -> nn.Module:
    return made(Reader, 0)


def padded(lengths: list[int], to: int, seed: int) -> Tensor:
    tokens = integers(6, len(lengths), to, seed=seed) + 1
    return tokens * (torch.arange(to) < torch.tensor(lengths).unsqueeze(1))


@pytest.mark.parametrize(("dtype", "within"), [(F64, 1e-12), (torch.float32, 1e-5)])
def test_padding_and_the_company_of_longer_rows_leave_attention_alone(
    dtype: torch.dtype, within: float, tmp_path: Path
) -> None:
    """Every row alone and without its padding is the oracle: attention kernels must neither see it nor add to it."""
    lengths, others = [2, 9, 5, 1, 7], [3, 9, 1]
    x, xt = padded(lengths, 9, seed=1), padded(others, 9, seed=2)
    y, yt = integers(3, 5, seed=3), integers(3, 3, seed=4)
    model = reader().double().eval()
    g, gt = (
        torch.cat([gradients(model, F.cross_entropy, x[i : i + 1, :n], y[i : i + 1]) for i, n in enumerate(sizes)])
        for x, y, sizes in ((x, y, lengths), (xt, yt, others))
    )
    task = Task(reader, (x, y), (xt, yt), checkpoints=[reader().state_dict()], learning_rates=[1.0])
    longer = Task(
        reader,
        (F.pad(x, (0, 3)), y),
        (F.pad(xt, (0, 3)), yt),
        checkpoints=[reader().state_dict()],
        learning_rates=[1.0],
    )
    for rows in (task, longer):
        found = attribute(rows, "tracin_cp", range(3), run=run_in(tmp_path, dtype)).scores.double()
        assert float((found - gt @ g.T).abs().max() / (gt @ g.T).abs().max()) < within


@pytest.mark.parametrize("method", ["if_exact", "if_cg", "if_ggn", "if_datainf"])
def test_a_damping_is_one_of_the_mean_loss(method: str, tmp_path: Path) -> None:
    """Every row twice is the same mean loss: the same damping stays the same, and each copy has half the share."""
    train, test, run = rows(1), rows(2), run_in(tmp_path)
    twice = tuple(torch.cat([part, part]) for part in train)
    once, doubled = (
        attribute(
            Task(net, part, test, checkpoints=[net().state_dict()], learning_rates=[1.0]),
            method, range(N), config={"damping": 3.0}, run=run,
        ).scores
        for part in (train, twice)
    )  # fmt: skip
    torch.testing.assert_close(doubled, torch.cat([once, once], 1) / 2, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", ["trak", "logra"])
def test_squares_of_stored_gradients_may_be_larger_than_half_precision_holds(method: str, tmp_path: Path) -> None:
    """Gradients of 1,000 fit into 16 bits, their products do not: they are summed in the precision of the run."""
    (x, y), (xt, yt) = rows(1), rows(2)

    def linear() -> nn.Module:
        model = nn.Linear(4, 3)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    task = Task(linear, (1e3 * x, y), (1e3 * xt, yt), checkpoints=[linear().state_dict()], learning_rates=[1.0])
    g = gradients(linear().double(), F.cross_entropy, 1e3 * x, y)
    largest = torch.finfo(torch.float16).max
    assert float(g.abs().max()) < largest < float(g.square().max())
    run = run_in(tmp_path)
    exact, half = (
        attribute(task, method, range(N), config={"storage": storage}, run=run).scores for storage in ("full", "half")
    )
    assert bool(half.isfinite().all())
    assert float((half - exact).abs().max() / exact.abs().max()) < 1e-2
