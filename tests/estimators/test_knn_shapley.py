"""KNN-Shapley through ``attribute``: against every coalition, on embeddings taken by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from influence_core.api import attribute, self_influence
from influence_core.errors import BadInput, NumericalProblem, Unavailable
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, made
from tests.oracles.neighbors import squared_distances
from tests.oracles.shapley import knn_values, soft_knn_values

EXACT = Run(device="cpu", dtype=torch.float64, batch_size=3)
METHODS = ("knn_shapley", "knn_shapley_soft")
N, CLASSES = 7, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 2, 1, 0, 0, 2, 1])
XT = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
YT = torch.tensor([0, 1, 2])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def task(x: torch.Tensor = X, y: torch.Tensor = Y, **more: object) -> Task:
    return Task(made(network, 0), (x, y), (XT, YT), **more)  # type: ignore[arg-type]


def embedded(x: torch.Tensor, embedding: str) -> torch.Tensor:
    model = made(network, 0)
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        return {"input": x, "penultimate": model[:2](x), "0": model[0](x)}[embedding]


def expected(
    method: str, x: torch.Tensor, y: torch.Tensor, targets: torch.Tensor, k: int, embedding: str,
    queries: torch.Tensor = XT,
) -> torch.Tensor:  # fmt: skip
    distances = squared_distances(embedded(queries, embedding).numpy(), embedded(x, embedding).numpy()).round(12)
    values = []
    for row, target in zip(distances, targets.tolist(), strict=True):
        c = (y == target).numpy().astype(int)
        values.append(knn_values(row, c, k) if method == "knn_shapley" else soft_knn_values(row, c, k, CLASSES))
    return torch.tensor(np.stack(values))


@pytest.mark.parametrize("embedding", ("input", "penultimate", "0"))
@pytest.mark.parametrize("k", (1, 3, 7, 9, 20))
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_shapley_value_over_all_coalitions(method: str, k: int, embedding: str) -> None:
    found = attribute(task(), method, [2, 0, 1], config={"k_neighbors": k, "embedding": embedding}, run=EXACT)
    assert_close(found.scores, expected(method, X, Y, YT, k, embedding)[[2, 0, 1]], rtol=0, atol=1e-12)
    assert found.units == "value"


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_share_alike_and_the_order_of_rows_does_not_matter(method: str) -> None:
    x = torch.cat([X[:4], X[[1, 1, 3]]])
    y = torch.tensor([0, 2, 1, 0, 2, 0, 1])
    found = attribute(task(x, y), method, [0, 1, 2], config={"k_neighbors": 2}, run=EXACT).scores
    assert_close(found, expected(method, x, y, YT, 2, "penultimate"), rtol=0, atol=1e-12)
    assert_close(found[:, 1], found[:, 4], rtol=0, atol=1e-14)
    order = torch.tensor([5, 3, 6, 0, 4, 2, 1])
    shuffled = attribute(task(x[order], y[order]), method, [0, 1, 2], config={"k_neighbors": 2}, run=EXACT).scores
    assert_close(shuffled, found[:, order], rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch_size", (1, 2, 64))
def test_duplicates_tie_in_single_precision_whatever_batch_they_fell_into(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(30, 50, generator=generator)
    x[[7, 19, 29]] = x[3].clone()
    y = torch.randint(3, (30,), generator=generator)
    y[[3, 7, 19, 29]] = torch.tensor([0, 0, 1, 0])
    wide = lambda: nn.Sequential(nn.Linear(50, 80), nn.Tanh(), nn.Linear(80, 3))  # noqa: E731
    one = Task(made(wide, 0).float(), (x, y), (x[:5], y[:5]))
    for method in METHODS:
        scores = attribute(one, method, [0, 3, 4], run=Run(device="cpu", batch_size=batch_size)).scores
        assert torch.equal(scores[:, 3], scores[:, 7]) and torch.equal(scores[:, 3], scores[:, 29])
        assert bool((scores[:, 3] != scores[:, 19]).all())


def test_equal_targets_of_the_measurement_are_explained() -> None:
    with torch.no_grad():
        predicted = made(network, 0)(XT).argmax(1)
    assert not torch.equal(predicted, YT)
    config = {"k_neighbors": 3}
    for target, labels in (("predicted", predicted), (1, torch.ones_like(YT))):
        found = attribute(
            task(), "knn_shapley", [0, 1, 2], config=config, measurement=Measurement("loss", target), run=EXACT
        )
        assert_close(found.scores, expected("knn_shapley", X, Y, labels, 3, "penultimate"), rtol=0, atol=1e-12)


def test_a_set_is_the_mean_and_self_influence_the_diagonal() -> None:
    whole = expected("knn_shapley", X, Y, YT, 5, "penultimate")
    found = attribute(task(), "knn_shapley", Rows("test", (0, 1, 2), reduce="mean"), run=EXACT)
    assert_close(found.scores, whole.mean(0, keepdim=True), rtol=0, atol=1e-12)
    own = expected("knn_shapley", X, Y, Y, 5, "penultimate", X).diagonal()
    assert_close(self_influence(task(), "knn_shapley", run=EXACT), own, rtol=0, atol=1e-12)


def test_scores_sum_to_the_votes() -> None:
    distances = squared_distances(embedded(XT, "penultimate").numpy(), embedded(X, "penultimate").numpy())
    nearest = Y[torch.tensor(distances.argsort(1)[:, :3])]
    share = (nearest == YT.unsqueeze(1)).double().mean(1)
    for method, empty in (("knn_shapley", 0.0), ("knn_shapley_soft", 1 / CLASSES)):
        found = attribute(task(), method, [0, 1, 2], config={"k_neighbors": 3}, run=EXACT).scores
        assert_close(found.sum(1), share - empty, rtol=0, atol=1e-12)


def test_input_neighbours_need_no_trained_model() -> None:
    bare = Task(network, (X, Y), (XT, YT))
    for method in METHODS:
        found = attribute(bare, method, [0, 1, 2], config={"embedding": "input"}, run=EXACT)
        assert_close(found.scores, expected(method, X, Y, YT, 5, "input"), rtol=0, atol=1e-12)
        assert "4 numbers of the raw input" in found.notes[0]
        with pytest.raises(Unavailable, match="Use embedding='input'"):
            attribute(bare, method, [0], run=EXACT)


def test_binary_and_nested_inputs_are_read() -> None:
    binary = CASES["binary"]()
    config = {"k_neighbors": 3, "embedding": "input"}
    scores = attribute(binary, "knn_shapley", binary.ids("test").tolist(), config=config, run=EXACT).scores
    rows = [binary.split(name).batch(slice(0, 99), dtype=torch.float64) for name in ("test", "train")]
    distances = squared_distances(rows[0].inputs.numpy(), rows[1].inputs.numpy())
    agree = (rows[1].targets.reshape(1, -1) == rows[0].targets.reshape(-1, 1)).numpy().astype(int)
    pairs = [knn_values(row, c, 3) for row, c in zip(distances, agree, strict=True)]
    assert_close(scores, torch.tensor(np.stack(pairs)), rtol=0, atol=1e-12)
    for name in ("dict_input", "tuple_input"):
        nested = CASES[name]()
        found = attribute(nested, "knn_shapley", nested.ids("test").tolist(), config={"embedding": "input"}, run=EXACT)
        assert bool(found.scores.isfinite().all())


def test_embeddings_are_stored_once_for_all_who_compare_there(tmp_path: Path) -> None:
    run = Run(device="cpu", store=Store(tmp_path))
    one = task()
    counts = []
    for method, options in (
        ("knn_shapley", {}), ("knn_shapley", {"k_neighbors": 2}), ("knn_shapley_soft", {}),
        ("embedding_similarity", {}), ("knn_shapley", {"embedding": "0"}),
    ):  # fmt: skip
        attribute(one, method, [0], config=options, run=run)
        kinds = [run.artifacts.find(key).meta["inputs"]["kind"] for key in run.artifacts.keys()]  # type: ignore[union-attr]
        counts.append(kinds.count("train embeddings"))
    assert counts == [1, 1, 1, 1, 2]


def test_what_cannot_be_compared_is_named() -> None:
    nowhere = CASES["bare_parameters"]()
    with pytest.raises(Unavailable, match="Use embedding='input' or a layer's name"):
        attribute(nowhere, "knn_shapley", nowhere.ids("test")[:1].tolist(), run=EXACT)
    with pytest.raises(BadInput, match="'9' is not a module"):
        attribute(task(), "knn_shapley", [0], config={"embedding": "9"}, run=EXACT)
    with pytest.raises(BadInput, match="k_neighbors"):
        attribute(task(), "knn_shapley", [0], config={"k_neighbors": 0}, run=EXACT)
    with pytest.raises(Unavailable, match="class labels|classification"):
        attribute(CASES["regression"](), "knn_shapley", [0], run=EXACT)
    with pytest.raises(Unavailable, match="has its own measurement"):
        attribute(task(), "knn_shapley", [0], measurement=Measurement("margin"), run=EXACT)
    broken = X.clone()
    broken[5, 2] = torch.nan
    with pytest.raises(NumericalProblem, match="Training row 5 has a NaN"):
        attribute(task(broken), "knn_shapley", [0], run=EXACT)


def test_flipped_labels_of_digits_come_last() -> None:
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    # A thousand rows, a tenth with a random wrong label, judged by 400 clean ones.
    data, random = load_digits(), np.random.default_rng(0)
    chosen = random.permutation(len(data.target))[:1400]
    x, y = torch.tensor(data.data[chosen], dtype=torch.float32), torch.tensor(data.target[chosen])
    labels, wrong = y[:1000].clone(), torch.zeros(1000, dtype=torch.bool)
    wrong[torch.tensor(random.choice(1000, 100, replace=False))] = True
    labels[wrong] = (labels[wrong] + torch.tensor(random.integers(1, 10, 100))) % 10
    digits = Task(lambda: nn.Linear(64, 10), (x[:1000], labels), (x[1000:], y[1000:]))
    query = Rows("test", tuple(range(400)), reduce="mean")
    for method in METHODS:
        value = attribute(digits, method, query, config={"embedding": "input"}, run=EXACT).scores[0]
        assert roc_auc_score(wrong, -value) > 0.999
