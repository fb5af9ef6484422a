"""Embedding similarity equals NumPy's cosine of embeddings taken by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from influence_core.api import attribute, self_influence
from influence_core.errors import Unavailable
from influence_core.measurement import Measurement
from influence_core.run import Run
from influence_core.task import Task
from tests.cases import CASES, made, vectors
from tests.oracles.neighbors import cosines

EXACT = Run(device="cpu", dtype=torch.float64, batch_size=4)
TRAIN, TEST = vectors(11, 1), vectors(4, 2)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def task(**more: object) -> Task:
    return Task(made(network, 0), TRAIN, TEST, **more)  # type: ignore[arg-type]


def embedded(x: torch.Tensor, embedding: str) -> torch.Tensor:
    model = made(network, 0)
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        return {"input": x, "penultimate": model[:2](x), "0": model[0](x), "2": model(x)}[embedding]


def expected(embedding: str) -> torch.Tensor:
    return torch.tensor(cosines(embedded(TEST[0], embedding).numpy(), embedded(TRAIN[0], embedding).numpy()))


@pytest.mark.parametrize("embedding", ("input", "penultimate", "0", "2"))
def test_equals_numpy(embedding: str) -> None:
    found = attribute(task(), "embedding_similarity", [3, 0, 1], config={"embedding": embedding}, run=EXACT)
    assert_close(found.scores, expected(embedding)[[3, 0, 1]], rtol=0, atol=1e-14)
    assert found.units == "rank"


@pytest.mark.parametrize("target", ("true", "predicted", 2))
def test_the_sign_says_whether_the_label_is_the_target(target: str | int) -> None:
    with torch.no_grad():
        predicted = made(network, 0)(TEST[0]).argmax(1)
    labels = {"true": TEST[1], "predicted": predicted, 2: torch.full((4,), 2)}[target]
    sign = (TRAIN[1] == labels.unsqueeze(1)).double() * 2 - 1
    found = attribute(
        task(), "embedding_similarity", [0, 1, 2, 3], config={"signed": True},
        measurement=Measurement("loss", target), run=EXACT,
    )  # fmt: skip
    assert_close(found.scores, sign * expected("penultimate"), rtol=0, atol=1e-14)
    assert bool((sign > 0).any()) and bool((sign < 0).any())


def test_a_row_without_features_is_like_nothing() -> None:
    x = TRAIN[0].clone()
    x[2] = 0
    silent = Task(made(network, 0), (x, TRAIN[1]), TEST)
    scores = attribute(silent, "embedding_similarity", [0, 1], config={"embedding": "input"}, run=EXACT).scores
    assert bool((scores[:, 2] == 0).all()) and bool((scores[:, 3] != 0).all())


def test_regressions_can_be_compared_but_not_signed() -> None:
    regression = CASES["regression"]()
    ids = regression.ids("test").tolist()
    assert attribute(regression, "embedding_similarity", ids, run=EXACT).scores.shape == (len(ids), regression.n_train)
    with pytest.raises(Unavailable, match="Use signed=False"):
        attribute(regression, "embedding_similarity", ids, config={"signed": True}, run=EXACT)


def test_a_row_is_as_like_itself_as_any_other_so_there_is_no_self_influence() -> None:
    with pytest.raises(Unavailable, match="no self-influence"):
        self_influence(task(), "embedding_similarity", run=EXACT)


class TwoAnswers(nn.Module):
    """Returns a tuple, which only its own loss can read."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.code(x)
        return code, code @ self.code.weight


def reconstruction(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (model(batch[0])[1] - batch[1]).square().sum(1)


def test_a_model_with_several_answers_is_compared_at_a_named_layer() -> None:
    model = made(TwoAnswers, 0)
    several = Task(model, (TRAIN[0], TRAIN[0]), (TEST[0], TEST[0]), loss=reconstruction)
    found = attribute(several, "embedding_similarity", [0, 1], config={"embedding": "code"}, run=EXACT).scores
    assert isinstance(model, TwoAnswers)
    with torch.no_grad():
        expected = cosines(model.code(TEST[0][:2]).numpy(), model.code(TRAIN[0]).numpy())
    assert_close(found, torch.tensor(expected), rtol=0, atol=1e-14)
    with pytest.raises(Unavailable, match="no penultimate layer"):
        attribute(several, "embedding_similarity", [0], run=EXACT)
