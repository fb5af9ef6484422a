"""K-FAC and EK-FAC: against dense Kronecker products, curvlinops with the same labels, and the exact case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.api import attribute, fit, self_influence
from influence_core.errors import NumericalProblem, Unavailable
from influence_core.primitives.kronecker import noise, sampled_labels
from influence_core.primitives.losses import LOSSES, outputs
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Rows, Task
from tests.cases import CASES, N_TRAIN, images, integers, normal, smooth_loss, task_of, vectors
from tests.oracles.kronecker import blocks

F64 = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-12}
DAMPING = 0.03
# linear_operator, which curvlinops imports, scripts functions at import.
scripted = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
METHODS = pytest.mark.parametrize("method", ["if_kfac", "if_ekfac"])


def run_in(folder: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(folder), **more)


def scores(task: Task, method: str, run: Run, **options: Any) -> Tensor:
    options = {"damping": DAMPING, **options}
    return attribute(task, method, range(task.n_test), config=options, run=run).scores


def relu_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def gradients(model: nn.Module, loss: Any, x: Tensor, y: Tensor, named: bool = False) -> Tensor:
    """Rows ``[n, P]``; ``named``: parameters as they come, else weights row by row, each followed by its bias."""
    rows = []
    for i in range(len(x)):
        value = loss.from_outputs(model(x[i : i + 1]), y[i : i + 1]).sum()
        parts = list(torch.autograd.grad(value, list(model.parameters())))
        if not named:
            parts = [torch.cat([w.flatten(1), b[:, None]], 1) for w, b in zip(parts[::2], parts[1::2], strict=True)]
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def whole(task: Task, split: str) -> tuple[Tensor, Tensor]:
    batch = task.split(split).batch(slice(None), "cpu", F64)
    return batch.inputs, batch.targets


def drawn(task: Task, samples: int = 1, seed: int = 0, draw: int = 0) -> list[Tensor]:
    """The labels that the engine draws (1: for the eigenvalues): by its own public function, checked below."""
    x, _ = whole(task, "train")
    with torch.no_grad():
        f = outputs(task.model_at(-1, "cpu", F64), x)
    uniform = noise(len(x), f.shape[1], samples, seed, draw)
    return [sampled_labels(LOSSES[task.loss.name], f, uniform[:, :, s]) for s in range(samples)]


# -- dense Kronecker products ------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("labels", ["exact", "sampled", "true"])
def test_equals_dense_blocks(method: str, labels: str, tmp_path: Path) -> None:
    task = task_of(relu_net, vectors)
    model: Any = task.model_at(-1, "cpu", F64)
    (x, y), (xt, yt) = whole(task, "train"), whole(task, "test")
    p = model(x).detach().softmax(1)
    if labels == "exact":  # sum_c p_c (onehot_c - p)(onehot_c - p)' = diag(p) - p p'
        columns = [[p[:, c : c + 1].sqrt() * (torch.eye(3, dtype=F64)[c] - p) for c in range(3)]] * 2
    else:
        draws = [drawn(task, 2, draw=draw) for draw in range(2)] if labels == "sampled" else [[y]] * 2
        columns = [[(p - torch.eye(3, dtype=F64)[label]) / len(chosen) ** 0.5 for label in chosen] for chosen in draws]
    matrix = torch.block_diag(*blocks(model, x, *columns, corrected=method == "if_ekfac"))
    matrix += DAMPING * torch.eye(len(matrix), dtype=F64)
    g, gt = (gradients(model, task.loss, *rows) for rows in ((x, y), (xt, yt)))
    expected = gt @ torch.linalg.solve(matrix, g.T) / len(x)
    run = run_in(tmp_path)
    found = scores(task, method, run, labels=labels, samples=2)
    torch.testing.assert_close(found, expected, **CLOSE)
    own = self_influence(task, method, config={"damping": DAMPING, "labels": labels, "samples": 2}, run=run)
    torch.testing.assert_close(own, (g * torch.linalg.solve(matrix, g.T).T).sum(1) / len(x), **CLOSE)


@METHODS
def test_one_linear_layer_with_squared_error_is_the_exact_curvature(method: str, tmp_path: Path) -> None:
    def data(n: int, seed: int) -> tuple[Tensor, Tensor]:
        return normal(n, 5, seed=seed), normal(n, 2, seed=seed + 100)

    task = task_of(lambda: nn.Linear(5, 2), data, "mse")
    run = run_in(tmp_path)
    exact = scores(task, "if_ggn", run)
    torch.testing.assert_close(scores(task, method, run), exact, rtol=1e-10, atol=1e-13)


# -- curvlinops --------------------------------------------------------------------------------------------------------


@scripted
@METHODS
@pytest.mark.parametrize("labels", ["sampled", "exact", "true"])
def test_equals_curvlinops_with_the_same_labels(
    method: str, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curvlinops import EKFACLinearOperator, KFACInverseLinearOperator, KFACLinearOperator

    task = task_of(relu_net, vectors)
    model = task.model_at(-1, "cpu", F64)
    (x, y), (xt, yt) = whole(task, "train"), whole(task, "test")
    given = iter(drawn(task) + drawn(task, draw=1))  # a pass for the factors, one for the eigenvalues
    monkeypatch.setattr(KFACLinearOperator, "draw_label", lambda self, output: next(given))
    operator = EKFACLinearOperator if method == "if_ekfac" else KFACLinearOperator
    kind = {"sampled": "mc", "exact": "type-2", "true": "empirical"}[labels]
    curvature = operator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], fisher_type=kind,
        separate_weight_and_bias=False, check_deterministic=False,
    )  # fmt: skip
    inverse = KFACInverseLinearOperator(curvature, damping=DAMPING, use_exact_damping=True)
    g, gt = (gradients(model, task.loss, *rows, named=True) for rows in ((x, y), (xt, yt)))
    expected = gt @ (inverse @ g.T.contiguous()) / len(x)
    torch.testing.assert_close(scores(task, method, run_in(tmp_path), labels=labels), expected, **CLOSE)


@scripted
def test_convolutions_equal_curvlinops(tmp_path: Path) -> None:
    from curvlinops import KFACInverseLinearOperator, KFACLinearOperator

    def small() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3))

    task = task_of(small, images)
    model = task.model_at(-1, "cpu", F64)
    (x, y), (xt, yt) = whole(task, "train"), whole(task, "test")
    curvature = KFACLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], fisher_type="type-2",
        separate_weight_and_bias=False, check_deterministic=False,
    )  # fmt: skip
    inverse = KFACInverseLinearOperator(curvature, damping=DAMPING, use_exact_damping=True)
    g, gt = (gradients(model, task.loss, *rows, named=True) for rows in ((x, y), (xt, yt)))
    expected = gt @ (inverse @ g.T.contiguous()) / len(x)
    torch.testing.assert_close(scores(task, "if_kfac", run_in(tmp_path)), expected, **CLOSE)


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
def test_drawn_labels_have_the_hessian_as_their_gradients_covariance(loss: str) -> None:
    from influence_core.primitives.kronecker import columns

    f = normal(1, 3, seed=4).expand(40_000, 3)
    targets = torch.zeros(len(f), dtype=torch.long) if loss == "cross_entropy" else torch.zeros_like(f)
    v = columns(LOSSES[loss], f, "sampled", targets, noise(len(f), 3, 2, seed=1))
    covariance = torch.einsum("ndk,nek->de", v, v) / len(f)
    root = LOSSES[loss].curvature_root(f[:1])[0]
    torch.testing.assert_close(covariance, root @ root.T, rtol=0, atol=0.02)
    assert float(v.sum(2).mean(0).abs().max()) < 0.02  # labels drawn from the model have no gradient on average


def test_sampled_labels_come_from_the_seed_and_true_labels_are_another_method(tmp_path: Path) -> None:
    task, run = task_of(relu_net, vectors), run_in(tmp_path)
    state = torch.random.get_rng_state()
    first = scores(task, "if_ekfac", run, labels="sampled")
    torch.testing.assert_close(
        scores(task, "if_ekfac", run_in(tmp_path / "b"), labels="sampled"), first, rtol=0, atol=0
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    other = scores(task, "if_ekfac", run_in(tmp_path, seed=1), labels="sampled")
    assert float((other - first).abs().max()) > 1e-3 * float(first.abs().max())
    empirical = scores(task, "if_ekfac", run, labels="true")
    exact = scores(task, "if_ekfac", run)
    assert float((empirical - exact).abs().max()) > 0.05 * float(exact.abs().max())
    many = scores(task, "if_ekfac", run, labels="sampled", samples=1000)
    torch.testing.assert_close(many, exact, rtol=0, atol=0.1 * float(exact.abs().max()))
    assert float((many - exact).abs().max()) < 0.3 * float((first - exact).abs().max())


def test_a_custom_loss_has_only_its_true_labels(tmp_path: Path) -> None:
    task = task_of(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), vectors, smooth_loss)
    run = run_in(tmp_path)
    with pytest.raises(Unavailable, match="custom loss.*labels='true'"):
        scores(task, "if_ekfac", run)
    assert run.artifacts.keys() == []  # refused before any work
    assert bool(scores(task, "if_ekfac", run, labels="true").isfinite().all())


# -- what is shared and kept -------------------------------------------------------------------------------------------


def test_answers_from_the_factors_of_tracin_and_the_damping_makes_no_pass(tmp_path: Path) -> None:
    task, stages = CASES["mlp"](), []
    run = run_in(tmp_path, progress=lambda stage, done, total: stages.append(stage))
    fit(task, registry.made("tracin_cp"), run)
    stages.clear()
    fit(task, registry.made("if_ekfac", {"damping": 0.1}), run)
    assert not any("train gradients" in stage for stage in stages)
    stages.clear()
    fit(CASES["mlp"](), registry.made("if_ekfac", {"damping": 0.2}), run)
    assert stages == []


def test_damping_is_never_added_to_what_is_kept(tmp_path: Path) -> None:
    task, run = CASES["mlp"](), run_in(tmp_path)
    first = scores(task, "if_ekfac", run)
    scores(task, "if_ekfac", run, damping=5.0)
    torch.testing.assert_close(scores(task, "if_ekfac", run), first, rtol=0, atol=0)
    large = scores(task, "if_ekfac", run, damping=1e6) * 1e6 * N_TRAIN
    dots = attribute(task, "grad_dot", range(task.n_test), run=run).scores
    torch.testing.assert_close(large, dots, rtol=1e-4, atol=1e-6)


@METHODS
@pytest.mark.parametrize(
    "case", ["cnn_inplace", "transformer", "called_twice", "conv1d", "residual_cnn", "tied_weights"]
)
def test_other_layers_and_batch_sizes(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    first = scores(task, method, run_in(tmp_path / "a"))
    again = scores(CASES[case](), method, run_in(tmp_path / "b", batch_size=4))
    torch.testing.assert_close(again, first, rtol=0, atol=1e-9 * float(first.abs().max()))
    run = run_in(tmp_path / "a")
    square = attribute(task, method, Rows("train", tuple(range(N_TRAIN))), config={"damping": DAMPING}, run=run).scores
    own = self_influence(task, method, config={"damping": DAMPING}, run=run)
    torch.testing.assert_close(own, square.diagonal(), rtol=1e-9, atol=1e-12)
    assert attribute(task, method, [0], config={"damping": DAMPING}, run=run).share == 1.0


def test_notes_say_damping_and_what_is_factored(tmp_path: Path) -> None:
    task = CASES["transformer"]()
    notes = attribute(task, "if_ekfac", [0], config={"damping": 0.1}, run=run_in(tmp_path)).notes
    assert notes[0] == "Effective damping 0.1: damping 0.1 plus weight decay 0."
    assert "smallest" in notes[1] and "Kronecker factors" in notes[2]
    with pytest.raises(NumericalProblem, match="singular.*Use damping"):
        attribute(task, "if_ekfac", [0], config={"damping": 0}, run=run_in(tmp_path))


def test_a_dead_layer_does_not_hurt(tmp_path: Path) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(5, 3), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    task = task_of(Unused, lambda n, seed: (normal(n, 5, seed=seed), integers(3, n, seed=seed)))
    assert bool(scores(task, "if_ekfac", run_in(tmp_path)).isfinite().all())
